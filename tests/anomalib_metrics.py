"""What anomalib's metrics say of maps and masks, run by an environment that has it: `python anomalib_metrics.py FILE`.

FILE is .npz with `maps` float32 and `masks` bool (n, h, w). Prints a line of JSON.
"""

import json
import sys

import numpy as np
import torch
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.pimo.pimo import _AUPIMO


def main() -> None:
    with np.load(sys.argv[1]) as arrays:
        maps, masks = torch.from_numpy(arrays["maps"]), torch.from_numpy(arrays["masks"])
    found = {}
    for name, limit in (("aupro", 0.3), ("aupro_5", 0.05)):
        metric = _AUPRO(fpr_limit=limit)
        metric.update(maps, masks.int())
        found[name] = float(metric.compute())
    metric = _AUPIMO(return_average=False)
    metric.update(maps, masks)
    _, result = metric.compute(force=True)
    found["aupimo"] = [float(value) for value in result.aupimos[masks.flatten(1).any(1)]]
    print("measured", json.dumps(found))


if __name__ == "__main__":
    main()

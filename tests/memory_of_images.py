"""What a process takes for images of more and more pixels a side: `python tests/memory_of_images.py Fused 384 1280`.

A method learns from two images and judges a third; all that is large is made small, so that seconds tell what a
hundred megapixels would take: a tile has 256 px, and images above are bytes. Prints the peak after each, in bytes.
"""

import resource
import sys

import numpy as np
import torch

from baselines.contract import method as contract
from downstream.methods import bands, cells, coreset, ensemble, fused, maps, padim, patch_method, patchcore
from embeddings import patches

SMALL = {"architecture": "timm/test_resnet", "encoder": "random", "dimensions": 16, "coreset_ratio": 0.001}


LIMITS = {
    patches: {"TILE_PX": 256, "MARGIN_PX": 32, "PATCHES_AT_ONCE": 2**10},
    contract: {"MAX_PIXELS_AT_ONCE": 256**2},
    coreset: {"POOL": 64},
    patchcore: {"MIN_PATCHES": 64, "PATCHES_AT_ONCE": 2**10, "MAX_CANDIDATES": 2**10},
    patch_method: {"MAX_MAP_PIXELS": 2**16},
    maps: {"SORTED_AT_ONCE": 2**16, "LARGE_PX": 256, "ROWS_AT_ONCE": 64},
    bands: {"MAX_PATCHES_EACH": 2**8},
    padim: {"MAX_LARGE_GAUSSIAN_BYTES": 2**18},
    cells: {"NUMBERS_AT_ONCE": 2**16},
    ensemble: {"MAX_KEPT_BYTES": 2**16},
}


def of_two_scales(encoder: str, architecture: str, **options: object) -> ensemble.Ensemble:
    return ensemble.Ensemble(method="patchcore", options=options, encoder=encoder, architecture=architecture)


def main() -> None:
    for module, limits in LIMITS.items():
        vars(module).update(limits)
    make = {"PatchCore": patchcore.PatchCore, "Fused": fused.Fused, "Ensemble": of_two_scales}[sys.argv[1]]
    generator = np.random.default_rng(0)
    for side_px in map(int, sys.argv[2:]):
        pixels = generator.integers(0, 256, (3, side_px, side_px, 3), dtype=np.uint8)
        images = [contract.as_images(torch.from_numpy(each)) for each in pixels]
        method = make(**SMALL).fit([]).refer(images[:2])
        (found,) = method.predict(images[2:])
        assert found.maps.shape == (1, side_px, side_px)
        print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)


if __name__ == "__main__":
    main()

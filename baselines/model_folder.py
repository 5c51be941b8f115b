"""The folder of a model that is ready for use: what its method saved, and a file of facts, written last.

`downstream/inspector.py` reads it. It stands here because methods of this package leave such folders too.
"""

import json
from pathlib import Path

from baselines.method import Method
from baselines.threshold import Threshold
from pretrain.wholefile import write_whole

FILE = "inspector.json"
FORMAT = 1


def write_model(
    folder: Path,
    method: Method,
    *,
    category: str,
    size_px: int,
    threshold: Threshold,
    map_threshold: Threshold | None = None,
    minimum_area_px: int = 0,
    normal_scores: list[float],
    facts: dict,
) -> None:
    """Write to `folder`, the method first: a folder without the file of facts is not finished."""
    (folder / FILE).unlink(missing_ok=True)
    method.save(folder)
    described = {
        "category": category,
        "size_px": size_px,
        "threshold": threshold._asdict(),
        "map_threshold": map_threshold and map_threshold._asdict(),
        "minimum_area_px": minimum_area_px,
        "normal_scores": normal_scores,
        "facts": facts,
        "format": FORMAT,
    }
    write_whole(folder / FILE, (json.dumps(described, indent=2) + "\n").encode())

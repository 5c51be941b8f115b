"""Pixel figures of a cell: its maps beside the masks of the test images, at the size of the maps."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from baselines.contract.aupimo import aupimo
from baselines.contract.method import Samples
from baselines.contract.pixel_metrics import pixel_figures
from baselines.contract.spro import read_defects, read_saturations, spro
from baselines.contract.threshold import Threshold
from pretrain.data.dataset import ImageSet
from pretrain.data.decode import mask_files
from pretrain.data.images import Record

# Of MVTec LOCO, in the folder of a category: masks lie in CATEGORY/ground_truth/DEFECT/NAME/000.png.
SATURATIONS = "defects_config.json"


def cell_pixels(maps: Tensor | None, tests: ImageSet, threshold: Threshold | None) -> dict:
    """Over good images and those with masks; empty where there are no maps or no masks."""
    has_truth = [i for i, record in enumerate(tests.records) if record.mask or not record.is_anomaly]
    if maps is None or not any(tests.records[i].mask for i in has_truth):
        return {}
    known, records, samples = maps[has_truth].numpy(), [tests.records[i] for i in has_truth], Samples(tests)
    masks = np.zeros(known.shape, bool)
    for mask, i in zip(masks, has_truth, strict=True):
        if tests.records[i].mask:
            mask[:] = samples[i].mask.numpy()
    is_good = np.array([not record.is_anomaly for record in records])
    overlaps = aupimo(known[is_good], known[~is_good], masks[~is_good])
    figures = pixel_figures(known, masks, threshold and threshold.value)._asdict()
    return figures | {"aupimo": mean_overlap(overlaps), "spro": mean_spro(known, records)}


def mean_overlap(overlaps: np.ndarray | None) -> float | None:
    """Of images whose mask has pixels: a small one may have none left at the size of the maps."""
    known = [] if overlaps is None else overlaps[np.isfinite(overlaps)]
    return float(known.mean()) if len(known) else None


def mean_spro(maps: np.ndarray, records: Sequence[Record]) -> float | None:
    """sPRO to 5 %, the mean of types of defects (logical and structural ones), each with all good images; none where
    the data set has no saturations."""
    files = {record.mask.parents[2] / SATURATIONS for record in records if record.mask and record.mask.is_dir()}
    if not files or not all(file.is_file() for file in files):
        return None
    (file,) = files  # of one category
    saturations, figures = read_saturations(file), []
    for defect in sorted({record.defect for record in records if record.mask}):
        chosen = [i for i, record in enumerate(records) if record.defect == defect or not record.is_anomaly]
        of_images = (
            list(read_defects(mask_files(mask) if (mask := records[i].mask) else (), maps.shape[1:], saturations))
            for i in chosen
        )
        figures.append(spro((maps[i] for i in chosen), of_images))
    known = [figure for figure in figures if figure is not None]
    return float(np.mean(known)) if known else None

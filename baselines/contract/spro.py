"""sPRO, the figure of MVTec LOCO: overlap with a defect counts as whole from a stated area on.

Where a part is missing nobody can say which pixels are the defect: its mask is all places where the part could lie, and
to mark one of them is enough (Bergmann et al. 2022, https://doi.org/10.1007/s11263-022-01578-9). The area that is
enough, the saturation, stands in the data set's defects_config.json by type of defect, which is told by the value of a
mask's pixels. Several masks may lie in one image, and over each other; each of them is one defect, touching or not. If
every saturation is the whole defect, sPRO is AUPRO with these regions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from baselines.contract.pixel_metrics import STRICT_AUPRO_LIMIT, PixelCounts
from pretrain.command import UserError
from pretrain.data.decode import mask_value, read_mask
from pretrain.reading import read_json


class Defect(NamedTuple):
    """One mask of an image, bool (h, w), and from how many found pixels on it counts as found, at most all of them."""

    mask: np.ndarray
    saturation_px: float


class Saturation(NamedTuple):
    """Of a type of defect: a number of pixels of the original image, or with `is_relative` a share of the defect."""

    value: float
    is_relative: bool

    def area_px(self, defect_px: int) -> float:
        """Of a defect of so many pixels; a share is rounded down, as the data set's own evaluation has it."""
        return max(1, int(self.value * defect_px)) if self.is_relative else min(self.value, defect_px)


def read_saturations(file: Path) -> dict[int, Saturation]:
    """Saturations by the value of a mask's pixels, from a defects_config.json. Raises UserError where it is none."""
    try:
        return {
            int(entry["pixel_value"]): Saturation(
                float(entry["saturation_threshold"]), bool(entry["relative_saturation"])
            )
            for entry in read_json(file, list)
        }
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{file} gives no saturation areas ({error}); it is to be a list of pixel_value, saturation_threshold and "
            "relative_saturation, as MVTec LOCO has it."
        ) from None


def read_defects(
    files: Iterable[Path], size: tuple[int, int], saturations: Mapping[int, Saturation]
) -> Iterator[Defect]:
    """The defects of an image by the files of its masks, at the size (h, w) of its map. Raises UserError for a mask
    whose value has no saturation, Unreadable for what is no image."""
    for file in files:
        mask, value = read_mask(file), mask_value(file)
        if value not in saturations:
            known = ", ".join(map(str, sorted(saturations)))
            raise UserError(f"{file} has pixels of value {value}; its defects_config.json has saturations of {known}.")
        small = np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
        yield Defect(small, saturations[value].area_px(int(mask.sum())) * small.size / mask.size)


def spro(
    maps: Iterable[ArrayLike], defects: Iterable[Sequence[Defect]], limit: float = STRICT_AUPRO_LIMIT
) -> float | None:
    """The mean saturated overlap of defects at false-positive rates up to `limit`; None without defects or good pixels.

    Maps are (h, w), of any size, with the defects of each, none for a good image. A pixel is good if no mask has it.
    Raises UserError where a map is not finite.
    """
    counts = PixelCounts()
    for anomaly_map, of_image in zip(maps, defects, strict=True):
        values = np.asarray(anomaly_map, dtype=np.float32)
        shares, is_defect = np.zeros(values.shape), np.zeros(values.shape, dtype=bool)
        present = [defect for defect in of_image if defect.mask.any()]  # a small one may be lost where maps are smaller
        for mask, saturation_px in present:
            if saturation_px <= 0:
                raise ValueError(f"a saturation must be above 0, not {saturation_px}.")
            # The highest pixels of a defect are found first: those up to its saturation share it, the others add none.
            order = np.argsort(-values[mask], kind="stable")
            parts = np.empty(len(order))
            parts[order] = np.clip(saturation_px - np.arange(len(order)), 0, 1) / saturation_px
            shares[mask] += parts
            is_defect |= mask
        counts.add(values, is_defect, shares[is_defect], len(present))
    return counts.overlap_to(limit)

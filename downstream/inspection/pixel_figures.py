"""How well the maps of inspected images show true defects, where masks are known: a line for the screen, and JSON."""

import numpy as np
from PIL import Image

from baselines.contract.metrics import number
from baselines.contract.pixel_metrics import PixelCounts
from downstream.inspection.inspection import Inspection
from pretrain.data.decode import Unreadable, read_mask
from pretrain.data.images import UNLABELED, Record


class InspectedPixels:
    """Counted image by image, at the size of the maps, so that no map has to be kept."""

    def __init__(self) -> None:
        self._counts, self._masks = PixelCounts(), 0

    def add(self, inspection: Inspection, truth: np.ndarray | None) -> None:
        """Count an image with what `true_mask` gives of it."""
        if truth is None or inspection.anomaly_map is None:
            return
        size = inspection.anomaly_map.shape[::-1]
        # Nearest pixel, as the study has it: a mask stays a mask.
        self._counts.add(inspection.anomaly_map, Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
        self._masks += bool(truth.any())

    def as_json(self) -> dict:
        """AUROC, AP and AUPRO, none where not defined. What needs a threshold is not among them."""
        figures = self._counts.figures()
        return {name: getattr(figures, name) for name in ("auroc", "average_precision", "aupro", "aupro_5")}

    def line(self) -> str:
        """The same on a line; empty where no mask was there."""
        if not self._masks:
            return ""
        auroc, average_precision, aupro, aupro_5 = map(number, self.as_json().values())
        figures = f"AUROC {auroc}, AP {average_precision}, AUPRO {aupro}, to 5 % {aupro_5}"
        masks = f"{self._masks} mask{'' if self._masks == 1 else 's'}"
        return f"pixels, by {masks} at the size of the maps: {figures}"


def true_mask(inspection: Inspection, record: Record) -> np.ndarray | None:
    """Bool (height, width) of the image on disk, empty for a good one; none where nobody says which pixels are
    defective. A mask of another size, or one that cannot be read, says nothing of these pixels."""
    if record.mask is not None:
        try:
            mask = read_mask(record.mask)
        except Unreadable:
            return None
        return mask if mask.shape == (inspection.height, inspection.width) else None
    is_good = record.defect != UNLABELED and not record.is_anomaly
    return np.zeros((inspection.height, inspection.width), dtype=bool) if is_good else None

"""What speaks against believing a study's figures, a sentence each, in every form of the report."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from downstream.study.cell import RowKey
from downstream.study.folds import FoldImages
from pretrain.data.images import GOOD

# Above this the frame of an image alone tells so much that image figures need not be about defects.
FRAME_IS_HIGH = 0.7
# Fewer good test images than this, and one false alarm more moves a figure by over 5 %.
FEW_IMAGES = 20


def fold_warnings(images: FoldImages) -> list[str]:
    """What keeps figures of a test category from being complete, or from being believed."""
    category, tests = images.fold.test, images.tests
    defective = [record for record in tests.records if record.is_anomaly]
    lines = []
    if not len(tests):
        lines.append(f"{category}: no test images, so nothing can be measured")
    elif not defective or len(defective) == len(tests):
        lines.append(f"{category}: all {len(tests)} test images are {'defective' if defective else 'good'}: "
                     "no figure that compares the two is defined")  # fmt: skip
    without_mask = sum(record.mask is None for record in defective)
    if defective and without_mask == len(defective):
        lines.append(f"{category}: no masks, so there are no pixel figures")
    elif without_mask:
        lines.append(f"{category}: {without_mask} of {len(defective)} defective test images have no mask; pixel "
                     "figures are of the others")  # fmt: skip
    if images.dropped_normals:
        lines.append(f"{category}: {images.dropped_normals} images of train/{GOOD} are also test images; no "
                     "method refers to them")  # fmt: skip
    if not len(images.normals):
        lines.append(f"{category}: no normals in train/{GOOD}, so methods that refer to normals are left out")
    return lines


def shots_warnings(images: FoldImages, shots: Sequence[int]) -> list[str]:
    """Which numbers of references a category does not have."""
    category, count = images.fold.test, len(images.normals)
    missing = [str(number) for number in shots if 0 < count < number]
    return [f"{category}: {count} normals, so there are no rows with {', '.join(missing)}"] if missing else []


def figure_warnings(summary: dict) -> list[str]:
    """What the figures themselves warn of."""
    cells = summary["cells"]
    lines = [*_frame_warnings(summary), *_few_images_warnings(summary), *_false_alarm_warnings(summary)]
    if _lacks_figures(summary["rows"]):
        lines.append(
            "some cells were computed by an earlier version, which had no AUPRO to 5 %, AUPIMO, SegF1 or oracle F1 of "
            "pixels: n/a there; delete cells/, and the study's command computes them again"
        )
    if summary["quick"]:
        lines.append(
            "made with --quick, a first look: one method of each family, small images, few epochs, one seed; the study "
            "without it compares them all"
        )
    if cells["finished"] < cells["planned"]:
        lines.append(f"{cells['finished']} of {cells['planned']} cells are finished: averages of rows that lack a "
                     "category or a seed do not compare with others")  # fmt: skip
    return lines


def failure_warnings(failures: Iterable[dict]) -> list[str]:
    """Which cells failed, a line for each reason."""
    by_reason = defaultdict(list)
    for failure in failures:
        by_reason[failure["reason"]].append(failure)
    lines = []
    for reason, failed in by_reason.items():
        rows = dict.fromkeys(RowKey(**failure["row"]).name for failure in failed)
        categories = dict.fromkeys(failure["category"] for failure in failed)
        lines.append(f"{len(failed)} cells failed ({', '.join(rows)} on {', '.join(categories)}): {reason}")
    return lines


def _lacks_figures(rows: Iterable[dict]) -> bool:
    """Whether a row has seeds with an AUPRO, but without the figures that came with AUPRO to 5 %."""
    return any(
        figures["pixel_aupro_5"] is None and figures["pixel_aupro"] is not None
        for row in rows
        for category in row["categories"].values()
        for figures in category["by_seed"].values()
    )


def _frame_warnings(summary: dict) -> list[str]:
    """Where a method that sees the image's frame alone, so no defect, tells good from defective all the same."""
    lines = []
    for row in summary["rows"]:
        if row["method"] != "frame":
            continue
        for category, figures in row["categories"].items():
            auroc, interval = figures["figures"]["auroc"]["mean"], figures["interval"]
            if auroc is not None and auroc >= FRAME_IS_HIGH and interval[0] > 0.5:
                lines.append(
                    f"{category}: the outermost tenth of the images alone has image AUROC {auroc:.2f}. Good and "
                    "defective ones differ there too, perhaps by how they were lit, so image figures of this category "
                    "may not be about defects; trust the pixel figures"
                )
    return lines


def _few_images_warnings(summary: dict) -> list[str]:
    rough = [category for category, counts in summary["images"].items() if 0 < min(counts.values()) < FEW_IMAGES]
    if not rough:
        return []
    return [
        f"fewer than {FEW_IMAGES} good or defective test images of {', '.join(rough)}: figures there are rough, see "
        "the intervals"
    ]


def _false_alarm_warnings(summary: dict) -> list[str]:
    """With n normals the highest of their scores is exceeded by one in n + 1 (an exchangeable further normal)."""
    needed = round(1 / summary["false_alarm_rate"]) - 1
    references = [
        threshold["references"]
        for row in summary["rows"]
        if row["shots"] == "all"
        for category in row["categories"].values()
        for threshold in category["thresholds"].values()
    ]
    if not references or min(references) >= needed:
        return []
    rate = f"{summary['false_alarm_rate']:.0%}"
    return [
        f"with {min(references)} normals a false-alarm rate of {rate} cannot be promised: it takes {needed}; with "
        "fewer, thresholds rest on an assumption (see 'Thresholds')"
    ]

"""Decide by area: an image is defective if a region of at least a minimum area is above a threshold.

    python downstream/area.py finetune --model models/bolt --data FOLDER       # which area? plots and a recommendation
    python downstream/area.py validate --model models/bolt --data FOLDER --area 200           # its threshold
    python downstream/area.py test --model models/bolt --data FOLDER           # on labelled test images

For any method that gives maps. The model is one that `downstream/detect.py fit --hold-out 0.1` wrote; with `--method`
it is fitted first. The threshold is the lowest at which no held-out good image has a region of the area, exactly. It
is kept with the model, and `downstream/detect.py run` then decides by it too.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.area import Finetune, Test, Validate, finetune, test, validate
    from pretrain.command import run_commands

    sys.exit(run_commands({"finetune": (finetune, Finetune), "validate": (validate, Validate), "test": (test, Test)}))

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pretrain.command import UserError
from pretrain.files import write_json, write_whole

if TYPE_CHECKING:
    from downstream.inspection.inspector import Inspector

# Balanced accuracy on synthetic anomalies below which a recommendation is worth little; chance is 0.5.
BARELY = 0.6


@dataclass(frozen=True)
class Finetune:
    """Draw what helps to choose a minimum area, and recommend one.

    Attributes:
        model: Folder of a model; with --method it is written there.
        data: Good images, some of which the model did not learn from; of a category in MVTec AD's layout, train/good.
        category: Which category, where the folder holds several. Default is the model's.
        method: Fit this method first; padim, bank, residual or mean.
        hold_out: Where it is fitted here, the share of good images to hold out.
        encoder: Where it is fitted here, the encoder file.
        train: Where it is fitted here, the folder of other categories to learn from (residual).
        size_px: Where it is fitted here, the side of the square that images are stretched to.
        options: Where it is fitted here, more of the method's own, such as dimensions=50.
        false_alarm_rate: Share of good images that may be called defective. Default is that no held-out one may.
        planted: How many synthetic anomalies to compare areas by.
        seed: Draws what is held out, and the synthetic anomalies.
        out: Folder for the plots and tables.
    """

    model: Path
    data: Path
    category: str | None = None
    method: str | None = None
    hold_out: float = 0.1
    encoder: Path | None = None
    train: Path | None = None
    size_px: int = 224
    options: str = ""
    false_alarm_rate: float | None = None
    synthetic: int = 200
    seed: int = 0
    out: Path = Path("runs/area")


@dataclass(frozen=True)
class Validate:
    """Find the lowest threshold at which no held-out good image has a region of the area, and keep both.

    Attributes:
        model: Folder of a model; with --method it is written there.
        data: Good images, some of which the model did not learn from; of a category in MVTec AD's layout, train/good.
        area: The minimum area, in pixels of the original images.
        category: Which category, where the folder holds several. Default is the model's.
        method: Fit this method first; padim, bank, residual or mean.
        hold_out: Where it is fitted here, the share of good images to hold out.
        encoder: Where it is fitted here, the encoder file.
        train: Where it is fitted here, the folder of other categories to learn from (residual).
        size_px: Where it is fitted here, the side of the square that images are stretched to.
        options: Where it is fitted here, more of the method's own, such as dimensions=50.
        false_alarm_rate: Share of good images that may be called defective. Default is that no held-out one may.
        seed: Draws what is held out.
    """

    model: Path
    data: Path
    area: int
    category: str | None = None
    method: str | None = None
    hold_out: float = 0.1
    encoder: Path | None = None
    train: Path | None = None
    size_px: int = 224
    options: str = ""
    false_alarm_rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Test:
    """Judge labelled images at the model's area and threshold: how many decisions are right, and where defects are.

    Attributes:
        model: Folder of a model that validate was run on.
        data: Labelled images; a category in MVTec AD's layout, or a folder of several.
        category: Which category, where the folder holds several. Default is the model's.
        area: Another minimum area than the model's; needs its threshold.
        threshold: Another threshold than the model's.
        overlays: Which images to draw with heat, contours and boxes.
        masks: Also write what was found in each image as a black and white PNG of its size and name.
        out: Folder for the figures, masks and overlays.
    """

    __test__ = False  # no class of tests, whatever pytest thinks

    model: Path
    data: Path
    category: str | None = None
    area: int | None = None
    threshold: float | None = None
    overlays: Literal["all", "defective", "none"] = "defective"
    masks: bool = True
    out: Path = Path("runs/area/test")


def finetune(config: Finetune) -> None:
    """Compare areas on held-out good images and synthetic anomalies, draw, and recommend one."""
    from downstream.inspection.area_choice import (
        AreaRow,
        ThresholdRow,
        area_table,
        candidate_areas,
        held_out,
        normal_scores,
        print_areas,
        recommended,
        synthetic_scores,
        threshold_rows,
    )
    from downstream.inspection.area_plots import areas_chart, examples, regions_chart, sample_sheet, sizes_chart
    from pretrain.drawing import save_image

    if config.synthetic < 1:
        raise UserError(f"--synthetic {config.planted} compares nothing: give 1 or more, such as 200.")
    model = _model(config)
    held = held_out(model, config.data, config.category)
    areas_px = candidate_areas(held)
    defective, owners = synthetic_scores(model.method, held, areas_px, config.synthetic, config.seed)
    rows = area_table(areas_px, normal_scores(held, areas_px), defective, owners, config.false_alarm_rate)
    best = recommended(rows)
    thresholds, sizes = threshold_rows(held)
    name, count = model.category, len(held.maps)
    images = {
        "regions.png": regions_chart(thresholds, f"{name}: regions on {count} held-out good images"),
        "sizes.png": sizes_chart(thresholds, sizes, f"{name}: areas of regions on held-out good images"),
        "areas.png": areas_chart(rows, best, f"{name}: minimum areas, by synthetic anomalies"),
        "samples.png": sample_sheet(
            list(examples(model, held, best, config.data, config.category, config.seed)), best.threshold, best.area_px,
            f"{name}: at {best.threshold:.4g} and {best.area_px} px",
        ),
    }  # fmt: skip
    for file, image in images.items():
        save_image(image, config.out / file)
    _write_table(config.out / "areas.csv", AreaRow._fields, rows)
    _write_table(config.out / "thresholds.csv", ThresholdRow._fields, thresholds)
    reason = (
        f"of {len(rows)} areas it has the best balanced accuracy, {best.balanced_accuracy:.3f} "
        f"({best.true_positive_rate:.1%} of {len(owners)} synthetic anomalies found, {best.true_negative_rate:.1%} of "
        f"{count} held-out good images passed, each judged at the threshold of the others); of equal ones it is the "
        f"smallest"
    )
    found = {"recommended_area_px": best.area_px, "reason": reason, "areas": [row._asdict() for row in rows]}
    write_json(config.out / "finetune.json", {"model": str(config.model), "category": name, **found})
    print_areas(rows, best)
    print(f"recommended: {best.area_px} px; {reason}.")
    if best.balanced_accuracy < BARELY:
        print("That is hardly better than chance: no area helps, the maps do not tell defects from good places.")
    print("Synthetic anomalies are not real ones: look at samples.png, and at how large a defect has to be to matter.")
    print(f"plots and tables: {config.out}")
    more = "".join(
        f" --{name} {value}"
        for name in ("category", "false_alarm_rate")
        if (value := getattr(config, name)) is not None
    )
    print(f"next:  python downstream/area.py validate --model {config.model} --data {config.data}{more} "
          f"--area {best.area_px}")  # fmt: skip


def validate(config: Validate) -> None:
    """Find the area's threshold, and keep both with the model."""
    from downstream.inspection.area_choice import area_threshold, held_out, normal_scores
    from downstream.inspection.inspector import AreaRule

    _checked_area(config.area)
    model = _model(config)
    held = held_out(model, config.data, config.category)
    scores = normal_scores(held, (config.area,))[:, 0]
    threshold = area_threshold(scores, config.false_alarm_rate, config.area)
    model.area_rule = AreaRule(config.area, threshold, scores.tolist())
    model.save_decision(config.model)
    print(f"{model.category}: a region of {config.area} px above {threshold.value:.5g} makes an image defective")
    print(f"the threshold: {threshold.why}")
    if threshold.count < 2:
        print("hold out more good images than one: of its like nothing is known.")
    print(f"highest of the held-out: {held.images.records[int(scores.argmax())].path}")
    print(f"kept in {config.model}; python downstream/detect.py run decides by it from now on")
    print(f"next:  python downstream/area.py test --model {config.model} --data FOLDER_WITH_TEST_IMAGES")


def test(config: Test) -> None:
    """Judge, count, and save what was found."""
    from downstream.detect import records_of
    from downstream.inspection.area_results import Results
    from downstream.inspection.inspector import Inspector
    from pretrain.data.images import UNLABELLED, Problem
    from pretrain.progress import Progress

    model = Inspector.load(config.model)
    model.area_rule = _rule(model, config)
    if not config.data.is_dir():
        raise UserError(f"there is no folder {config.data}; name one that holds labelled test images.")
    records = records_of([config.data], config.category or model.category)
    if any(record.defect == UNLABELLED for record in records):
        raise UserError(
            f"{config.data} does not say which images are good: expected CATEGORY/test/good and CATEGORY/test/DEFECT "
            f"(python downstream/detect.py run judges images without labels)."
        )
    with (
        Results(config.out, model, config.overlays, config.masks) as results,
        Progress("judging", len(records)) as progress,
    ):
        for record, found in zip(records, model.inspect([record.path for record in records]), strict=True):
            if isinstance(found, Problem):
                results.problems.append(found)
                progress.print(f"{found.path}: {found.reason}")
            else:
                results.add(found, record)
            progress.advance()
    results.print_summary()


def _model(config: Finetune | Validate) -> "Inspector":
    """The model in its folder, fitted now if a method was named."""
    from downstream.detect import Fit, fit
    from downstream.inspection.inspector import Inspector

    if config.method is not None:
        if not config.hold_out:
            raise UserError("with --hold-out 0 no good image is left to find a threshold by: give a share such as 0.1.")
        same = ("data", "category", "method", "hold_out", "encoder", "train", "size_px", "options", "seed")
        fit(Fit(**{name: getattr(config, name) for name in same}, out=config.model))
    return Inspector.load(config.model)


def _rule(model: "Inspector", config: Test):
    """What to decide by: the model's rule, or what was typed."""
    from downstream.inspection.inspector import AreaRule

    kept = model.area_rule
    if config.area is not None:
        _checked_area(config.area)
    if kept is None and (config.area is None or config.threshold is None):
        raise UserError(
            f"{config.model} has no minimum area yet: python downstream/area.py validate finds its threshold (or give "
            f"both --area and --threshold)."
        )
    if config.threshold is None:
        if config.area not in (None, kept.minimum_area_px):
            raise UserError(
                f"the threshold of {config.model} is for {kept.minimum_area_px} px, not {config.area}: run validate "
                f"with --area {config.area}, or give its --threshold too."
            )
        return kept
    typed = model.decision._replace(value=config.threshold, why="given on the command line.")
    area_px = config.area if config.area is not None else kept.minimum_area_px
    return AreaRule(area_px, typed, kept.normal_scores if kept and area_px == kept.minimum_area_px else [])


def _checked_area(area_px: int) -> None:
    if area_px < 1:
        raise UserError(f"--area {area_px} is no area: give 1 pixel, which any region has, or more.")


def _write_table(path: Path, names: Iterable[str], rows: Iterable[NamedTuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *rows])
    write_whole(path, text.getvalue().encode())

"""Decide by area: an image is defective if a region of at least a minimum area is above a threshold.

    python downstream/area.py finetune --model models/bolt --data FOLDER       # which area? plots and a recommendation
    python downstream/area.py validate --model models/bolt --data FOLDER --area 200           # its threshold
    python downstream/area.py test --model models/bolt --data FOLDER           # on labeled test images

For any method that gives maps. The model is one that `downstream/detect.py fit --validation-share 0.1` wrote; with
`--method` it is fitted first. Validation images are the good ones that were left out of it: the threshold is the lowest
at which none of them has a region of the area, exactly. It is kept with the model, and `downstream/detect.py run` then
decides by it too.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.inspection.config import AreaFinetune, AreaTest, AreaValidate
    from pretrain.command import start_commands

    start_commands(
        {
            "finetune": ("downstream.area:finetune", AreaFinetune),
            "validate": ("downstream.area:validate", AreaValidate),
            "test": ("downstream.area:test", AreaTest),
        }
    )

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from downstream.inspection.area_choice import (
    AreaRow,
    ThresholdRow,
    area_table,
    area_threshold,
    candidate_areas,
    normal_scores,
    print_areas,
    recommended,
    synthetic_scores,
    threshold_rows,
    validation_images,
)
from downstream.inspection.area_plots import areas_chart, examples, regions_chart, sample_sheet, sizes_chart
from downstream.inspection.config import AreaFinetune, AreaModel, AreaTest, AreaValidate, Fit
from downstream.inspection.decision import AreaRule
from downstream.inspection.fitting import fit
from downstream.inspection.images import records_to_inspect
from downstream.inspection.inspector import Inspector
from downstream.inspection.results import AreaResults
from pretrain.command import UserError
from pretrain.data.images import UNLABELED, Problem
from pretrain.drawing import save_image
from pretrain.files import write_json, write_whole
from pretrain.progress import Progress

# Balanced accuracy on synthetic anomalies below which a recommendation is worth little; chance is 0.5.
MIN_USEFUL_ACCURACY = 0.6


def finetune(config: AreaFinetune) -> None:
    """Compare areas on validation images and synthetic anomalies, draw, and recommend one."""
    if config.synthetic < 1:
        raise UserError(f"--synthetic {config.synthetic} compares nothing: give 1 or more, such as 200.")
    model = _model(config)
    validation = validation_images(model, config.data, config.category, config.layout)
    areas_px = candidate_areas(validation)
    defective, owners = synthetic_scores(model.method, validation, areas_px, config.synthetic, config.seed)
    rows = area_table(areas_px, normal_scores(validation, areas_px), defective, owners, config.false_alarm_rate)
    best = recommended(rows)
    thresholds, sizes = threshold_rows(validation)
    name, count = model.category, len(validation.maps)
    shown = list(examples(model, validation, best, config))
    images = {
        "regions.png": regions_chart(thresholds, f"{name}: regions on {count} validation images"),
        "sizes.png": sizes_chart(thresholds, sizes, f"{name}: areas of regions on validation images"),
        "areas.png": areas_chart(rows, best, f"{name}: minimum areas, by synthetic anomalies"),
        "samples.png": sample_sheet(shown, best.threshold, best.area_px,
                                    f"{name}: at {best.threshold:.4g} and {best.area_px} px"),
    }  # fmt: skip
    for file, image in images.items():
        save_image(image, config.out / file)
    _write_table(config.out / "areas.csv", AreaRow._fields, rows)
    _write_table(config.out / "thresholds.csv", ThresholdRow._fields, thresholds)
    reason = (
        f"of {len(rows)} areas it has the best balanced accuracy, {best.balanced_accuracy:.3f} "
        f"({best.true_positive_rate:.1%} of {len(owners)} synthetic anomalies found, {best.true_negative_rate:.1%} of "
        f"{count} validation images passed, each inspected at the threshold of the others); of equal ones it is the "
        f"smallest"
    )
    recommendation = {"recommended_area_px": best.area_px, "reason": reason, "areas": [row._asdict() for row in rows]}
    write_json(config.out / "finetune.json", {"model": str(config.model), "category": name, **recommendation})
    print_areas(rows, best)
    print(f"recommended: {best.area_px} px; {reason}.")
    if best.balanced_accuracy < MIN_USEFUL_ACCURACY:
        print("That is hardly better than chance: no area helps, as the maps do not tell defects from good patches.")
    print("Synthetic anomalies are not real ones: look at samples.png, and at how large a defect has to be to matter.")
    print(f"plots and tables: {config.out}")
    more = "".join(
        f" --{name.replace('_', '-')} {value}"
        for name in ("category", "layout", "false_alarm_rate")
        if (value := getattr(config, name)) is not None
    )
    print(f"next:  python downstream/area.py validate --model {config.model} --data {config.data}{more} "
          f"--area {best.area_px}")  # fmt: skip


def validate(config: AreaValidate) -> None:
    """Find the area's threshold, and keep both with the model."""
    _checked_area(config.area)
    model = _model(config)
    validation = validation_images(model, config.data, config.category, config.layout)
    scores = normal_scores(validation, (config.area,))[:, 0]
    threshold = area_threshold(scores, config.false_alarm_rate, config.area)
    model.area_rule = AreaRule(config.area, threshold, scores.tolist())
    model.save_decision(config.model)  # the decision alone: what the method learned stays as it is
    print(f"{model.category}: a region of {config.area} px above {threshold.value:.5g} makes an image defective")
    print(f"the threshold: {threshold.why}")
    if threshold.count < 2:
        print("leave out more than one good image: of a single one the spread is not known.")
    print(f"highest of the validation images: {validation.images.records[int(scores.argmax())].path}")
    print(f"kept in {config.model}; python downstream/detect.py run decides by it from now on")
    print(f"next:  python downstream/area.py test --model {config.model} --data FOLDER_WITH_TEST_IMAGES")


def test(config: AreaTest) -> None:
    """Inspect, count, and save."""
    model = _checked(Inspector.load(config.model, config.device), config.model)
    model.area_rule = _rule(model, config)
    if not config.data.is_dir():
        raise UserError(f"there is no folder {config.data}; name one that holds labeled test images.")
    category = config.category or model.category
    records, problems = records_to_inspect([config.data], category, config.layout, model.metadata)
    if any(record.defect == UNLABELED for record in records):
        raise UserError(
            f"{config.data} does not say which images are good: expected CATEGORY/test/good and CATEGORY/test/DEFECT "
            f"(python downstream/detect.py run inspects images without labels)."
        )
    with (
        AreaResults(config.out, model, config.overlays, config.masks) as results,
        Progress("inspecting", len(records)) as progress,
    ):
        for problem in problems:
            results.problems += [problem] if problem.is_untested else []
            progress.print(f"{problem.path}: {problem.reason}")
        for record, inspection in zip(records, model.inspect([record.path for record in records]), strict=True):
            if isinstance(inspection, Problem):
                results.problems.append(inspection)
                progress.print(f"{inspection.path}: {inspection.reason}")
            else:
                results.add(inspection, record)
            progress.advance()
    results.print_summary()


def _model(config: AreaModel) -> Inspector:
    """The model in its folder, fitted now if a method was named."""
    if config.method is not None:
        if not config.validation_share:
            raise UserError(
                "with --validation-share 0 no good image is left to find a threshold by: give a share such as 0.1."
            )
        names = ("data", "layout", "category", "method", "validation_share", "encoder", "train", "size_px", "scales",
                 "options", "device", "seed")  # fmt: skip
        fit(Fit(**{name: getattr(config, name) for name in names}, out=config.model))
    return _checked(Inspector.load(config.model, config.device), config.model)


def _checked(model: Inspector, folder: Path) -> Inspector:
    """Raises UserError for a model that cannot decide by one area."""
    if model.channels.lights > 1:
        raise UserError(f"{folder} sees several lights, which area.py does not: give --minimum-area to detect.py fit.")
    if model.alignment:
        raise UserError(
            f"{folder} aligns images, which area.py does not: give --minimum-area to detect.py fit --align, or zones."
        )
    if model.zone_rule:
        raise UserError(
            f"{folder} decides by zones, each with a threshold and a min_area_px of its own: change them in the "
            "roi.json of detect.py fit, or fit without zones to decide by one area."
        )
    return model


def _rule(model: Inspector, config: AreaTest) -> AreaRule:
    """What to decide by: the model's rule, or what was typed."""
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
    # Scores of normals are of one area: at another one confidence is not known.
    return AreaRule(area_px, typed, kept.normal_scores if kept and area_px == kept.minimum_area_px else [])


def _checked_area(area_px: int) -> None:
    if area_px < 1:
        raise UserError(f"--area {area_px} is no area: give 1 pixel, which any region has, or more.")


def _write_table(path: Path, names: Iterable[str], rows: Iterable[NamedTuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *rows])
    write_whole(path, text.getvalue().encode())

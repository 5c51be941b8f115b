"""Is this product defective, and where: fit any method of the project to good images, then run it.

    python downstream/detect.py fit --data FOLDER_OF_GOOD_IMAGES --out models/bolt
    python downstream/detect.py run IMAGE_OR_FOLDER --model models/bolt

`fit` needs nothing but good images of one product: a plain folder, or a category in MVTec AD's layout. `run` prints a
table, writes JSON lines and images, and ends with exit code 0 if nothing is defective, 1 if something is, 2 after a
mistake, 3 if nothing is defective but some images could not be read.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.detect import Fit, Run, fit, run
    from pretrain.command import run_commands

    sys.exit(run_commands({"fit": (fit, Fit), "run": (run, Run)}))

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import Names, UserError, nearest
from pretrain.data.images import SUFFIXES, Problem, Record, has_layout, scan, scan_plain

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.contract.method import Method
    from downstream.inspection.inspector import Inspection
    from pretrain.data.dataset import ImageSet

NOTHING_DEFECTIVE, SOMETHING_DEFECTIVE, SOMETHING_UNREADABLE = 0, 1, 3


@dataclass(frozen=True)
class Fit:
    """Fit a method to good images of one product, find its threshold, and write a model.

    Attributes:
        data: Good images; a plain folder, a category in MVTec AD's layout (its train/good), or a folder of them.
        category: Which category, where the folder holds several.
        method: padim, bank, residual, ae, vae, cae, mean, or vgg-cam, which learns from --train alone.
        encoder: Encoder file. Default is runs/simclr/encoder.safetensors where it may be used, else random weights.
        shots: How many of the good images to refer to, or all.
        hold_out: Share of the good images that is left for downstream/area.py, which needs some not learned from.
        false_alarm_rate: Share of good images that may be called defective; the threshold follows from it.
        minimum_area: Regions of fewer pixels are dropped, and an image without any other is good.
        train: Folder of other categories, to learn from (residual) and to calibrate with few references.
        train_categories: Only these of them.
        size_px: Side of the square that images are stretched to.
        options: More of the method's own, such as turns=flips,dimensions=50.
        seed: Draws references, and whatever the method draws.
        out: The model's folder. Default is models/CATEGORY.
    """

    data: Path
    category: str | None = None
    method: str = "padim"
    encoder: Path | None = None
    shots: str = "all"
    hold_out: float = 0.0
    false_alarm_rate: float = 0.1
    minimum_area: int = 0
    train: Path | None = None
    train_categories: Names = Names()
    size_px: int = 224
    options: str = ""
    seed: int = 0
    out: Path | None = None


@dataclass(frozen=True)
class Run:
    """Run a model over images and say which are defective, and where.

    Attributes:
        images: Images, or folders of images; of a folder in MVTec AD's layout, the test images.
        model: Folder of a model that fit wrote, or a file that downstream/export.py made of one (.onnx, .pt2).
        out: Folder for results.jsonl and the images.
        overlays: Which images to draw with heat, contours and boxes.
        threshold: Another threshold than the model's.
        maps: Also write every map, as it is, to maps.safetensors.
    """

    model: Path
    images: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    out: Path = Path("runs/detect")
    overlays: Literal["all", "defective", "none"] = "defective"
    threshold: float | None = None
    maps: bool = False


def fit(config: Fit) -> None:
    """Fit, say what was found, and write the model."""
    from baselines.contract.method import Images, Samples
    from baselines.contract.threshold import MIN_OWN_NORMALS, threshold_from_normals
    from downstream.inspection.inspector import Inspector
    from downstream.methods.references import draw, kept_of, own_threshold, shots_of, suspicious
    from pretrain.data.dataset import data_name, load

    normals = good_images(config)
    (category,) = normals.categories
    shots = shots_of(config.shots, kept_of(len(normals), config.hold_out))
    chosen = normals.subset(draw(len(normals), shots, config.seed))
    method = make_method(config, category, normals)
    others = load(config.train, config.size_px, config.train_categories) if config.train else None
    if others is not None:
        others = others.subset([i for i, record in enumerate(others.records) if record.category != category])
    if others is None and not method.sees_normals:
        raise UserError(f"{config.method} learns from labelled images of other products: name their folder by --train.")
    method.fit(Samples(others) if others else []).refer(images := Images(chosen))
    if is_judge_alone := not method.sees_normals and len(chosen) >= MIN_OWN_NORMALS:
        judge_normals(method, images)
    threshold = own_threshold(method, images, config.false_alarm_rate, calibration_normals(others), config.seed)
    peaks = getattr(method, "normal_peaks_", ())
    limit = threshold_from_normals(peaks.numpy(), config.false_alarm_rate) if len(peaks) else None
    if config.minimum_area and limit is None:
        raise UserError(
            f"--minimum-area needs a threshold for maps, which {config.method} does not find of {len(chosen)}: "
            f"leave it out, and python downstream/area.py validate finds one with good images that were held out."
        )
    metadata = {
        "data": data_name(config.data),
        "normals": len(chosen),
        "method": config.method,
        "false_alarm_rate": config.false_alarm_rate,
    }
    metadata["learned_from"] = [entry.digest.hex() for entry in chosen.entries]
    scores = method.normal_scores_.tolist()
    model = Inspector(method, category, config.size_px, threshold, limit, config.minimum_area, scores, metadata)
    out = config.out or Path("models") / category
    model.save(out)
    learned = f"{len(chosen)} good images of {category} ({data_name(config.data)})"
    if not method.sees_normals:
        learned = f"{len(others)} labelled images of {', '.join(others.categories)}; it learned nothing of {learned}"
    print(f"{config.method} fitted to {learned}")
    print(f"threshold {threshold.value:.4g} at {config.false_alarm_rate:.0%} false alarms: {threshold.why}")
    if len(scores) == len(chosen) and (method.sees_normals or is_judge_alone):
        for position in suspicious(scores):
            path, times = chosen.records[position].path, scores[position] / threshold.value
            print(f"suspicious: {path} scores {times:.1f} times the threshold among the good ones; look at it")
    print(f"model: {out}")
    print(f"next:  python downstream/detect.py run IMAGE_OR_FOLDER --model {out}")


def run(config: Run) -> int:
    """Judge every image; the exit code says how it went."""
    from downstream.inspection.inspector import Inspector
    from downstream.inspection.results import Findings
    from pretrain.progress import Progress

    model = Inspector.load(config.model)
    if config.threshold is not None:
        model.decide_at(config.threshold)
    records = records_of(config.images, model.category)
    problems: list[Problem] = []
    found: list[Inspection] = []
    with (
        Findings(config.out, config.overlays, config.maps) as findings,
        Progress("inspecting", len(records)) as progress,
    ):
        for record, result in zip(records, model.inspect([record.path for record in records]), strict=True):
            if isinstance(result, Problem):
                problems.append(result)
                progress.print(f"{result.path}: {result.reason}")
            else:
                findings.add(result, record)
                found.append(result)
            progress.advance()
    findings.print_summary(model, problems)
    if any(result.is_defective for result in found):
        return SOMETHING_DEFECTIVE
    return SOMETHING_UNREADABLE if problems else NOTHING_DEFECTIVE


def good_images(config: Fit) -> "ImageSet":
    """The images of one category to refer to."""
    from pretrain.data.dataset import load

    is_laid_out = config.data.is_dir() and has_layout(config.data)
    categories = Names(config.category or "") if is_laid_out else Names()
    images = load(config.data, config.size_px, categories, normals_only=is_laid_out, allow_plain=True)
    if is_laid_out and len(images.categories) > 1:
        names = ", ".join(images.categories)
        raise UserError(f"{config.data} holds several categories: choose one with --category, of {names}.")
    if not is_laid_out:  # subfolders of a plain folder are no categories here
        category = config.category or config.data.resolve().name
        records = tuple(Record(record.path, category, "train", "good") for record in images.records)
        images = type(images)(images.folder, images.size_px, records, images.entries, images.pixels)
    return images


def make_method(config: Fit, category: str, normals: "ImageSet") -> "Method":
    """The method that was asked for, with its options. Raises UserError for one that it does not have."""
    import inspect

    import yaml

    from downstream.methods.catalogue import method_class

    kind = method_class(config.method)
    allowed = set(inspect.signature(kind).parameters)
    try:  # as YAML, so that levels=[level2,level3] is a list
        arguments = yaml.safe_load("{" + config.options.replace("=", ": ") + "}")
    except yaml.YAMLError:
        raise UserError(f"--options {config.options} cannot be read: give NAME=VALUE,NAME=VALUE.") from None
    for name in arguments:
        if name not in allowed:
            raise UserError(f"{config.method} has no option {name!r}; {nearest(name, allowed)}")
    if "encoder" in allowed:
        from embeddings.encoding import choose_encoder
        from pretrain.demo import is_demo

        encoder, path = choose_encoder(config.encoder, config.seed, is_demo(config.data))
        seen = encoder.origin.categories if encoder.origin else ()
        print(f"encoder: {path}" + (f", which saw {', '.join(seen)}" if seen else ""))
        arguments = {"encoder": encoder, **arguments}
    if "seed" in allowed:
        arguments = {"seed": config.seed, **arguments}
    return kind(**arguments)


def judge_normals(method: "Method", images: Sequence["Tensor"]) -> None:
    """Take the threshold from the user's good images: a method that learned nothing of them may be asked about them,
    and they say more of this product than those of the products it learned from."""
    import torch

    found = list(method.predict(images))
    method.normal_scores_ = torch.cat([part.scores for part in found])
    if found[0].maps is not None:
        method.normal_peaks_ = torch.cat([part.maps.flatten(1).amax(1) for part in found])


def calibration_normals(others: "ImageSet | None") -> Mapping[str, Sequence["Tensor"]]:
    """Good images of other categories, by category."""
    from baselines.contract.method import Images

    if others is None:
        return {}
    good = others.subset([i for i, record in enumerate(others.records) if not record.is_anomaly])
    return {category: Images(good.of(category)) for category in good.categories}


def records_of(places: Iterable[Path], category: str) -> list[Record]:
    """What to inspect: images as they are named, those of plain folders, and the test images of laid out ones."""
    records: list[Record] = []
    for place in places:
        if place.is_dir() and has_layout(place):
            found = scan(place)
            names = {record.category for record in found.records}
            wanted = names if len(names) == 1 else {category}
            records += [r for r in found.records if r.split == "test" and r.category in wanted]
        elif place.is_dir():
            records += scan_plain(place).records
        elif place.is_file():
            records.append(Record(place, category, "", ""))
        else:
            raise UserError(f"there is no image and no folder {place}; name what is to be inspected.")
    if not records:
        raise UserError(f"no images to inspect: name images ({', '.join(sorted(SUFFIXES))}) or folders of them.")
    return records

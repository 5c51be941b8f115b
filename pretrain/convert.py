"""Annotated images (COCO, YOLO, LabelMe, Pascal VOC) copied into a new folder in MVTec AD's layout, with masks.

python pretrain/convert.py --data IMAGES --annotations coco.json --out data/mine
python pretrain/convert.py --data IMAGES --out data/mine                          annotations beside the images
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from pretrain.config import Convert

    start("pretrain.convert:main", Convert)

import re
import shlex
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from pretrain.command import UserError
from pretrain.config import Convert
from pretrain.data.annotations import Annotated, Annotations, find_annotations, rasterized, read_annotations
from pretrain.data.decode import Unreadable, size_on_disk
from pretrain.data.images import GOOD, SUFFIXES, Problem, Record
from pretrain.data.layouts import scan_plain
from pretrain.data.layouts.folders import GOOD_WORDS, later_fifth
from pretrain.files import whole_folder
from pretrain.progress import Progress


def main(config: Convert) -> None:
    """Copy every image whose label is known; nothing in the folder of images is altered."""
    data, out = config.data.resolve(), config.out.resolve()
    if out.exists():
        raise UserError(f"{config.out} is there already: name a new folder by --out.")
    if out.is_relative_to(data):
        raise UserError(f"{config.out} lies in {config.data}, which is never changed: name another --out.")
    scanned = scan_plain(config.data)
    paths = [record.path for record in scanned.records]
    annotations = read_annotations(config.annotations or find_annotations(config.data))
    labeled, problems = matched(config.data, paths, annotations)
    problems += scanned.problems
    unnamed = len(paths) - len(labeled)
    if not annotations.lists_all:
        labeled = {**dict.fromkeys(paths), **labeled}
    category = config.category or config.data.resolve().name
    with whole_folder(config.out) as folder:
        records = list(_written(labeled, folder / category, category, problems))
        if not records:
            raise UserError(f"none of the {len(paths)} images in {config.data} is annotated in {annotations.path}.")
    for problem in problems:
        print(f"  {problem.path}: {problem.reason}", file=sys.stderr)
    if unnamed:
        what = "left out, since nobody says that they are good" if annotations.lists_all else "taken as good"
        print(f"{unnamed} images are not named in the annotations ({annotations.format}): {what}", file=sys.stderr)
    defective = sum(record.is_anomaly for record in records)
    train = sum(record.split == "train" for record in records)
    tested = f"{len(records) - train} to test, {defective} of them defective"
    print(f"{config.out}: {train} good images to learn from, {tested}")
    print(f"next: python pretrain/survey.py --data {shlex.quote(str(config.out))}")


def matched(data: Path, paths: list[Path], annotations: Annotations) -> tuple[dict[Path, Annotated], list[Problem]]:
    """The images that are annotated; problems of those that are not there, or of which there are several. All of the
    several are refused: one of them is defective."""
    whole, loose = defaultdict(list), defaultdict(list)
    for path in paths:
        inside = PurePosixPath(path.relative_to(data).as_posix())
        bare = str(inside.with_suffix(""))  # as YOLO has it, from its labels/ on
        for name in {str(inside), bare, bare.removeprefix("images/")}:
            whole[name].append(path)
        for name in {inside.name, inside.stem}:  # annotations move without their images
            loose[name].append(path)
    found: dict[Path, Annotated] = {}
    problems = list(annotations.problems)
    for annotated in annotations.images:
        name = PurePosixPath(annotated.name.replace("\\", "/"))
        beside = "/".join("images" if part == "labels" else part for part in name.parts)  # YOLO's labels/train/0.txt
        of_name = whole.get(str(name)) or whole.get(beside) or loose.get(name.name) or []
        # Annotated as a.bmp, kept as a.jpg. Without the suffix YOLO's name comes, which may have dots in it.
        if not of_name and name.suffix.lower() in SUFFIXES:
            of_name = whole.get(str(name.with_suffix(""))) or loose.get(name.stem, [])
        if len(of_name) != 1:
            reason = "which is not there" if not of_name else f"of which there are {len(of_name)}"
            problems.append(Problem(annotations.path, f"annotates {annotated.name}, {reason}"))
        for path in of_name:
            before = found.get(path, Annotated("", ()))
            is_refused = before.is_refused or annotated.is_refused or len(of_name) > 1
            shapes = before.shapes + annotated.shapes
            found[path] = Annotated(annotated.name, shapes, annotated.width, annotated.height, is_refused)
    return found, problems


def _written(
    labeled: dict[Path, Annotated | None], folder: Path, category: str, problems: list[Problem]
) -> Iterator[Record]:
    """Copy images and write masks. Good ones are split by the rule that tables have: the last fifth is tested on."""
    defects = {path: defect_of(annotated) for path, annotated in labeled.items()}
    good = [path for path, defect in defects.items() if defect == GOOD]
    tested = later_fifth([path for path in good if not (labeled[path] and labeled[path].is_refused)])
    taken: set[str] = set()
    with Progress("converting", len(labeled)) as progress:
        for path, annotated in sorted(labeled.items(), key=lambda item: item[0]):
            progress.advance()
            if annotated and annotated.is_refused:
                problems.append(Problem(path, "is left out, since not all that annotates it can be used"))
                continue
            defect = defects[path]
            stem = path.stem if path.stem not in taken else f"{path.parent.name}_{path.stem}_{len(taken)}"
            taken.add(stem)
            try:
                height, width = size_on_disk(path)
                if annotated and annotated.width and (annotated.width, annotated.height) != (width, height):
                    raise Unreadable(f"is {width}x{height}, its annotation {annotated.width}x{annotated.height}")
                if defect != GOOD:
                    shapes = [shape for shape in annotated.shapes if shape.label.lower() not in GOOD_WORDS]
                    mask = rasterized(shapes, height, width)
            except (Unreadable, UserError, OSError) as error:
                problems.append(Problem(path, str(error)))
                continue
            split = "test" if defect != GOOD or path in tested else "train"
            target = folder / split / defect / f"{stem}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            if defect != GOOD:
                mask_file = folder / "ground_truth" / defect / f"{stem}_mask.png"
                mask_file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(mask_file)
            yield Record(target, category, split, defect)


def defect_of(annotated: Annotated | None) -> str:
    """The labels of an image's shapes, as a folder may be named; good, where there are none but `good`."""
    labels = {shape.label for shape in annotated.shapes} if annotated else set()
    defects = {_folder_name(label) for label in labels if label.lower() not in GOOD_WORDS}
    return "+".join(sorted(defects)) or GOOD


def _folder_name(label: str) -> str:
    """Of a defect: never empty, and never one that names good images."""
    name = re.sub(r"[^\w.-]+", "_", label).lstrip(".")
    return name if name and name.lower() not in GOOD_WORDS else f"defect_{name}".rstrip("_")

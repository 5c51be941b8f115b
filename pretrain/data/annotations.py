"""Annotation files -> which shapes are drawn on which image: COCO, Pascal VOC, YOLO and LabelMe.

COCO and VOC are read by labelformat. It has no reader of LabelMe, and its one of YOLO stops at an image without a label
file, which is how YOLO says that there is nothing on it: both are read here.
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pretrain.command import UserError, installed_by
from pretrain.data.images import Problem
from pretrain.reading import read_json, read_regular, read_yaml

PLACES = (".", "annotations", "Annotations", "labels")
# A file of one image's annotations, or of names: a thousand long outlines have a tenth of it.
MAX_FILE_BYTES = 2**25


@dataclass(frozen=True)
class Shape:
    """A polygon, float (n, 2) as x, y, in pixels or in shares of the image's sides; or a mask, bool (h, w)."""

    label: str
    points: np.ndarray | None = None
    mask: np.ndarray | None = None
    is_relative: bool = False


@dataclass(frozen=True)
class Annotated:
    """What is drawn on the image `name`, as its annotation names it, of that width and height where it says so.
    `is_refused`: something on it could not be read, so it is neither good nor has it a whole mask."""

    name: str
    shapes: tuple[Shape, ...]
    width: int = 0
    height: int = 0
    is_refused: bool = False


@dataclass(frozen=True)
class Annotations:
    """All of a file or folder. `lists_all`: an image that it does not name is not known to be good."""

    format: str
    path: Path
    images: tuple[Annotated, ...]
    problems: tuple[Problem, ...] = ()
    lists_all: bool = False


def find_annotations(data: Path) -> Path:
    """Where annotations lie beside images. Raises UserError where there are none."""
    for place in (data / place for place in PLACES):
        if place.is_dir() and (_json_files(place) or any(place.glob("*.xml")) or _label_files(place)):
            return place
    raise UserError(f"there are no annotations in {data} (COCO, VOC, YOLO, LabelMe): name them by --annotations.")


def read_annotations(path: Path) -> Annotations:
    """Those of a file, or of a folder of files of one format. Raises UserError for what cannot be read."""
    read = _read(path)
    images, problems = [], list(read.problems)
    for image in read.images:
        shapes = tuple(shape for shape in image.shapes if shape.points is None or np.isfinite(shape.points).all())
        if len(shapes) < len(image.shapes):
            problems.append(Problem(path, f"has a point on {image.name} that is no finite number: draw it again"))
            image = replace(image, shapes=shapes, is_refused=True)
        images.append(image)
    return replace(read, images=tuple(images), problems=tuple(problems))


def _read(path: Path) -> Annotations:
    if path.is_dir():
        if files := _json_files(path):
            return _read_json_files(path, files)
        if any(path.glob("*.xml")):
            return _read_voc(path)
        if _label_files(path):
            return _read_yolo(path)
        raise UserError(f"there are no annotations in {path}: name COCO's file, or a folder of VOC, YOLO or LabelMe.")
    if not path.is_file():
        raise UserError(f"there is no file and no folder {path}; name the annotations.")
    if path.suffix == ".json":
        return _read_json_files(path, [path])
    if path.suffix in (".yaml", ".yml"):  # YOLO's, beside which its labels lie
        return _read_yolo(path.parent)
    raise UserError(f"{path} is no annotation that can be read: name a .json, a .yaml, or the folder of .xml or .txt.")


def filled(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool (h, w): pixels whose center lies inside a polygon (n, 2), so a box of 3 x 4 has 12. A shape so thin that it
    holds none is drawn by its corners: what somebody annotated is there."""
    mask = np.zeros((height, width), bool)
    x, y = points.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    for row in range(max(0, ceil(y.min() - 0.5)), min(height, ceil(y.max() - 0.5))):
        center = row + 0.5
        at = (y <= center) != (next_y <= center)  # edges that cross this row; in pairs they enclose the inside
        crossings = np.sort(x[at] + (center - y[at]) * (next_x - x)[at] / (next_y - y)[at])
        for left, right in np.maximum(0, np.ceil(crossings - 0.5)).astype(int).reshape(-1, 2):
            mask[row, left:right] ^= True
    if not mask.any():
        columns, rows = np.clip(points, 0, [width - 1, height - 1]).astype(int).T
        mask[rows, columns] = True
    return mask


def rasterized(shapes: Iterable[Shape], height: int, width: int) -> np.ndarray:
    """bool (h, w): the union of shapes. Raises UserError for a mask of another size."""
    union = np.zeros((height, width), bool)
    for shape in shapes:
        if shape.mask is None:
            points = shape.points * ([width, height] if shape.is_relative else 1)
            union |= filled(points, height, width)
        elif shape.mask.shape == union.shape:
            union |= shape.mask
        else:
            raise UserError(f"a mask in the annotations is {shape.mask.shape[1]}x{shape.mask.shape[0]}")
    return union


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def _json_files(folder: Path) -> list[Path]:
    """Those that are COCO's or LabelMe's."""
    return [path for path in sorted(folder.glob("*.json")) if _kind(path)]


def _kind(path: Path) -> str:
    """COCO, LabelMe, or nothing. Raises UserError for a file that is no JSON."""
    try:
        content = read_json(path, object)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): export it again.") from None
    if not isinstance(content, dict):
        return ""
    return "COCO" if {"images", "annotations"} <= content.keys() else "LabelMe" if "shapes" in content else ""


def _label_files(folder: Path) -> list[Path]:
    """YOLO's: text files of numbers, at any depth."""
    files = sorted(path for path in folder.rglob("*.txt") if path.name != "classes.txt" and path.is_file())
    return files if files and all(_is_of_numbers(path) for path in files) else []


def _is_of_numbers(path: Path) -> bool:
    with path.open("rb") as file:
        line = file.readline(1 << 12).decode(errors="replace")
    return re.fullmatch(r"\s*(\d+(\s+[\d.eE+-]+){4,}\s*)?", line) is not None


def _read_json_files(path: Path, files: list[Path]) -> Annotations:
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1 or kinds == {""}:
        raise UserError(f"{path} holds no annotations of one format: name a file of COCO's, or a folder of LabelMe's.")
    read, format = (_read_coco, "COCO") if kinds == {"COCO"} else (_read_labelme, "LabelMe")
    images, problems = [], []
    for file in files:
        try:
            for item in read(file):
                (problems if isinstance(item, Problem) else images).append(item)
        # What people's programs leave out or write otherwise, in labelformat too.
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, IndexError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{file} is not as {format} has it ({reason}); export it again.") from None
    return Annotations(format, path, tuple(images), tuple(problems), format == "COCO")


def _read_coco(path: Path) -> Iterator[Annotated | Problem]:
    """By labelformat, which wants outlines in all annotations of a file or in none: so it is given two."""
    formats = _labelformat()
    content = read_json(path)
    listed = {image["id"] for image in content["images"]}
    outlined, boxed, refused = [], [], set()
    for annotation in content["annotations"]:
        outline = annotation.get("segmentation")
        if annotation["image_id"] not in listed:
            yield Problem(path, f"annotates an image {annotation['image_id']} that it does not list")
        elif isinstance(outline, dict) and isinstance(outline.get("counts"), str):
            refused.add(annotation["image_id"])
            advice = "export polygons, or plain counts"
            yield Problem(path, f"has a compressed mask on image {annotation['image_id']}: {advice}")
        elif outline:
            is_mask = int(isinstance(outline, dict))  # what labelformat goes by
            outlined.append({"bbox": [0, 0, 0, 0], **annotation, "iscrowd": is_mask})
        elif annotation.get("bbox"):
            boxed.append(annotation)
        else:
            refused.add(annotation["image_id"])
            yield Problem(path, f"has an annotation without outline and box on image {annotation['image_id']}")
    images = [{"width": 0, "height": 0, **image} for image in content["images"]]
    shapes: dict[int, list[Shape]] = {image["id"]: [] for image in images}
    readers = (
        (formats.COCOInstanceSegmentationInput, outlined, _outlines),
        (formats.COCOObjectDetectionInput, boxed, _boxes),
    )
    for reader, annotations, shapes_of in readers:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "coco.json"
            file.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
            for labeled in reader(file).get_labels():
                shapes[labeled.image.id] += shapes_of(labeled.objects)
    for image in images:
        size = int(image["width"]), int(image["height"])
        yield Annotated(image["file_name"], tuple(shapes[image["id"]]), *size, image["id"] in refused)


def _outlines(objects: Iterable) -> Iterator[Shape]:
    """Shapes of labelformat's instances."""
    for instance in objects:
        label, outline = instance.category.name, instance.segmentation
        if hasattr(outline, "get_binary_mask"):
            yield Shape(label, mask=outline.get_binary_mask().astype(bool))
        else:
            yield from (Shape(label, np.array(polygon, float)) for polygon in outline.polygons)


def _boxes(objects: Iterable) -> Iterator[Shape]:
    """Shapes of labelformat's boxes."""
    for found in objects:
        yield Shape(found.category.name, _box(found.box.xmin, found.box.ymin, found.box.xmax, found.box.ymax))


def _read_voc(folder: Path) -> Annotations:
    formats = _labelformat()
    names = set()
    for path in sorted(folder.glob("*.xml")):
        try:
            root = ElementTree.fromstring(read_regular(path, MAX_FILE_BYTES))
            names |= {element.text for element in root.iterfind("object/name") if element.text}
        except (ElementTree.ParseError, ValueError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}): export it again.") from None
    if with_comma := sorted(name for name in names if "," in name):
        raise UserError(f"{folder} has a label {with_comma[0]!r}, and labelformat parts labels at commas: rename it.")
    try:
        labeled = list(formats.PascalVOCObjectDetectionInput(folder, ",".join(sorted(names))).get_labels())
    except Exception as error:  # it has a class of its own, and of a wrong number Python's
        raise UserError(f"{folder} is not as Pascal VOC has it ({error}): export it again.") from None
    images = (Annotated(of.image.filename, (*_boxes(of.objects),), of.image.width, of.image.height) for of in labeled)
    return Annotations("VOC", folder, tuple(sorted(images, key=lambda image: image.name)))


def _read_yolo(folder: Path) -> Annotations:
    """A line an object: its class and a box (center, width, height) or the corners of an outline, as shares."""
    names = _yolo_names(folder)
    images = []
    if not (files := _label_files(folder)):  # else all images would count as good
        raise UserError(f"there are no labels in {folder}, or other .txt among them: name the folder of labels alone.")
    for path in files:
        shapes = []
        for number, line in enumerate(_text(path).splitlines(), 1):
            try:
                kind, *values = (float(word) for word in line.split())
                kind = int(kind)
                if len(values) == 4:
                    x, y, width, height = values
                    points = _box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                else:
                    points = np.array(values).reshape(-1, 2)
                    if len(points) < 3:
                        raise ValueError
            except (ValueError, OverflowError):  # of int(nan) and of int(inf)
                if not line.strip():
                    continue
                wrong = f"{path}, line {number}: {line!r} is no object as YOLO has it"
                raise UserError(f"{wrong}; export it again.") from None
            shapes.append(Shape(names.get(kind, f"class{kind}"), points, is_relative=True))
        images.append(Annotated(path.relative_to(folder).with_suffix("").as_posix(), tuple(shapes)))
    return Annotations("YOLO", folder, tuple(images))


def _yolo_names(folder: Path) -> dict[int, str]:
    """Of the classes, from data.yaml or classes.txt in the folder or the one above."""
    for parent in (folder, folder.parent):
        for path in sorted([*parent.glob("*.yaml"), *parent.glob("*.yml")]):
            try:
                names = read_yaml(path).get("names")
            except (OSError, ValueError):
                continue
            if isinstance(names, list):
                names = dict(enumerate(names))
            if isinstance(names, dict):
                named = {str(key): name for key, name in names.items() if isinstance(key, (str, int))}
                return {
                    int(key): str(name)
                    for key, name in named.items()
                    if key.isdecimal() and isinstance(name, (str, int))
                }
        if (path := parent / "classes.txt").is_file():
            return dict(enumerate(_text(path).splitlines()))
    return {}


def _text(path: Path) -> str:
    """Of a small file. Raises UserError for one that is none."""
    try:
        return read_regular(path, MAX_FILE_BYTES).decode(errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): export it again.") from None


def _read_labelme(path: Path) -> Iterator[Annotated | Problem]:
    content = read_json(path)
    shapes, is_refused = [], False
    for shape in content["shapes"]:
        points, form = np.array(shape["points"], float).reshape(-1, 2), shape.get("shape_type") or "polygon"
        if form == "rectangle" and len(points) == 2:
            points = _box(*points.min(axis=0), *points.max(axis=0))
        elif form == "circle" and len(points) == 2:
            turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
            points = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        elif form != "polygon" or len(points) < 3:
            is_refused = True
            yield Problem(path, f"has a {form} of {len(points)} points, which encloses nothing: draw a polygon")
            continue
        shapes.append(Shape(str(shape["label"]), points))
    name = str(content.get("imagePath") or path.stem)
    size = int(content.get("imageWidth") or 0), int(content.get("imageHeight") or 0)
    yield Annotated(name, tuple(shapes), *size, is_refused)


def _labelformat():
    """The package's readers. Raises UserError where it is not installed."""
    try:
        import labelformat.formats as formats  # optional, and 0.3 s
    except ImportError:
        raise UserError(
            f"COCO and VOC are read by labelformat, which is not installed: {installed_by('annotations')}."
        ) from None
    return formats

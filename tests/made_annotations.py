"""Annotation files of images of 12 x 10 pixels, with a box of 4 x 3 or a triangle."""

import json
from pathlib import Path

HEIGHT, WIDTH = 10, 12
TRIANGLE = [2.0, 1.0, 9.0, 1.0, 2.0, 8.0]


def coco(path: Path, *annotations: dict, images: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(images)]
    content = {"images": listed, "annotations": list(annotations), "categories": [{"id": 7, "name": "dent"}]}
    path.write_text(json.dumps(content))
    return path


def voc(folder: Path, name: str = "0.png", box: tuple = (3, 2, 7, 5), label: str = "dent") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    found = f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>"
    path = folder / f"{Path(name).stem}.xml"
    path.write_text(f"<annotation><filename>{name}</filename>{size}{found}</annotation>")
    return path


def labelme(path: Path, *shapes: tuple[str, list]) -> Path:
    listed = [{"label": "dent", "shape_type": form, "points": points} for form, points in shapes]
    content = {"imagePath": "..\\images\\0.png", "imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": listed}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path

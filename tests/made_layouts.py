"""Folders of a few images each, laid out as every data set is that can be read."""

import json
from itertools import count
from pathlib import Path

from made_folders import image, mask

LEVELS = count(1)


def images(folder: Path, *names: str) -> None:
    """All different, since copies are warned of."""
    for name in names:
        image(folder / name, level=next(LEVELS) % 256)


def mvtec(root: Path) -> None:
    images(root / "nut", "train/good/0.png", "train/good/1.png", "test/good/0.png", "test/crack/0.png")
    mask(root / "nut/ground_truth/crack/0_mask.png")


def loco(root: Path) -> None:
    images(root / "box", "train/good/0.png", "validation/good/0.png", "test/good/0.png", "test/logical_anomalies/0.png")
    mask(root / "box/ground_truth/logical_anomalies/0/000.png")
    mask(root / "box/ground_truth/logical_anomalies/0/001.png", slice(7, 8))


def mvtec2(root: Path) -> None:
    images(root / "can", "train/good/0.png", "validation/good/1.png", "test_public/good/2.png", "test_public/bad/3.png")
    images(root / "can", "test_private/4.png")
    mask(root / "can/test_public/ground_truth/bad/3_mask.png")


def btad(root: Path) -> None:
    images(root / "01", "train/ok/0.bmp", "train/ok/1.bmp", "test/ok/0.bmp", "test/ko/0.bmp")
    mask(root / "01/ground_truth/ko/0.png")


def visa(root: Path) -> None:
    """One category with its lists."""
    normal = [f"candle/Data/Images/Normal/{number:04}.JPG" for number in range(3)]
    images(root, *normal, "candle/Data/Images/Anomaly/000.JPG", "candle/Data/Images/Anomaly/001.JPG")
    mask(root / "candle/Data/Masks/Anomaly/000.png", value=1)
    mask(root / "candle/Data/Masks/Anomaly/001.png", value=2)
    splits = [f"candle,{split},normal,{name}," for split, name in zip(("train", "train", "test"), normal, strict=True)]
    defective = "candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png"
    splits += [f"candle,test,anomaly,{defective}", f"candle,test,anomaly,{defective.replace('000', '001')}"]
    splits += ["capsules,train,normal,capsules/Data/Images/Normal/000.JPG,"]  # of a category that was not unpacked
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("object,split,label,image,mask\n" + "\n".join(splits) + "\n")
    kinds = [f"{name},normal," for name in normal]
    kinds += ['candle/Data/Images/Anomaly/000.JPG,"burnt,chipped",candle/Data/Masks/Anomaly/000.png']
    (root / "candle/image_anno.csv").write_text("image,label,mask\n" + "\n".join(kinds) + "\n")


def realiad(root: Path) -> None:
    """One category, one product seen from two sides in train, one in test."""
    names = {"train": ["OK/S1/toy_C1.jpg", "OK/S1/toy_C2.jpg"], "test": ["OK/S2/toy_C1.jpg", "NG/AK/S3/toy_C1.jpg"]}
    listed: dict = {"meta": {"normal_class": "OK", "prefix": "toy/"}}
    for split, of_split in names.items():
        images(root / "realiad_256/toy", *of_split)
        listed[split] = [
            {"category": "toy", "anomaly_class": name.split("/")[-3], "image_path": name, "mask_path": None}
            for name in of_split
        ]
    listed["test"][1]["mask_path"] = "NG/AK/S3/toy_C1.png"
    mask(root / "realiad_256/toy/NG/AK/S3/toy_C1.png")
    (root / "realiad_jsons").mkdir()
    (root / "realiad_jsons/toy.json").write_text(json.dumps(listed))


def ksdd(root: Path) -> None:
    for item in ("kos01", "kos02", "kos03"):
        for part in range(2):
            images(root / item, f"Part{part}.jpg")
            rows = slice(2, 4) if (item, part) in (("kos01", 1), ("kos02", 0)) else slice(0, 0)
            mask(root / item / f"Part{part}_label.bmp", rows)


def ksdd2(root: Path) -> None:
    for name in ("train/10000", "train/10001", "train/10002", "test/20000", "test/20001"):
        images(root, f"{name}.png")
        mask(root / f"{name}_GT.png", slice(2, 4) if name in ("train/10001", "test/20000") else slice(0, 0))


def dagm(root: Path) -> None:
    for part in ("Train", "Test"):
        images(root / "Class1" / part, "0576.PNG", "0577.PNG", "0578.PNG")
        mask(root / f"Class1/{part}/Label/0577_label.PNG")
        lines = "1\n1\t0\t0576.PNG\t0\t0\n2\t1\t0577.PNG\t0\t0577_label.PNG\n3\t0\t0578.PNG\t0\t0\n"
        (root / f"Class1/{part}/Label/Labels.txt").write_text(lines)


def table(root: Path) -> None:
    images(root, *(f"pictures/{number}.png" for number in range(7)))
    mask(root / "masks/6.png")
    lines = [f"pictures/{number}.png,OK,lid,," for number in range(6)]
    lines += ["pictures/6.png,dent,lid,test,masks/6.png"]
    (root / "images.csv").write_text("path,label,category,split,mask\n" + "\n".join(lines) + "\n")


MADE = {
    "mvtec": mvtec, "loco": loco, "mvtec2": mvtec2, "btad": btad, "visa": visa, "realiad": realiad, "ksdd": ksdd,
    "ksdd2": ksdd2, "dagm": dagm, "table": table,
}  # fmt: skip

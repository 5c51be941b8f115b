"""The options of detect.py and area.py."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, Self, get_type_hints

from pretrain.command import Names, UserError, check_type, nearest
from pretrain.data.images import LaidOut
from pretrain.tasks import Spread

PART_IMAGES = 128


@dataclass(frozen=True, kw_only=True)
class GoodImages(LaidOut):
    """Which images a command fits to.

    Attributes:
        data: Good images; a plain folder, a category in MVTec AD's layout (its train/good), or a folder of them.
        category: Which category, where the folder holds several.
    """

    data: Path
    category: str | None = None


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How an inspector is fitted, whatever it is fitted to.

    Attributes:
        method: padim (a Gaussian per position), patchcore (nearest normal patch), fused (both), residual (with
            --train), or another from downstream/methods/catalogue.py.
        encoder: File, architecture (its published weights), imagenet, or random. Default is runs/simclr,
            else imagenet.
        shots: Number of good images to refer to, or all.
        allow_contamination: Some of the images may be defective: leave out at most this share, those that clearly
            resemble the others least (see triage).
        validation_share: Share of the good images to leave out of the model, for downstream/area.py to decide by.
        false_alarm_rate: Share of good images that may be called defective; the threshold follows from it.
        minimum_area: Ignore regions of fewer pixels; an image whose regions are all ignored is good.
        train: Folder of other categories, to learn from (residual) and to calibrate with few references.
        train_categories: Only these of them.
        size_px: Images are seen with as many pixels as a square of this side has; those that are no squares keep their
            aspect. native: as large as they are. auto: at half of their side, but no less than 384 and no more than
            640 px, which fit says.
        scales: See each image at several shares of that size, such as 0.5,1, and fuse what is found.
        lights: Images belong together as several lights of one part: the pages of a TIFF, the bands of its pages, or
            NAME_light1.png, NAME_light2.png and so on. Each light has statistics of its own, and what the strangest
            says counts.
        range: Lowest and highest value, such as 0,4095, of images of more than 8 bits a channel. Default is what the
            good images show, and a tenth more at either end.
        roi: Where to look: a mask of the size of the images, bright where it counts, or JSON with polygons.
        align: Turn and move each image onto how the good ones lie, here and in every run. For products whose position
            is no defect.
        reference: The image onto which others are aligned; where --roi is drawn, the one that it was drawn on.
        options: Arguments of the method, such as reference_views=flips,dimensions=50.
        memory_gb: Memory that this may take, in GiB, with one of the first four methods: images are looked at in
            smaller tiles, and what does not fit is refused before it begins. Default is what is free.
        device: cpu, cuda, or auto for a GPU where there is one.
        seed: Seed of the draw of references, and of the method.
    """

    method: str = "fused"
    encoder: Path | None = None
    shots: str = "all"
    allow_contamination: float = 0.0
    validation_share: float = 0.0
    false_alarm_rate: float = 0.1
    minimum_area: int = 0
    train: Path | None = None
    train_categories: Names = Names()
    size_px: int | Literal["auto", "native"] = "auto"
    scales: Names = Names()
    lights: bool = False
    range: Names = Names()
    roi: Path | None = None
    align: bool = False
    reference: Path | None = None
    options: str | dict[str, object] = ""
    memory_gb: float | None = None
    device: str = "auto"
    seed: int = 0

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """All of them by name, as scikit-learn asks for them to clone an object; `Inspector.fit` takes them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def of(cls, **given: object) -> Self:
        """Settings as Python has them: paths as text, numbers and lists for what is typed as text, and an Encoder for
        the path of one. Raises UserError for a name that is none."""
        hints = get_type_hints(cls)
        for name, value in given.items():
            if name not in hints:
                raise UserError(f"an inspector is fitted without a setting {name!r}; {nearest(name, hints)}")
            if hints[name] in (Path, Path | None) and isinstance(value, str):
                given[name] = Path(value)
            elif hints[name] is Names and isinstance(value, Iterable | Real):
                given[name] = Names([value] if isinstance(value, Real) else value)
            elif name == "options" and isinstance(value, Mapping):
                given[name] = dict(value)
            elif name == "shots" and isinstance(value, Integral):
                given[name] = str(value)
            elif isinstance(value, Real) and hasattr(value, "item"):  # numpy's, which JSON does not know
                given[name] = value.item()
            if not (name == "encoder" and hasattr(value, "stages")):  # an Encoder, whose class imports torch
                check_type(name, given[name], hints[name])
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class Fit(FitSettings, GoodImages, Spread):
    """Fit a method to good images of one product, find its threshold, and write a model.

    Attributes:
        data: Good images; a plain folder, a category in MVTec AD's layout (its train/good), a folder of them, or a
            manifest of them (of pretrain/manifest.py), to whose parts padim, patchcore or fused is fitted apart.
        out: Folder to write the model to. Default is models/CATEGORY.
        part_images: Of a manifest, images of a part, on average.
    """

    out: Path | None = None
    part_images: int = 4 * PART_IMAGES


@dataclass(frozen=True)
class Run(LaidOut, Spread):
    """Run a model over images: which are defective, and where.

    Attributes:
        images: Images, or folders of images; of a folder in MVTec AD's layout, the test images.
        model: Folder of a model that fit wrote, or an ONNX file that downstream/export.py made of one. Default is the
            one in models/.
        out: Folder for results.jsonl and the images; with --data a URL will do.
        overlays: Which images to draw with heatmap, contours and boxes.
        threshold: Another threshold than the model's.
        maps: Also write every anomaly map, as it is, to maps.safetensors.
        format: Also write the results as other tools read them: coco, label-studio, csv, or several of these.
        runtime: What runs an exported file; onnxruntime is the default for ONNX, openvino for OpenVINO's own;
            onnxruntime-gpu is onnxruntime with --device cuda.
        memory_gb: Memory that this may take, in GiB, as fit has it.
        device: cpu, cuda, or auto for a GPU where there is one.
        data: In place of images, a manifest (of pretrain/manifest.py), or a folder, archive or URL to list: it is
            inspected in parts, which a run that was stopped keeps; results are Parquet files.
        part_images: With --data, images of a part, on average.
    """

    model: Path | None = None
    images: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    out: str = "runs/detect"
    overlays: Literal["all", "defective", "none"] = "defective"
    threshold: float | None = None
    maps: bool = False
    format: Names = Names()
    memory_gb: float | None = None
    device: str = "auto"
    runtime: Literal["onnxruntime", "onnxruntime-gpu", "openvino"] | None = None
    data: str | None = None
    part_images: int = PART_IMAGES


@dataclass(frozen=True)
class Triage(LaidOut):
    """Rank the images of a mixed folder by how little each resembles the rest; no image needs to be known as good.

    Attributes:
        folder: A plain folder of images of one product, or a category in MVTec AD's layout.
        category: Which category, where the folder holds several.
        split: Only images of train, or test.
        show: Number of images in the table and on the sheet, the least alike first.
        encoder: File, architecture (its published weights), imagenet, or random. Default is runs/simclr,
            else imagenet.
        against: Compare each image with so many others, drawn once; memory grows by 0.3 MB for each.
        size_px: Images are seen with as many pixels as a square of this side has; those that are no squares keep their
            aspect.
        device: cpu, cuda, or auto for a GPU where there is one.
        seed: Seed of the draw of images to compare with.
        out: Folder for sheet.png and triage.jsonl.
    """

    folder: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    category: str | None = None
    split: Names = Names()
    show: int = 20
    encoder: Path | None = None
    against: int = 60
    size_px: int = 384
    device: str = "auto"
    seed: int = 0
    out: Path = Path("runs/triage")


@dataclass(frozen=True)
class AreaModel(LaidOut):
    """What both area commands that need validation images are told of the model.

    Attributes:
        model: Folder of a model; with --method it is written there.
        data: Good images, some of which the model was not fitted to; of a category in MVTec AD's layout, train/good.
        category: Which category, where the folder holds several. Default is the model's.
        method: Fit this method first, as downstream/detect.py fit does.
        validation_share: Of a model fitted here, the share of good images to leave out of it.
        encoder: Of a model fitted here, the encoder file.
        train: Of a model fitted here, the folder of other categories to learn from (residual).
        size_px: Of a model fitted here, the side of a square with as many pixels as images are seen with, native, or
            auto, as detect.py fit has it.
        scales: Of a model fitted here, shares of that size to see images at, fused.
        options: Of a model fitted here, arguments of the method, such as dimensions=50.
        false_alarm_rate: Share of good images that may be called defective. Default is none of the validation images.
        device: cpu, cuda, or auto for a GPU where there is one.
        seed: Seed of the draw of validation images.
    """

    model: Path
    data: Path
    category: str | None = None
    method: str | None = None
    validation_share: float = 0.1
    encoder: Path | None = None
    train: Path | None = None
    size_px: int | Literal["auto", "native"] = "auto"
    scales: Names = Names()
    options: str = ""
    false_alarm_rate: float | None = None
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class AreaFinetune(AreaModel):
    """Plot what helps to choose a minimum area, and recommend one.

    Attributes:
        synthetic: Number of synthetic anomalies to compare areas by.
        seed: Seed of the draw of validation images, and of the synthetic anomalies.
        out: Folder for the plots and tables.
    """

    synthetic: int = 200
    out: Path = Path("runs/area")


@dataclass(frozen=True)
class AreaValidate(AreaModel):
    """Find the lowest threshold at which no validation image has a region of the area, and keep both in the model.

    Attributes:
        area: The minimum area, in pixels of the original images.
    """

    area: int = field(kw_only=True)


@dataclass(frozen=True)
class AreaTest(LaidOut):
    """Inspect labeled images at the model's area and threshold: share of right decisions, IoU of the regions.

    Attributes:
        model: Folder of a model that validate was run on.
        data: Labeled images; a category in MVTec AD's layout, or a folder of several.
        category: Which category, where the folder holds several. Default is the model's.
        area: Another minimum area than the model's; needs its threshold.
        threshold: Another threshold than the model's.
        overlays: Which images to draw with heatmap, contours and boxes.
        masks: Also write the regions of each image as a black and white PNG of its size and name.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: Folder for the figures, masks and overlays.
    """

    model: Path
    data: Path
    category: str | None = None
    area: int | None = None
    threshold: float | None = None
    overlays: Literal["all", "defective", "none"] = "defective"
    masks: bool = True
    device: str = "auto"
    out: Path = Path("runs/area/test")

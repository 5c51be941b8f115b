"""The options of export.py."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pretrain.data.images import LaidOut


@dataclass(frozen=True)
class Config(LaidOut):
    """Write a fitted model as one file.

    Attributes:
        model: Folder of a model that downstream/detect.py fit wrote.
        to: onnx; onnx-int8, which is faster and needs --data; openvino, its own two files for processors of Intel; or
            tensorrt, on a machine that has it.
        out: The file. Default is MODEL.onnx, MODEL-int8.onnx, MODEL.xml or MODEL.engine.
        data: Images that the model was fitted to. The file is compared on the test images in this folder, if any.
        category: Which category, where that folder holds several. Default is the model's.
        input: What the graph takes; pixels are uint8 (b, h, w, 3), float is float32 (b, 3, h, w) in [0, 1].
        max_auroc_loss: An int8 file is not written if its image AUROC is lower by more than this.
        max_changed_decisions: Nor if it decides otherwise on a larger share of the images.
        seven_bits: Weights of 7 bits in an int8 file, for x86 processors without VNNI; on one of these always.
        overwrite: Replace a file of that name.
        device: Where the file is compared with the model; cpu, cuda, or auto for a GPU where onnxruntime has one.
    """

    model: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    to: Literal["onnx", "onnx-int8", "openvino", "tensorrt"] = "onnx"
    out: Path | None = None
    data: Path | None = None
    category: str | None = None
    input: Literal["pixels", "float"] = "pixels"
    max_auroc_loss: float = 0.005
    max_changed_decisions: float = 0.05
    seven_bits: bool = False
    overwrite: bool = False
    device: str = "auto"

"""From a fitted model to one ONNX file, which is not written unless it answers as the model does."""

import json
import logging
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from baselines.contract.model_folder import FILE
from downstream.exporting.graph import InspectionGraph
from downstream.exporting.openvino_file import take_place
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import (
    FORMAT,
    HEADER_KEY,
    IMAGES,
    OPENVINO_SUFFIX,
    OUTPUTS,
    Exported,
    file_digest,
    named_in,
    probe_image,
)
from pretrain.command import UserError, installed_by
from pretrain.data.size import sides
from pretrain.encoder import commit
from pretrain.files import DIGEST_KEY, NO_DIGEST, scratch_folder, stored_json, write_whole

# Operators that onnxruntime knows since 1.14 and TensorRT since 8.6.
OPSET = 18
# protobuf cannot hold more in one file.
MAX_BYTES = 2_000_000_000
# Relative to the model's own answers; maps to the highest value of each.
CLOSE = 1e-4
# Or to this part of the threshold where the answer is less: an image that the coreset itself holds is at no distance
# but rounding (of 1e-6), which has no digits to agree in.
LEAST_SCALE = 0.5
# Of all pixels. Where two normal patches are equally near, rounding says which is the nearest, and each has a spacing
# of its own: one patch was such a case of 134 images with 1,600 patches each, and it shows in 1,600 pixels.
TIES = 1e-3


@dataclass(frozen=True)
class Parity:
    """How far a file's answers are from its model's, over `count` images: highest relative difference of a score, of
    a map's value to that map's highest (of all but TIES of the pixels), and decisions that differ."""

    count: int
    scores: float
    maps: float
    decisions: int

    @property
    def holds(self) -> bool:
        return max(self.scores, self.maps) <= CLOSE and not self.decisions

    def __str__(self) -> str:
        return (
            f"{self.count} images: scores within {self.scores:.1e}, maps within {self.maps:.1e}, "
            f"{self.decisions} decisions differ"
        )


def make_graph(model: Inspector, takes_floats: bool = False) -> InspectionGraph:
    """The whole graph of a model. Raises UserError for a method that has none, or one that is too large for a file."""
    graph = (
        InspectionGraph(model.method, model.size_px, model.threshold.value, takes_floats).eval().requires_grad_(False)
    )
    size = sum(buffer.nbytes for buffer in graph.state_dict().values())
    if size > MAX_BYTES:
        raise UserError(
            f"the graph would take {size / 1e9:.1f} GB, and a file holds {MAX_BYTES / 1e9:g}: fit the model with "
            "fewer dimensions, or a coarser grid (--options dimensions=100,grid=28)."
        )
    return graph


def header_of(
    model: Inspector, folder: Path, file_type: str, graph: InspectionGraph, probe_score: float, **more: object
) -> str:
    """What a file says of itself, as JSON. `inspector` is what stands in the `inspector.json` of `folder`, but for the
    thresholds, which are this model's; `probe_score` what the graph says of `probe_image`."""
    about = model.method._opened_encoder().as_json()
    packages = ("torch", "torchvision", "onnx", "onnxruntime")
    decision = stored_json(folder / FILE, "fit the model again")
    decision |= {"threshold": model.threshold._asdict(), "normal_scores": model.normal_scores}
    decision["map_threshold"] = model.map_threshold and model.map_threshold._asdict()
    metadata = {
        "format": FORMAT,
        "type": file_type,
        "method": type(model.method).__name__,
        "category": model.category,
        "threshold": model.threshold.value,
        "size_px": model.size_px,
        "takes_floats": graph.takes_floats,
        "input": "float32 RGB (b, 3, h, w) in [0, 1]" if graph.takes_floats else "uint8 RGB (b, h, w, 3)",
        "output": "score float32 (b,), map float32 (b, h, w), is_anomalous bool (b,): score > threshold",
        "architecture": about["architecture"],
        "encoder_fingerprint": about["fingerprint"],
        "encoder_started_from": about["started_from"],
        "encoder_saw": about["saw"],
        "versions": {name: version(name) for name in packages},
        "commit": commit(),
        "probe_score": probe_score,
        DIGEST_KEY: NO_DIGEST,
        "inspector": json.dumps(decision),
    }
    return json.dumps({**metadata, **more})


@torch.inference_mode()
def probe_score(graph: InspectionGraph) -> float:
    """What a graph says of the image that is tried wherever its file is opened."""
    given = probe_image(graph.size_px, graph.takes_floats)
    return float(graph(torch.from_numpy(given))[0])


def onnx_model(graph: torch.nn.Module, names: tuple[str, ...] = OUTPUTS):
    """A module as an onnx.ModelProto, for batches of any size. Raises UserError where a package is missing, or an
    operator has no form in ONNX."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"export takes {error.name}: {installed_by('export')}.") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own internals
            program = torch.onnx.export(
                graph,
                (example(graph),),
                dynamo=True,
                dynamic_shapes={IMAGES: {0: torch.export.Dim("batch", min=1)}},
                input_names=[IMAGES],
                output_names=list(names),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors share no base
        raise UserError(f"torch {torch.__version__} cannot convert this model to ONNX: {_last_line(error)}") from None
    proto = program.model_proto
    # Where the code lay on this machine is nobody's business, and half of the graph's size.
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in proto.functions:
        function.ClearField("metadata_props")
    return proto


def write_onnx(proto, header: str, path: Path) -> None:
    """Write with its header, which gets the digest of the file, whole."""
    from onnx.helper import set_model_props  # optional, as above

    set_model_props(proto, {HEADER_KEY: header})
    data = proto.SerializeToString()
    write_whole(path, named_in(data, NO_DIGEST, file_digest(data, NO_DIGEST)))


def write_checked(model: Inspector, path: Path, write, images: np.ndarray, device: str = "cpu") -> Parity:
    """Call `write` with another name on the same disk, compare what it wrote, run on a device, with the model on uint8
    images (n, h, w, 3), and only then give it its name. Raises UserError where the answers differ by more than
    CLOSE."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path.name, path.parent) as folder:
        trial = folder / path.name
        write(trial)
        result = parity(model, Exported(trial, device=device), images)
        if not result.holds:
            raise UserError(
                f"{path} is not written, since it answers otherwise than the model: {result} (limit {CLOSE:g})."
            )
        if path.suffix == OPENVINO_SUFFIX:
            take_place(trial, path)
        else:
            trial.replace(path)
    return result


def parity(model: Inspector, exported: Exported, images: np.ndarray) -> Parity:
    """Compare a native model with an exported one on uint8 images (n, h, w, 3)."""
    ours, theirs = predicted_arrays(model.method, images), predicted_arrays(exported, images)
    # Exactly at the threshold either may be right.
    clear = np.abs(ours[0] / model.threshold.value - 1) > CLOSE
    decisions = (ours[0] > np.float32(model.threshold.value)) != theirs[2]
    least = max(LEAST_SCALE * model.threshold.value, 1e-12)
    highest = np.abs(ours[1]).max((1, 2), keepdims=True).clip(least)
    return Parity(
        len(images),
        float((np.abs(theirs[0] - ours[0]) / np.abs(ours[0]).clip(least)).max()),
        float(np.quantile(np.abs(theirs[1] - ours[1]) / highest, 1 - TIES)),
        int((decisions & clear).sum()),
    )


def predicted_arrays(method, images: np.ndarray) -> list[np.ndarray]:
    """All that a method says of uint8 images (n, h, w, 3), a list of arrays."""
    given = images
    if not getattr(method, "takes_pixels", False):
        given = (torch.from_numpy(one).permute(2, 0, 1).float().div(255) for one in images)
    parts = list(method.predict(given))
    return [np.concatenate([np.asarray(array) for array in arrays]) for arrays in zip(*parts, strict=True)]


def example(graph: torch.nn.Module) -> torch.Tensor:
    """Images to trace a graph with: two, since from one the exporter would conclude that a batch is always one."""
    shape = sides(graph.size_px)
    if graph.takes_floats:
        return torch.zeros(2, 3, *shape)
    return torch.zeros(2, *shape, 3, dtype=torch.uint8)


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

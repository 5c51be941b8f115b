"""A model whose encoder computes with 8-bit integers, and what that costs in accuracy.

Rounding to 8 bits is noise, and PaDiM measures patches where normals vary least, so that there a little noise counts
much: with the encoder alone made int8, scores of the same images were 8 % higher (one category, 194 normals). So the
statistics and the threshold are learned again, from the same normals through the int8 encoder, and the noise is part of
what is normal.
"""

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from baselines.contract.threshold import MIN_OWN_NORMALS, threshold_from_normals
from downstream.exporting.graph import InspectionGraph, PatchVectors
from downstream.exporting.onnx_file import OPSET, onnx_model
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import IMAGES, probe_image
from embeddings.patches import ALL, Band, part_of
from pretrain.command import UserError
from pretrain.data.images import some_of
from pretrain.files import scratch_folder

# Normals that say how large activations inside the encoder become; more did not change that.
CALIBRATED_ON = 64
# All together, as many as 64 images of 224 px have: onnxruntime keeps every activation of every image until it has seen
# all, which took 12 GB at 384 px.
CALIBRATED_PIXELS = 64 * 224**2
# Of the activations of a layer; the rest is cut off, as one outlier would make all others coarse.
PERCENTILE = 99.999
IR_VERSION = 10  # of the ONNX files that torch writes
ACTIVATIONS = ("Relu", "Clip")
QUANTIZED = ("Conv", "Add", "MaxPool", *ACTIVATIONS)
# Means of a normal's patches, relative: the same images, decoded anew.
SAME_MEAN = 1e-3


@dataclass(frozen=True)
class Drift:
    """How far decisions and image AUROC moved on `count` images; `of` says which these are. Without labels there is no
    AUROC."""

    count: int
    of: str
    auroc_before: float | None
    auroc_after: float | None
    decisions_changed: int

    @property
    def auroc_lost(self) -> float:
        return 0.0 if self.auroc_before is None else self.auroc_before - self.auroc_after

    def __str__(self) -> str:
        aurocs = "image AUROC n/a (no labeled images)"
        if self.auroc_before is not None:
            aurocs = f"image AUROC {self.auroc_before:.4f} before, {self.auroc_after:.4f} after"
        share = self.decisions_changed / self.count
        return f"{self.count} {self.of}: {aurocs}; {self.decisions_changed} decisions changed ({share:.1%})"


class QuantizedPatches:
    """Stands in for a method's `Patches`: float32 (b, 3, h, w) of 8-bit images -> vectors, by onnxruntime."""

    def __init__(self, proto, takes_floats: bool, channels: Sequence[int]) -> None:
        self.channels = channels
        self._session = _session(proto)
        self._takes_floats = takes_floats

    def bands(self, images: Tensor, seen: Callable[[Tensor, slice, slice], Tensor] = part_of) -> Iterator[Band]:
        """All in one: images that are cut into tiles are not exported."""
        images = seen(images, ALL, ALL)
        given = images if self._takes_floats else images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
        (vectors,) = self._session.run(None, {IMAGES: np.ascontiguousarray(given.numpy())})
        yield Band(torch.from_numpy(vectors), 0, tuple(vectors.shape[1:3]))


def refitted(
    model: Inspector, normals: Sequence[Tensor], takes_floats: bool = False, seven_bits: bool = False
) -> Inspector:
    """The model with statistics and thresholds learned through its int8 encoder from the same normals, the images
    that it was fitted to. Raises UserError where they are others, or too few for a threshold of their own."""
    check_same(model, normals)
    vectors = PatchVectors(model.method, model.size_px, takes_floats).eval().requires_grad_(False)
    proto = quantized(onnx_model(vectors, ("vectors",)), normals, takes_floats, seven_bits)
    method = copy.copy(model.method)
    method._patches = QuantizedPatches(proto, takes_floats, vectors.channels)
    method.refer(normals)
    scores, peaks = method.normal_scores_.numpy(), method.normal_peaks_.numpy()
    map_threshold = model.map_threshold and threshold_from_normals(peaks, model.map_threshold.false_alarm_rate)
    return replace(
        model,
        method=method,
        threshold=threshold_from_normals(scores, model.threshold.false_alarm_rate),
        map_threshold=map_threshold,
        normal_scores=scores.tolist(),
    )


def check_same(model: Inspector, normals: Sequence[Tensor]) -> None:
    """Raises UserError unless these are what the model was fitted to, as the means of their patches show."""
    if len(normals) < MIN_OWN_NORMALS:
        raise UserError(
            f"the model was fitted to {len(normals)} normals, and int8 takes {MIN_OWN_NORMALS} to find its "
            "threshold anew: fit it to more, or export --to onnx."
        )
    for position in (0, len(normals) // 2, len(normals) - 1):
        (seen,) = model.method.region.within(model.method.patches(normals[position][None])).mean(1)
        kept = model.method.pooled_[position]
        if (seen - kept).norm() > SAME_MEAN * kept.norm():
            raise UserError(
                "the good images in --data are not those that the model was fitted to: name the folder that "
                "detect.py fit was given, or fit the model anew."
            )


def quantized(proto, normals: Sequence[Tensor], takes_floats: bool = False, seven_bits: bool = False):
    """An ONNX graph whose encoder computes in int8, its scales calibrated on normals. The rest stays fp32."""
    import onnx  # optional, as onnxruntime is: the extra `export`
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    eight_bits = {name: [{"axis": 0, "reduce_range": False}] for name in _depthwise_weights(proto)}
    with scratch_folder("heldout-int8") as folder, _silent():
        quantize_static(
            proto,
            folder / "int8.onnx",
            _Calibration(normals, takes_floats),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=_nodes_of_encoder(proto),
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Pairs of products then fit into 16 bits: see `saturates`. Depthwise sums are formed in 32 bits everywhere.
            reduce_range=seven_bits,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE, "TensorQuantOverrides": eight_bits},
        )
        return onnx.load(folder / "int8.onnx")


def _nodes_of_encoder(proto) -> list[str]:
    """The encoder's convolutions, and what cuts off, adds up and pools between them. What follows the encoder chooses,
    averages and compares; there 8 bits would cost more than time.

    Activations are named too: the convolution before one then rounds to the range that it leaves, and it vanishes. Left
    out, each of Lite0's ReLU6, a Clip with constant bounds, was an island of fp32 (12.1 ms an image instead of 8.9).
    The first convolution stays fp32: with three channels 8 bits save it no time, and its rounding reaches everything
    (Lite0's vectors were 0.39 of their spread off with it, 0.33 without, and took 8.4 ms instead of 6.9).
    """
    constants = {each.name for each in proto.graph.initializer}
    inside, first, chosen = set(), set(), []
    for node in proto.graph.node:
        given = {*node.input} - constants
        if node.op_type == "Conv":
            is_inside = "encoder.stages." in node.input[1]
        else:
            is_inside = node.op_type in QUANTIZED and inside >= given
        if not is_inside:
            continue
        if not inside or (node.op_type in ACTIVATIONS and first >= given):
            first.update(node.output)
        else:
            chosen.append(node.name)
        inside.update(node.output)
    if not chosen:
        raise UserError("no convolution was found that int8 could be used for: export --to onnx.")
    return chosen


def _depthwise_weights(proto) -> list[str]:
    """Of convolutions of one channel each."""
    convolutions = (node for node in proto.graph.node if node.op_type == "Conv")
    return [node.input[1] for node in convolutions if any(a.name == "group" and a.i > 1 for a in node.attribute)]


def saturates() -> bool:
    """Whether this processor multiplies 8-bit integers wrongly: those of x86 without VNNI add up pairs of products in
    16 bits, and onnxruntime lets them. With weights of 8 bits Lite0's vectors are noise there, 1.3 times their spread
    off, and no faster."""
    from onnx import TensorProto, helper  # optional, as above

    largest = np.full((64, 16), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", [IMAGES, "weights"], ["sums"])],
        "saturation",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, [8, 64])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [8, 16])],
        [helper.make_tensor("weights", TensorProto.INT8, largest.shape, largest.tobytes(), raw=True)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    (sums,) = _session(proto).run(None, {IMAGES: np.full((8, 64), 255, np.uint8)})
    return bool((sums != 255 * 127 * 64).any())


def drift(before: np.ndarray, after: np.ndarray, thresholds: tuple[float, float], labels: np.ndarray, of: str) -> Drift:
    """Of scores (n,) by the model and by the file, each with its threshold. `labels` bool (n,)."""
    aurocs = (None, None)
    if 0 < labels.sum() < len(labels):
        aurocs = tuple(float(roc_auc_score(labels, scores)) for scores in (before, after))
    decided = [scores > np.float32(value) for scores, value in zip((before, after), thresholds, strict=True)]
    return Drift(len(before), of, *aurocs, int((decided[0] != decided[1]).sum()))


def quantized_probe_score(proto, graph: InspectionGraph) -> float:
    """What a quantized graph says of the image that is tried wherever its file is opened."""
    answer = _session(proto).run(None, {IMAGES: probe_image(graph.size_px, graph.takes_floats)})
    return float(answer[0][0])


def _session(proto):
    import onnxruntime  # optional: the extra `export`

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Calibration:
    """What onnxruntime asks for images to calibrate on, one at a time."""

    def __init__(self, normals: Sequence[Tensor], takes_floats: bool) -> None:
        most = max(1, min(CALIBRATED_ON, CALIBRATED_PIXELS // normals[0][0].numel()))
        self._images = (normals[position] for position in some_of(len(normals), most))
        self._takes_floats = takes_floats

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        if image is None:
            return None
        if not self._takes_floats:
            image = image.mul(255).round().to(torch.uint8).permute(1, 2, 0)
        return {IMAGES: np.ascontiguousarray(image.numpy()[None])}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """onnxruntime's quantization prints, and warns by the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)

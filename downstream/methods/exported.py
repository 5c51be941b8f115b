"""A method as one exported file, ready for use: the graph does everything from pixels to the decision.

To run an ONNX file takes onnxruntime and numpy, and neither torch nor anything else of heldout's; this is the runner
that makes it answer as a native method does. All that `inspector.json` says of a model is in the file too.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, NoReturn, Self

import numpy as np

from baselines.contract.model_folder import check_format
from downstream.methods import openvino_runtime
from downstream.methods.openvino_runtime import open_openvino
from pretrain.command import UserError
from pretrain.data.size import Size, named, sides
from pretrain.files import DIGEST_KEY, NO_DIGEST
from pretrain.reading import parse_json, read_regular

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2  # 2: names in the header
HEADER_KEY = "heldout"
IMAGES, OUTPUTS = "images", ("score", "map", "is_anomalous")
SUFFIX, OPENVINO_SUFFIX = ".onnx", openvino_runtime.SUFFIX
RUNTIMES = ("onnxruntime", "openvino")
# A package's name that says where it runs too.
ON_CUDA = "onnxruntime-gpu"
DEVICES = ("auto", "cpu", "cuda")
# fp32 that is fp32, as for all methods: TF32 would move scores by 1e-3. A search for algorithms takes seconds at first.
CUDA = ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
CPU = "CPUExecutionProvider"
# Further from a whole number of 255ths, an image is not one of 8 bits.
MAX_ROUNDED = 1e-2
# How far a graph's answer may be, relative, from what it was where the file was made: other processors round otherwise.
TOLERANCE, TOLERANCE_INT8 = 1e-3, 0.05


class ExportedPrediction(NamedTuple):
    """A `Prediction` that is made of arrays, and the decisions that the graph itself takes: float32 (b,), float32
    (b, h, w), bool (b,)."""

    scores: "np.ndarray | Tensor"
    maps: "np.ndarray | Tensor"
    is_anomalous: "np.ndarray | Tensor"

    def cpu(self) -> "ExportedPrediction":
        """Where it lies already."""
        return self


class Exported:
    """Fulfills the contract `Method`, but for learning. Images are arrays uint8 (h, w, 3), or tensors float32
    (3, h, w) in [0, 1], of the size that the method was fitted at; answers are arrays or tensors accordingly.

    `metadata` is what `downstream/export.py` wrote into the file. `device` is cpu, cuda, or auto for a GPU where
    onnxruntime has one; `providers` are onnxruntime's in its place. `runtime` is onnxruntime, onnxruntime-gpu (the same
    with device cuda), or openvino, which alone runs its own files. `threads` default to OMP_NUM_THREADS, else to all
    cores. Raises UserError for a file that cannot be used.
    """

    takes_pixels: ClassVar[bool] = True
    sees_normals: ClassVar[bool] = True

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int = 16,
        threads: int | None = None,
        device: str = "cpu",
        providers: Sequence[str | tuple[str, dict]] = (),
        runtime: str | None = None,
    ) -> None:
        self.path, self.batch_size = Path(path), batch_size
        self._threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
        if not self.path.is_file():
            raise UserError(f"there is no exported model {path}; python downstream/export.py MODEL makes one.")
        if self.path.suffix not in (SUFFIX, OPENVINO_SUFFIX):
            raise UserError(f"{path} is no exported model: name a folder that detect.py fit wrote, or an ONNX file.")
        if runtime == ON_CUDA:
            runtime, device = RUNTIMES[0], "cuda"
        self.runtime = runtime or RUNTIMES[self.path.suffix == OPENVINO_SUFFIX]
        if self.runtime not in RUNTIMES:
            raise UserError(f"there is no runtime {runtime}; choose from {', '.join((*RUNTIMES, ON_CUDA))}.")
        if self.path.suffix == OPENVINO_SUFFIX and self.runtime != "openvino":
            raise UserError(f"{path} is run by OpenVINO alone: leave out --runtime, or name an ONNX file.")
        self._open(device, providers)
        self.normal_scores_ = np.asarray(parse_json(self.inspector)["normal_scores"], np.float32)

    @property
    def inspector(self) -> str:
        """What stands in the model's `inspector.json`."""
        return self.metadata["inspector"]

    def predict(self, images: "Iterable[np.ndarray | Tensor]") -> Iterator[ExportedPrediction]:
        """Scores, maps and decisions, batch by batch, in the order of the images."""
        remaining = iter(images)
        while batch := list(islice(remaining, self.batch_size)):
            is_tensor = not isinstance(batch[0], np.ndarray)
            arrays = self._run(np.ascontiguousarray(np.stack([self._as_input(image) for image in batch])))
            if is_tensor:
                import torch  # whoever gives tensors has it; a run on arrays does without, and without its 1.5 s

                arrays = map(torch.from_numpy, arrays)
            yield ExportedPrediction(*arrays)

    def to(self, device: object) -> Self:
        """Opened again where another device is asked for; what it answers lies in main memory all the same."""
        asked = str(device).partition(":")[0]
        if asked != self.device:
            self._open(asked)
        return self

    def fit(self, training: Sequence) -> NoReturn:
        self._cannot_learn()

    def refer(self, normals: Sequence) -> NoReturn:
        self._cannot_learn()

    def save(self, folder: Path) -> NoReturn:
        raise UserError(f"{self.path} is one file, with all that it needs: copy it.")

    def _open(self, device: str, providers: Sequence = ()) -> None:
        try:
            data, weights = read_regular(self.path), b""
            if self.path.suffix == OPENVINO_SUFFIX:
                weights = _weights_of(data, self.path)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error}.") from None
        if self.runtime == "openvino":
            opened = open_openvino(data, weights, self.path, self._threads, _known_device(device), OUTPUTS)
        else:
            opened = _open_onnx(data, self.path, self._threads, _known_device(device), providers)
        header, self.device, self._run = opened
        self.metadata = _checked(header, self.path)
        digest = self.metadata.get(DIGEST_KEY)  # none in files from before 0.1
        if digest is not None and digest != file_digest(data + weights, str(digest)):
            raise UserError(f"{self.path} is damaged: its digest is not what its header says; export the model again.")
        stored_px, self.takes_floats = self.metadata["size_px"], self.metadata["takes_floats"]
        self.size_px = tuple(stored_px) if isinstance(stored_px, list) else stored_px
        self._try()

    def _try(self) -> None:
        """Raises UserError where the graph does not answer as it did where the file was made."""
        score = float(self._run(probe_image(self.size_px, self.takes_floats))[0][0])
        is_int8 = self.metadata["type"] == "onnx-int8"
        expected, allowed = self.metadata["probe_score"], TOLERANCE_INT8 if is_int8 else TOLERANCE
        if not abs(score - expected) <= allowed * abs(expected):
            why = " or this processor lacks VNNI (then export with --seven-bits)" if is_int8 else ""
            raise UserError(
                f"{self.path} answers {score:.5g} here to an image that it gave {expected:.5g} where it was made: the "
                f"file is damaged{why}; export the model again."
            )

    def _cannot_learn(self) -> NoReturn:
        raise UserError(f"{self.path} is exported and learns no more: fit the model again, and export it again.")

    def _as_input(self, image: "np.ndarray | Tensor") -> np.ndarray:
        """One image as the graph takes it. Raises UserError for another size, and where 8 bits would lose something."""
        values = np.asarray(image)
        is_pixels = values.dtype == np.uint8
        height, width = values.shape[:2] if is_pixels else values.shape[1:]
        if (height, width) != sides(self.size_px):
            raise UserError(
                f"an image of {width}x{height} pixels does not fit {self.path}, which takes {named(self.size_px)} "
                "pixels: stretch it to that, as detect.py run does."
            )
        if is_pixels == (not self.takes_floats):
            return values
        if is_pixels:
            return values.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        levels = values.transpose(1, 2, 0) * 255
        rounded = np.rint(levels)
        if np.abs(levels - rounded).max() > MAX_ROUNDED:
            raise UserError(f"{self.path} takes images of 8 bits, and this one has more: export with --input float.")
        return rounded.clip(0, 255).astype(np.uint8)


def file_digest(data: bytes, named: str) -> str:
    """Of an exported file, as it was before its header `named` its own digest."""
    return blake2b(named_in(data, named, NO_DIGEST), digest_size=16).hexdigest()


def kept_weights(path: Path) -> Path:
    """Where OpenVINO's old weights lie while new ones take their place."""
    return path.with_name(f".{path.stem}{openvino_runtime.WEIGHTS_SUFFIX}.old")


def go_together(graph: bytes, weights: bytes) -> bool:
    """Whether OpenVINO's two files have the digest that stands in the first."""
    named = re.search(rb"&quot;%s&quot;: &quot;([0-9a-f]{32})&quot;" % DIGEST_KEY.encode(), graph)
    return named is not None and file_digest(graph + weights, named[1].decode()) == named[1].decode()


def _weights_of(graph: bytes, path: Path) -> bytes:
    """Those beside a graph of OpenVINO's, or where a writer was killed before the new graph was there, the old ones."""
    weights, kept = read_regular(path.with_suffix(openvino_runtime.WEIGHTS_SUFFIX)), kept_weights(path)
    if kept.is_file() and not go_together(graph, weights) and go_together(graph, old := read_regular(kept)):
        return old
    return weights


def named_in(data: bytes, old: str, new: str) -> bytes:
    """The file with another digest in its header, which is JSON as it is, or within XML."""
    for quote in ('"', "&quot;"):
        before, after = (f"{quote}{DIGEST_KEY}{quote}: {quote}{digest}{quote}".encode() for digest in (old, new))
        data = data.replace(before, after, 1)
    return data


def probe_image(size_px: Size, takes_floats: bool) -> np.ndarray:
    """A batch of one striped image, the same everywhere, as a graph takes it."""
    rows, columns = map(np.arange, sides(size_px))
    pixels = ((rows[:, None] * 3 + columns * 2)[..., None] * (1, 2, 3) % 256).astype(np.uint8)[None]
    return pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255) if takes_floats else pixels


def _known_device(device: str) -> str:
    if device not in DEVICES:
        raise UserError(f"there is no device {device}; choose from {', '.join(DEVICES)}.")
    return device


def _open_onnx(data: bytes, path: Path, threads: int, device: str, providers: Sequence) -> tuple:
    """The header of an ONNX file, the device it runs on, and what runs it on a batch."""
    try:
        import onnxruntime  # optional: the extra `export`
    except ImportError:
        raise UserError(f"to run {path} takes onnxruntime: pip install onnxruntime.") from None
    has_cuda = CUDA[0] in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise UserError(
            f"onnxruntime has no CUDA here to run {path} on a GPU: pip install onnxruntime-gpu, or use --device cpu."
        )
    providers = providers or ([CUDA, CPU] if device != "cpu" and has_cuda else [CPU])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait by spinning take the cores from whoever shares the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors have no class of their own that could be named
        raise UserError(f"{path} cannot be run by onnxruntime {onnxruntime.__version__}: {_reason(error)}") from None

    def run(batch: np.ndarray) -> list[np.ndarray]:
        return session.run(OUTPUTS, {IMAGES: batch})

    # With a build that knows CUDA but finds no GPU, onnxruntime goes on without a word.
    is_on_gpu = CUDA[0] in session.get_providers()
    if device == "cuda" and not is_on_gpu:
        raise UserError(f"onnxruntime finds no GPU here to run {path} on; use --device cpu.")
    return session.get_modelmeta().custom_metadata_map.get(HEADER_KEY), "cuda" if is_on_gpu else "cpu", run


def _checked(header: str | None, path: Path) -> dict:
    """The metadata in a header. Raises UserError for a file that is another program's, or newer, or damaged."""
    if not header:
        raise UserError(f"{path} was not written by heldout's downstream/export.py: it lacks thresholds and all else.")
    try:
        metadata = parse_json(header)
        check_format(path, metadata["format"], FORMAT, "export")
        if missing := {"inspector", "size_px", "takes_floats", "type", "probe_score"} - set(metadata):
            raise KeyError(min(missing))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the header of {path} is damaged ({error}): export the model again.") from None
    return metadata


def _reason(error: Exception) -> str:
    """What onnxruntime says, and what to do."""
    words = " ".join(str(error).split())
    if any(sign in words for sign in ("opset", "IR version", "not a registered function/op", "No Op registered")):
        return f"it was written for a newer one; pip install --upgrade onnxruntime (... {words[-120:]})"
    if "Protobuf" in words or "INVALID_PROTOBUF" in words:
        return "it is damaged, cut off or no ONNX file; export the model again."
    return words[:200]

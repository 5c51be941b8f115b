"""An exported file run by OpenVINO on a CPU: the ONNX file itself, or OpenVINO's own form of it, NAME.xml and NAME.bin.

It computes in fp32 as onnxruntime does; left to itself, OpenVINO takes bf16 on processors that have it.
"""

import sys
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np

from pretrain.command import UserError, installed_by
from pretrain.files import HEADER_KEY

SUFFIX, WEIGHTS_SUFFIX = ".xml", ".bin"
TELEMETRY = "openvino_telemetry"
# Of protobuf: ModelProto's metadata_props, and in each of them key and value.
METADATA_PROPS, KEY, VALUE = 14, 1, 2
VARINT, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES = 0, 1, 2, 5


def open_openvino(
    data: bytes, weights: bytes, path: Path, threads: int, device: str, outputs: tuple[str, ...]
) -> tuple:
    """The header of a file that was read, the device it runs on, and what runs it on a batch. Raises UserError where
    OpenVINO is missing, cannot run the file, or is asked for a GPU."""
    openvino = imported_openvino(f"to run {path} by OpenVINO")
    if device == "cuda":
        raise UserError(f"OpenVINO has no CUDA to run {path} on: use --device cpu, or --runtime onnxruntime.")
    core = the_core(openvino)
    if "CPU" not in core.available_devices:
        raise UserError(f"OpenVINO finds no CPU that it knows here to run {path} on: use --runtime onnxruntime.")
    wanted = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if threads:
        wanted["INFERENCE_NUM_THREADS"] = threads
    try:
        is_ir = path.suffix == SUFFIX
        model = core.read_model(data, weights) if is_ir else core.read_model(BytesIO(data))
        header = model.get_rt_info(HEADER_KEY).astype(str) if is_ir else onnx_header(data)
        compiled = core.compile_model(model, "CPU", wanted)
    except Exception as error:  # of OpenVINO's errors some are RuntimeError, some their own
        raise UserError(f"{path} cannot be run by OpenVINO {openvino.__version__}: {_reason(error)}") from None

    def run(batch: np.ndarray) -> list[np.ndarray]:
        answered = compiled.infer_new_request({0: batch})
        return [np.array(answered[name]) for name in outputs]

    return header, "cpu", run


@cache
def the_core(openvino: ModuleType):
    """The one openvino.Core of this process. Each gives signals a stack of its own and puts back the one before it when
    it goes: of two that go in the order in which they came, the second puts back one that is gone, and the next Ctrl-C
    or SIGTERM ends the process without a word (2026.4)."""
    return openvino.Core()


def imported_openvino(purpose: str) -> ModuleType:
    """The package, which reports to its makers that it was imported, unless the package by which it does so is missing:
    so that one is hidden from it meanwhile. Raises UserError where it is not installed."""
    hidden = sys.modules.setdefault(TELEMETRY, None) is None
    try:
        import openvino  # optional: the extra `openvino`
    except ImportError:
        raise UserError(f"{purpose} takes openvino: {installed_by('openvino')}.") from None
    finally:
        if hidden:
            del sys.modules[TELEMETRY]
    return openvino


def onnx_header(data: bytes) -> str | None:
    """What stands under HEADER_KEY in an ONNX file's metadata, without the package onnx. Raises ValueError for what is
    no protobuf."""
    for number, value in _fields(data):
        if number == METADATA_PROPS:
            entry = dict(_fields(value))
            if bytes(entry.get(KEY, b"")) == HEADER_KEY.encode():
                return bytes(entry.get(VALUE, b"")).decode()
    return None


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number and the bytes of every field of a message that has a length; the others are passed over."""
    view, position = memoryview(data), 0
    while position < len(view):
        tag, position = _varint(view, position)
        size = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(tag & 7)
        if size is None:
            size, position = _varint(view, position)
            size = 0 if tag & 7 == VARINT else size
        if tag & 7 not in (VARINT, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES) or position + size > len(view):
            raise ValueError("it is damaged, cut off or no ONNX file")
        if tag & 7 == LENGTH_DELIMITED:
            yield tag >> 3, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise ValueError("it is damaged, cut off or no ONNX file")
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{(lines or [type(error).__name__])[-1][:200]}; export the model again, or update openvino."

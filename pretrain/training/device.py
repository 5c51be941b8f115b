"""Which device, what is faster on it, and how images get there."""

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from pretrain.command import UserError
from pretrain.data.dataset import ImageSet

DEVICES = ("auto", "cpu", "cuda")


def choose_device(device: str) -> torch.device:
    """auto is the GPU where there is one, which stderr says once. Raises UserError for a GPU that torch does not
    find."""
    if device not in DEVICES:
        raise UserError(f"there is no device {device}; choose from {', '.join(DEVICES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "torch finds no CUDA device here; use --device cpu, or install a torch build that fits the GPU."
        )
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if device == "auto":
        _say_gpu()
    return torch.device("cuda")


@cache
def _say_gpu() -> None:
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"on the GPU, {torch.cuda.get_device_name()}; --device cpu takes the CPU", file=sys.stderr, flush=True)


def transferred(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. From main memory to a GPU by way of pinned memory: the CPU goes on meanwhile."""
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions in fp32 that are fp32: cuDNN else rounds what it multiplies to TF32, 1e-3 of its value, and an
    image near the threshold would be good on one device and defective on the other."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def has_bf16(accelerator: str) -> bool:
    """Whether bf16 is faster than fp32 here. On a CPU that has instructions for it, it is tried: between processors
    that have them, training was measured from 1.5 times faster to 1.4 times slower."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    # Several processes must not come to different answers.
    if not supported or not supported() or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return False
    return _convolution_seconds(torch.bfloat16) < _convolution_seconds(torch.float32)


def _convolution_seconds(dtype: torch.dtype) -> float:
    """The best time of a convolution like those of a ResNet, forward and back, some 20 ms each."""
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    images = torch.ones(32, 64, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    seconds = []
    for _ in range(4):  # the first one chooses a kernel
        start_s = time.perf_counter()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            layer(images).float().sum().backward()
        seconds.append(time.perf_counter() - start_s)
    return min(seconds)


@contextmanager
def kernels(deterministic: bool) -> Iterator[None]:
    """For a training on a GPU: nothing but kernels that give the same bits every time, where torch has such, else an
    error; or for each convolution the fastest, which is tried out once. On a CPU bits are the same anyhow."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product of matrices
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was told: a clock that is read before says nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class DeviceImages:
    """Positions -> uint8 (b, h, w, 3) on a device. On a GPU, all images lie there from the start if they fit into a
    quarter of its free memory, so that it never waits for the disk; else those of the next step can be read ahead."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self._images, self._device, self._everything = images, device, None
        self._ahead: tuple[list[int], Future] | None = None
        shape = (len(images), images.size_px, images.size_px, 3)
        is_gpu = device.type == "cuda"
        if is_gpu and math.prod(shape) < torch.cuda.mem_get_info(device)[0] / 4:
            self._everything = torch.empty(shape, dtype=torch.uint8, device=device)
            for start in range(0, len(images), 256):
                part = range(start, min(start + 256, len(images)))
                self._everything[start : part.stop] = transferred(torch.from_numpy(images.batch(part)), device)
        self.can_read_ahead = is_gpu and self._everything is None
        self._reader = ThreadPoolExecutor(1, "reading ahead") if self.can_read_ahead else None
        self._copying = torch.cuda.Stream(device) if self.can_read_ahead else None

    def __call__(self, positions: Sequence[int]) -> Tensor:
        if self._everything is not None:
            return self._everything[transferred(torch.as_tensor(positions), self._device)]
        if self._ahead and self._ahead[0] == list(positions):
            (_, pixels), self._ahead = self._ahead, None
            return self._beside_the_work(pixels.result())
        return transferred(torch.from_numpy(self._images.batch(positions)), self._device)

    def read_ahead(self, positions: Sequence[int]) -> None:
        """Read into pinned memory what will be asked for next, while the GPU is at work."""
        self._ahead = list(positions), self._reader.submit(self._pinned, positions)

    def _pinned(self, positions: Sequence[int]) -> Tensor:
        return torch.from_numpy(self._images.batch(positions)).pin_memory()

    def _beside_the_work(self, pinned: Tensor) -> Tensor:
        """Copied while the GPU still computes the steps before."""
        working = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._copying):
            pixels = pinned.to(self._device, non_blocking=True)
        working.wait_stream(self._copying)
        pixels.record_stream(working)
        return pixels

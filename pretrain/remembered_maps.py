"""Feature maps that are asked for again: the methods of a study look at the same images through the same encoder.

    with remembered_maps():
        ...  # every `folded` encoder made here computes the maps of an image once, while there is room

On a CPU half of what a patch method takes is the encoder. Images are computed one by one: so maps depend on the image
alone and not, by rounding, on who asked for it first and with which others.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b

import torch
from torch import Tensor, nn

# EfficientNet-Lite0 at 224 px leaves half a megabyte an image: 8,000 images.
MOST_BYTES = 4 * 2**30


class MapMemory:
    """The maps of single images, in at most `most_bytes`; what was asked for longest ago goes first. `saved_s` is what
    the maps that were not computed again took the first time."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes, self.saved_s = most_bytes, 0, 0.0
        self._kept: OrderedDict[tuple, tuple[dict[str, Tensor], float]] = OrderedDict()

    def maps(self, encoder: nn.Module, encoder_id: str, image: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        """The maps of one image (1, 3, h, w), of `levels` at least."""
        pixels = image.permute(0, 2, 3, 1).contiguous()  # nothing is copied where channels are innermost
        key = encoder_id, tuple(image.shape), blake2b(pixels.numpy(), digest_size=16).digest()
        if key in self._kept:
            maps, took_s = self._kept[key]
            if set(levels) <= maps.keys():
                self._kept.move_to_end(key)
                self.saved_s += took_s
                return maps
            self._drop(key)
        start_s = time.perf_counter()
        maps = encoder(image, levels)
        self._kept[key] = maps, time.perf_counter() - start_s
        self.bytes += _bytes(maps)
        while self.bytes > self.most_bytes:
            self._drop(next(iter(self._kept)))
        return maps

    def _drop(self, key: tuple) -> None:
        self.bytes -= _bytes(self._kept.pop(key)[0])


MEMORY: ContextVar[MapMemory | None] = ContextVar("MEMORY", default=None)


class Remembering(nn.Module):
    """An encoder that is asked and not trained, in front of which stands a memory. On a GPU it is asked every time:
    there, images one by one would take longer than all of them again."""

    def __init__(self, encoder: nn.Module, encoder_id: str, memory: MapMemory) -> None:
        super().__init__()
        self.encoder, self.encoder_id, self.memory = encoder, encoder_id, memory
        self.strides, self.input_size_px = encoder.strides, encoder.input_size_px

    @property
    def mean(self) -> Tensor:
        return self.encoder.mean

    def forward(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        if images.device.type != "cpu":
            return self.encoder(images, levels)
        found = [self.memory.maps(self.encoder, self.encoder_id, image, levels) for image in images.split(1)]
        return {level: torch.cat([maps[level] for maps in found]) for level in found[0] if level in levels}


@contextmanager
def remembered_maps(most_bytes: int = MOST_BYTES, memory: MapMemory | None = None) -> Iterator[MapMemory]:
    """Encoders that are folded inside remember the maps of images that they have seen; in a memory of before, where one
    is given."""
    before = MEMORY.set(memory or MapMemory(most_bytes))
    try:
        yield MEMORY.get()
    finally:
        MEMORY.reset(before)


def seconds() -> float:
    """Like time.perf_counter, but as if every map had been computed: what a method takes does not depend on which one
    was asked before it."""
    memory = MEMORY.get()
    return time.perf_counter() + (memory.saved_s if memory else 0.0)


def _bytes(maps: dict[str, Tensor]) -> int:
    return sum(part.nbytes for part in maps.values())

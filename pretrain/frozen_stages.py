"""Frozen first stages, and the maps that they give of views, computed once.

A frozen stage gives the same map of the same view every time, but views are others in every step: nothing could be
kept. With `--cached-views K` an image therefore has K pairs of views and no more, drawn from the seed, a pair's number
and the image's place in the data; epoch e shows every image's pair e modulo K, in an order and in batches of its own.
The maps of all pairs after the last frozen stage are computed before the first step, so an epoch is the deeper stages
alone. They lie in a file that is mapped into memory, in the precision in which they were computed, so a step is the one
that would be computed from the same views. The file goes with the process: a run that is resumed computes it again, in
the same parts whatever the number of processes, and so to the same bits.
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from pretrain.backbone import LEVELS
from pretrain.command import UserError
from pretrain.config import Config
from pretrain.encoder import Encoder
from pretrain.files import scratch_folder
from pretrain.progress import Progress
from pretrain.training.device import transferred

IMAGES_AT_ONCE = 32
# Of a pair's number and places in the data: float32 (2b, 3, h, w), first views and then second ones.
ViewsOf = Callable[[int, np.ndarray], Tensor]


def freeze(encoder: Encoder, count: int) -> None:
    """No gradient for the stem and the first `count` stages. Raises UserError where nothing else learns."""
    for weights in encoder.stages.weights_until(LEVELS[count - 1]) if count else ():
        weights.requires_grad_(False)
    if not any(weights.requires_grad for weights in encoder.parameters()):
        raise UserError(
            f"with --freeze-stages {count} nothing of {encoder.architecture} is left to learn: freeze fewer stages."
        )


def keep_frozen(encoder: Encoder, count: int) -> None:
    """Eval mode for what is frozen: no batch statistics, nothing drawn at random."""
    for layer in encoder.stages.layers_until(LEVELS[count - 1]) if count else ():
        layer.eval()


class CachedMaps:
    """The maps that frozen stages, the last of which gives `level`, give of some pairs of views of `count` images. A
    context, in which they lie in a file below the run's folder; entering it computes them, which takes `minutes`.

    Several processes, all of which have that disk, compute a share each. Raises UserError where it has no room.
    """

    def __init__(self, encoder: Encoder, config: Config, count: int, views_of: ViewsOf, fabric: Fabric) -> None:
        self.level, self.minutes = LEVELS[config.freeze_stages - 1], 0.0
        self._encoder, self._config, self._count, self._views_of = encoder, config, count, views_of
        self._fabric, self._open = fabric, ExitStack()

    def __call__(self, epoch: int, places: np.ndarray) -> Tensor:
        """Those of the images at `places` in an epoch: (2b, channels, h, w), first views and then second ones."""
        pairs = self._maps[torch.from_numpy(places), epoch % self._config.cached_views]  # (b, 2, h, w, channels)
        return transferred(pairs.transpose(0, 1).flatten(0, 1), self._fabric.device).permute(0, 3, 1, 2)

    def __enter__(self) -> Self:
        began_s, leads = time.monotonic(), self._fabric.is_global_zero
        with ExitStack() as opened:
            folder = opened.enter_context(scratch_folder("frozen-stages", self._config.out)) if leads else None
            self._maps = self._mapped(Path(self._fabric.broadcast(str(folder))) / "maps")
            pairs, starts = range(self._config.cached_views), range(0, self._count, IMAGES_AT_ONCE)
            mine = [*product(pairs, starts)][self._fabric.global_rank :: self._fabric.world_size]
            with Progress("frozen stages", len(mine), "parts") if leads else nullcontext() as progress:
                for pair, start in mine:
                    part = self._part(pair, start)
                    self._maps[start : start + len(part), pair] = part
                    if progress:
                        progress.advance()
            self._fabric.barrier()
            self._open = opened.pop_all()
        self.minutes = (time.monotonic() - began_s) / 60
        return self

    def __exit__(self, *error: object) -> None:
        del self._maps
        self._open.close()

    def _mapped(self, file: Path) -> Tensor:
        """The whole file as a tensor (count, pairs, 2, h, w, channels), nothing computed yet."""
        part = self._part(0, 0)
        shape = torch.Size((self._count, self._config.cached_views, *part.shape[1:]))
        if self._fabric.is_global_zero:
            _make_room(file, shape.numel() * part.element_size(), f"{shape[1]} pairs of views of {shape[0]} images")
        self._fabric.barrier()
        return torch.from_file(str(file), shared=True, size=shape.numel(), dtype=part.dtype).view(shape)

    @torch.no_grad()
    def _part(self, pair: int, start: int) -> Tensor:
        """Of some images, those of one pair of views: (b, 2, h, w, channels), in main memory."""
        views = self._views_of(pair, np.arange(start, min(start + IMAGES_AT_ONCE, self._count)))
        with self._fabric.autocast():
            maps = self._encoder(views, (self.level,))[self.level]  # (2b, channels, h, w)
        return maps.permute(0, 2, 3, 1).unflatten(0, (2, -1)).transpose(0, 1).cpu()


def _make_room(file: Path, size: int, what: str) -> None:
    """A file of that size, all of it on the disk: a process that writes to what is mapped where there is none dies."""
    free = shutil.disk_usage(file.parent).free
    if size > free:
        raise UserError(
            f"the maps of {what} take {size / 1e9:.1f} GB, and where --out lies {free / 1e9:.1f} GB are free: give "
            "fewer --cached-views, a smaller --size-px or another --out."
        )
    print(f"frozen stages: maps of {what}, {size / 1e6:.0f} MB in {file.parent.parent} while it trains", flush=True)
    with open(file, "wb") as opened:
        opened.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, size)

"""What may be taken of memory: tiles that fit, and refusals before anything begins."""

import math

import pytest
from refusals import refusal

from baselines.trivial import MeanImage
from downstream.inspection import memory
from downstream.inspection.memory import Task, bytes_for, keep_within, members_of
from downstream.methods.ensemble import Ensemble
from downstream.methods.fused import Fused
from downstream.methods.patchcore import PatchCore

GIB = 2**30
TINY = {"encoder": "random", "architecture": "timm/test_resnet", "levels": ("level1", "level2")}


def needed(
    method: PatchCore | Ensemble, shape: tuple[int, int], tile_px: int | None, normals: int, **more: bool
) -> int:
    task = Task(shape, normals, getattr(method, "lights", 1), **more)
    return bytes_for(members_of(method, shape), task, tile_px)


@pytest.fixture
def sizes(monkeypatch):
    """A process of half a GiB, on a machine where 64 are free."""
    monkeypatch.setattr(memory, "own_memory_bytes", lambda: GIB // 2)
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: 64 * GIB)


def test_the_largest_tiles_that_fit_are_taken(sizes, monkeypatch):
    method, said = PatchCore(**TINY), []
    keep_within(method, 10_000, None, said.append)
    assert method.most_pixels is None and not said  # there is room
    keep_within(method, 10_000, 64, said.append)
    assert method.most_pixels is None and not said
    by_tile = [needed(method, (10_000, 10_000), tile_px, 0) for tile_px in (None, 1024, 256)]
    assert by_tile == sorted(by_tile, reverse=True)
    for name in ("MAP", "REGIONS"):  # so that what is seen decides
        monkeypatch.setattr(memory, name, 0)
    tight = needed(method, (20_000, 3000), 512, 0) / GIB
    keep_within(method, (20_000, 3000), tight, said.append)
    assert method.most_pixels == (512 + 448) ** 2 and method._opened_patches().tile_px == 512
    keep_within(method, 64, None, said.append)
    assert method.most_pixels is None
    assert len(said) == 1 and "are allowed: 0.9 megapixels are looked at at once" in said[0]


def test_an_encoder_is_asked_what_it_takes_where_that_may_matter(sizes):
    method, said = PatchCore(**TINY), []
    keep_within(method, 384, None, said.append)
    assert "bytes_per_pixel" not in vars(method._opened_patches())
    keep_within(method, 384, 2.0, said.append)  # less than the most that any encoder takes
    assert "bytes_per_pixel" in vars(method._opened_patches()) and method.tile_px is None and not said


def test_what_does_not_fit_is_refused_or_said(sizes, monkeypatch):
    method, said = Fused(**TINY), []
    typed = refusal(keep_within, method, 10_000, 1.5, said.append, "fused", 3)
    assert typed.startswith("fused takes about 2") and "--memory-gb allows 1.5" in typed and not said
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: GIB)
    keep_within(method, 10_000, None, said.append, "fused", 3)
    assert len(said) == 1 and "and 1.5 are free: a smaller --size-px takes less" in said[0]
    assert "cannot be: give the GiB" in refusal(keep_within, method, 64, 0.0, said.append)
    assert "bounds what padim, patchcore" in refusal(keep_within, MeanImage(), 64, 4, said.append, "mean")
    keep_within(MeanImage(), 64, None, said.append)
    assert len(said) == 1


def test_gaussians_scales_and_lights_count(sizes):
    shape = (4096, 4096)
    assert needed(Fused(**TINY), shape, 512, 3) > needed(PatchCore(**TINY), shape, 512, 3)
    gaussians = Fused(**TINY).gaussian_bytes(shape)  # learned, and once more as they are written
    assert needed(Fused(**TINY), shape, 256, 3) > needed(PatchCore(**TINY), shape, 256, 3) + 1.2 * gaussians
    options = dict(TINY)
    shared = {name: options.pop(name) for name in ("encoder", "architecture")}
    one, several = PatchCore(**TINY), Ensemble(method="patchcore", options=options, **shared)
    assert needed(several, shape, 512, 3) > needed(one, shape, 512, 3) + 3 * 4 * 4096**2
    lit = Ensemble(method="patchcore", options=options, lights=4, scales=(1.0,), **shared)
    assert needed(lit, shape, 512, 3) > needed(one, shape, 512, 3) + 4 * 3 * 4096**2 + 3 * 3 * 4096**2
    before = PatchCore(**TINY, foreground=0.5)
    means = 8 * math.prod(before._opened_patches().grid_of(shape)) * before._opened_patches().dimensions
    assert needed(before, shape, 512, 3) == needed(one, shape, 512, 3) + means


def test_aligning_and_rules_count(sizes, monkeypatch):
    method, shape = PatchCore(**TINY), (10_000, 10_000)
    plain = needed(method, shape, 256, 0)
    assert needed(method, shape, 256, 0, by_rule=True) > plain < needed(method, shape, 256, 0, aligns=True)
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: plain - GIB // 2)
    said = []
    keep_within(method, shape, None, said.append)
    assert not any("are free: a smaller" in line for line in said)
    keep_within(method, shape, None, said.append, by_rule=True)
    assert "are free: a smaller --size-px takes less" in said[-1]

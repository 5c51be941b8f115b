"""A hundred megapixels in 4 GiB, and that what is taken grows with an image no faster than its patches and its map."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from large_images import DEFECT_PX, surface
from memory_of_images import LIMITS, SMALL
from method_suite import predict
from torch.utils._python_dispatch import TorchDispatchMode

from downstream.methods import patchcore
from downstream.methods.fused import Fused
from downstream.methods.padim import PaDiM
from downstream.methods.patchcore import PatchCore

TESTS = Path(__file__).resolve().parents[2]
ONE_CORE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def lines_of(script: str, *arguments: object, cache: Path) -> list[str]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, **ONE_CORE, "PYTHONPATH": path, "HELDOUT_CACHE": str(cache)}
    command = [sys.executable, str(TESTS / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "most"), [("PatchCore", 32), ("Fused", 32), ("Ensemble", 64)])
def test_memory_grows_with_the_patches_and_not_with_copies_of_the_image(method, most, tmp_path):
    """Bytes a pixel. Three images take 9 and a map 4; in all 20 to 23 were measured, of two scales, with their maps and
    an image made smaller, 46 to 54. Where one image's patches were held beside the next one's, it was 19 more; as
    floats, with copies of them and with all maps at once, 141."""
    small, large = map(int, lines_of("memory_of_images.py", method, 384, 1280, cache=tmp_path))
    assert (large - small) / (1280**2 - 384**2) < most


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, given=(), named=None):
        made = function(*given, **(named or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("method_class", [PatchCore, Fused])
def test_nothing_that_is_made_of_an_image_is_larger_than_its_map(method_class, monkeypatch):
    """Nor than a tile: of all patches' 272 channels it would be four times that."""
    for module, limits in LIMITS.items():
        for name, value in limits.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("embeddings.patches.TILE_PX", 128)
    side = 640
    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(3)]
    with Largest() as largest:
        method = method_class(**SMALL).fit([]).refer(images[:2])
        (found,) = method.predict(images[2:])
    assert found.maps.shape == (1, side, side) and largest.bytes == found.maps.nbytes


@pytest.mark.parametrize("method_class", [PaDiM, Fused])
def test_a_defect_of_twelve_pixels_is_found_by_gaussians_that_patches_share(method_class, monkeypatch):
    """At native resolution, of a texture that begins elsewhere in each image."""
    monkeypatch.setattr("downstream.methods.padim.MAX_LARGE_GAUSSIAN_BYTES", 2**22)
    monkeypatch.setattr(patchcore, "MIN_PATCHES", 512)
    side = 928
    normals = [torch.from_numpy(surface(side, seed)).permute(2, 0, 1) for seed in range(4)]
    bad, (left, top) = normals.pop().clone(), (250, 650)
    bad[:, top : top + DEFECT_PX, left : left + DEFECT_PX] = 10
    small = {"encoder": "random", "architecture": "timm/test_resnet", "dimensions": 24, "levels": ("level1", "level2")}
    more = {"coreset_ratio": 0.001} if method_class is Fused else {}
    method = method_class(**small, **more).fit([]).refer(normals)
    assert method.patch_sum_.shape[:2] == (116, 116) and method.cells_.shape[1] > 10
    found = predict(method, [bad])
    assert found.scores > method.normal_scores_.max() and found.maps.max() > 1.2 * method.normal_peaks_.max()
    row, column = divmod(int(found.maps[0].argmax()), side)
    assert abs(row - top - 6) < 16 and abs(column - left - 6) < 16


@pytest.mark.slow
@pytest.mark.parametrize("method", ["patchcore", "fused"])
def test_a_defect_of_twelve_pixels_is_found_in_a_hundred_megapixels_in_4_gib(method, tmp_path):
    """As a user would: `fit --size-px native --memory-gb 4` on three images of 10,000 px, and `run`."""
    images, options = tmp_path / "images", ("--method", method, "--memory-gb=4")
    lines = lines_of("large_images.py", images, 10_000, *options, cache=tmp_path / "cache")
    (found,) = (json.loads(line.removeprefix("measured ")) for line in lines if line.startswith("measured "))
    assert found["exit"] == 1 and found["is_found"]
    assert max(found["fit_bytes"], found["run_bytes"]) < 4 * 2**30

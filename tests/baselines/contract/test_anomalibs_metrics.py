"""AUPRO and AUPIMO beside those of anomalib, which is no dependency: an environment of its own has it, the one whose
Python is in PEER_PYTHON, or one that is made."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from baselines.contract.aupimo import aupimo
from baselines.contract.pixel_metrics import pixel_figures
from scripts.benchmarks.patches import PEER
from scripts.benchmarks.peers import peer_python

SCRIPT = Path(__file__).resolve().parents[2] / "anomalib_metrics.py"


@pytest.mark.slow
def test_aupro_and_aupimo_are_anomalibs(tmp_path):
    """AUPIMO's rates are of whole pixels there, and interpolated here: it agrees to a thousandth."""
    generator, masks = np.random.default_rng(0), np.zeros((6, 256, 256), dtype=bool)
    maps = np.stack([gaussian_filter(generator.random((256, 256)), 3) for _ in masks])
    for image, mask in enumerate(masks[3:]):
        for top, left, side in ((20, 30, 12 + 8 * image), (150, 90, 25)):
            mask[top : top + side, left : left + side] = True
    maps = ((maps - maps.min()) / (maps.max() - maps.min())).astype(np.float32)
    strength = np.array([0, 0, 0, 0.25, 0.4, 0.6], np.float32)[:, None, None]
    maps += strength * np.stack([gaussian_filter(mask.astype(np.float32), 2) for mask in masks])
    np.savez(tmp_path / "maps.npz", maps=maps, masks=masks)
    python = os.environ.get("PEER_PYTHON") or peer_python("anomalib", PEER)
    command = [python, SCRIPT, tmp_path / "maps.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("measured "))
    theirs, ours = json.loads(line.removeprefix("measured ")), pixel_figures(maps, masks, None)
    assert ours.aupro == pytest.approx(theirs["aupro"], abs=1e-5)
    assert ours.aupro_5 == pytest.approx(theirs["aupro_5"], abs=1e-5)
    found = aupimo(maps[:3], maps[3:], masks[3:])
    assert found.tolist() == pytest.approx(theirs["aupimo"], abs=2e-3)
    assert 0 < found.min() < found.max() <= 1 and 0.1 < ours.aupro_5 < ours.aupro < 0.99

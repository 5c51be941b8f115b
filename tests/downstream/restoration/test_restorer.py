"""The restorer with an encoder: what it learns, whose weights it changes, and its memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from pair_folders import smooth

from baselines.contract.metrics import psnr
from baselines.restoration.pairs import SyntheticPairs
from downstream.restoration.config import Train
from downstream.restoration.restorer import EncoderRestorer, make_restorer
from pretrain.encoder import Encoder, fingerprint

SMALL = {"steps": 6, "crop_px": 32, "batch_size": 2}


@pytest.fixture(scope="module")
def pairs() -> SyntheticPairs:
    return SyntheticPairs(smooth(4, 48, 48), "medium", 32, 100, 0, "cpu")


def test_ours_learns_to_restore_within_seconds():
    pairs = SyntheticPairs(smooth(4, 64, 64), "harsh", 48, 1000, 0, "cpu")
    options = {**SMALL, "steps": 50, "batch_size": 4, "learning_rate": 3e-3}
    restorer = EncoderRestorer(**options, channels=32, blocks=1).fit(pairs)
    degraded, clean, masks = SyntheticPairs(smooth(8, 64, 64, seed=5), "harsh", 64, 100, 9, "cpu").batch(range(8))
    restored = restorer.restore(degraded)
    assert (psnr(restored, clean) - psnr(degraded, clean)).mean() > 1.5
    assert (psnr(restored, clean, masks) - psnr(degraded, clean, masks)).mean() > 0


def test_the_encoder_is_frozen_and_then_trained_but_never_the_one_that_was_given(pairs):
    encoder = Encoder("resnet18", 3).eval()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    frozen = EncoderRestorer(**SMALL, encoder=encoder, channels=16, blocks=1, frozen=1.0).fit(pairs)
    tuned = EncoderRestorer(**SMALL, encoder=encoder, channels=16, blocks=1, frozen=0.5).fit(pairs)
    for name, weight in before.items():
        assert torch.equal(encoder.state_dict()[name], weight)
        assert torch.equal(frozen.network_.encoder.state_dict()[name], weight)
    changed = {
        name for name, weight in before.items() if not torch.equal(tuned.network_.encoder.state_dict()[name], weight)
    }
    assert any("level1" in name for name in changed) and not any("running" in name for name in changed)
    assert not any("level4" in name for name in changed)  # it is not used


def test_it_begins_with_imagenets_weights_and_its_control_has_the_same_architecture(capsys):
    encoder = EncoderRestorer().make_network().encoder
    assert (encoder.architecture, encoder.started_from.name) == ("efficientnet_lite0", "imagenet")
    control = make_restorer(Train(encoder=Path("random"), seed=4)).encoder
    assert (control.architecture, control.started_from.name) == ("efficientnet_lite0", "random")
    assert fingerprint(control) == fingerprint(Encoder("efficientnet_lite0", 4))
    assert "encoder: random" in capsys.readouterr().out


def test_ours_folded_for_use_is_ours_as_it_learned(pairs):
    restorer = EncoderRestorer(**SMALL, channels=16, blocks=1, frozen=0.5).fit(pairs)
    images = torch.rand(1, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(
            restorer.network_(images).clamp(0, 1), restorer.restore(images), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_memory_stays_within_what_is_allowed():
    """Of 600 x 600 pixels, whole, the network would take some 100 MB."""
    code = """
import resource, sys
sys.path.insert(0, ".")
import torch
from downstream.restoration.restorer import EncoderRestorer
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
restorer = EncoderRestorer(memory_mb=30)
restorer.finish(restorer.make_network())
restorer.restore(torch.rand(1, 3, 64, 64))
image = torch.rand(1, 3, 600, 600)
before = peak_mb()
restorer.restore(image)
print(peak_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    beside_mb = 4 * 3 * 600**2 * 4 / 1e6  # the sums, and what is cut of them
    assert float(done.stdout) < 30 + beside_mb

"""Degradation: published, seeded, a function of nothing but the seed, the image and its key."""

import math
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY

from baselines.contract.metrics import psnr
from pretrain.command import UserError
from pretrain.degrade import SEVERITIES, Severity, degrade, describe, draw_amounts

NOTHING = Severity()


def make_images(count: int = 3, height: int = 40, width: int = 56) -> torch.Tensor:
    coarse = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def test_a_severity_of_nothing_leaves_images_alone():
    images = make_images()
    assert torch.equal(degrade(images, NOTHING, 0, [0, 1, 2]), images)


def test_neither_batch_nor_order_nor_process_matters():
    images = make_images()
    whole = degrade(images, "medium", 7, ["a", b"\x01", 5])
    torch.testing.assert_close(degrade(images.flip(0), "medium", 7, [5, b"\x01", "a"]).flip(0), whole)
    for position, key in enumerate(["a", b"\x01", 5]):
        torch.testing.assert_close(degrade(images[position : position + 1], "medium", 7, [key])[0], whole[position])
    code = (
        "import sys\nsys.path[:0] = ['.', 'tests', 'tests/pretrain']\n"
        "from test_degrade import make_images\nfrom pretrain.degrade import degrade\n"
        "print(degrade(make_images(), 'medium', 7, ['a', b'\\x01', 5]).double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(whole.double().sum().item(), rel=1e-6)


def test_seed_and_key_change_everything_and_torchs_own_generator_nothing():
    images = make_images(1)
    first = degrade(images, "harsh", 0, [0])
    torch.manual_seed(99)
    assert torch.equal(degrade(images, "harsh", 0, [0]), first)
    assert not torch.equal(degrade(images, "harsh", 1, [0]), first)
    assert not torch.equal(degrade(images, "harsh", 0, [1]), first)
    assert draw_amounts(SEVERITIES["harsh"], 0, 0) != draw_amounts(SEVERITIES["harsh"], 0, 1)


def test_severities_rise_and_stay_in_range():
    images = make_images(8, 64, 64)
    means = [psnr(degrade(images, name, 0, range(8)), images).mean() for name in ("mild", "medium", "harsh")]
    assert means[0] > means[1] + 3 and means[1] > means[2] + 3
    for name in SEVERITIES:
        degraded = degrade(images, name, 0, range(8))
        assert degraded.shape == images.shape and degraded.dtype == torch.float32
        assert degraded.min() >= 0 and degraded.max() <= 1


def test_amounts_lie_in_their_ranges():
    severity = SEVERITIES["medium"]
    drawn = [draw_amounts(severity, 0, key) for key in range(200)]
    for name in ("blur_sigma_px", "motion_px", "downsampling", "photons", "gaussian_sigma", "quality"):
        low, high = getattr(severity, name)
        values = [getattr(amount, name) for amount in drawn]
        assert low <= min(values) < low + 0.2 * (high - low) and high - 0.2 * (high - low) < max(values) <= high
    assert 70 < sum(amount.is_motion for amount in drawn) < 130


def test_gaussian_noise_has_its_sigma():
    gray = torch.full((1, 3, 200, 200), 0.5)
    noise = degrade(gray, Severity(gaussian_sigma=(0.05, 0.05)), 0, [0]) - gray
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert noise.mean().abs() < 1e-3
    neighbors = (noise[..., :-1] * noise[..., 1:]).mean() / noise.var()
    assert abs(neighbors) < 0.02


def test_photon_noise_grows_with_the_root_of_the_light():
    light = torch.tensor([0.1, 0.4, 0.9]).view(1, 3, 1, 1).expand(1, 3, 200, 200).contiguous()
    noisy = degrade(light, Severity(photons=(400.0, 400.0)), 0, [0])
    for channel, expected in enumerate((0.1, 0.4, 0.9)):
        values = noisy[0, channel].double()
        assert values.mean().item() == pytest.approx(expected, rel=0.01)
        assert values.std().item() == pytest.approx(math.sqrt(expected / 400), rel=0.03)
    torch.testing.assert_close((noisy * 400).round() / 400, noisy)  # whole photons


def test_colored_noise_goes_together_over_pixels_and_not_over_channels():
    gray = torch.full((1, 3, 256, 256), 0.5)
    severity = Severity(colored_sigma=(0.04, 0.04))
    noise = degrade(gray, severity, 3, [0])[0] - 0.5
    for channel, sigma in enumerate(draw_amounts(severity, 3, 0).colored_sigma):
        assert 0.02 <= sigma <= 0.06
        assert noise[channel].std().item() == pytest.approx(sigma, rel=0.1)
    assert (noise[..., :-1] * noise[..., 1:]).mean() / noise.var() > 0.7
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1]) < 0.1


@pytest.mark.parametrize("kind", ["isotropic", "motion"])
def test_blur_is_a_mean_that_keeps_the_light(kind):
    point = torch.zeros(1, 3, 41, 41)
    point[..., 20, 20] = 1
    severity = Severity(blur_sigma_px=(2.0, 2.0), motion_px=(9.0, 9.0))
    key = next(key for key in range(50) if draw_amounts(severity, 0, key).is_motion == (kind == "motion"))
    spot = degrade(point, severity, 0, [key])[0, 0].double()
    assert spot.sum().item() == pytest.approx(1, abs=1e-5)
    y, x = torch.meshgrid(*(torch.arange(41.0, dtype=torch.float64) - 20,) * 2, indexing="ij")
    moments = torch.tensor([[(spot * a * b).sum() for a in (y, x)] for b in (y, x)])
    small, large = torch.linalg.eigvalsh(moments).sqrt().tolist()
    if kind == "isotropic":
        assert small == pytest.approx(2, rel=0.1) and large == pytest.approx(2, rel=0.1)
    else:  # a line of length n has a deviation of n / sqrt(12)
        assert small < 0.7 and large == pytest.approx(9 / math.sqrt(12), rel=0.15)
        angle = draw_amounts(severity, 0, key).angle
        direction = torch.linalg.eigh(moments).eigenvectors[:, 1]
        assert abs(direction @ torch.tensor([math.sin(angle), math.cos(angle)], dtype=torch.float64)) > 0.99


def test_coarser_sampling_takes_fine_stripes_away_and_keeps_broad_ones():
    columns = torch.arange(64)
    fine, broad = ((columns // width % 2).float().expand(1, 3, 64, 64).contiguous() for width in (1, 16))
    severity = Severity(downsampling=(2.0, 2.0))
    assert degrade(fine, severity, 0, [0]).std() < 0.2
    assert degrade(broad, severity, 0, [0]).std() > 0.45


def test_jpeg_costs_more_the_lower_its_quality():
    images = make_images(1, 64, 64)
    good, bad = (psnr(degrade(images, Severity(quality=(q, q)), 0, [0]), images).item() for q in (95, 20))
    assert good > bad + 3


def test_small_images_and_odd_sizes_are_degraded_too():
    for size in ((1, 1), (3, 9), (17, 5)):
        degraded = degrade(torch.rand(1, 3, *size), "harsh", 0, [0])
        assert degraded.shape[-2:] == size and degraded.isfinite().all()


def test_unknown_severities_and_wrong_shapes_are_refused():
    with pytest.raises(UserError, match="did you mean medium"):
        degrade(make_images(), "mediun", 0, [0, 1, 2])
    with pytest.raises(ValueError, match="float32"):
        degrade(make_images(), "mild", 0, [0])


def test_every_severity_says_its_blur_and_noise():
    for name, severity in SEVERITIES.items():
        assert f"sigma {severity.blur_sigma_px[0]:g}-{severity.blur_sigma_px[1]:g} px" in describe(name)
        assert f"{severity.gaussian_sigma[1]:g}" in describe(name)

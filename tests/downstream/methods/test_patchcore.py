"""PatchCore against brute force over all patches, along fewer axes and with local density."""

import pytest
import torch

from baselines.contract.method import Images
from downstream.methods import patchcore
from downstream.methods.patchcore import SPACING_FLOOR, SPACING_FLOOR_OF_ONE, PatchCore, principal_axes, spacing
from pretrain.data.dataset import load

SMALL = {"grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


@pytest.mark.parametrize("options", [{}, {"num_neighbors": 3}, {"dimensions": None}, {"dimensions": 16}])
def test_distances_are_to_the_nearest_of_all_patches(options, nuts):
    """So few normals that the coreset keeps every patch."""
    method = PatchCore(**SMALL, density_neighbors=0, **options).fit([]).refer(nuts[:6])
    assert len(method.coreset_) == 6 * 64
    known, asked = (method.patches(torch.stack(images)).flatten(0, 2) for images in (nuts[:6], nuts[6:8]))
    axes = method.axes_.double()
    assert axes.shape == (known.shape[1], min(options.get("dimensions", 96) or 999, known.shape[1]))
    apart = torch.cdist(asked.double() @ axes, known.double() @ axes)
    expected = apart.topk(method.num_neighbors, largest=False).values.mean(1)
    found = method.distances(method.patches(torch.stack(nuts[6:8]))).flatten()
    # faiss gives squares of distances to 1e-7 of the vectors' squared lengths.
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.mean()))


def test_distances_count_in_units_of_the_spacing_about_the_nearest(nuts):
    plain, local = (PatchCore(**SMALL, density_neighbors=n).fit([]).refer(nuts[:6]) for n in (0, 5))
    vectors = plain.patches(torch.stack(nuts[6:8]))
    apart = torch.cdist(local.coreset_, local.coreset_).sort(dim=1).values[:, 1:6].mean(1)
    expected = apart + (SPACING_FLOOR + SPACING_FLOOR_OF_ONE / 6) * apart.mean()
    torch.testing.assert_close(local.spacing_, expected, rtol=1e-3, atol=1e-3)
    _, rows = plain._nearest(vectors.flatten(0, 2))
    ratio = plain.distances(vectors).flatten() / local.distances(vectors).flatten()
    torch.testing.assert_close(ratio, local.spacing_[rows[:, 0]])


def test_copies_lie_at_no_distance_and_still_have_a_spacing():
    assert (spacing(torch.ones(8, 3), 5, 0.5) > 0).all()
    assert spacing(torch.ones(1, 3), 5, 0.5).tolist() == [1.0]


def test_the_coreset_is_a_share_of_the_patches(nuts, monkeypatch):
    monkeypatch.setattr(patchcore, "MIN_PATCHES", 8)
    method = PatchCore(**SMALL, coreset_ratio=0.1).fit([]).refer(nuts[:6])
    assert len(method.coreset_) == round(0.1 * 6 * 64) == len(method.owners_)
    assert set(method.owners_.tolist()) <= set(range(6))


def test_axes_are_orthonormal_and_the_widest_comes_first():
    generator = torch.Generator().manual_seed(0)
    vectors = 5 + torch.randn(4000, 4, generator=generator) * torch.tensor([1.0, 30.0, 0.1, 3.0])
    center, axes = principal_axes(vectors, 3)
    torch.testing.assert_close(center, vectors.mean(0))
    torch.testing.assert_close(axes.T @ axes, torch.eye(3))
    assert axes.abs().argmax(0).tolist() == [1, 3, 0]
    assert principal_axes(vectors, None)[1].shape == (4, 4)


@pytest.mark.parametrize("has_roi", [False, True])
def test_large_images_are_bytes_until_a_part_of_them_is_seen_and_nothing_changes(has_roi, nuts, monkeypatch):
    """As one fits to a hundred megapixels: an image, some patches and a map at a time."""
    roi = torch.zeros(64, 64, dtype=torch.bool)
    roi[8:60, 4:50] = True

    def fitted(images: list[torch.Tensor]) -> tuple[PatchCore, torch.Tensor]:
        seen = []
        method = PatchCore(**SMALL).fit([]).look_within(roi if has_roi else None).watch_normals(seen.append)
        return method.refer(images), torch.cat(seen)

    whole, watched = fitted(nuts[:6])
    (expected,) = whole.predict(nuts[6:9])
    monkeypatch.setattr("downstream.methods.patch_method.MAX_MAP_PIXELS", 64 * 64)
    monkeypatch.setattr("downstream.methods.maps.SORTED_AT_ONCE", 1000)
    monkeypatch.setattr("downstream.methods.patchcore.PATCHES_AT_ONCE", 50)
    monkeypatch.setattr("baselines.contract.method.MAX_PIXELS_AT_ONCE", 64 * 64)
    in_bytes = [(image * 255).round().to(torch.uint8) for image in nuts[:9]]
    large, watched_in_parts = fitted(in_bytes[:6])
    found = list(large.predict(in_bytes[6:9]))
    assert len(found) == 3  # one at once
    torch.testing.assert_close(torch.cat([each.maps for each in found]), expected.maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([each.scores for each in found]), expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(large.normal_scores_, whole.normal_scores_, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(watched_in_parts, watched, rtol=1e-4, atol=1e-5)


def test_many_patches_are_normalized_and_looked_up_in_parts(nuts, monkeypatch):
    method = PatchCore(**SMALL).fit([]).refer(nuts[:6])
    (whole,) = method.predict(nuts[6:9])
    monkeypatch.setattr("downstream.methods.patchcore.PATCHES_AT_ONCE", 50)
    (in_parts,) = method.predict(nuts[6:9])
    torch.testing.assert_close(in_parts.maps, whole.maps, rtol=1e-5, atol=1e-6)

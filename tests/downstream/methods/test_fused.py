"""PaDiM and PatchCore fused: the sum of both, in units of left-out normals; few normals trust the Gaussians less."""

import copy

import numpy as np
import pytest
import torch

from baselines.contract.method import Images
from downstream.methods.fused import FEW, MEMORY_FILE, Fused, Marked
from downstream.methods.padim import PaDiM
from downstream.methods.patchcore import PatchCore
from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.files import read_tensors

SMALL = {"grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


def test_distances_are_those_of_both_in_their_units(nuts):
    fused = Fused(**SMALL).fit([]).refer(nuts[:8])
    padim = PaDiM(**SMALL, dimensions=None, normalize=True).fit([]).refer(nuts[:8])  # whatever the axes, if it has all
    patchcore = PatchCore(**SMALL).fit([]).refer(nuts[:8])
    vectors = fused.patches(torch.stack(nuts[8:12]))
    gaussian, nearest = fused.fusion_
    expected = gaussian * padim.distances(vectors) + nearest * patchcore.distances(vectors)
    torch.testing.assert_close(fused.distances(vectors), expected, rtol=1e-5, atol=0)


def test_left_out_normals_give_each_part_the_mean_that_it_counts(nuts):
    fused = Fused(**SMALL, gaussian_weight=0.6).fit([]).refer(nuts[:8])
    patchcore = PatchCore(**SMALL).fit([]).refer(nuts[:8])
    left_out = patchcore._each_left_out(nuts[:8], range(8))
    assert float(left_out.mean() * fused.fusion_[1]) == pytest.approx(1, rel=1e-5)
    kept = []
    padim = PaDiM(**SMALL, dimensions=None, normalize=True)
    for bands in padim._views_of_normals(nuts[:8]):
        list(padim._adding(bands, kept))
    assert float(padim._fit_gaussians(kept).mean() * fused.fusion_[0]) == pytest.approx(0.6 * 8 / (8 + FEW), rel=1e-5)


def test_the_two_disagree_most_on_what_is_strange_for_its_position_alone(nuts, tmp_path):
    fused = Fused(**SMALL).fit([]).refer(nuts[:10])
    moved = [torch.roll(image, (24, 24), (1, 2)) for image in nuts[10:12]]  # each patch is known, and elsewhere
    (prediction,) = fused.predict([*nuts[10:12], *moved])
    assert prediction.disagreements[2:].min() > 2 * prediction.disagreements[:2].max()
    alone = []  # each statistic by itself, in standard deviations of normals that it did not learn from
    for cls, image in ((PaDiM, moved[0]), (PatchCore, moved[0])):
        distances = cls._distances(fused, fused._bands(image[None]))
        alone.append(float(distances.flatten().max()))  # of 64 patches the top share is one
    expected = (torch.tensor(alone) - fused.member_units_[:, 0]) / fused.member_units_[:, 1]
    assert float(prediction.disagreements[2]) == pytest.approx(float((expected[0] - expected[1]).abs()), rel=1e-4)
    fused.save(tmp_path)
    (again,) = Fused.load(tmp_path).predict([*nuts[10:12], *moved])
    torch.testing.assert_close(again.disagreements, prediction.disagreements)
    (alone,) = Fused(**SMALL).fit([]).refer(nuts[:1]).predict(nuts[10:11])
    (padim,) = PaDiM(**SMALL).fit([]).refer(nuts[:10]).predict(nuts[10:11])
    assert alone.disagreements is padim.disagreements is None  # of one normal, and of one statistic


def test_of_a_single_normal_only_the_nearest_patch_counts(nuts):
    alone, patchcore = (cls(**SMALL).fit([]).refer(nuts[:1]) for cls in (Fused, PatchCore))
    vectors = alone.patches(torch.stack(nuts[8:10]))
    torch.testing.assert_close(alone.distances(vectors), patchcore.distances(vectors))


def test_further_normals_are_taken_in_without_the_earlier_ones(nuts, tmp_path):
    whole = Fused(**SMALL).fit([]).refer(nuts[:12])
    Fused(**SMALL).fit([]).refer(nuts[:6]).save(tmp_path)
    grown = Fused.load(tmp_path)
    with pytest.raises(UserError, match="takes in no normals before it remembers"):
        grown.add(nuts[6:12])
    before = grown.remember(tmp_path).coreset_
    grown.add(nuts[6:12])
    assert len(grown.normal_scores_) == len(grown.normal_peaks_) == 12 == int(grown.moments_.count)
    assert set(grown.owners_.tolist()) == set(range(12)) and len(grown.coreset_) > len(before)
    # The space is that of the first six, so it is nearly what one fit gives, and no longer what six gave.
    scores = [next(method.predict(nuts[12:])).scores for method in (whole, grown, Fused.load(tmp_path))]
    apart = [(other / scores[0] - 1).abs().mean() for other in scores[1:]]
    assert apart[0] < apart[1] and np.corrcoef(scores[0], scores[1])[0, 1] > 0.9
    scores = [method.normal_scores_.mean() for method in (whole, grown)]
    assert float(scores[1] / scores[0]) == pytest.approx(1, abs=0.2)


def test_a_copy_that_learns_leaves_the_other_as_it_is(nuts):
    fused = Fused(**SMALL).fit([]).refer(nuts[:6])
    before = next(fused.predict(nuts[12:])).scores
    copy.copy(fused).add(nuts[6:12])
    torch.testing.assert_close(next(fused.predict(nuts[12:])).scores, before, rtol=0, atol=0)
    assert int(fused.moments_.count) == 6


def test_what_only_learning_takes_lies_in_a_file_of_its_own(nuts, tmp_path):
    files = []
    for cls in (PaDiM, Fused):
        cls(**SMALL, dimensions=40).fit([]).refer(nuts[:4]).save(tmp_path / cls.__name__)
        files.append(read_tensors(tmp_path / cls.__name__ / "method.safetensors")[0])
    assert "second_" in files[0] and "second_" not in files[1] and "whitening_" in files[1]
    kept, _ = read_tensors(tmp_path / "Fused" / MEMORY_FILE)
    assert kept["patches"].dtype == torch.float16 and kept["patches"].shape == (4, 1, 64, 40)
    loaded = Fused.load(tmp_path / "Fused").remember(tmp_path / "Fused")
    fitted = Fused(**SMALL, dimensions=40).fit([]).refer(nuts[:4])
    torch.testing.assert_close(loaded.moments_.second, fitted.moments_.second, rtol=0, atol=0)
    Fused.load(tmp_path / "Fused").save(tmp_path / "again")
    assert not (tmp_path / "again" / MEMORY_FILE).exists()
    with pytest.raises(UserError, match="does not hold what learning more takes"):
        loaded.remember(tmp_path / "again")


def test_marked_defects_count_and_without_any_nothing_changes(nuts, tmp_path):
    def marred(image: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[top : top + 9, 20:29] = True
        return torch.where(mask, image.mean() + 0.15 * torch.sin(torch.arange(64.0)), image), mask

    fused = Fused(**SMALL).fit([]).refer(nuts[:12]).add([])
    plain = next(fused.predict(nuts[12:])).scores
    reach = float(fused.normal_scores_.quantile(0.9) - fused.normal_scores_.median())
    assert not copy.copy(fused).mark([Marked(*marred(nuts[12], 10))], reach)  # one says nothing of the next
    assert not copy.copy(fused).mark([Marked(image, None) for image in nuts[12:16]], reach)  # as good as good
    told = copy.copy(fused)
    assert told.mark([Marked(*marred(image, 8 + 4 * i)) for i, image in enumerate(nuts[12:18])], reach)
    later = [marred(image, 30)[0] for image in nuts[18:]]
    gained = next(told.predict(later)).scores - next(fused.predict(later)).scores
    assert gained.min() >= 0 and gained.max() <= reach * (1 + 1e-5) and gained.mean() > 0.2 * reach
    torch.testing.assert_close(next(fused.predict(nuts[12:])).scores, plain, rtol=0, atol=0)
    told.without_memory().save(tmp_path)
    same = next(Fused.load(tmp_path).predict(later)).scores
    torch.testing.assert_close(same, next(told.predict(later)).scores, rtol=0, atol=0)

"""What a model learns from feedback: good images become references, defective ones evidence, and all can be undone."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_models import fitted
from PIL import Image

from baselines.contract.model_folder import FILE, parts_of
from downstream.inspection.decision import AreaRule
from downstream.inspection.inspector import Inspector
from downstream.learning import candidate
from downstream.learning.candidate import (
    Images,
    Lessons,
    check_learned,
    check_learns,
    learn,
    lessons_of,
    mask_of,
    reach_of,
    taught,
    usable,
)
from downstream.learning.feedback import Confirmed, Feedback, confirmed, digest_of, read_feedback
from downstream.learning.golden import is_kept_apart, prove
from downstream.learning.report import PAGE
from downstream.learning.versions import PROOF, promote, roll_back, version_in_use, version_of
from downstream.methods.ensemble import Ensemble
from downstream.methods.fused import MEMORY_FILE
from downstream.methods.patchcore import MAX_CORESET
from pretrain.command import UserError


@pytest.fixture(scope="module")
def records(sorted_images) -> list[Feedback]:
    return read_feedback(sorted_images)


@pytest.fixture(scope="module")
def lessons(records) -> Lessons:
    return lessons_of(usable(confirmed(records), 64)[0])


@pytest.fixture
def inspector(fused_folder) -> Inspector:
    model = Inspector.load(fused_folder)
    model.method.remember(fused_folder)
    return model


def scores_of(inspector: Inspector, pixels) -> torch.Tensor:
    return torch.cat([batch.scores for batch in inspector.method.predict(Images(pixels))])


def test_good_images_become_references_and_the_threshold_is_found_anew(inspector, lessons):
    before = copy.deepcopy(vars(inspector.method))
    learned = taught(inspector, lessons._replace(defective=[], masks=[]))
    assert learned.metadata["learned"] == {"good": 4, "defective": 0, "tells_defects": False}
    assert int(learned.method.pooled_.shape[0]) == 12 + 4 == len(learned.normal_scores)
    assert (scores_of(learned, lessons.good) < scores_of(inspector, lessons.good)).all()
    assert learned.threshold.count == 16 and learned.threshold.false_alarm_rate == 0.1
    assert not hasattr(learned.method, "evidence_weights_")
    for name in ("coreset_", "pooled_", "normal_scores_", "fusion_"):  # what it learned from is as it was
        torch.testing.assert_close(getattr(inspector.method, name), before[name], rtol=0, atol=0)
    assert int(inspector.method.moments_.count) == 12


def blotched(images: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Copies with a magenta square, each elsewhere, and where it is."""
    made, masks = [], []
    for number, image in enumerate(images):
        mask = np.zeros(image.shape[:2], bool)
        mask[8 + 5 * number : 20 + 5 * number, 30 - 3 * number : 42 - 3 * number] = True
        made.append(np.where(mask[:, :, None], np.uint8([255, 0, 255]), image))
        masks.append(mask)
    return made, masks


@pytest.mark.parametrize("image_weight", [0.0, 1.0])
def test_evidence_raises_scores_of_what_was_marked_and_of_nothing_clearly_normal(image_weight, inspector, lessons):
    inspector.method.image_weight = image_weight
    alone = taught(inspector, lessons._replace(defective=[], masks=[]))
    defective, masks = blotched([*lessons.good, *lessons.good][:6])
    told = taught(inspector, Lessons(lessons.good, defective, masks))
    assert told.metadata["learned"] == {"good": 4, "defective": 6, "tells_defects": True}
    before, after = (scores_of(model, defective) for model in (alone, told))
    assert (after >= before - 1e-5).all() and (after - before).median() > 0
    reach = reach_of(alone.method, 0.1, 6)
    assert (after - before).max() <= reach * (1 + 1e-5)
    assert torch.equal(told.method.units_, alone.method.units_)
    assert told.threshold.value >= alone.threshold.value and told.map_threshold.value >= alone.map_threshold.value
    # Whatever is no stranger than half of the normals stays good, even if all of it were called a defect.
    accused = copy.copy(told.method)
    accused.evidence_range_ = [-1e9, -1e9 + 1, accused.evidence_range_[2]]
    images = Images(lessons.good)
    clear = [i for i, score in enumerate(scores_of(alone, lessons.good)) if score <= np.median(alone.normal_scores)]
    assert clear
    scores = torch.cat([batch.scores for batch in accused.predict(images[i] for i in clear)])
    assert (scores <= alone.threshold.value * (1 + 1e-5)).all()


def test_with_evidence_the_threshold_never_falls(inspector, lessons, monkeypatch):
    def mark(method, marked, reach) -> bool:
        method.normal_scores_, method.normal_peaks_ = method.normal_scores_ / 2, method.normal_peaks_ / 2
        return True

    monkeypatch.setattr(type(inspector.method), "mark", mark)
    told = taught(inspector, Lessons(lessons.good, lessons.defective, lessons.masks))
    alone = taught(inspector, lessons._replace(defective=[], masks=[]))
    assert (told.threshold, told.map_threshold) == (alone.threshold, alone.map_threshold)


def test_defective_images_that_teach_nothing_change_nothing(inspector, lessons):
    told = taught(inspector, Lessons([], lessons.defective[:2], lessons.masks[:2]))
    assert told.metadata["learned"] == {"good": 0, "defective": 2, "tells_defects": False}
    assert torch.equal(scores_of(told, lessons.good), scores_of(inspector, lessons.good))
    assert (told.threshold, told.map_threshold) == (inspector.threshold, inspector.map_threshold)
    assert told.normal_scores == inspector.normal_scores
    with pytest.raises(UserError, match="2 defective images teach nothing alone yet"):
        check_learned(told, 2)


def test_a_new_version_is_proved_and_written_beside_the_one_in_use(fused_folder, records, tmp_path):
    model = shutil.copytree(fused_folder, tmp_path / "nut")
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    learned = learn(model, records)
    assert (learned.number, learned.in_use) == (2, 1)
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == files
    said = json.loads((learned.folder / PROOF).read_text())
    assert len(said["images"]) == 10 and said["figures"]["new"] == json.loads(json.dumps(
        learned.proof.after._asdict()))  # fmt: skip
    seen, _ = usable(confirmed(records), 64)
    apart = [is_kept_apart(each.known.digest) for each in seen]
    assert said["learned"]["good"] + said["learned"]["defective"] == apart.count(False) < len(apart)
    assert "Is version 2 better than version 1" in (learned.folder / PAGE).read_text()
    assert not (learned.folder / MEMORY_FILE).exists()  # learning begins at version 1
    made = Inspector.load(learned.folder)
    good = [each.known.digest for each in seen if not each.known.is_defective and not is_kept_apart(each.known.digest)]
    assert made.metadata["learned_from"] == [*Inspector.load(model).metadata["learned_from"], *good]
    # How the version in use decides is not dropped either.
    promote(model, 2)
    made = Inspector.load(model)
    made.area_rule = AreaRule(60, made.threshold, [])
    made.save_decision(model)
    with pytest.raises(UserError, match="decides by area cannot learn"):
        learn(model, records)


def method_of(version: Path) -> str:
    """Its digest."""
    return parts_of(version)["method.safetensors"]


def test_a_version_is_what_is_confirmed_and_neither_order_nor_what_was_taken_back(fused_folder, records, tmp_path):
    model = shutil.copytree(fused_folder, tmp_path / "nut")
    gone = [Feedback(r.image, "taken back", at="2099-01-01", image_digest=r.image_digest) for r in records[::3]]
    first = learn(model, [*gone, *records])
    never_heard = learn(model, [record for record in records[::-1] if record not in records[::3]])
    assert method_of(first.folder) == method_of(never_heard.folder)
    assert first.learned == never_heard.learned and first.proof.after == never_heard.proof.after
    assert method_of(learn(model, records).folder) != method_of(first.folder)


def test_others_may_change_versions_while_one_learns(fused_folder, records, tmp_path, monkeypatch):
    model = shutil.copytree(fused_folder, tmp_path / "nut")
    promote(model, learn(model, records).number)

    def meanwhile(change):
        monkeypatch.setattr(candidate, "prove", lambda judged: (change(), prove(judged))[1])

    meanwhile(lambda: roll_back(model))
    again = learn(model, records)
    assert (again.number, again.in_use, version_of(model, 3).base, version_in_use(model)) == (3, 2, 1, 1)
    meanwhile(lambda: fused_again(model))
    with pytest.raises(UserError, match="fitted anew meanwhile: learn again"):
        learn(model, records)
    assert not (model / "versions" / "4").exists()


def fused_again(model: Path) -> None:
    """As if version 1 had been fitted with another seed."""
    other = Inspector.load(model)
    other.method.seed += 1
    other.save(model)


def test_what_cannot_be_used_is_named(records, tmp_path):
    image = Path(shutil.copy(records[0].image, tmp_path / "image.png"))
    copied, text = tmp_path / "copy.png", tmp_path / "text.png"
    Image.open(image).save(copied, compress_level=1)  # the same pixels in another file
    text.write_text("text")

    def said(path: Path, is_defective: bool = False, mask=None) -> Confirmed:
        return Confirmed(path, digest_of(path), is_defective, mask)

    def reasons(*known: Confirmed, fitted=()) -> list[str]:
        seen, problems = usable(known, 64, fitted)
        assert len(seen) + len(problems) == len(known)
        return [str(problem.reason) for problem in problems]

    assert digest_of(copied) != digest_of(image)
    for known, words in (
        (Confirmed(image, "0" * 64, False, None), "another one than that which was judged"),
        (Confirmed(tmp_path / "gone.png", "1", False, None), "cannot be read"),
        (Confirmed(Path("a\0.png"), "1", False, None), "cannot be read"),
        (said(text, True), "not an image"),
        (said(image, True, tmp_path / "gone_mask.png"), "its mask"),
        (said(image, True, text), "its mask"),
        (said(image, True, tmp_path / "a\0.png"), "its mask"),
    ):
        (reason,) = reasons(known)
        assert words in reason
    (seen,), _ = usable([said(image)], 64)
    assert reasons(said(image)) == []
    assert (
        reasons(said(image), said(copied, True))
        == ["it and copies of it, which are the same pixels, are called good and defective"] * 2
    )
    assert len(usable([said(image), said(copied)], 64)[0]) == 1
    (reason,) = reasons(said(image, True), fitted=[seen.known.digest])
    assert "fitted to, as a good one" in reason


def test_what_a_model_was_fitted_to_is_named_by_its_pixels(fused_folder, demo_folder, tmp_path):
    fitted = next((demo_folder / "hazelnut" / "train" / "good").iterdir())
    Image.open(fitted).save(tmp_path / "copy.bmp")
    with pytest.raises(UserError, match="none says of a readable new image"):
        learn(
            fused_folder,
            [Feedback(tmp_path / "copy.bmp", "false alarm", image_digest=digest_of(tmp_path / "copy.bmp"))],
        )


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_a_model_of_one_statistic_takes_in_good_images_alone(
    name, padim_folder, demo_folder, records, lessons, tmp_path
):
    model = tmp_path / name
    shutil.copytree(padim_folder, model) if name == "padim" else fitted(model, demo_folder, name)
    learned = learn(model, records)
    good = len(lessons_of([each for each in usable(confirmed(records), 64)[0]
                           if not is_kept_apart(each.known.digest)]).good)  # fmt: skip
    assert learned.learned["good"] == good > 1 and not learned.learned["tells_defects"]
    before, after = Inspector.load(model), Inspector.load(learned.folder)
    assert len(after.normal_scores) == len(before.normal_scores) + good == len(after.method.pooled_)
    assert after.threshold.count == len(after.normal_scores)
    if name == "patchcore":  # the bank grows, and what was in it stays where it was
        rows = len(before.method.coreset_)
        assert rows < len(after.method.coreset_) <= MAX_CORESET
        torch.testing.assert_close(after.method.coreset_[:rows], before.method.coreset_, rtol=0, atol=0)
    else:
        assert int(after.method.moments_.count) == int(before.method.moments_.count) + good
    assert scores_of(after, lessons.good).mean() < scores_of(before, lessons.good).mean()


def test_models_that_cannot_learn_say_so(fused_folder, models_folder, validated, records, tmp_path):
    with pytest.raises(UserError, match="MeanImage learns nothing further: fit one with --method fused"):
        learn(models_folder / "mean", records)
    assert not (models_folder / "mean" / "versions").exists()
    inspector = Inspector.load(models_folder / "mean")
    inspector.method = Ensemble(method="padim")
    with pytest.raises(UserError, match="several scales cannot learn yet: fit one without --scales"):
        check_learns(inspector)
    with pytest.raises(UserError, match="decides by area cannot learn"):
        learn(validated, records)
    old = shutil.copytree(fused_folder, tmp_path / "old")
    (old / MEMORY_FILE).unlink()
    said = json.loads((old / FILE).read_text())
    del said["digest"], said["parts"][MEMORY_FILE]
    (old / FILE).write_text(json.dumps(said))
    with pytest.raises(UserError, match="models of before have none.*fit it again"):
        learn(old, records)
    with pytest.raises(UserError, match="of 0 records of feedback none says"):
        learn(shutil.copytree(fused_folder, tmp_path / "new"), [])
    apart = {each.known.image for each in usable(confirmed(records), 64)[0] if is_kept_apart(each.known.digest)}
    assert apart
    with pytest.raises(UserError, match="confirmed images are kept apart for the proof: confirm some more"):
        learn(tmp_path / "new", [record for record in records if record.image in apart])


def test_a_drawing_is_in_pixels_of_the_image(tmp_path):
    def drawn(mask) -> np.ndarray:
        return mask_of(Confirmed(tmp_path, "", True, mask), 100, 200, (50, 50))

    assert drawn(None) is None
    box = drawn({"box": [100, 0, 200, 50]})
    assert box[:24, 26:].all() and not box[:, :24].any() and not box[27:].any()
    both = drawn([{"box": [0, 90, 20, 100]}, {"polygon": [[100, 0], [200, 0], [200, 50], [100, 50]]}])
    assert both[48, 2] and both[:24, 26:].all()
    Image.fromarray(np.uint8(box) * 255).resize((200, 100)).save(tmp_path / "mask.png")
    assert (drawn(tmp_path / "mask.png") == box).mean() > 0.95

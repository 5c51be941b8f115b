"""What a model learns from feedback: good images become references, defective ones evidence, and all can be undone."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.contract.model_folder import FILE
from downstream.inspection.inspector import Inspector
from downstream.learning import golden
from downstream.learning.candidate import Images, Lessons, learn, lessons_of, mask_of, reach_of, taught, usable
from downstream.learning.feedback import Confirmed, Feedback, confirmed, digest_of, read_feedback
from downstream.learning.report import JSON, PAGE
from downstream.learning.versions import promote, version_of
from downstream.methods.fused import MEMORY_FILE
from pretrain.command import UserError


@pytest.fixture(scope="module")
def records(sorted_images) -> list[Feedback]:
    return read_feedback(sorted_images)


@pytest.fixture(scope="module")
def lessons(records) -> Lessons:
    return lessons_of(confirmed(records), 64)


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


def test_evidence_raises_scores_of_what_was_marked_and_of_nothing_clearly_normal(inspector, lessons):
    alone = taught(inspector, lessons._replace(defective=[], masks=[]))
    defective, masks = blotched([*lessons.good, *lessons.good][:6])
    told = taught(inspector, Lessons(lessons.good, defective, masks))
    assert told.metadata["learned"] == {"good": 4, "defective": 6, "tells_defects": True}
    before, after = (scores_of(model, defective) for model in (alone, told))
    assert (after >= before - 1e-5).all() and (after - before).median() > 0
    reach = reach_of(alone.method, 0.1, 6)
    assert (after - before).max() <= reach * (1 + 1e-5)
    # Whatever is no stranger than half of the normals stays good, even if all of it were called a defect.
    accused = copy.copy(told.method)
    accused.evidence_range_ = [-1e9, -1e9 + 1, reach]
    images = Images(lessons.good)
    clear = [i for i, score in enumerate(scores_of(alone, lessons.good)) if score <= np.median(alone.normal_scores)]
    assert clear
    scores = torch.cat([batch.scores for batch in accused.predict(images[i] for i in clear)])
    assert (scores <= alone.threshold.value * (1 + 1e-5)).all() and alone.threshold.value <= told.threshold.value


def test_a_new_version_is_proved_and_written_beside_the_one_in_use(fused_folder, records, tmp_path):
    model = shutil.copytree(fused_folder, tmp_path / "nut")
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    learned = learn(model, records)
    assert (learned.number, learned.in_use) == (2, 1)
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == files
    said = json.loads((learned.folder / JSON).read_text())
    assert len(said["images"]) == 10 and said["figures"]["new"] == json.loads(json.dumps(
        learned.proof.after._asdict()))  # fmt: skip
    apart = [golden.is_kept_apart(each.image_digest) for each in records]
    assert said["learned"]["good"] + said["learned"]["defective"] == apart.count(False)
    assert "Is version 2 better than version 1" in (learned.folder / PAGE).read_text()
    assert not (learned.folder / MEMORY_FILE).exists()  # learning begins at version 1
    promote(model, 2)
    again = learn(model, records)
    assert (again.number, again.in_use, version_of(model, 3).base) == (3, 2, 1)
    assert not [each for each in again.proof.images if each.is_changed]  # the same feedback gives the same model
    # What is taken back is unlearned: with all but one gone, only that one was learned from.
    left = [each for each in records if not golden.is_kept_apart(each.image_digest)][:1]
    gone = [
        Feedback(r.image, "taken back", at="2099-01-01", image_digest=r.image_digest) for r in records if r not in left
    ]
    assert sum(learn(model, [*records, *gone]).learned[kind] for kind in ("good", "defective")) == 1


def test_what_cannot_be_used_is_named(records, tmp_path):
    image = shutil.copy(records[0].image, tmp_path / "image.png")
    known = [Confirmed(image, "0" * 64, False, None), Confirmed(tmp_path / "gone.png", "1", False, None)]
    (tmp_path / "text.png").write_text("text")
    known += [Confirmed(tmp_path / "text.png", digest_of(tmp_path / "text.png"), True, None)]
    fitting, problems = usable([*known, Confirmed(image, digest_of(image), False, None)], 64)
    assert [each.image for each in fitting] == [image]
    assert [words in str(problem.reason) for words, problem in zip(
        ("another one", "cannot be read", "not an image"), problems, strict=True)] == [True] * 3  # fmt: skip


def test_models_that_cannot_learn_say_so(fused_folder, models_folder, validated, records, tmp_path):
    with pytest.raises(UserError, match="MeanImage learns nothing further: fit one with --method fused or padim"):
        learn(models_folder / "mean", records)
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
    apart = [each for each in records if golden.is_kept_apart(each.image_digest)]
    assert apart
    with pytest.raises(UserError, match="confirmed images are kept apart for the proof: confirm some more"):
        learn(tmp_path / "new", apart)


def test_a_padim_learns_references_alone(padim_folder, records, tmp_path):
    model = shutil.copytree(padim_folder, tmp_path / "nut")
    learned = learn(model, records)
    assert learned.learned["good"] and not learned.learned["tells_defects"]
    assert len(Inspector.load(learned.folder).normal_scores) == 12 + learned.learned["good"]


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

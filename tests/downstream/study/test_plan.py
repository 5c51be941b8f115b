"""The plan of a study: which cells there are, and which settings are refused before anything is computed."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from downstream.study.cell import IMAGENET, RANDOM, SIMCLR, START
from downstream.study.config import Evaluate
from downstream.study.plan import plan_study, resolve
from pretrain.command import Names, UserError
from pretrain.encoder import DEFAULT_ARCHITECTURE, Encoder, fingerprint
from pretrain.weights import Origin


@pytest.fixture(scope="module")
def config(demo_folder, encoder_file) -> Evaluate:
    return Evaluate(
        data=demo_folder, train=Names("hazelnut,leather"), test=Names("bottle"), encoder=Names(str(encoder_file)),
        methods=Names("knn,padim"), shots=Names("all,2"), seeds=Names("1,0"), size_px=32,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plan(config):
    return plan_study(config)


def test_every_row_has_every_seed_and_its_random_control(plan):
    cells = [task.cell for task in plan.tasks]
    rows = {cell.row.name for cell in cells if cell.row.encoder != IMAGENET}
    assert rows == {
        "knn-SimCLR", "knn-random", "mean-all-normals", "frame-all-normals",
        *(f"padim-{encoder}-{shots}-normals" for encoder in (SIMCLR, RANDOM) for shots in ("2", "all")),
    }  # fmt: skip
    assert {(cell.row, cell.seed) for cell in cells} == {(cell.row, seed) for cell in cells for seed in (0, 1)}
    assert all(cell.category == "bottle" and cell.train == ("hazelnut", "leather") for cell in cells)
    assert len({cell.digest for cell in cells}) == len(cells)


def test_few_normals_are_for_what_they_can_teach_unless_somebody_asks(config):
    by_default = replace(config, methods=Names("padim,patchcore"), shots=None, seeds=Names("0"))

    def rows(config: Evaluate) -> set[str]:
        return {task.cell.row.name for task in plan_study(config).tasks if not task.method.is_control}

    assert {row for row in rows(by_default) if "4-normals" in row} == {f"patchcore-{SIMCLR}-4-normals"}
    asked = rows(replace(by_default, shots=Names("4,all")))
    assert asked - rows(by_default) == {
        f"padim-{SIMCLR}-4-normals",
        "padim-random-4-normals",
        "patchcore-random-4-normals",
    }


def test_only_all_methods_across_products_look_at_fewer_pixels_without_a_gpu(config):
    every = replace(config, methods=Names(), size_px=None, device="cpu")
    assert resolve(every).size_px == 224
    assert resolve(replace(every, methods=Names("fused"))).size_px == 384
    assert resolve(replace(every, protocol="one-class", train=None)).size_px == 384
    assert resolve(replace(every, quick=True)).size_px == 128


def started(path: Path, start: str, seed: int = 7) -> Names:
    """An encoder file as SimCLR leaves it, which names its start."""
    origin = Origin("demo", ("hazelnut", "leather"), is_demo=True, recipe={"start": start})
    Encoder(DEFAULT_ARCHITECTURE, seed, origin=origin).save(path)
    return Names(str(path))


def test_each_method_with_an_encoder_has_simclr_its_start_and_random(config, tmp_path):
    plan = plan_study(replace(config, encoder=started(tmp_path / "encoder.safetensors", "imagenet")))
    for method in ("knn", "padim"):
        rows = [task.cell.row for task in plan.tasks if task.cell.row.method == method]
        assert {row.encoder for row in rows} == {SIMCLR, RANDOM, IMAGENET}
    assert plan.metadata["encoders"][0]["start"]["row"] == IMAGENET
    assert not [warning for warning in plan.metadata["warnings"] if "start" in warning]


def test_a_start_from_a_file_is_a_row_and_one_that_is_gone_a_warning(config, tmp_path):
    (teacher,) = started(tmp_path / "teacher.safetensors", "imagenet", seed=3)
    encoder = started(tmp_path / "encoder.safetensors", teacher)
    plan = plan_study(replace(config, encoder=encoder, methods=Names("knn"), seeds=Names("0")))
    identities = {task.cell.row.encoder: task.cell.encoder_id for task in plan.tasks if task.cell.row.method == "knn"}
    assert identities.keys() == {SIMCLR, START, RANDOM, IMAGENET}
    assert identities[START] == fingerprint(teacher) and len(set(identities.values())) == 4
    Path(teacher).unlink()
    plan = plan_study(replace(config, encoder=encoder, methods=Names("knn"), seeds=Names("0")))
    assert START not in {task.cell.row.encoder for task in plan.tasks}
    assert any(f"started from {teacher}, which is not at hand" in warning for warning in plan.metadata["warnings"])


def test_cells_that_share_a_fitted_method_follow_each_other(plan):
    keys = [(task.cell.seed, task.cell.row.method, task.cell.row.encoder) for task in plan.tasks]
    assert len([key for key, _ in groupby(keys)]) == len(set(keys))


def test_a_control_is_the_same_for_a_seed_and_another_for_the_next(plan):
    identities = {seed: {task.cell.encoder_id for task in plan.tasks
                         if task.cell.row.encoder == RANDOM and task.cell.seed == seed} for seed in (0, 1)}  # fmt: skip
    assert len(identities[0]) == len(identities[1]) == 1 and identities[0] != identities[1]


def test_more_references_than_there_are_give_no_cell_and_a_warning(config):
    plan = plan_study(replace(config, shots=Names("2,16"), methods=Names("padim"), seeds=Names("0")))
    assert {task.cell.row.shots for task in plan.tasks} == {"2", "all"}  # the controls take all
    assert "bottle: 12 normals, so there are no rows with 16" in plan.metadata["warnings"]


def test_one_class_leaves_out_what_needs_other_categories(config):
    settings = resolve(replace(config, protocol="one-class", train=None))
    assert "knn" not in {method.name for method in settings.methods}
    assert "padim" in {method.name for method in settings.methods}


def test_metadata_tells_what_was_made_with(plan, encoder_file):
    metadata = plan.metadata
    assert metadata["shots"] == ["2", "all"] and metadata["seeds"] == [1, 0] and metadata["is_demo"]
    (encoder,) = metadata["encoders"]
    assert encoder["file"] == str(encoder_file) and encoder["saw"] == ["hazelnut", "leather"]
    assert encoder["tested_on"] == ["bottle"]
    assert len(metadata["masks"]) == 12 and {"torch", "python"} <= metadata["versions"].keys()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": Names("bottle,leather")}, "is in --train and in --test"),
        ({"train": Names("leather"), "test": Names("hazelnut")}, "every encoder given saw hazelnut"),
        ({"test": Names("bottel")}, "did you mean bottle?"),
        ({"methods": Names("padimm")}, "did you mean padim?"),
        ({"shots": Names("0")}, "--shots 0"),
        ({"seeds": Names("a")}, "which is no seed"),
        ({"false_alarm_rate": 1.5}, "--false-alarm-rate 1.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_sentence(options, words, config):
    with pytest.raises(UserError, match=words.replace("?", "[?]")):
        plan_study(replace(config, **options))

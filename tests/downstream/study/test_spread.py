"""The cells of a study as tasks: what goes together, what a worker that plans another study says, and what is lost. On
Ray: tests/test_on_ray.py."""

from dataclasses import replace

import pytest
import torch

from downstream.study import spread
from downstream.study.config import Evaluate
from downstream.study.plan import plan_study
from downstream.study.spread import Cells, compute_there, job_of, outcomes, together
from pretrain.command import Names, UserError
from pretrain.tasks import Here, Lost

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def asked(demo_folder) -> Evaluate:
    return Evaluate(data=demo_folder, train=Names("hazelnut,leather"), test=Names("bottle"), encoder=Names("none"),
                    methods=Names("padim,residual"), shots=Names("2,all"), seeds=Names("0"), size_px=32)  # fmt: skip


@pytest.fixture(scope="module")
def plan(asked):
    return plan_study(asked)


def test_cells_that_share_a_training_go_to_one_worker_and_others_do_not(plan):
    groups = list(together(plan.tasks))
    assert sorted(name for names in groups for name in names) == sorted(task.name for task in plan.tasks)
    trained = [names for names in groups if "residual" in names[0]]
    assert [len(names) for names in trained] == [2, 2]  # of each encoder 2 and all normals
    assert all(len(names) == 1 for names in groups if names not in trained)


def test_a_worker_finds_the_very_cells_or_says_that_it_has_others(asked, plan, tmp_path):
    job, begun = job_of(replace(asked, out=tmp_path), plan, CPU), []
    names = tuple(task.name for task in plan.tasks if task.method.is_control)
    spread._planned.cache_clear()
    found = compute_there(job, 2**20, names)
    assert [outcome.name for outcome in found] == [*names] and all(outcome.metadata for outcome in found)
    assert all((tmp_path / name).is_file() for name in names) and len(names) == 2
    assert compute_there(job, 2**20, names) == []  # nothing twice
    with pytest.raises(UserError, match="plans another study than this machine, without cells/of/others"):
        compute_there(job, 2**20, ("cells/of/others",))
    done = list(outcomes(plan, plan.tasks[-2:], replace(asked, out=tmp_path), CPU, Here(), begun.append))
    assert done == [(task, None) for task in plan.tasks[-2:]] and begun == plan.tasks[-2:]


class Dying:
    """Where a worker dies that is given a cell of this name."""

    at_once = 2

    def __init__(self, cells: Cells, deadly: str) -> None:
        self._cells, self._deadly, self.asked = cells, deadly, []

    def map(self, function, tasks, in_order=False):
        for names in tasks:
            self.asked.append(names)
            yield names, Lost("died") if self._deadly in names else self._cells.compute(names)


def test_of_cells_whose_worker_dies_one_is_lost_and_the_others_are_not(asked, plan, tmp_path, monkeypatch):
    chosen = [task for task in plan.tasks if task.method.is_control]
    monkeypatch.setattr(spread, "together", lambda ordered: [tuple(task.name for task in ordered)])
    dying = Dying(Cells(chosen, tmp_path, CPU, 2**20, False), chosen[0].name)
    found = list(outcomes(plan, chosen, replace(asked, out=tmp_path), CPU, dying, lambda task: None))
    assert [(task, outcome.reason) for task, outcome in found] == [(chosen[0], "died"), (chosen[1], "")]
    assert dying.asked == [tuple(task.name for task in chosen), (chosen[0].name,), (chosen[1].name,)]
    monkeypatch.setattr(spread, "together", lambda ordered: [(task.name,) for task in ordered])
    alone = Dying(Cells(chosen, tmp_path, CPU, 2**20, False), chosen[0].name)
    list(outcomes(plan, chosen[:1], replace(asked, out=tmp_path), CPU, alone, lambda task: None))
    assert alone.asked == [(chosen[0].name,)]  # it was tried often enough


def test_a_cell_that_fails_is_told_and_a_full_disk_ends_all(asked, plan, tmp_path, monkeypatch):
    (first, second) = (task for task in plan.tasks if task.method.is_control)
    cells = Cells([first, second], tmp_path, CPU, 2**20, True)
    monkeypatch.setattr(spread, "compute_cell", lambda *_: {}["x"])
    (found,) = cells.compute((first.name,))
    assert found.reason == "KeyError: 'x'" and "Traceback" in found.trace and found.metadata is None
    assert not any((tmp_path / "running").iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spread, "compute_cell", full)
    with pytest.raises(OSError, match="No space"):
        cells.compute((first.name, second.name))

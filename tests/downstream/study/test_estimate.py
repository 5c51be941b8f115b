"""How long a study takes: what is kept of measurements, and what is made of them."""

import json
from itertools import groupby

import pytest
import torch

from downstream.study.compute import fit_settings
from downstream.study.config import Evaluate
from downstream.study.estimate import (
    KEPT,
    SPREAD,
    Estimate,
    Rates,
    StudyClock,
    Work,
    machine_of,
    measured_first,
    plan_lines,
    work_of,
)
from downstream.study.plan import plan_study
from pretrain.command import Names
from pretrain.progress import Progress

CPU = machine_of(torch.device("cpu"))


@pytest.fixture(scope="module")
def tasks(demo_folder, encoder_file):
    """k-NN and PaDiM on two encoders, with 2 and all normals, and two controls; two seeds: 16 cells."""
    config = Evaluate(
        data=demo_folder, train=Names("hazelnut,leather"), test=Names("bottle"), encoder=Names(str(encoder_file)),
        methods=Names("knn,padim"), shots=Names("2,all"), seeds=Names("0,1"), size_px=32,
    )  # fmt: skip
    return plan_study(config).tasks


@pytest.fixture
def rates(tmp_path) -> Rates:
    return Rates(tmp_path / "cache/rates.json")


def measure(clock: StudyClock, task, fit_s: float, seconds: float, is_new_fit: bool = True) -> bool:
    return clock.finish(task, seconds, {"fit_took_s": fit_s, "is_new_fit": is_new_fit})


def test_the_first_cell_of_a_fit_pays_for_it_and_images_are_counted(tasks):
    work = work_of(tasks, CPU)
    padim = [(task.cell.row.shots, parts) for task, parts in zip(tasks, work, strict=True)
             if task.cell.row.name.startswith("padim-SimCLR") and task.cell.seed == 0]  # fmt: skip
    (shots, first), (_, second) = padim
    assert shots == "2" and len(first) == 2 and len(second) == 1
    # hazelnut and leather: 12 train/good, 6 test/good, 3 of each defect; 18 test images of bottle, and its 12 normals.
    labeled = len(tasks[0].images.labeled)
    assert first[0].images == round(0.85 * labeled)
    assert first[1].images == 18 + 2 + round(0.15 * labeled) and second[0].images == 18 + 12 + round(0.15 * labeled)
    assert len({parts[-1].key for _, parts in padim}) == 2  # numbers of references cost differently


def test_equal_work_on_other_weights_has_the_same_key(tasks):
    keys = {}
    for task, parts in zip(tasks, work_of(tasks, CPU), strict=True):
        keys.setdefault((task.cell.row.method, task.cell.row.shots), set()).add(parts[-1].key)
    assert all(len(of_row) == 1 for of_row in keys.values())
    assert len({key for of_row in keys.values() for key in of_row}) == len(keys)


def test_one_fit_of_everything_unmeasured_goes_first_and_fits_stay_together(tasks, rates):
    work = work_of(tasks, CPU)
    ordered = measured_first(tasks, rates, CPU)
    assert sorted(map(id, ordered)) == sorted(map(id, tasks))
    front = [(task.cell.row.method, task.cell.row.encoder, task.cell.seed) for task in ordered[:5]]
    assert front == [("knn", "SimCLR", 0), *[("padim", "SimCLR", 0)] * 2, ("mean", "", 0), ("frame", "", 0)]
    assert len({str(fit_settings(task.cell)) for task in ordered}) == sum(
        len(parts) == 2 for parts in work_of(ordered, CPU)
    )
    for part in {part for parts in work for part in parts}:
        rates.add(part, 1.0)
    runs = groupby(measured_first(tasks, rates, CPU), key=lambda task: (task.cell.seed, task.cell.encoder_id))
    of_one_encoder = [key for key, _ in runs]
    assert len(of_one_encoder) == len(set(of_one_encoder)) == 2 * 3  # seeds; SimCLR, random, none


def test_where_each_category_is_left_out_a_fit_serves_all_numbers_of_references(demo_folder, rates):
    config = Evaluate(data=demo_folder, protocol="leave-one-out", encoder=Names("none"), methods=Names("residual"),
                      shots=Names("2,all"), seeds=Names("0"), size_px=32)  # fmt: skip
    tasks = plan_study(config).tasks
    fits = {str(fit_settings(task.cell)) for task in tasks}
    assert sum(len(parts) == 2 for parts in work_of(tasks, CPU)) > len(fits)  # in the order of the tables
    clock = StudyClock(tasks, rates, CPU)
    assert sum(len(parts) == 2 for parts in work_of(clock.tasks, CPU)) == len(fits)


def test_rates_are_kept_for_the_next_study_and_damage_is_forgotten(rates):
    work = Work("fit", 10)
    for seconds in (1.0, 2.0, 3.0):
        rates.add(work, seconds)
    rates.save()
    again = Rates(rates.file)
    assert "fit" in again and again.seconds(Work("fit", 20)) == pytest.approx((4.0, 2.0 / SPREAD, 6.0 * SPREAD))
    for seconds in range(KEPT):
        again.add(work, 5.0 + seconds)
    assert again.seconds(work)[1] == pytest.approx(5.0 / SPREAD)  # the oldest are gone
    for text in ("no json", "[]", '{"rates": {"fit": "x"}}', json.dumps({"rates": {"fit": 3}})):
        rates.file.write_text(text)
        assert "fit" not in Rates(rates.file)


def test_rates_that_cannot_be_written_stop_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    rates = Rates(tmp_path / "file/rates.json")
    rates.add(Work("fit", 1), 1.0)
    rates.save()
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_unmeasured_study_says_so_and_learns(tasks, rates):
    clock = StudyClock(tasks, rates, CPU)
    text = "\n".join(plan_lines(clock, finished=3))
    assert "study: 16 cells to compute, of 8 rows; 3 are finished" in text
    assert "time: not known yet" in text and "so they go first: knn, padim, mean, frame" in text
    assert clock.time_left() == "time left not known yet"
    first, *others = clock.tasks
    assert not measure(clock, first, fit_s=4.0, seconds=5.0)
    # Three more of k-NN: the other encoder, and both once more with the other seed.
    assert clock.estimate().seconds == pytest.approx(3 * 5.0, abs=0.1)
    assert clock.estimate().low == pytest.approx(15 / SPREAD, abs=0.1)
    assert clock.time_left() == "at least 12 s left, and what padim, mean, frame take"
    learned = [measure(clock, task, fit_s=0.5, seconds=1.0, is_new_fit=task.cell.row.shots != "all"
                       or task.method.is_control) for task in others[:4]]  # fmt: skip
    assert learned == [False, False, False, True]
    assert clock.estimate().unmeasured == ()


def test_the_sum_is_that_of_all_cells_and_the_costliest_rows_are_named(tasks, rates):
    """Against adding up by hand: PaDiM takes 2 s to fit and 3 s for each cell, all others 0.1 s."""
    for parts in work_of(tasks, CPU):
        for part in parts:
            is_padim, is_fit = "| padim |" in part.key, part.key.startswith("fit")
            rates.add(part, (2.0 if is_fit else 3.0) if is_padim else 0.1)
    clock = StudyClock(tasks, rates, CPU)
    # 2 encoders and 2 seeds: 4 fits and 8 cells of PaDiM; 4 fits and cells of k-NN; 4 of controls.
    assert clock.estimate().seconds == pytest.approx(4 * 2 + 8 * 3 + 4 * 0.2 + 4 * 0.2, rel=0.05)
    assert clock.estimate().high == pytest.approx(clock.estimate().seconds * SPREAD)
    assert StudyClock(tasks, rates, CPU, at_once=4).estimate().seconds == pytest.approx(clock.estimate().seconds / 4)
    lines = plan_lines(clock, finished=0)
    assert "  most of it: padim-SimCLR-2-normals 10 s, padim-random-2-normals 10 s, padim-" in "\n".join(lines)
    assert not any("never measured" in line for line in lines)
    assert plan_lines(StudyClock([], rates, CPU), finished=16) == ["study: all 16 cells are finished"]


def test_what_the_running_cell_has_taken_is_not_left(tasks, rates, monkeypatch):
    for parts in work_of(tasks, CPU):
        for part in parts:
            rates.add(part, 10.0)
    clock = StudyClock(tasks, rates, CPU)
    total, now_s = clock.estimate().seconds, [100.0]
    monkeypatch.setattr("downstream.study.estimate.time.monotonic", lambda: now_s[0])
    clock.start(clock.tasks[0])
    now_s[0] += 5
    assert clock.estimate().seconds == pytest.approx(total - 5)
    now_s[0] += 500  # it takes far longer than thought: the others still take their time
    assert clock.estimate().seconds == pytest.approx(total - 20)
    assert not clock.finish(clock.tasks[0], 505.0, None)  # failed, so nothing is learned
    assert clock.estimate().seconds == pytest.approx(total - 20)


def test_an_unmeasured_fit_that_tells_how_far_it_is_gives_the_least_that_is_left(tasks, rates, monkeypatch):
    clock = StudyClock(tasks, rates, CPU)
    clock.start(clock.tasks[0])
    with Progress("study", 16, "cells"), Progress("training", 100, "steps") as inner:
        inner._start_s -= 10
        inner.done = 10
        assert clock.estimate().seconds == pytest.approx(90, rel=0.01)
        assert clock.time_left().startswith("at least 90 s left, and what knn")


def test_a_cell_that_found_its_method_fitted_says_nothing_of_the_fit(tasks, rates):
    clock = StudyClock(tasks, rates, CPU)
    first, second = (
        task for task in clock.tasks if task.cell.row.name.startswith("padim-SimCLR") and not task.cell.seed
    )
    assert not clock.finish(first, 9.0, None)  # failed
    measure(clock, second, fit_s=9.0, seconds=1.0, is_new_fit=False)
    (fit, rest), (other,) = work_of([first, second], CPU)
    assert fit.key not in rates and rest.key not in rates and rates.seconds(other)[0] == pytest.approx(1.0, abs=0.05)


def test_times_are_told_as_exactly_as_they_are_known():
    assert str(Estimate(840, 600, 1500)) == "about 14 min (10 min to 25 min)"
    assert str(Estimate(840, 600, 1500, ("ae",))) == "at least 10 min"
    assert str(Estimate(0, 0, 0, ("ae",))) == "not known yet"

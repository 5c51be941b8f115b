"""What trackers get of a study: rows as parts, figures as cells finish, and how it ended."""

from pathlib import Path

import pytest
from event_files import events, tracked
from PIL import Image

from downstream.report.tracking import TRACKED, Followers
from downstream.study.figures import cell_figures
from pretrain.training import trackers


class Listening(trackers.TensorBoard):
    """Keeps how it was ended."""

    ends: list[tuple] = []

    def end(self, status, of_parts):
        super().end(status, of_parts)
        self.ends.append((status, dict(of_parts)))


@pytest.fixture
def ends(monkeypatch) -> list[tuple]:
    monkeypatch.setattr(Listening, "ends", [])
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", (Listening, "tensorboard"))
    return Listening.ends


@pytest.fixture
def followed(summarized, tmp_path) -> tuple[Path, dict, dict]:
    """A folder for what trackers are given, and a finished study."""
    summary, results = summarized
    for name in ("report.html", "report.json"):
        (tmp_path / name).touch()
    return tmp_path, summary, results


def follow(folder: Path, summary: dict, results: dict, is_whole: bool = True) -> None:
    with Followers(["tensorboard"], folder, summary) as followers:
        followers.report(summary, results, is_whole)


def test_every_row_has_its_figures_by_seed_and_their_means(followed, ends):
    folder, summary, results = followed
    follow(*followed)
    for key, by_category in results.items():
        found = events(folder / "tensorboard" / key.name)
        for seed, result in by_category["bottle"].items():
            told = {
                name: value for name, value in cell_figures(result).items() if name in TRACKED and value is not None
            }
            for name, value in told.items():
                steps = {event.step: event.value for event in found.Scalars(f"bottle/{name}")}
                assert steps.keys() == {0, 1} and steps[seed] == pytest.approx(value)
    (row,) = (row for row in summary["rows"] if row["name"] == "padim-SimCLR-2-normals")
    (mean,) = events(folder / "tensorboard" / row["name"]).Scalars("auroc")
    assert mean.value == pytest.approx(row["figures"]["auroc"]["mean"])
    assert ends == [("FINISHED", {row["name"]: "FINISHED" for row in summary["rows"]})]


def test_it_gets_the_options_and_images_with_heatmaps(followed, ends):
    folder, *_ = followed
    follow(*followed)
    assert tracked(folder) == {"scalars": [], "images": ["gallery"]}
    (table,) = events(folder / "tensorboard").Tensors("options/text_summary")
    for line in (b"| seeds | 0,1 |", b"| methods | knn,padim,mean,frame |", b"| size_px | 32 |", b"| test | bottle |"):
        assert line in table.tensor_proto.string_val[0]
    with Image.open(folder / "gallery.png") as image:
        assert image.width > 4 * 150 and len(image.getcolors(1 << 20)) > 1000


def test_a_cell_is_told_when_it_is_finished_and_once(followed, ends):
    folder, summary, results = followed
    key, by_category = next(iter(results.items()))
    with Followers(["tensorboard"], folder, summary) as followers:
        followers.cell(by_category["bottle"][1])
        followers.cell(by_category["bottle"][1])
    steps = [event.step for event in events(folder / "tensorboard" / key.name).Scalars("bottle/auroc")]
    assert steps == [1] and ends == [("KILLED", {})]


def test_how_it_ended_is_that_of_its_cells(followed, ends):
    folder, summary, results = followed
    row = summary["rows"][0]
    failure = {"row": {name: row[name] for name in ("method", "encoder", "shots")}, "reason": "no images"}
    follow(folder, {**summary, "failures": [failure]}, results)
    follow(folder, {**summary, "cells": {"finished": 3, "planned": 4}}, results)
    follow(folder, summary, results, is_whole=False)
    with pytest.raises(KeyboardInterrupt), Followers(["tensorboard"], folder, summary) as followers:
        followers.report(summary, results)
        raise KeyboardInterrupt
    assert [status for status, _ in ends] == ["FAILED", "KILLED", "FAILED", "KILLED"]
    of_rows = ends[0][1]
    assert of_rows.pop(row["name"]) == "FAILED" and {*of_rows.values()} == {"FINISHED"}


def test_nobody_who_follows_costs_nothing(followed):
    folder, summary, results = followed
    with Followers([], folder, summary) as followers:
        followers.report(summary, results)
    assert not (folder / "gallery.png").exists()

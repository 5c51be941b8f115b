"""A manifest inspected in this process: the scores of the images named one by one, once each, whatever stops it."""

import json
import os
import shutil

import fsspec
import pytest
from fitted_models import run_detect
from manifests import files_of, images_to_inspect, rows_of, run_manifest
from PIL import Image

from downstream.inspection.manifest import part
from pretrain.data.places import Listed


@pytest.fixture(scope="module")
def images(demo_folder, tmp_path_factory):
    return images_to_inspect(tmp_path_factory.mktemp("many") / "images", demo_folder)


@pytest.fixture(scope="module")
def inspected(images, padim_folder, tmp_path_factory):
    """The results of a whole run, which no test changes."""
    out = tmp_path_factory.mktemp("out") / "whole"
    assert run_manifest(images, padim_folder, out) == 1
    return out


def test_scores_and_verdicts_are_those_of_images_that_are_named(images, inspected, padim_folder, tmp_path):
    run_detect("run", images, "--model", padim_folder, "--out", tmp_path, "--overlays", "none")
    lines = {
        json.loads(line)["path"]: json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()
    }
    rows = rows_of(inspected)
    judged = {str(images / row["path"]): row for row in rows if row["reason"] is None}
    assert judged.keys() == lines.keys() and len(rows) == 26
    for path, line in lines.items():
        row = judged[path]
        assert row["score"] == pytest.approx(line["score"], rel=1e-5)
        assert [row[name] for name in ("is_defective", "width", "height")] == [
            line[name] for name in ("is_defective", "width", "height")
        ]
        assert [region["box"] for region in row["regions"]] == [region["box"] for region in line["regions"]]
        assert len(row["digest"]) == 32 and len(row["model"]) == 24


def test_a_bad_image_is_a_row_with_its_reason_and_defective_ones_are_drawn(inspected):
    rows = {row["path"]: row for row in rows_of(inspected)}
    assert "not an image" in rows["day 1/bad.png"]["reason"] and "empty" in rows["day 2/empty.png"]["reason"]
    drawn = {row["overlay"] for row in rows.values() if row["is_defective"]}
    assert drawn == {f"overlays/{name}" for name in os.listdir(inspected / "overlays")} and len(drawn) >= 3


def test_the_summary_and_the_page_show_the_worst(inspected):
    summary, page = json.loads((inspected / "summary.json").read_text()), (inspected / "report.html").read_text()
    rows = [row for row in rows_of(inspected) if row["reason"] is None]
    assert (summary["images"], summary["unreadable"]) == (26, 2)
    assert summary["defective"] == sum(row["is_defective"] for row in rows)
    worst = sorted(rows, key=lambda row: -row["score"])
    assert [row["path"] for row in summary["worst"]] == [row["path"] for row in worst][:30]
    assert page.count("data:image/jpeg") == summary["defective"] and "day 1/bad.png" in page


def test_a_run_that_was_stopped_goes_on_and_repeats_nothing(images, inspected, padim_folder, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    inspect, stop_at = part.inspect_rows, 3

    def counted(job, rows):
        if len(done) == stop_at:
            raise KeyboardInterrupt
        done.extend([rows])
        return inspect(job, rows)

    monkeypatch.setattr(part, "inspect_rows", counted)
    assert run_manifest(images, padim_folder, out) == 130
    assert len(list((out / "results").iterdir())) == 3
    stop_at = None
    assert run_manifest(images, padim_folder, out) == 1
    assert sorted(row.path for rows in done for row in rows) == [row["path"] for row in rows_of(inspected)]
    ours, whole = files_of(out), files_of(inspected)
    assert {name for name in ours if ours[name] != whole.get(name)} <= {"lock"} and ours.keys() == whole.keys()


def test_only_parts_of_changed_images_are_inspected_again(images, padim_folder, tmp_path, monkeypatch):
    data, out = shutil.copytree(images, tmp_path / "images"), tmp_path / "out"
    run_manifest(data, padim_folder, out)
    seen, inspect = [], part.inspect_rows
    monkeypatch.setattr(part, "inspect_rows", lambda job, rows: seen.extend(rows) or inspect(job, rows))
    run_manifest(data, padim_folder, out)
    assert seen == []
    (data / "day 0" / "000.png").unlink()
    Image.new("RGB", (300, 300), (9, 200, 30)).save(data / "day 2" / "999.png")
    (out / "results" / "mine.parquet").write_bytes(b"somebody else's")
    run_manifest(data, padim_folder, out)
    (out / "results" / "mine.parquet").unlink()  # it is there
    assert 0 < len(seen) < 20
    assert [row["path"] for row in rows_of(out)] == sorted(
        str(path.relative_to(data)) for path in data.rglob("*.png")
    )  # nothing of the image that is gone
    before = len(seen)
    run_manifest(data, padim_folder, out, "--threshold", "1e9")
    assert len(seen) - before == 26 and not any(row["is_defective"] for row in rows_of(out))


def test_a_url_and_an_archive_give_what_the_folder_gives(images, inspected, padim_folder, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(f"{images}/", "memory://bolts/", recursive=True)
    archive = shutil.make_archive(tmp_path / "shard", "zip", images)
    names = ("path", "score", "regions", "overlay", "digest", "reason")
    expected = [{name: row[name] for name in names} for row in rows_of(inspected)]
    for number, url in enumerate(["memory://bolts", archive]):
        out = tmp_path / str(number)
        assert run_manifest(url, padim_folder, out) == 1
        assert [{name: row[name] for name in names} for row in rows_of(out)] == expected, url
    assert run_manifest("memory://bolts", padim_folder, "memory://found") == 1
    assert memory.cat_file("memory://found/summary.json") == (tmp_path / "0" / "summary.json").read_bytes()
    for url in ("memory://bolts", "memory://found"):
        memory.rm(url, recursive=True)


def test_keys_that_are_one_path_are_two_images(images, padim_folder, tmp_path):
    """As a store of objects may have them."""
    memory, rows = fsspec.filesystem("memory"), []
    for key, name in (("a//b.png", "day 0/000.png"), ("a/b.png", "day 2/005.png"), ("a///b.png", "day 1/bad.png")):
        memory.pipe(f"memory://keys/{key}", (images / name).read_bytes())
        rows.append(Listed(key, 1, ""))
    job = part.Job("memory://keys", str(tmp_path), str(padim_folder), part.digest_of_model(padim_folder), None, "all",
                   "cpu")  # fmt: skip
    first, second, third = part.inspect_rows(job, tuple(rows))
    assert (first["path"], second["path"], third["path"]) == ("a//b.png", "a/b.png", "a///b.png")
    assert not first["is_defective"] and second["is_defective"] and "not an image" in third["reason"]
    assert first["digest"] != second["digest"] and first["overlay"] != second["overlay"]
    memory.rm("memory://keys", recursive=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--data", "nowhere", "x.png"], "leave the images out"), (["--data", "nowhere", "--maps"], "leave it out"),
     (["--data", "nowhere"], "cannot be listed"), (["--data", "nowhere.parquet"], "there is no manifest"),
     (["--data", "x", "--part-images", "0"], "0 images make no part"), (["x.png", "--address", "local"], "by --data"),
     (["--data", "x", "--address", "here"], "no address of Ray")],
)  # fmt: skip
def test_mistakes_are_one_sentence(arguments, words, padim_folder, blotched, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(blotched, "x")
    assert run_detect("run", "--model", padim_folder, *arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]

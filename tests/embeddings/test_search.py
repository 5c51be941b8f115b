"""The command: what it finds, refuses and shows."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

from embeddings.config import Search
from embeddings.extract import extract
from embeddings.search import main, query_paths
from pretrain.command import Names, run_command
from pretrain.encoder import Encoder
from pretrain.weights import Origin


@pytest.fixture
def ask(pooled, tmp_path):
    """Searches, and gives what was written as JSON, and the page."""

    def asked(*queries: Path, **named) -> tuple[dict, str]:
        config = Search(
            queries=queries, vectors=pooled.folder, sheet=tmp_path / "s/n.html", json=tmp_path / "n.json", k=5
        )
        main(replace(config, **named))
        return json.loads((tmp_path / "n.json").read_text()), (tmp_path / "s/n.html").read_text()

    return asked


def test_neighbors_are_those_of_the_definition_without_the_query(ask, pooled, demo_folder, capsys):
    query = demo_folder / "hazelnut/test/crack/001.png"
    answers, page = ask(query)
    position = [record.path for record in pooled.records].index(query)
    rows = pooled[:].astype("f8")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 1 - rows @ rows[position]
    distances[position] = np.inf
    expected = np.argsort(distances)[:5]
    found = answers["queries"][0]["neighbors"]
    assert [neighbor["path"] for neighbor in found] == [str(pooled.records[p].path) for p in expected]
    np.testing.assert_allclose([n["distance"] for n in found], distances[expected], rtol=0.01, atol=1e-6)
    assert answers["index"] == {
        "kind": "flat", "metric": "cosine", "vectors": 90, "shards": 1, "recall": None,
    }  # fmt: skip
    shown = capsys.readouterr().out
    for neighbor in found:
        assert Path(neighbor["path"]).relative_to(demo_folder).as_posix() in shown
    assert page.count("data:image/jpeg;base64,") == 6


def test_copies_and_images_from_elsewhere(ask, demo_folder, tmp_path):
    original = demo_folder / "leather/train/good/003.png"
    shutil.copy(original, tmp_path / "copy.png")
    answers, _ = ask(tmp_path / "copy.png")
    first = answers["queries"][0]["neighbors"][0]
    assert first["path"] == str(original) and first["distance"] < 1e-5


def test_several_queries_and_folders(ask, demo_folder):
    answers, page = ask(demo_folder / "bottle/test/scratch", demo_folder / "leather/train/good/000.png", batch=2)
    assert [Path(query["path"]).parent.name for query in answers["queries"]] == ["scratch"] * 3 + ["good"]
    assert page.count("<section>") == 4


@pytest.mark.parametrize("filters", [
    {"category": Names("bottle")},
    {"defect": Names("scratch")},
    {"split": Names("train")},
    {"category": Names("leather"), "split": Names("test"), "defect": Names("good,cut")},
])  # fmt: skip
def test_filters_hold(filters, ask, demo_folder):
    answers, page = ask(demo_folder / "hazelnut/test/crack/001.png", k=3, **filters)
    neighbors = answers["queries"][0]["neighbors"]
    assert len(neighbors) == 3
    assert all(neighbor[name] in wanted for neighbor in neighbors for name, wanted in filters.items())
    assert "only " in page


def test_filters_that_leave_little(ask, demo_folder, capsys):
    scratches = demo_folder / "bottle/test/scratch"
    answers, _ = ask(scratches / "000.png", category=Names("bottle"), defect=Names("scratch"), k=10)
    assert len(answers["queries"][0]["neighbors"]) == 2  # itself is not shown
    assert "only 3 images pass the filters" in capsys.readouterr().err
    assert "no image has all of these labels" in refusal(
        ask, scratches / "000.png", category=Names("leather"), defect=Names("scratch")
    )
    assert "did you mean scratch" in refusal(ask, scratches / "000.png", defect=Names("scrath"))


def test_differences_from_good_images(ask, pooled, demo_folder):
    query = demo_folder / "bottle/test/scratch/001.png"
    asked = {"category": Names("bottle"), "split": Names("test"), "k": 4}
    answers, page = ask(query, **asked, differences=True)
    positions = pooled.where(["bottle"])
    records = [pooled.records[position] for position in positions]
    rows = pooled.of_images(positions)[:, 0].astype("f8")
    rows -= rows[[record.split == "train" for record in records]].mean(axis=0)
    own = [record.path for record in records].index(query)
    cosines = rows @ rows[own] / np.linalg.norm(rows, axis=1)
    cosines[[record.split == "train" for record in records]] = cosines[own] = -np.inf
    expected = [str(records[place].path) for place in np.argsort(-cosines)[:4]]
    assert [neighbor["path"] for neighbor in answers["queries"][0]["neighbors"]] == expected
    assert "difference from good images" in page
    assert "of one category, not of 0" in refusal(ask, query, differences=True)
    assert "not of 2" in refusal(ask, query, category=Names("bottle,leather"), differences=True)


def test_a_filter_that_leaves_the_query_alone(ask, small, tmp_path, demo_folder):
    folder = tmp_path / "data"
    shutil.copytree(demo_folder / "bottle/train", folder / "bottle/train")
    (folder / "bottle/test/dent").mkdir(parents=True)
    shutil.copy(demo_folder / "bottle/test/scratch/000.png", folder / "bottle/test/dent")
    out = extract(small(folder))
    answers, page = ask(folder / "bottle/test/dent/000.png", vectors=out, defect=Names("dent"))
    assert answers["queries"][0]["neighbors"] == [] and "no other image" in page
    answers, _ = ask(folder / "bottle/train/good/000.png", vectors=out, defect=Names("dent"))
    assert [neighbor["defect"] for neighbor in answers["queries"][0]["neighbors"]] == ["dent"]


def test_questions_that_cannot_be_answered(ask, demo_folder, tmp_path):
    query = demo_folder / "bottle/train/good/000.png"
    assert "--k 91 neighbors cannot be found among 90 images" in refusal(ask, query, k=91)
    assert "--k 0" in refusal(ask, query, k=0)
    assert len(ask(query, k=90)[0]["queries"][0]["neighbors"]) == 89
    (tmp_path / "no.png").write_text("no image")
    assert "cannot be searched for: not an image" in refusal(ask, tmp_path / "no.png")
    assert "there is no image or folder" in refusal(ask, tmp_path / "none.png")
    assert "no image to search for" in refusal(ask)
    assert "leave out --data" in refusal(ask, query, data=demo_folder)
    assert "there are no vectors" in refusal(ask, query, vectors=tmp_path)


def test_a_query_among_several_that_is_no_image_is_left_out(ask, demo_folder, tmp_path, capsys):
    (tmp_path / "no.png").write_text("no image")
    answers, _ = ask(tmp_path / "no.png", demo_folder / "bottle/train/good/000.png")
    assert len(answers["queries"]) == 1
    assert "left out" in capsys.readouterr().err
    (tmp_path / "also.png").write_text("none either")
    assert "none of the queries" in refusal(ask, tmp_path / "no.png", tmp_path / "also.png")


def test_another_encoder_is_refused(ask, demo_folder, tmp_path):
    Encoder(seed=7).save(tmp_path / "other.safetensors")
    query = demo_folder / "bottle/train/good/000.png"
    assert "mean nothing" in refusal(ask, query, encoder=tmp_path / "other.safetensors")


def test_with_no_index_yet_it_makes_one_and_reports_it(demo_folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(demo_folder / "bottle", tmp_path / "photos/bottle")
    origin = Origin("photos", recipe={"start": "imagenet", "synthetic_auroc": 0.95, "synthetic_auroc_of_start": 0.9})
    Encoder(seed=1, input_size_px=64, origin=origin).save(tmp_path / "runs/simclr/encoder.safetensors")
    query = tmp_path / "photos/bottle/train/good/001.png"
    monkeypatch.chdir(tmp_path)
    asked = Search(queries=(query,), data=Path("photos"), k=3)
    main(asked)
    first = capsys.readouterr()
    assert "no vectors of photos by runs/simclr/encoder.safetensors yet: extracting them" in first.err
    assert re.search(r"no index of runs/vectors/photos-pooled-\w+ yet: building one of 30 vectors", first.err)
    assert "contact sheet: runs/search/neighbors.html" in first.out
    main(asked)
    again = capsys.readouterr()
    assert again.out == first.out and "building" not in again.err and "extracting" not in again.err
    shutil.copy(query, tmp_path / "photos/bottle/train/good/zzz.png")
    (tmp_path / "photos/bottle/train/good/002.png").unlink()
    main(replace(asked, update=True))
    updated = capsys.readouterr()
    assert "index brought up to date: 1 vectors added, 1 removed" in updated.err
    assert "zzz.png" in updated.out and "zzz.png" not in first.out


def test_users_errors_are_one_sentence(pooled, capsys):
    assert run_command(main, Search, ["nowhere.png", "--vectors", str(pooled.folder)]) == 2
    no_such_file = capsys.readouterr()
    assert run_command(main, Search, ["--vectors", str(pooled.folder)]) == 2
    nothing_asked = capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        run_command(main, Search, ["--kk", "3", "--vectors", str(pooled.folder)])
    unknown_option = capsys.readouterr()
    assert no_such_file.out == nothing_asked.out == unknown_option.out == ""
    for stderr in (no_such_file.err, nothing_asked.err, unknown_option.err):
        assert len(stderr.splitlines()) == 1 and stderr.startswith("error: ")


def test_queries_are_asked_once(demo_folder):
    image = demo_folder / "bottle/test/good/000.png"
    assert query_paths([image, image.parent]).count(image) == 1


def test_names_are_shown_as_they_are_and_cannot_be_html(ask, demo_folder, tmp_path):
    odd = tmp_path / "<script>alert(1)<" / "[red]a.png"
    odd.parent.mkdir()
    shutil.copy(demo_folder / "bottle/test/good/000.png", odd)
    _, page = ask(odd)
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;" in page

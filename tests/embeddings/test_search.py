"""The command: what it finds, builds, refuses and shows."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from embeddings.build import describe_recall, index_folder, open_index
from embeddings.build import main as build_main
from embeddings.config import Build, Extract, Search
from embeddings.extract import extract
from embeddings.index import Index
from embeddings.open_vectors import extraction_of, open_vectors
from embeddings.search import main, query_paths
from embeddings.sheet import thumbnail
from embeddings.vectors import Vectors
from pretrain.command import Names, UserError
from pretrain.encoder import Encoder, Origin


@pytest.fixture(scope="module")
def vectors(demo_folder, tmp_path_factory) -> Vectors:
    """Of the demo set by a random encoder, not yet indexed."""
    out = tmp_path_factory.mktemp("vectors") / "v"
    return Vectors(extract(Extract(data=demo_folder, encoder=Path("random"), out=out, size_px=64, precision="32-true")))


@pytest.fixture
def ask(vectors, tmp_path):
    """Asks and gives what was written as JSON, and the page."""

    def asked(*queries: Path, **named) -> tuple[dict, str]:
        config = Search(
            queries=queries, vectors=vectors.folder, sheet=tmp_path / "s/n.html", json=tmp_path / "n.json", k=5
        )
        main(replace(config, **named))
        return json.loads((tmp_path / "n.json").read_text()), (tmp_path / "s/n.html").read_text()

    return asked


def refusal(work, *arguments, **named) -> str:
    """What the user reads: one sentence."""
    with pytest.raises(UserError) as raised:
        work(*arguments, **named)
    message = str(raised.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message


def search(*arguments: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    command = [sys.executable, REPOSITORY / "embeddings/search.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_neighbors_are_those_of_the_definition_without_the_query(ask, vectors, demo_folder, capsys):
    query = demo_folder / "hazelnut/test/crack/001.png"
    answers, page = ask(query)
    position = [record.path for record in vectors.records].index(query)
    rows = vectors[:].astype("f8")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 1 - rows @ rows[position]
    distances[position] = np.inf
    expected = np.argsort(distances)[:5]
    found = answers["queries"][0]["neighbors"]
    assert [neighbor["path"] for neighbor in found] == [str(vectors.records[p].path) for p in expected]
    np.testing.assert_allclose([n["distance"] for n in found], distances[expected], rtol=0.01, atol=1e-6)
    assert answers["index"] == {"kind": "flat", "metric": "cosine", "vectors": 90, "recall": None}
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


def test_differences_from_good_images(ask, vectors, demo_folder):
    query = demo_folder / "bottle/test/scratch/001.png"
    asked = {"category": Names("bottle"), "split": Names("test"), "k": 4}
    answers, page = ask(query, **asked, differences=True)
    positions = vectors.where(["bottle"])
    records = [vectors.records[position] for position in positions]
    rows = vectors.of_images(positions)[:, 0].astype("f8")
    rows -= rows[[record.split == "train" for record in records]].mean(axis=0)
    own = [record.path for record in records].index(query)
    cosines = rows @ rows[own] / np.linalg.norm(rows, axis=1)
    cosines[[record.split == "train" for record in records]] = cosines[own] = -np.inf
    expected = [str(records[place].path) for place in np.argsort(-cosines)[:4]]
    assert [neighbor["path"] for neighbor in answers["queries"][0]["neighbors"]] == expected
    assert "difference from good images" in page
    assert "of one category, not of 0" in refusal(ask, query, differences=True)
    assert "not of 2" in refusal(ask, query, category=Names("bottle,leather"), differences=True)


def test_a_filter_that_leaves_the_query_alone(ask, vectors, tmp_path, demo_folder):
    folder = tmp_path / "data"
    shutil.copytree(demo_folder / "bottle/train", folder / "bottle/train")
    (folder / "bottle/test/dent").mkdir(parents=True)
    shutil.copy(demo_folder / "bottle/test/scratch/000.png", folder / "bottle/test/dent")
    out = extract(Extract(data=folder, encoder=Path("random"), out=tmp_path / "v", size_px=64))
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


def test_vectors_of_patches_are_refused(ask, demo_folder, tmp_path):
    out = extract(Extract(data=demo_folder / "bottle", encoder=Path("random"), out=tmp_path / "p", size_px=64,
                             form="patches", grid=2))  # fmt: skip
    assert "vectors of patches" in refusal(ask, demo_folder / "bottle/train/good/000.png", vectors=out)


def test_with_no_index_yet_it_makes_one_and_says_so(demo_folder, tmp_path):
    shutil.copytree(demo_folder / "bottle", tmp_path / "photos/bottle")
    origin = Origin("photos")
    Encoder(seed=1, input_size_px=64, origin=origin).save(tmp_path / "runs/simclr/encoder.safetensors")
    query = tmp_path / "photos/bottle/train/good/001.png"
    first = search(query, "--data", "photos", "--k", "3", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "no vectors of photos by runs/simclr/encoder.safetensors yet: extracting them" in first.stderr
    assert re.search(r"no index of runs/vectors/photos-pooled-\w+ yet: building one of 30 vectors", first.stderr)
    assert "contact sheet: runs/search/neighbors.html" in first.stdout
    again = search(query, "--data", "photos", "--k", "3", cwd=tmp_path)
    assert again.stdout == first.stdout and "building" not in again.stderr and "extracting" not in again.stderr
    shutil.copy(query, tmp_path / "photos/bottle/train/good/zzz.png")
    (tmp_path / "photos/bottle/train/good/002.png").unlink()
    updated = search(query, "--data", "photos", "--k", "3", "--update", cwd=tmp_path)
    assert "index brought up to date: 1 vectors added, 1 removed" in updated.stderr
    assert "zzz.png" in updated.stdout and "zzz.png" not in first.stdout


def test_mistakes_are_one_sentence(vectors):
    for arguments in (("nowhere.png",), (), ("--kk", "3")):
        done = search(*arguments, "--vectors", vectors.folder)
        assert done.returncode == 2 and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


def test_a_damaged_index_is_one_sentence_and_can_be_made_again(vectors, demo_folder, ask, tmp_path):
    copy = Path(shutil.copytree(vectors.folder, tmp_path / "v"))
    open_index(Vectors(copy))
    (engine,) = index_folder(Vectors(copy)).glob("*.faiss")
    engine.write_bytes(engine.read_bytes()[:1000])
    query = demo_folder / "bottle/train/good/000.png"
    assert "is cut off" in refusal(ask, query, vectors=copy)
    open_index(Vectors(copy), Build(copy, rebuild=True))
    assert len(ask(query, vectors=copy)[0]["queries"]) == 1


def test_build_says_what_the_speed_costs(vectors, tmp_path, capsys):
    copy = Path(shutil.copytree(vectors.folder, tmp_path / "v"))
    build_main(Build(copy, rebuild=True, kind="ivf", nlist=9, recall=0.9))
    shown = capsys.readouterr().out
    index = Index.load(index_folder(Vectors(copy)))
    assert f"finds {index.recall.value:.3f} of the 10 nearest" in shown and "ivf" in shown
    index.recall = index.recall._replace(value=0.85)
    assert "finds 0.850 of the 10 nearest, BELOW the 0.9 asked for" in describe_recall(index)
    build_main(Build(copy))  # as it is
    assert "no index" not in capsys.readouterr().err


def test_vectors_know_how_they_were_extracted(vectors, demo_folder):
    config = extraction_of(vectors.folder)
    assert (config.size_px, config.levels, config.precision) == (64, Names("level4"), "32-true")
    assert extract(config) == vectors.folder
    assert open_vectors(vectors.folder, update=True).ids.tolist() == vectors.ids.tolist()


def test_queries_are_asked_once(demo_folder):
    image = demo_folder / "bottle/test/good/000.png"
    assert query_paths([image, image.parent]).count(image) == 1


def test_names_are_shown_as_they_are_and_cannot_be_html(ask, demo_folder, tmp_path):
    odd = tmp_path / "<script>alert(1)<" / "[red]a.png"
    odd.parent.mkdir()
    shutil.copy(demo_folder / "bottle/test/good/000.png", odd)
    _, page = ask(odd)
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;" in page


def test_thumbnails_outline_the_defect(demo_folder, tmp_path):
    whole_image = demo_folder / "bottle/test/scratch/000.png"
    mask = demo_folder / "bottle/ground_truth/scratch/000_mask.png"
    assert thumbnail(whole_image, mask) != thumbnail(whole_image)
    assert thumbnail(tmp_path / "gone.png") is None
    with Image.open(whole_image) as image:
        assert image.size != (160, 160)

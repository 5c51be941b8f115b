"""Extraction: what the encoder gives, once for every image, whoever stopped whom."""

import os
import shutil
import signal
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refusal
from two_ranks import imported, run_as_torchrun

from embeddings import vectors
from embeddings.config import Extract
from embeddings.encoding import Source
from embeddings.extract import default_folder, extract, main
from embeddings.patches import Patches
from embeddings.vectors import Vectors, shard_files
from pretrain.command import Names
from pretrain.data.dataset import load
from pretrain.encoder import DEFAULT_ARCHITECTURE, Encoder, fingerprint
from pretrain.files import sole_writer

SIZE_PX = 64


def by_path(vectors: Vectors) -> dict[str, np.ndarray]:
    """Vectors (per_image, d) by image."""
    rows = vectors.of_images(range(len(vectors.records)))
    return {str(record.path): rows[position] for position, record in enumerate(vectors.records)}


@pytest.fixture
def folder(demo_folder, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(demo_folder / "bottle", tmp_path / "bottle"))


def test_pooled_vectors_are_the_encoders(pooled, demo_folder):
    image_set = load(demo_folder, SIZE_PX)
    assert [record.path for record in pooled.records] == [record.path for record in image_set.records]
    assert [record.mask for record in pooled.records] == [record.mask for record in image_set.records]
    encoder = Encoder(DEFAULT_ARCHITECTURE, 0).eval()
    images = torch.from_numpy(image_set.batch(range(40))).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = encoder.pooled(images).numpy()
    np.testing.assert_allclose(pooled[:40], expected, rtol=1e-4, atol=1e-5)
    assert pooled.shape == (90, encoder.channels["level4"]) and pooled.ids.tolist() == list(range(90))
    assert pooled.source.encoder == fingerprint(encoder)


def test_patch_vectors_are_those_of_patches(demo_folder, tmp_path, small):
    asked = small(demo_folder, tmp_path / "patches", form="patches", categories=Names("bottle"), dimensions=40, seed=3)
    extracted = Vectors(extract(asked))
    assert extracted.grid == (8, 8) and extracted.shape == (30 * 64, 40)
    image_set = load(demo_folder, SIZE_PX, ["bottle"])
    patches = Patches(Encoder(DEFAULT_ARCHITECTURE, 3), dimensions=40, seed=3)
    images = torch.from_numpy(image_set.batch([7])).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_allclose(extracted.of_images([7])[0], patches(images).reshape(64, 40), rtol=1e-4, atol=1e-4)
    assert extracted.ids[64 * 7 + 5] == extracted.image_ids[7] * 64 + 5
    assert extracted.positions_of(extracted.ids[[0, 63, 64, 64 * 29]]).tolist() == [0, 0, 1, 29]
    np.testing.assert_array_equal(extracted[64 * 7 : 64 * 8], extracted.of_images([7])[0])


def test_several_levels_are_pooled_one_after_another(small):
    extracted = Vectors(extract(small(categories=Names("bottle"), levels=Names("level3,level2"))))
    assert extracted.dimensions == 40 + 112 and extracted.source.levels == ("level2", "level3")


def test_a_plain_folder_will_do(demo_folder, tmp_path, small):
    extracted = Vectors(extract(small(demo_folder / "bottle/test", tmp_path / "v")))
    assert len(extracted.records) == 18
    assert extracted.where(categories=["scratch"]).size == 3


def test_new_changed_and_removed_images(folder, tmp_path, small):
    out = tmp_path / "v"
    before = Vectors(extract(small(folder, out)))
    good = folder / "train/good"
    (good / "000.png").unlink()
    shutil.copy(folder / "test/scratch/000.png", good / "001.png")
    shutil.copy(folder / "test/scratch/001.png", good / "900.png")
    after = Vectors(extract(small(folder, out)))
    names = [record.path.relative_to(good).name for record in after.records if record.split == "train"]
    assert "000.png" not in names and names.count("001.png") == 1 and "900.png" in names
    kept = set(before.image_ids) & set(after.image_ids)
    assert len(kept) == 28 and set(after.image_ids) - kept == {30, 31}
    fresh = by_path(Vectors(extract(small(folder, tmp_path / "fresh"))))
    ours = by_path(after)
    assert ours.keys() == fresh.keys()
    for path, rows in fresh.items():
        np.testing.assert_allclose(ours[path], rows, rtol=1e-4, atol=1e-5)
    unchanged = sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("shard*"))
    extract(small(folder, out))
    assert sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("shard*")) == unchanged


def test_other_options_into_the_same_folder_are_refused(pooled, demo_folder, small):
    out = pooled.folder
    assert "size_px was 64 and is 32" in refusal(extract, small(demo_folder, out, size_px=32))
    assert "encoder was" in refusal(extract, small(demo_folder, out, seed=5))
    assert "form was pooled and is patches" in refusal(extract, small(demo_folder, out, form="patches"))
    assert "categories was" in refusal(extract, small(demo_folder, out, categories=Names("bottle")))
    assert "precision was 32-true and is bf16-mixed" in refusal(
        extract, small(demo_folder, out, precision="bf16-mixed")
    )
    assert (out / "finished").exists()


def extract_one_by_one(config: Extract, threads: int) -> None:
    """Each image is on disk before the next is encoded."""
    torch.set_num_threads(threads)  # which can change the last bits
    vectors.SECONDS_BETWEEN_COMMITS = 0
    extract(config)


def test_a_killed_extraction_resumes_to_the_same_vectors(tmp_path, small, capsys):
    out, lines = tmp_path / "killed", shard_files(tmp_path / "killed", 0)[1]
    asked = small(out=out, batch=1, categories=Names("bottle"))
    process = imported().Process(target=extract_one_by_one, args=(asked, torch.get_num_threads()))
    process.start()
    while not (lines.exists() and lines.stat().st_size):
        assert process.is_alive()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = len(lines.read_bytes().splitlines())
    assert 0 < done < 30
    assert "was not finished" in refusal(Vectors, out)
    for name in ("killed", "whole"):
        extract(replace(asked, out=tmp_path / name))
        assert "extracting: 30/30" in capsys.readouterr().err
    resumed, whole = Vectors(out), Vectors(tmp_path / "whole")
    np.testing.assert_array_equal(resumed[:], whole[:])
    assert resumed.records == whole.records and resumed.image_ids.tolist() == whole.image_ids.tolist()


def extract_as_rank(rank: int, asked: Extract, said: Path) -> None:
    with redirect_stdout(StringIO()) as printed:
        main(asked)
    (said / str(rank)).write_text(printed.getvalue())


def test_two_processes_write_shards_that_read_as_one(demo_folder, pooled, tmp_path, small):
    run_as_torchrun(extract_as_rank, small(demo_folder, tmp_path / "two"), tmp_path)
    said = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    assert said[0].count("vectors: 90 of 320") == 1 and "vectors: 90" not in said[1]
    assert len(list((tmp_path / "two").glob("shard-*.f32"))) == 2
    two = Vectors(tmp_path / "two")
    assert two.records == pooled.records and two.ids.tolist() == pooled.ids.tolist()
    np.testing.assert_allclose(two[:], pooled[:], rtol=1e-4, atol=1e-5)
    extract(small(demo_folder, tmp_path / "two"))  # one process goes on where two were
    assert len(Vectors(tmp_path / "two")) == 90


def test_a_second_writer_is_refused(pooled, small):
    with sole_writer(pooled.folder):
        assert "another process writes into" in refusal(extract, small(out=pooled.folder))
    assert len(Vectors(pooled.folder)) == 90


def test_an_encoder_that_gives_no_numbers_is_refused(demo_folder, tmp_path, small):
    encoder = Encoder("resnet18", 0)
    torch.nn.init.constant_(encoder.stages["level3"][0][0].conv1.weight, float("nan"))
    encoder.save(tmp_path / "encoder.safetensors")
    asked = small(demo_folder, tmp_path / "v", encoder=tmp_path / "encoder.safetensors")
    assert "no numbers for" in refusal(extract, asked)


def test_the_default_folder_is_a_name_for_data_and_source():
    source = Source("abc", "pooled", ("level4",), 64)
    assert default_folder(Path("/a/b"), source) == default_folder(Path("/a/../a/b"), source)
    names = {
        default_folder(Path("/a/b"), source),
        default_folder(Path("/c/b"), source),
        default_folder(Path("/a/b"), source, "x"),
        default_folder(Path("/a/b"), source, layout="plain"),
    }
    assert len(names) == 4 and all(name.name.startswith("b-pooled-") for name in names)


def test_a_batch_of_no_images_is_refused(small):
    assert "0 images make no batch" in refusal(extract, small(batch=0))


def test_nothing_extracted_is_no_vectors(tmp_path):
    assert "there are no vectors" in refusal(Vectors, tmp_path)

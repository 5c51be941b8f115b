"""Vectors on disk: what the encoder gives, once for every image, whoever stopped whom."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from embeddings.config import Extract
from embeddings.encoding import Encoding, Source, choose_encoder, encoder_of, make_source, safe_precision
from embeddings.extract import default_folder, extract
from embeddings.index.generations import sole_writer
from embeddings.patches import Patches
from embeddings.vectors import ShardWriter, Vectors, next_id, read_lines, shard_files
from pretrain.command import Names, UserError
from pretrain.data.dataset import load
from pretrain.encoder import Encoder, Origin, fingerprint

SIZE_PX = 64


def config(data: Path, out: Path, **named) -> Extract:
    return Extract(
        **{"data": data, "encoder": Path("random"), "out": out, "size_px": SIZE_PX, "precision": "32-true", **named}
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "embeddings/extract.py"), *map(str, arguments)]


def refusal(work, *arguments, **named) -> str:
    """What the user reads: one sentence."""
    with pytest.raises(UserError) as raised:
        work(*arguments, **named)
    message = str(raised.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message


def by_path(vectors: Vectors) -> dict[str, np.ndarray]:
    """Vectors (per_image, d) by image."""
    rows = vectors.of_images(range(len(vectors.records)))
    return {str(record.path): rows[position] for position, record in enumerate(vectors.records)}


@pytest.fixture(scope="module")
def pooled(demo_folder, tmp_path_factory) -> Vectors:
    out = tmp_path_factory.mktemp("vectors") / "pooled"
    return Vectors(extract(config(demo_folder, out)))


@pytest.fixture
def folder(demo_folder, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(demo_folder / "bottle", tmp_path / "bottle"))


def test_pooled_vectors_are_the_encoders(pooled, demo_folder):
    image_set = load(demo_folder, SIZE_PX)
    assert [record.path for record in pooled.records] == [record.path for record in image_set.records]
    assert [record.mask for record in pooled.records] == [record.mask for record in image_set.records]
    encoder = Encoder("resnet18", 0).eval()
    images = torch.from_numpy(image_set.batch(range(40))).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = encoder.pooled(images).numpy()
    np.testing.assert_allclose(pooled[:40], expected, rtol=1e-4, atol=1e-5)
    assert pooled.shape == (90, 512) and pooled.ids.tolist() == list(range(90))
    assert pooled.source.encoder == fingerprint(encoder)


def test_patch_vectors_are_those_of_patches(demo_folder, tmp_path):
    asked = config(demo_folder, tmp_path / "patches", form="patches", categories=Names("bottle"), dimensions=40, seed=3)
    vectors = Vectors(extract(asked))
    assert vectors.grid == (8, 8) and vectors.shape == (30 * 64, 40)
    image_set = load(demo_folder, SIZE_PX, ["bottle"])
    patches = Patches(Encoder("resnet18", 3), dimensions=40, seed=3)
    images = torch.from_numpy(image_set.batch([7])).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_allclose(vectors.of_images([7])[0], patches(images).reshape(64, 40), rtol=1e-4, atol=1e-4)
    assert vectors.ids[64 * 7 + 5] == vectors.image_ids[7] * 64 + 5
    assert vectors.positions_of(vectors.ids[[0, 63, 64, 64 * 29]]).tolist() == [0, 0, 1, 29]
    np.testing.assert_array_equal(vectors[64 * 7 : 64 * 8], vectors.of_images([7])[0])


def test_several_levels_are_pooled_one_after_another(demo_folder, tmp_path):
    vectors = Vectors(extract(config(demo_folder, tmp_path, categories=Names("bottle"), levels=Names("level3,level2"))))
    assert vectors.dimensions == 128 + 256 and vectors.source.levels == ("level2", "level3")


def test_a_plain_folder_will_do(demo_folder, tmp_path):
    vectors = Vectors(extract(config(demo_folder / "bottle/test", tmp_path / "v")))
    assert len(vectors.records) == 18
    assert vectors.where(categories=["scratch"]).size == 3


def test_filters_by_label(pooled):
    assert {pooled.records[p].category for p in pooled.where(["leather"])} == {"leather"}
    (only,) = {pooled.records[p].defect for p in pooled.where(["bottle"], ["test"], ["scratch"])}
    assert only == "scratch"
    assert "did you mean bottle" in refusal(pooled.where, ["botle"])
    assert "did you mean scratch" in refusal(pooled.where, [], [], ["scrach"])
    assert "no image has all of these labels at once: leather; scratch" in refusal(
        pooled.where, ["leather"], [], ["scratch"]
    )


def test_new_changed_and_removed_images(folder, tmp_path):
    out = tmp_path / "v"
    before = Vectors(extract(config(folder, out)))
    good = folder / "train/good"
    (good / "000.png").unlink()
    shutil.copy(folder / "test/scratch/000.png", good / "001.png")
    shutil.copy(folder / "test/scratch/001.png", good / "900.png")
    after = Vectors(extract(config(folder, out)))
    names = [record.path.relative_to(good).name for record in after.records if record.split == "train"]
    assert "000.png" not in names and names.count("001.png") == 1 and "900.png" in names
    kept = set(before.image_ids) & set(after.image_ids)
    assert len(kept) == 28 and set(after.image_ids) - kept == {30, 31}
    fresh = by_path(Vectors(extract(config(folder, tmp_path / "fresh"))))
    ours = by_path(after)
    assert ours.keys() == fresh.keys()
    for path, rows in fresh.items():
        np.testing.assert_allclose(ours[path], rows, rtol=1e-4, atol=1e-5)
    unchanged = sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("shard*"))
    extract(config(folder, out))
    assert sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("shard*")) == unchanged


def test_other_options_into_the_same_folder_are_refused(pooled, demo_folder):
    out = pooled.folder
    assert "size_px was 64 and is 32" in refusal(extract, config(demo_folder, out, size_px=32))
    assert "encoder was" in refusal(extract, config(demo_folder, out, seed=5))
    assert "form was pooled and is patches" in refusal(extract, config(demo_folder, out, form="patches"))
    assert "categories was" in refusal(extract, config(demo_folder, out, categories=Names("bottle")))
    assert "precision was 32-true and is bf16-mixed" in refusal(
        extract, config(demo_folder, out, precision="bf16-mixed")
    )
    assert (out / "finished").exists()


def test_a_killed_extraction_goes_on_to_the_same_vectors(demo_folder, tmp_path):
    options = ("--data", demo_folder, "--encoder", "random", "--size-px", 224, "--batch", 1, "--precision", "32-true")
    out, lines = tmp_path / "killed", shard_files(tmp_path / "killed", 0)[1]
    process = subprocess.Popen(command(*options, "--out", out), stderr=subprocess.PIPE)
    while not (lines.exists() and lines.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(lines.read_bytes().splitlines())
    assert 0 < done < 90
    assert "was not finished" in refusal(Vectors, out)
    for name in ("killed", "whole"):
        again = subprocess.run(command(*options, "--out", tmp_path / name), capture_output=True, text=True, check=True)
        assert "extracting: 90/90" in again.stderr
    resumed, whole = Vectors(out), Vectors(tmp_path / "whole")
    np.testing.assert_array_equal(resumed[:], whole[:])
    assert resumed.records == whole.records and resumed.image_ids.tolist() == whole.image_ids.tolist()


@pytest.mark.parametrize("torn", ["rows", "line", "rows lost"])
def test_what_a_kill_left_unfinished_is_cut_off(torn, pooled, tmp_path):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    rows, lines = shard_files(out, 0)
    if torn == "rows":
        with open(rows, "ab") as file:
            file.write(b"x" * 100)
    elif torn == "line":
        with open(lines, "ab") as file:
            file.write(b'{"id": 90, "path": "bot')
    else:
        os.truncate(rows, 512 * 4 * 80 + 7)
        assert "is cut off" in refusal(Vectors, out)
    if torn != "rows lost":
        np.testing.assert_array_equal(Vectors(out)[:], pooled[:])
    extract(config(pooled.data, out))
    assert rows.stat().st_size == 90 * 512 * 4 and len(read_lines(out, pooled.data)) == 90
    np.testing.assert_allclose(Vectors(out)[:], pooled[:], rtol=1e-4, atol=1e-5)


def test_two_processes_write_shards_that_read_as_one(demo_folder, pooled, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    options = ("--data", demo_folder, "--encoder", "random", "--size-px", SIZE_PX, "--precision", "32-true")
    done = subprocess.run(
        [*torchrun, *command(*options, "--out", tmp_path / "two")[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("vectors: 90 of 512") == 1
    assert len(list((tmp_path / "two").glob("shard-*.f32"))) == 2
    two = Vectors(tmp_path / "two")
    assert two.records == pooled.records and two.ids.tolist() == pooled.ids.tolist()
    np.testing.assert_allclose(two[:], pooled[:], rtol=1e-4, atol=1e-5)
    extract(config(demo_folder, tmp_path / "two"))  # one process goes on where two were
    assert len(Vectors(tmp_path / "two")) == 90


def test_a_second_writer_is_refused(pooled, demo_folder):
    with sole_writer(pooled.folder):
        done = subprocess.run(
            command("--data", demo_folder, "--encoder", "random", "--size-px", SIZE_PX, "--out", pooled.folder),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "another process writes into" in done.stderr and "Traceback" not in done.stderr
    assert len(Vectors(pooled.folder)) == 90


def test_an_encoder_that_gives_no_numbers_is_refused(demo_folder, tmp_path):
    encoder = Encoder("resnet18", 0)
    torch.nn.init.constant_(encoder.stages["level3"][0][0].conv1.weight, float("nan"))
    encoder.save(tmp_path / "encoder.safetensors")
    asked = config(demo_folder, tmp_path / "v", encoder=tmp_path / "encoder.safetensors")
    assert "no numbers for" in refusal(extract, asked)


def test_options_that_cannot_be(demo_folder, tmp_path):
    encoder = Encoder()
    assert "did you mean pooled" in refusal(make_source, encoder, "poled")
    assert "did you mean level2" in refusal(make_source, encoder, "pooled", ["levle2"])
    assert "32 px or more" in refusal(make_source, encoder, "pooled", size_px=16)
    assert "are for patches" in refusal(make_source, encoder, "pooled", grid=4)
    assert "grid of -1" in refusal(make_source, encoder, "patches", grid=-1)
    assert "0 images make no batch" in refusal(extract, config(demo_folder, tmp_path, batch=0))
    assert "there are no vectors" in refusal(Vectors, tmp_path)


def test_which_encoder_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert choose_encoder(None, 4, is_demo=False)[1] == Path("random")
    assert "using a RANDOM one" in capsys.readouterr().err
    Encoder(seed=9, origin=Origin("demo", is_demo=True)).save("runs/simclr/encoder.safetensors")
    assert choose_encoder(None, 4, is_demo=True)[1] == Path("runs/simclr/encoder.safetensors")
    assert choose_encoder(None, 4, is_demo=False)[1] == Path("random")
    assert "was made on demo data" in capsys.readouterr().err
    assert "there is no encoder file" in refusal(choose_encoder, Path("none"), 0, True)


def test_the_encoder_of_vectors_is_found_again_and_another_refused(pooled, tmp_path):
    assert fingerprint(encoder_of(pooled.config)) == pooled.source.encoder
    Encoder(seed=9).save(tmp_path / "other.safetensors")
    assert "mean nothing" in refusal(encoder_of, pooled.config, tmp_path / "other.safetensors")


def test_bf16_is_used_only_where_it_changes_nothing_that_matters(demo_folder, monkeypatch):
    pixels = load(demo_folder, SIZE_PX).batch(range(4))
    encoder = Encoder().eval()
    source = make_source(encoder, "pooled", size_px=SIZE_PX)
    cpu, clock = torch.device("cpu"), iter([0, 3, 3, 4, 0, 3, 3, 4, 0, 1, 1, 4])
    monkeypatch.setattr("embeddings.encoding.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("embeddings.encoding.has_bf16", lambda device: True)
    assert safe_precision(encoder, source, pixels, cpu) == "bf16-mixed"
    monkeypatch.setattr("embeddings.encoding.SAFE_COSINE", 1.1)
    assert safe_precision(encoder, source, pixels, cpu) == "32-true"
    monkeypatch.setattr("embeddings.encoding.SAFE_COSINE", 0.999)
    assert safe_precision(encoder, source, pixels, cpu) == "32-true"  # since it took longer
    monkeypatch.setattr("embeddings.encoding.has_bf16", lambda device: False)
    assert safe_precision(encoder, source, pixels, cpu) == "32-true"


def test_vectors_do_not_depend_on_the_batch(demo_folder):
    pixels = load(demo_folder, SIZE_PX).batch(range(6))
    encoder = Encoder().eval()
    encoding = Encoding(encoder, make_source(encoder, "patches", size_px=SIZE_PX))
    together = encoding.vectors(pixels)
    alone = np.concatenate([encoding.vectors(pixels[number : number + 1]) for number in range(6)])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    assert together.shape == (6 * encoding.per_image, encoding.dimensions) == (6 * 64, 384)


def test_ids_are_never_given_out_twice(pooled, tmp_path):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    shard = ShardWriter(out, 0, 1, 512)
    shard.forget([89])
    shard.close()
    assert next_id(out) == 90 and Vectors(out).ids.max() == 88


def test_the_default_folder_is_a_name_for_data_and_source():
    source = Source("abc", "pooled", ("level4",), 64)
    assert default_folder(Path("/a/b"), source) == default_folder(Path("/a/../a/b"), source)
    names = {
        default_folder(Path("/a/b"), source),
        default_folder(Path("/c/b"), source),
        default_folder(Path("/a/b"), source, "x"),
    }
    assert len(names) == 3 and all(name.name.startswith("b-pooled-") for name in names)


def test_source_survives_json():
    source = Source("abc", "patches", ("level2", "level3"), 64, 8, 40, 3, "bf16-mixed")
    assert Source.from_json(json.loads(json.dumps(source.as_json()))) == source

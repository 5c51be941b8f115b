"""Vectors of a manifest: those of the encoder at the same batch, each once, whatever stops the extraction."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from embeddings import manifest_extraction
from embeddings.config import Extract
from embeddings.encoding import Encoding, choose_encoder, make_source
from embeddings.extract import extract
from embeddings.open_vectors import extraction_of
from embeddings.vectors import Vectors
from pretrain.command import Names, UserError
from pretrain.data.decode import decode
from pretrain.data.manifest import parts_of, read_rows, write_manifest
from pretrain.data.places import Listed, Place
from pretrain.encoder import make_encoder

PART_IMAGES, BATCH = 5, 3


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two dozen images, two files that are none, and a manifest."""
    folder, rng = tmp_path_factory.mktemp("many") / "images", np.random.default_rng(0)
    for number in range(24):
        path = folder / f"day {number % 3}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    (folder / "day 1" / "bad.png").write_bytes(b"no image")
    (folder / "day 2" / "empty.png").write_bytes(b"")
    write_manifest(Place.of(str(folder)), folder.parent / "images.parquet")
    return folder


def asked(images, out, **more) -> Extract:
    small = {"size_px": 32, "batch": BATCH, "part_images": PART_IMAGES, "precision": "32-true", "device": "cpu"}
    return Extract(data=images.parent / "images.parquet", encoder=images.parent / "tiny", out=out, **small | more)


@pytest.fixture(scope="module", autouse=True)
def tiny(images):
    """A network of a moment in place of ImageNet's."""
    make_encoder("timm/test_resnet").save(images.parent / "tiny")


def test_vectors_are_the_encoders_at_the_same_batch(images, tmp_path):
    vectors = Vectors(extract(asked(images, tmp_path)))
    encoder, _ = choose_encoder(images.parent / "tiny", 0, False)
    encoding = Encoding(encoder, make_source(encoder, "pooled", size_px=32))
    expected = {}
    for part in parts_of(read_rows(images.parent / "images.parquet"), PART_IMAGES):
        for start in range(0, len(part.rows), BATCH):
            paths = [images / row.path for row in part.rows[start : start + BATCH] if row.size > 8]
            if paths:
                found = encoding.vectors(np.stack([decode(path, 32).pixels for path in paths]))
                expected |= dict(zip(paths, found, strict=True))
    assert {record.path for record in vectors.records} == expected.keys() and len(vectors) == 24
    for record, vector in zip(vectors.records, vectors[:], strict=True):
        assert np.array_equal(vector, expected[record.path])
    assert vectors.source.encoder == encoding.source.encoder and len(set(vectors.image_ids.tolist())) == 24


def test_a_key_is_written_as_it_is(images, tmp_path):
    """Those of stores of objects are no paths: a//b is not a/b."""
    make_encoder("timm/test_resnet").save(tmp_path / "tiny")
    source = make_source(choose_encoder(tmp_path / "tiny", 0, False)[0], "pooled", size_px=32)
    job = manifest_extraction.Job(str(images), tmp_path, tmp_path / "tiny", 0, source, BATCH, "cpu")
    keys = ("day 0//000.png", "day 0/000.png")
    (part,) = parts_of([Listed(key, 1, "") for key in keys], 9)
    assert manifest_extraction.extract_part(job, manifest_extraction.Numbered(part, 0, 0)) == []
    lines = (tmp_path / "shard-00000.jsonl").read_text().splitlines()
    assert tuple(json.loads(line)["path"] for line in lines) == keys


def test_what_was_stopped_goes_on_and_repeats_nothing(images, tmp_path, monkeypatch):
    whole = Vectors(extract(asked(images, tmp_path / "whole")))
    write, written = manifest_extraction.write_shard, []

    def counted(out, shard, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        write(out, shard, *rest)

    monkeypatch.setattr(manifest_extraction, "write_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        extract(asked(images, tmp_path / "out"))
    with pytest.raises(UserError, match="not finished"):
        Vectors(tmp_path / "out")
    monkeypatch.setattr(manifest_extraction, "write_shard", lambda *all: (written.append(all[1]), write(*all)))
    ours = Vectors(extract(asked(images, tmp_path / "out")))
    assert len(written) == len(set(written)) > 3
    assert np.array_equal(ours[:], whole[:]) and np.array_equal(ours.image_ids, whole.image_ids)


def test_an_image_more_or_less_changes_its_part_alone_and_ids_are_not_used_again(images, tmp_path):
    data = shutil.copytree(images, tmp_path / "images")
    shutil.copy(images.parent / "tiny", tmp_path / "tiny")
    write_manifest(Place.of(str(data)), tmp_path / "images.parquet")
    before = Vectors(extract(asked(data, tmp_path / "out")))
    (data / "day 1" / "001.png").unlink()
    write_manifest(Place.of(str(data)), tmp_path / "images.parquet")
    after = Vectors(extract(extraction_of(tmp_path / "out")))
    assert len(after) == 23
    old, new = ids_of(before), ids_of(after)
    kept = {path for path in new if new[path] == old[path]}
    assert len(kept) >= 8 and {new[path] for path in new.keys() - kept}.isdisjoint(old.values())


def ids_of(vectors: Vectors) -> dict:
    return dict(zip([record.path for record in vectors.records], vectors.image_ids.tolist(), strict=True))


def test_a_pipe_in_place_of_the_numbers_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / manifest_extraction.PARTS)
    with pytest.raises(UserError, match="no regular file"):
        manifest_extraction.Numbers(tmp_path)


def test_what_does_not_go_with_a_manifest_is_refused(images, tmp_path):
    for more, words in (({"categories": Names("bolt")}, "no categories"), ({"form": "patches"}, "other vectors")):
        extract(asked(images, tmp_path))
        with pytest.raises(UserError, match=words):
            extract(asked(images, tmp_path, **more))
    with pytest.raises(UserError, match="--address is for a manifest"):
        extract(Extract(data=images, address="local"))

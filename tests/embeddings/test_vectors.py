"""Vectors on disk: one array over all shards, whoever was killed while writing them."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

from embeddings.extract import extract
from embeddings.vectors import ShardWriter, Vectors, finish, next_id, read_lines, shard_files
from pretrain.command import UserError
from pretrain.files import unsealed


def test_filters_by_label(pooled):
    assert {pooled.records[p].category for p in pooled.where(["leather"])} == {"leather"}
    (only,) = {pooled.records[p].defect for p in pooled.where(["bottle"], ["test"], ["scratch"])}
    assert only == "scratch"
    assert "did you mean bottle" in refusal(pooled.where, ["botle"])
    assert "did you mean scratch" in refusal(pooled.where, [], [], ["scrach"])
    assert "no image has all of these labels at once: leather; scratch" in refusal(
        pooled.where, ["leather"], [], ["scratch"]
    )


@pytest.mark.parametrize("torn", ["rows", "line", "rows lost"])
def test_what_a_kill_left_unfinished_is_cut_off(torn, pooled, tmp_path, small):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    rows, lines = shard_files(out, 0)
    if torn == "rows":
        with open(rows, "ab") as file:
            file.write(b"x" * 100)
    elif torn == "line":
        with open(lines, "ab") as file:
            file.write(b'{"id": 90, "path": "bot')
    else:
        os.truncate(rows, 320 * 4 * 80 + 7)
        assert "is cut off" in refusal(Vectors, out)
    if torn != "rows lost":
        np.testing.assert_array_equal(Vectors(out)[:], pooled[:])
    extract(small(pooled.data, out))
    assert rows.stat().st_size == 90 * 320 * 4 and len(read_lines(out, pooled.data)) == 90
    np.testing.assert_allclose(Vectors(out)[:], pooled[:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["shard-00007.jsonl", "shard-00000.f32", "finished"])
def test_a_pipe_among_vectors_keeps_nobody_waiting(name, pooled, tmp_path):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    (out / name).unlink(missing_ok=True)
    os.mkfifo(out / name)
    with pytest.raises((UserError, OSError), match="no regular file|is cut off"):
        Vectors(out)
    if name != "finished":
        with pytest.raises(UserError, match="no regular file"):
            ShardWriter(out, int(name[6:11]), 1, 512)


@pytest.mark.parametrize(
    "found, put", [('"path"', '"pbth"'), ('"id": 3,', '"id": "",'), ('"gone": 1', '"gone": ""'), ("{", "[")]
)
def test_a_damaged_line_is_a_sentence(found, put, pooled, tmp_path):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    _, lines = shard_files(out, 0)
    text = re.sub(r', "crc32": \d+', "", lines.read_text()) + '{"gone": 1}\n'  # as they were before 0.1
    assert found in text
    lines.write_text(text.replace(found, put, 1))
    assert "is damaged" in refusal(read_lines, out, pooled.data)


def test_no_bit_changes_unnoticed(pooled, tmp_path):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    rows, lines = shard_files(out, 0)
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    vectors = Vectors(out)
    np.testing.assert_array_equal(vectors[:10], pooled[:10])
    said = refusal(vectors.of_images, [len(vectors.records) - 1])
    assert f"{rows.name} is damaged (at {vectors.records[-1].path})" in said and "extract again" in said
    rows.write_bytes(whole)
    text = lines.read_text()
    lines.write_text(text.replace('"defect": "good"', '"defect": "goof"', 1))
    assert "is damaged" in refusal(Vectors, out)
    lines.write_text(text[: text.rindex("\n", 0, -1) + 1])
    assert "of 89 images and not of 90" in refusal(Vectors, out)
    lines.write_text(text + text.splitlines()[3] + "\n")
    rows.write_bytes(whole + whole[: 320 * 4])
    assert "image 3 is there twice" in refusal(Vectors, out)


def test_vectors_without_digests_are_read(pooled, tmp_path):
    """As 0.1 wrote them."""
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    _, lines = shard_files(out, 0)
    lines.write_text(re.sub(r', "(crc32|rows)": ("\w+"|\d+)', "", lines.read_text()))
    (out / "finished").write_text("")
    (out / "config.json").write_text(json.dumps(unsealed(json.loads((out / "config.json").read_text()))))
    np.testing.assert_array_equal(Vectors(out)[:], pooled[:])


def test_ids_are_never_given_out_twice(pooled, tmp_path):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    shard = ShardWriter(out, 0, 1, 320)
    shard.forget([89])
    shard.close()
    finish(out, pooled.data)
    assert next_id(out) == 90 and Vectors(out).ids.max() == 88


def test_rows_by_category(pooled):
    positions = pooled.by_category(["leather", "bottle"], ["train"])
    assert {category: len(of_one) for category, of_one in positions.items()} == {"bottle": 12, "leather": 12}
    assert all(pooled.records[p].category == category for category, of_one in positions.items() for p in of_one)


def test_files_of_another_format_are_refused(pooled, tmp_path):
    out = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    stored = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**stored, "format": 99}))
    assert "has format 99, this heldout reads 1: update heldout" in refusal(Vectors, out)
    (out / "config.json").write_text(json.dumps({**stored, "dimensions": 256}))
    assert "is damaged" in refusal(Vectors, out)
    (out / "config.json").write_text("{")
    assert "is damaged" in refusal(Vectors, out)

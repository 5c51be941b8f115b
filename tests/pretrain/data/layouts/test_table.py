"""Tables, as spreadsheets and programs write them."""

import sys

import pyarrow
import pyarrow.parquet
import pytest
from made_layouts import images, table

from pretrain.command import UserError
from pretrain.data.layouts import category_folders, has_layout, scan, scan_plain


def write(folder, *lines: str, encoding: str = "utf-8") -> None:
    (folder / "images.csv").write_bytes("\n".join(lines).encode(encoding))


def test_what_no_split_is_given_for_is_tested_on_by_a_rule(tmp_path):
    table(tmp_path)
    records = scan(tmp_path).records
    assert [(record.path.stem, record.split, record.defect) for record in records] == [
        *((str(number), "train", "good") for number in range(5)), ("5", "test", "good"), ("6", "test", "dent"),
    ]  # fmt: skip
    assert records[6].mask == tmp_path / "masks/6.png"
    assert {record.category for record in records} == {"lid"}


def test_as_spreadsheets_write_it(tmp_path):
    images(tmp_path / "lids", "a b.png", "deep/c.png")
    write(
        tmp_path / "lids", 'PATH;"Label";split', "a b.png;normal;Validation", "deep\\c.png;0;test", encoding="utf-8-sig"
    )
    records = scan(tmp_path / "lids").records
    assert [(record.path.name, record.category, record.split, record.defect) for record in records] == [
        ("a b.png", "lids", "train", "good"), ("c.png", "lids", "test", "good"),
    ]  # fmt: skip


def test_rows_that_cannot_be_used_are_named(tmp_path):
    images(tmp_path, "a.png", "b.png", "c.png")
    write(
        tmp_path,
        "path,label,split,mask",
        "a.png,dent,test,gone.png",
        "a.png,ok,train",
        "b.png,,train",
        "c.png,ok,maybe",
        "d.png,ok,",
    )
    found = scan(tmp_path)
    assert [(problem.path.name, problem.reason) for problem in found.problems] == [
        ("gone.png", "is named in images.csv, but is not there"),
        ("a.png", "is named in images.csv a second time"),
        ("b.png", "has no label in images.csv: write good, or the name of its defect"),
        ("c.png", "is of the split 'maybe' in images.csv: write train or test"),
        ("d.png", "is named in images.csv, but is not there"),
    ]
    assert [(record.path.name, record.mask) for record in found.records] == [("a.png", None)]


def test_several_tables_are_refused_and_others_left_alone(tmp_path):
    table(tmp_path)
    (tmp_path / "results.csv").write_text("path,score\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR0")
    assert list(category_folders(tmp_path)) == ["lid"]
    (tmp_path / "more.csv").write_text("label,path\n")
    with pytest.raises(UserError, match=r"several tables of images \(images.csv, more.csv\): join them, or leave one"):
        scan(tmp_path)
    assert len(scan_plain(tmp_path).records) == 8


def test_tables_that_cannot_be_read_are_refused(tmp_path):
    images(tmp_path, "a.png")
    (tmp_path / "images.csv").write_bytes(b"path,label\na.png,\xff\n")
    with pytest.raises(UserError, match="cannot be read as a table .* save it as CSV in UTF-8"):
        scan(tmp_path)
    write(tmp_path, "path,label", "../a.png,ok")
    with pytest.raises(UserError, match="no path below"):
        scan(tmp_path)


def test_parquet_needs_pyarrow_and_says_so(tmp_path, monkeypatch):
    images(tmp_path, "a.png", "b.png", "c.png")
    columns = {"path": ["a.png", "b.png", "c.png"], "label": [0, 0, 3], "split": ["train", None, None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "images.parquet")
    assert [(record.path.name, record.split, record.defect) for record in scan(tmp_path).records] == [
        ("a.png", "train", "good"), ("b.png", "train", "good"), ("c.png", "test", "3"),
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        UserError, match=r"only where pyarrow is installed: pip install .*, or save the table as CSV\.$"
    ):
        has_layout(tmp_path)
    (tmp_path / "mine/train/good").mkdir(parents=True)
    assert has_layout(tmp_path), "what is laid out otherwise does not need it"


def test_a_table_without_end_is_refused(tmp_path, monkeypatch):
    table(tmp_path)
    monkeypatch.setattr("pretrain.data.layouts.table.MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"cannot be read as a table .*more than 10"):
        scan(tmp_path)

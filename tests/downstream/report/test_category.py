"""What is shown of one category."""

from downstream.report import category
from downstream.report.category import category_section


def test_curves_cards_and_galleries_are_of_the_rows(summarized):
    summary, results = summarized
    section = category_section("bottle", summary, results)
    # k-NN and PaDiM with all normals on two encoders, and the frame, the trivial answer for images.
    assert [curve.style for curve in section["curves"]] == ["c0", "c0 dashed", "c1", "c1 dashed", "dotted c7"]
    assert len(section["cards"]) == len(section["galleries"]) == 6 and section["left_out"] == 0
    assert len(section["table"]["rows"]) == len(section["rows"]) == 8 and len(section["table"]["trivial"]) > 3
    assert section["counts"] == {"good": 6, "defective": 12}
    with_maps = [row["method"] == "padim" for row, _ in section["galleries"]]
    assert with_maps == sorted(with_maps, reverse=True)


def test_a_category_without_finished_cells_is_named_alone(summarized):
    summary, results = summarized
    assert category_section("nut", summary, results) == {"name": "nut", "counts": None}


def test_a_category_with_one_label_has_no_curves(summarized):
    summary, results = summarized
    section = category_section("bottle", {**summary, "images": {"bottle": {"good": 0, "defective": 12}}}, results)
    assert section["curves"] == [] and section["chart"] == ""


def test_galleries_that_there_is_no_room_for_are_counted(summarized, monkeypatch):
    summary, results = summarized
    monkeypatch.setattr(category, "MAX_IMAGES", 24)
    section = category_section("bottle", summary, results)
    assert len(section["galleries"]) == 2 and section["left_out"] == 4

"""What was said stays, and what stands is the last of it that was not taken back."""

import json

import pytest
from sqlalchemy import event
from stored_results import result

from downstream.learning.feedback import confirmed, read_feedback
from downstream.service.database import Database, StoredImage
from downstream.service.feedback.records import Feedback, FeedbackRecords
from pretrain.command import UserError

AT = "2026-02-01T10:00:00.000Z"


@pytest.fixture
def database(location):
    database = Database(location)
    database.add_results([result(number) for number in range(4)])
    yield database
    database.close()


@pytest.fixture
def records(database) -> FeedbackRecords:
    return FeedbackRecords(database)


def said(records: FeedbackRecords, result_id: int, verdict: str, **fields: object) -> int:
    return records.add(Feedback(result_id, verdict, AT, "Ada", **fields))


def test_records_come_back_as_they_were(records):
    marks = {"boxes": [[1, 2, 3, 4]], "strokes": [{"radius": 1.5, "points": [[0.5, 1]]}]}
    first = said(records, 1, "missed_defect", marks=marks, note="an é, 漢")
    second = said(records, 4, "false_alarm")
    newest, oldest = records.page(10)
    assert oldest.feedback == Feedback(1, "missed_defect", AT, "Ada", marks, "an é, 漢", None, first)
    assert (oldest.name, oldest.digest, oldest.model_version) == ("image 0.png", f"{0:064x}", "a version")
    assert newest.feedback.id == second and newest.was_defective and not oldest.was_defective
    assert [one.feedback.id for one in records.page(10, before=second)] == [first]
    assert [one.feedback.id for one in records.page(10, result_id=4)] == [second]


def test_what_is_taken_back_stays_and_the_word_before_counts_again(records):
    first, second = said(records, 1, "unsure"), said(records, 1, "agree")
    assert [one.feedback.verdict for one in records.standing()] == ["agree"]
    taking = records.take_back(second, AT, "Bob")
    assert [(one.feedback.id, one.taken_back_by) for one in records.page(9)] == [
        (taking, None), (second, taking), (first, None),
    ]  # fmt: skip
    assert records.page(1)[0].feedback == Feedback(1, "taken_back", AT, "Bob", {}, "", second, taking)
    assert [one.feedback.verdict for one in records.standing()] == ["unsure"]
    for wrong in (second, taking, 99):
        with pytest.raises(UserError, match="taken back"):
            records.take_back(wrong, AT, "Bob")
    records.take_back(first, AT, "Bob")
    assert list(records.standing()) == []


def test_an_image_has_one_word_that_stands_of_each_model(database, records):
    (again,) = database.add_results([result(3, model="nut", is_defective=False)])
    said(records, 4, "false_alarm")
    said(records, 1, "agree")
    said(records, 4, "unsure")
    said(records, again, "missed_defect")
    assert [(one.model, one.digest, one.feedback.verdict) for one in records.standing()] == [
        ("bolt", f"{0:064x}", "agree"), ("bolt", f"{3:064x}", "unsure"), ("nut", f"{3:064x}", "missed_defect"),
    ]  # fmt: skip
    assert records.verdict_counts("bolt") == {("agree", False): 1, ("unsure", True): 1}
    assert records.verdict_counts("nut") == {("missed_defect", False): 1}


def test_what_waits_are_kept_images_of_a_version_each_once_that_nobody_spoke_of(location):
    database = Database(location)
    kept = [result(number, is_kept=True) for number in range(5)]
    database.add_results([*kept, *kept[:2], result(7), result(8, is_kept=True, model="nut"),
                          result(9, is_kept=True, model_version="2"), kept[3]._replace(model_version="2")])  # fmt: skip
    records = FeedbackRecords(database)
    assert [one.id for one in records.waiting("bolt", "a version", 9)] == [7, 6, 5, 4, 3]
    assert [one.id for one in records.waiting("bolt", "a version", 2, skip=2)] == [5, 4]
    assert list(records.waiting_counts("bolt").items()) == [("2", 2), ("a version", 5)]
    said(records, 4, "agree")  # and so of the same image by the other version
    taking = said(records, 5, "unsure")
    assert records.waiting_counts("bolt") == {"2": 1, "a version": 3}
    records.take_back(taking, AT, "Ada")
    assert [one.id for one in records.waiting("bolt", "a version", 9)] == [7, 6, 5, 3]
    assert [one.id for one in records.waiting("bolt", "2", 9)] == [10]
    assert records.waiting_counts("pin") == {}
    database.close()


def test_more_than_a_page_stands(records, monkeypatch):
    monkeypatch.setattr("downstream.service.feedback.records.ROWS_PER_PAGE", 2)
    for result_id in (1, 2, 3, 4, 1):
        said(records, result_id, "unsure")
    assert [one.feedback.result_id for one in records.standing()] == [2, 3, 4, 1]


def test_the_export_is_what_learning_reads(database, records, tmp_path):
    for number, name in enumerate(("good.png", "bad.png")):
        (tmp_path / name).write_bytes(b"x")
        database.add_image(StoredImage(f"{3 * number:064x}", name, "", b""))
    said(records, 1, "missed_defect", marks={"boxes": [[1, 2, 3, 4]]})
    said(records, 4, "agree")
    said(records, 2, "agree")  # whose image was not kept
    first, second = records.exported(tmp_path)
    assert first == {
        "image": str(tmp_path / "good.png"), "verdict": "missed defect", "mask": [{"box": [1, 2, 3, 4]}], "at": AT,
        "by": "Ada", "model": "bolt", "model_version": "a version", "image_digest": f"{0:064x}", "was_defective": False,
    }  # fmt: skip
    assert (second["verdict"], second["mask"], second["was_defective"]) == ("agree", None, True)
    (tmp_path / "feedback.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (first, second)))
    good, bad = confirmed(read_feedback(tmp_path / "feedback.jsonl"))
    assert (good.image, good.is_defective, good.mask) == (tmp_path / "good.png", True, [{"box": [1, 2, 3, 4]}])
    assert (bad.digest, bad.is_defective, bad.mask) == (f"{3:064x}", True, None)


def test_images_that_wait_are_found_by_their_index(tmp_path):
    """Of a large database every result would be read else."""
    database, asked = Database(str(tmp_path / "results.sqlite")), []
    database.add_results([result(number, is_kept=True) for number in range(4)])
    event.listen(database._engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2:4]))
    records = FeedbackRecords(database)
    assert len(records.waiting("bolt", "a version", 9)) == 4 and records.waiting_counts("bolt") == {"a version": 4}
    with database._engine.connect() as connection:
        for statement, parameters in [one for one in asked if "GROUP BY" in one[0]]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).mappings()
            assert any("ix_results_kept" in step["detail"] for step in plan)
    database.close()

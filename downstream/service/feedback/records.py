"""What operators said of results: records that are only ever added, in the service's database.

To take something back is a record too. What stands for an image is the last that was said of it and not taken back.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, Select, and_, exists, func, insert, select, true

from downstream.service.audit.log import SAID, add_entry, feedback_digest
from downstream.service.database import Database, StoredResult, read_stored
from downstream.service.feedback.marks import shapes
from downstream.service.tables import FEEDBACK, IMAGES, RESULTS
from pretrain.command import UserError

# As `detect.py learn` calls them.
VERDICT_WORDS = {"agree": "agree", "false_alarm": "false alarm", "missed_defect": "missed defect", "unsure": "unsure"}
TAKEN_BACK = "taken_back"
ROWS_PER_PAGE = 1000


class Feedback(NamedTuple):
    """A record: `marks` say where (marks.py), `takes_back` is the id of another one, `id` none until it is kept."""

    result_id: int
    verdict: str
    created: str
    by: str
    marks: Mapping = {}
    note: str = ""
    takes_back: int | None = None
    id: int | None = None


class Spoken(NamedTuple):
    """A record with what is known of its result, and the record that took it back."""

    feedback: Feedback
    name: str
    digest: str
    model: str
    model_version: str
    was_defective: bool
    taken_back_by: int | None


class FeedbackRecords:
    """The records of a database. May be used from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, feedback: Feedback) -> int:
        """Keep a record, and give its id."""
        row = {**feedback._asdict(), "marks": json.dumps(feedback.marks)}
        del row["id"]
        with self._database.alone() as connection:
            return _added(connection, row)

    def take_back(self, feedback_id: int, created: str, by: str) -> int:
        """Add a record that takes another one back, and give its id. Raises UserError where that cannot be."""
        with self._database.alone() as connection:
            row = connection.execute(select(FEEDBACK).where(FEEDBACK.c.id == feedback_id)).mappings().first()
            if row is None or row["takes_back"] is not None:
                raise UserError(f"feedback {feedback_id} says nothing that could be taken back.")
            earlier = connection.execute(select(FEEDBACK.c.id).where(FEEDBACK.c.takes_back == feedback_id)).scalar()
            if earlier is not None:
                raise UserError(f"feedback {feedback_id} was taken back already, by {earlier}.")
            values = {"result_id": row["result_id"], "verdict": TAKEN_BACK, "created": created, "by": by,
                      "marks": "{}", "note": "", "takes_back": feedback_id}  # fmt: skip
            return _added(connection, values)

    def page(self, limit: int, before: int | None = None, result_id: int | None = None) -> list[Spoken]:
        """Records, the newest first, with ids below `before`; those of one result, if that is given."""
        wanted = [FEEDBACK.c.id < before] if before is not None else []
        wanted += [FEEDBACK.c.result_id == result_id] if result_id is not None else []
        statement = _spoken().where(and_(True, *wanted)).order_by(FEEDBACK.c.id.desc()).limit(limit)
        return [_as_spoken(row) for row in self._database.rows(statement)]

    def standing(self) -> Iterator[Spoken]:
        """What stands for each image, of each model's verdict on it, in the order in which it was said."""
        last = {(spoken.model, spoken.digest): spoken.feedback.id for spoken in self._not_taken_back()}
        ids = set(last.values())
        yield from (spoken for spoken in self._not_taken_back() if spoken.feedback.id in ids)

    def waiting(self, model: str, version: str, limit: int, skip: int = 0) -> list[StoredResult]:
        """The latest result of each kept image that a version of a model judged and of which nobody said anything that
        stands, of whichever version: the newest first, after `skip` of them."""
        newest = func.max(RESULTS.c.id)
        wanted = _waiting(model).where(RESULTS.c.model_version == version).group_by(RESULTS.c.digest)
        ids = wanted.add_columns(newest.label("id")).order_by(newest.desc()).limit(limit).offset(skip)
        return self._database.results_of([row["id"] for row in self._database.rows(ids)])

    def waiting_counts(self, model: str) -> dict[str, int]:
        """How many images wait so, by version, of which the one that judged last is the first."""
        count, newest = func.count(RESULTS.c.digest.distinct()), func.max(RESULTS.c.id)
        wanted = _waiting(model).add_columns(RESULTS.c.model_version, count.label("count"))
        rows = self._database.rows(wanted.group_by(RESULTS.c.model_version).order_by(newest.desc()))
        return {row["model_version"]: row["count"] for row in rows}

    def verdict_counts(self, model: str) -> dict[tuple[str, bool], int]:
        """How many images of a model have what said last of them, and had been called defective or not."""
        last = _not_taken_back(model).add_columns(func.max(FEEDBACK.c.id)).group_by(RESULTS.c.digest)
        columns = (FEEDBACK.c.verdict, RESULTS.c.is_defective)
        joined = FEEDBACK.join(RESULTS, RESULTS.c.id == FEEDBACK.c.result_id)
        wanted = select(*columns, func.count().label("count")).select_from(joined).where(FEEDBACK.c.id.in_(last))
        rows = self._database.rows(wanted.group_by(*columns))
        return {(row["verdict"], row["is_defective"]): row["count"] for row in rows}

    def exported(self, folder: Path, model: str | None = None) -> Iterator[dict]:
        """What stands, of one model if that is given, as `detect.py learn --feedback` reads it; images lie in `folder`,
        or are gone and left out."""
        files = {row["digest"]: row["file"] for row in self._database.rows(select(IMAGES.c.digest, IMAGES.c.file))}
        for spoken in self.standing():
            if spoken.digest in files and model in (None, spoken.model):
                yield _exported(spoken, folder.absolute() / files[spoken.digest])

    def _not_taken_back(self) -> Iterator[Spoken]:
        """The oldest first, page by page: memory does not grow with them."""
        after = 0
        while True:
            statement = _spoken().where(and_(FEEDBACK.c.id > after, FEEDBACK.c.takes_back.is_(None)))
            rows = self._database.rows(statement.order_by(FEEDBACK.c.id).limit(ROWS_PER_PAGE))
            if not rows:
                return
            after = rows[-1]["id"]
            yield from (spoken for spoken in map(_as_spoken, rows) if spoken.taken_back_by is None)


def _added(connection: Connection, values: Mapping) -> int:
    """The id of a record that was put in, with its entry in the audit log."""
    row = connection.execute(insert(FEEDBACK).returning(*FEEDBACK.columns), [values]).mappings().one()
    after = {
        "id": row["id"],
        "verdict": row["verdict"],
        "takes_back": row["takes_back"],
        "digest": feedback_digest(row),
    }
    add_entry(connection, row["created"], row["by"], SAID, f"result {row['result_id']}", None, after)
    return row["id"]


def _spoken() -> Select:
    taking = FEEDBACK.alias()
    taken_back_by = select(taking.c.id).where(taking.c.takes_back == FEEDBACK.c.id).scalar_subquery()
    of_result = [RESULTS.c[name] for name in ("name", "digest", "model", "model_version", "is_defective")]
    joined = FEEDBACK.join(RESULTS, RESULTS.c.id == FEEDBACK.c.result_id)
    return select(FEEDBACK, *of_result, taken_back_by.label("taken_back_by")).select_from(joined)


def _not_taken_back(model: str) -> Select:
    """Records of a model's results that nobody took back, without columns."""
    taking = FEEDBACK.alias()
    was_taken_back = exists().where(taking.c.takes_back == FEEDBACK.c.id)
    joined = FEEDBACK.join(RESULTS, RESULTS.c.id == FEEDBACK.c.result_id)
    wanted = and_(RESULTS.c.model == model, FEEDBACK.c.takes_back.is_(None), ~was_taken_back)
    return select().select_from(joined).where(wanted)


def _waiting(model: str) -> Select:
    """Results of kept images of a model that nobody has spoken of, without columns."""
    spoken = _not_taken_back(model).add_columns(RESULTS.c.digest)
    # As a constant: the index has kept ones alone.
    return select().where(and_(RESULTS.c.model == model, RESULTS.c.is_kept == true(), RESULTS.c.digest.not_in(spoken)))


def _as_spoken(row: Mapping) -> Spoken:
    fields = {name: row[name] for name in Feedback._fields}
    feedback = Feedback(**{**fields, "marks": read_stored(row["marks"], dict, f"what feedback {row['id']} has marked")})
    of_result = (row["name"], row["digest"], row["model"], row["model_version"], row["is_defective"])
    return Spoken(feedback, *of_result, row["taken_back_by"])


def _exported(spoken: Spoken, image: Path) -> dict:
    feedback = spoken.feedback
    mask: Sequence[dict] | None = shapes(feedback.marks) or None
    return {
        "image": str(image), "verdict": VERDICT_WORDS[feedback.verdict], "mask": mask, "at": feedback.created,
        "by": feedback.by, "model": spoken.model, "model_version": spoken.model_version, "image_digest": spoken.digest,
        "was_defective": spoken.was_defective,
    }  # fmt: skip

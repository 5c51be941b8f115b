"""Results, settings, and vectors of images that were kept: in SQLite, or in PostgreSQL by URL.

A result that was added is on disk: SQLite writes ahead and waits for the disk at every commit, so a killed server loses
nothing that it answered. Text is all that either database has to understand, so both behave alike.
"""

import errno
import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Select,
    and_,
    create_engine,
    delete,
    event,
    func,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from downstream.service.migrating import alone, check_known, migrate
from downstream.service.tables import IMAGES, RESULTS, SETTINGS
from pretrain.command import UserError, installed_by
from pretrain.reading import parse_json

DISK_FULL, DAMAGED = "53100", ("XX001", "XX002")  # of PostgreSQL
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)  # of the system
BUSY_S, CONNECT_S = 15, 5
# So often BUSY_S, while another process builds indexes of millions of results.
MAX_WAITS = 40
ROWS_PER_PAGE = 1000


class DamagedRow(SQLAlchemyError):
    """A row holds what heldout does not write. Its text says which one."""


class StoredResult(NamedTuple):
    """One answered image; `regions` are plain dictionaries, `digest` is SHA-256 of the file, `id` none until kept."""

    created: str
    model: str
    category: str
    name: str
    digest: str
    width: int
    height: int
    score: float
    threshold: float
    is_defective: bool
    confidence: float
    regions: Sequence[Mapping]
    milliseconds: float
    is_kept: bool = False
    model_version: str = ""
    camera: str = ""
    distance: float | None = None
    disagreement: float | None = None
    id: int | None = None


class StoredImage(NamedTuple):
    """An image that was kept: its file, and its vector, float32 as bytes, with what made it."""

    digest: str
    file: str
    source: str
    vector: bytes
    id: int | None = None


@dataclass(frozen=True)
class ResultFilter:
    """Which results: all that is given must hold. `since` is included and `until` is not; both are UTC texts."""

    model: str | None = None
    is_defective: bool | None = None
    name: str | None = None
    digest: str | None = None
    since: str | None = None
    until: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    is_kept: bool | None = None
    model_version: str | None = None
    camera: str | None = None

    def conditions(self) -> list:
        columns = RESULTS.c
        wanted = {
            "model": lambda value: columns.model == value,
            "is_defective": lambda value: columns.is_defective == value,
            "name": lambda value: func.lower(columns.name).contains(value.lower(), autoescape=True),
            "digest": lambda value: columns.digest == value,
            "since": lambda value: columns.created >= value,
            "until": lambda value: columns.created < value,
            "min_score": lambda value: columns.score >= value,
            "max_score": lambda value: columns.score <= value,
            "is_kept": lambda value: columns.is_kept == value,
            "model_version": lambda value: columns.model_version == value,
            "camera": lambda value: columns.camera == value,
        }
        return [wanted[name](value) for name, value in vars(self).items() if value is not None]


class Database:
    """A SQLite file, or a PostgreSQL URL that begins with postgresql://. Raises UserError where there is none, or
    one of another format. May be used from any thread."""

    def __init__(self, location: str, password: str | None = None, is_read_only: bool = False) -> None:
        """Brings its tables up to date; read only, not a byte of it is written."""
        self.url = url_of(location, password)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = self._reading_engine() if is_read_only else self._writing_engine()
        try:
            check_known(self._engine, str(self)) if is_read_only else self._migrate()
        except DBAPIError as error:
            self.close()
            what = "cannot be read" if is_read_only else "cannot be kept"
            raise UserError(f"the results {what} in {self}: {_reason(error)}; is it there, and yours?") from None
        except UserError:
            self.close()
            raise

    def _writing_engine(self) -> Engine:
        if not self.is_sqlite:
            return _engine(self.url, connect_args={"connect_timeout": CONNECT_S}, pool_pre_ping=True)
        Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = _engine(self.url, connect_args={"timeout": BUSY_S})
        event.listen(engine, "connect", _write_ahead)
        event.listen(engine, "connect", _read_any_text)
        return engine

    def _reading_engine(self) -> Engine:
        if not self.is_sqlite:
            options = {"connect_timeout": CONNECT_S, "options": "-c default_transaction_read_only=on"}
            return _engine(self.url, connect_args=options)
        file = Path(self.url.database).absolute()
        uri = f"{file.as_uri()}?mode=ro"
        # Even to be read, a database that is written ahead gets two files beside it, unless it is said that nobody
        # writes: while a service has it, one of these is there.
        if not any(Path(f"{file}{suffix}").exists() for suffix in ("-wal", "-journal")):
            uri += "&immutable=1"
        engine = _engine(self.url, creator=lambda: sqlite3.connect(uri, BUSY_S, uri=True, check_same_thread=False))
        event.listen(engine, "connect", _read_any_text)
        return engine

    def __str__(self) -> str:
        return self.url.database if self.is_sqlite else self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        self._engine.dispose()

    def add_results(self, results: Sequence[StoredResult]) -> list[int]:
        """Keep results, all in one commit, and give their ids."""
        rows = [{**result._asdict(), "regions": json.dumps(result.regions)} for result in results]
        for row in rows:
            del row["id"]
        with self._engine.begin() as connection:
            statement = insert(RESULTS).returning(RESULTS.c.id, sort_by_parameter_order=True)
            return list(connection.execute(statement, rows).scalars())

    def results(self, wanted: ResultFilter, limit: int, before: int | None = None) -> list[StoredResult]:
        """Results, the newest first, with ids below `before`."""
        conditions = wanted.conditions() + ([RESULTS.c.id < before] if before is not None else [])
        statement = select(RESULTS).where(and_(True, *conditions)).order_by(RESULTS.c.id.desc()).limit(limit)
        return [_stored_result(row) for row in self.rows(statement)]

    def first_results(self, wanted: ResultFilter, limit: int) -> list[StoredResult]:
        """The oldest first."""
        statement = select(RESULTS).where(and_(True, *wanted.conditions())).order_by(RESULTS.c.id).limit(limit)
        return [_stored_result(row) for row in self.rows(statement)]

    def figures(self, column: Column, wanted: ResultFilter, limit: int, is_newest: bool = False) -> list[float]:
        """A column of the oldest results that have it, the oldest first, or of the newest, the newest first."""
        conditions = and_(*wanted.conditions(), column.is_not(None))
        order = RESULTS.c.id.desc() if is_newest else RESULTS.c.id
        return [row[column.name] for row in self.rows(select(column).where(conditions).order_by(order).limit(limit))]

    def count_figures(self, column: Column, wanted: ResultFilter) -> int:
        (row,) = self.rows(select(func.count(column).label("count")).where(and_(True, *wanted.conditions())))
        return row["count"]

    def results_of(self, ids: Sequence[int]) -> list[StoredResult]:
        """Those of these ids that are there, the newest first."""
        statement = select(RESULTS).where(RESULTS.c.id.in_(ids)).order_by(RESULTS.c.id.desc())
        return [_stored_result(row) for row in self.rows(statement)]

    def result(self, result_id: int) -> StoredResult | None:
        rows = self.rows(select(RESULTS).where(RESULTS.c.id == result_id))
        return _stored_result(rows[0]) if rows else None

    def all_results(self, wanted: ResultFilter) -> Iterator[StoredResult]:
        """All of them, the newest first, whatever is added meanwhile; memory does not grow with them."""
        before = None
        while page := self.results(wanted, ROWS_PER_PAGE, before):
            yield from page
            before = page[-1].id

    def count(self, wanted: ResultFilter) -> int:
        counted = select(func.count().label("count")).select_from(RESULTS)
        (row,) = self.rows(counted.where(and_(True, *wanted.conditions())))
        return row["count"]

    def settings(self) -> dict[str, str]:
        """All that was set, as other processes set it too."""
        return {row["name"]: row["value"] for row in self.rows(select(SETTINGS))}

    def set(self, name: str, value: str | None) -> None:
        """Set `name`, or forget it."""
        for attempt in range(2):
            try:
                with self._engine.begin() as connection:
                    write_setting(connection, name, value)
                return
            except IntegrityError:  # another process set it at the same moment: the later one counts
                if attempt:
                    raise

    def add_image(self, image: StoredImage) -> None:
        """Remember an image that was kept; one that is known already stays as it is."""
        row = image._asdict()
        del row["id"]
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(IMAGES).values(**row))
        except IntegrityError:
            pass

    def set_kept(self, digest: str) -> None:
        """Results of an image say from now on that it was kept."""
        with self._engine.begin() as connection:
            connection.execute(update(RESULTS).where(RESULTS.c.digest == digest).values(is_kept=True))

    def image(self, digest: str) -> StoredImage | None:
        rows = self.rows(select(IMAGES).where(IMAGES.c.digest == digest))
        return _stored_image(rows[0]) if rows else None

    def images_of(self, digests: Sequence[str], source: str) -> list[StoredImage]:
        """Those of these digests with a vector of `source`."""
        conditions = and_(IMAGES.c.digest.in_(digests), IMAGES.c.source == source)
        return [_stored_image(row) for row in self.rows(select(IMAGES).where(conditions))]

    def images_after(self, image_id: int, source: str) -> list[StoredImage]:
        """Those with a vector of `source` and a higher id, the lowest id first."""
        conditions = and_(IMAGES.c.id > image_id, IMAGES.c.source == source)
        return [_stored_image(row) for row in self.rows(select(IMAGES).where(conditions).order_by(IMAGES.c.id))]

    def check(self) -> None:
        """Raises DBAPIError where the database does not answer, or nothing can be written into it."""
        self.set("checked", str(time.time_ns()))  # another value each time, so that it is written

    def _migrate(self) -> None:
        for attempt in range(MAX_WAITS):
            try:
                return migrate(self._engine, str(self))
            except DBAPIError as error:  # processes that start together: SQLite lets only one begin to write ahead
                if attempt == MAX_WAITS - 1 or (attempt >= 2 and not is_busy(error)):
                    raise
                if attempt >= 2:
                    print(f"results: waiting for another process that writes into {self}", file=sys.stderr)

    def alone(self) -> AbstractContextManager[Connection]:
        """A transaction beside which no other one of this kind runs, in any process; it commits at the end."""
        return alone(self._engine)

    def rows(self, statement: Select) -> list[Mapping]:
        with self._engine.connect() as connection:
            return list(connection.execute(statement).mappings())


def now() -> str:
    """As the tables have moments."""
    return as_moment(datetime.now(UTC))


def as_moment(value: datetime) -> str:
    """The same of another moment; what comes without a zone is UTC. Raises OverflowError beyond the years 1 to 9999."""
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def read_setting(connection: Connection, name: str) -> str | None:
    return connection.execute(select(SETTINGS.c.value).where(SETTINGS.c.name == name)).scalar()


def write_setting(connection: Connection, name: str, value: str | None) -> None:
    """Set `name`, or forget it, in a transaction."""
    connection.execute(delete(SETTINGS).where(SETTINGS.c.name == name))
    if value is not None:
        connection.execute(insert(SETTINGS).values(name=name, value=value))


def url_of(location: str, password: str | None = None) -> URL:
    """Raises UserError for a URL of anything but SQLite or PostgreSQL."""
    if "://" not in location:
        return URL.create("sqlite", database=location)
    try:
        url = make_url(location)
        if url.get_backend_name() == "postgresql":
            return (url if password is None else url.set(password=password)).set(drivername="postgresql+psycopg")
    except (ArgumentError, NoSuchModuleError, ValueError):
        pass
    scheme = location.partition("://")[0]
    raise UserError(f"results cannot be kept in {scheme}://...: give a file, or postgresql://USER@HOST/NAME.")


def _engine(url: URL, **options: object) -> Engine:
    try:
        return create_engine(url, pool_size=8, **options)
    except ModuleNotFoundError:
        raise UserError(f"PostgreSQL needs psycopg: {installed_by('postgres')}.") from None


def _write_ahead(connection, _) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _read_any_text(connection, _) -> None:
    """Also what somebody else put in that is none: the audit log has to tell of it."""
    connection.text_factory = lambda text: text.decode(errors="replace")


def read_stored(text: str, expected: type, of: str) -> Any:
    """The JSON of a row, of which `of` says what it is. Raises DamagedRow."""
    try:
        return parse_json(text, expected)
    except (TypeError, ValueError):
        raise DamagedRow(f"the database is damaged: {of} is {text!r:.40}") from None


def _stored_result(row: Mapping) -> StoredResult:
    regions = read_stored(row["regions"], list, f"what result {row['id']} has of regions")
    return StoredResult(**{**row, "regions": regions})


def _stored_image(row: Mapping) -> StoredImage:
    return StoredImage(**{**row, "vector": bytes(row["vector"])})


def is_full(error: SQLAlchemyError) -> bool:
    """Whether the disk of the database is."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(cause, "sqlstate", "") == DISK_FULL


def is_damaged(error: SQLAlchemyError) -> bool:
    """Whether the file is, which does not mend itself."""
    cause = getattr(error, "orig", None)
    is_sqlites = getattr(cause, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    return isinstance(error, DamagedRow) or is_sqlites or getattr(cause, "sqlstate", "") in DAMAGED


def is_busy(error: DBAPIError) -> bool:
    """Whether another process writes into it."""
    return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")


def _reason(error: DBAPIError) -> str:
    """Its first line: more would show what was asked."""
    return str(error.orig).strip().partition("\n")[0]

"""What a line must not forget, in one SQLite file: parts that were begun, signals, and how far each sink has come.

A part is begun, and ends with exactly one signal, the first that is written; sinks are given signals in their order and
each has a place in it. All of it is written by one thread, in one commit for all that waits: a commit that survives the
power's failure takes 5 ms, and so do twenty parts. A killed line leaves parts without a signal; `recover` ends them.

A disk that is full or away is waited for. A file that is damaged is not: nothing more is written into it, whoever asks
is told so, and the line's stations are a fault until a person has put it aside.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from downstream.service.monitoring import LOG
from downstream.stations.signal import VERDICTS, Signal
from pretrain.command import UserError

FORMAT = 1
# Delivered signals stay for the status page, and for clients that ask twice, up to so many.
KEPT_SIGNALS = 10_000
PRUNED_EVERY = 1_000
# SQLite moves its log into the file within the commit that makes it 1,000 pages long, every hundredth or so, which then
# waits three times for the disk. The writer does it right behind a signal that was answered, with time until the next
# one; or SQLite as ever, where so many pages long no such moment has come.
LOG_COMMITS, MOST_LOG_PAGES = 100, 10_000
# So long it waits with places of sinks, until a signal is written anyway; and after a failure, until it tries again.
SOON_S = RETRY_S = 1.0
# A file is looked through when it is opened, if that takes no more than a second or so: signals of days that wait for a
# sink are more, and the line does not wait for that.
CHECKED_BYTES = 1 << 28
# Of one statement alone: what is beside it can be written all the same.
OF_A_STATEMENT = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.NotSupportedError,
                  sqlite3.ProgrammingError)  # fmt: skip
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
TABLES = """
CREATE TABLE open_parts (id TEXT PRIMARY KEY, station TEXT, part INTEGER, name TEXT, time TEXT) WITHOUT ROWID;
CREATE TABLE signals (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, station TEXT, verdict TEXT, json TEXT);
CREATE TABLE judged (id TEXT PRIMARY KEY, station TEXT) WITHOUT ROWID;
CREATE TABLE stations (name TEXT PRIMARY KEY, part INTEGER) WITHOUT ROWID;
CREATE TABLE sinks (name TEXT PRIMARY KEY, delivered INTEGER) WITHOUT ROWID;
CREATE TABLE refused (number INTEGER, sink TEXT, reason TEXT, json TEXT);
"""


class Damaged(UserError):
    """The file is damaged, and will not mend itself."""


@dataclass(frozen=True)
class Begun:
    """A part whose signal is to come; `time` as signals have it."""

    id: str
    station: str
    part: int
    name: str
    time: str


@dataclass(frozen=True)
class Numbered:
    """A signal with its place in the order of all."""

    number: int
    signal: Signal


class Outbox:
    """The file `line.sqlite` in `folder`, which no other process may have open. Raises UserError for one of a later
    heldout, and Damaged. `problem` says what is wrong with the disk while nothing can be written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "line.sqlite"
        self._disk_problem: str | None = None
        self._damage: str | None = None
        self._arrived = threading.Condition()  # also notified when the writer has something to do
        self._waiting: list[tuple[Callable[[sqlite3.Connection], object], Future]] = []
        self._is_closing, self._newest, self._since_pruned, self._since_log = False, 0, 0, 0
        self._readers: list[sqlite3.Connection] = []  # that nobody uses just now: to open one takes half a millisecond
        self._delivered: dict[str, int] = {}  # by sink, of this run
        self._written: dict[str, int] = {}
        try:
            with closing(self._connected()) as connection:
                self._make(connection)
                is_small = self.path.stat().st_size < CHECKED_BYTES
                if is_small and (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(found.splitlines()[-1])
                self._newest = connection.execute("SELECT COALESCE(MAX(number), 0) FROM signals").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from None
        self._thread = threading.Thread(target=self._write, name="outbox", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        return self._damage or self._disk_problem

    def begin(self, part: Begun) -> "Future[None]":
        """Done when the part is on disk: from then on it ends with a signal, whatever happens."""
        values = (part.id, part.station, part.part, part.name, part.time)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO open_parts VALUES (?, ?, ?, ?, ?)", values)
            _count(connection, part.station, part.part)

        return self._asked(write)

    def finish(self, signal: Signal, deadline_s: float | None = None, remembered: bool = False) -> "Future[Signal]":
        """Done when the part's signal is on disk, with that signal: another one where the part had one already, and a
        fault where a verdict comes to the disk after `deadline_s`. `remembered`: its id is not forgotten before
        `forget`, for parts that would come again."""

        def write(connection: sqlite3.Connection) -> Signal:
            connection.execute("DELETE FROM open_parts WHERE id = ?", (signal.id,))
            if (stored := self._stored(connection, signal.id)) is not None:
                return stored
            late = deadline_s is not None and time.monotonic() > deadline_s and signal.verdict != "fault"
            written = replace(signal, verdict="fault", reason="judged, but not on disk in time") if late else signal
            _add(connection, written)
            if remembered:
                connection.execute("INSERT OR IGNORE INTO judged VALUES (?, ?)", (written.id, written.station))
            _count(connection, written.station, written.part)
            return written

        return self._asked(write)

    def recover(self, reason: str = "the line was stopped before it was judged") -> int:
        """End the parts that an earlier run has left, each by a fault; how many."""

        def write(connection: sqlite3.Connection) -> int:
            left = [Begun(*row) for row in connection.execute("SELECT * FROM open_parts")]
            for part in left:
                signal = Signal(part.id, part.station, part.part, part.name, "fault", reason, None, None, None, None,
                                part.time, 0.0)  # fmt: skip
                if self._stored(connection, part.id) is None:
                    _add(connection, signal)
            connection.execute("DELETE FROM open_parts")
            return len(left)

        return self._asked(write).result()

    def forget(self, station: str, present: Collection[str]) -> None:
        """Ids that a station's source would not give again need not be remembered."""

        def write(connection: sqlite3.Connection) -> None:
            rows = connection.execute("SELECT id FROM judged WHERE station = ?", (station,)).fetchall()
            gone = [row for row in rows if row[0] not in present]
            connection.executemany("DELETE FROM judged WHERE id = ?", gone)

        self._asked(write).result()

    def is_judged(self, part_id: str) -> bool:
        """Whether a part that comes again has its signal; of parts that were `remembered`."""
        query = "SELECT 1 FROM judged WHERE id = ?1 UNION ALL SELECT 1 FROM signals WHERE id = ?1"
        return bool(self._rows(query, (part_id,)))

    def signal_of(self, part_id: str) -> Signal | None:
        """The signal of a part, if it is one of the last."""
        rows = self._rows("SELECT json FROM signals WHERE id = ?", (part_id,))
        return self._signal(rows[0][0]) if rows else None

    def number_of(self, part_id: str) -> int | None:
        """The place of a part's signal in the order of all."""
        rows = self._rows("SELECT number FROM signals WHERE id = ?", (part_id,))
        return rows[0][0] if rows else None

    def last_part(self, station: str) -> int:
        """The highest number that a station has given to a part; 0 before the first."""
        rows = self._rows("SELECT part FROM stations WHERE name = ?", (station,))
        return rows[0][0] if rows else 0

    def join(self, sink: str) -> int:
        """The number of the last signal that a sink has. One that is new begins with the next, not with those of years;
        one that is no longer named keeps its place, and what it misses goes with time."""
        query = "INSERT OR IGNORE INTO sinks VALUES (?, (SELECT COALESCE(MAX(number), 0) FROM signals))"
        self._asked(lambda connection: connection.execute(query, (sink,))).result()
        number = self._rows("SELECT delivered FROM sinks WHERE name = ?", (sink,))[0][0]
        self._delivered[sink] = number
        return number

    def after(self, number: int, stations: Sequence[str], limit: int = 100) -> list[Numbered]:
        """The signals of these stations behind that of a number, the oldest first."""
        marks = ", ".join("?" * len(stations))
        query = f"SELECT number, json FROM signals WHERE number > ? AND station IN ({marks}) ORDER BY number LIMIT ?"
        return [Numbered(found, self._signal(text))
                for found, text in self._rows(query, (number, *stations, limit))]  # fmt: skip

    def count_after(self, number: int, stations: Sequence[str]) -> int:
        marks = ", ".join("?" * len(stations))
        query = f"SELECT COUNT(*) FROM signals WHERE number > ? AND station IN ({marks})"
        return self._rows(query, (number, *stations))[0][0]

    def delivered(self, sink: str, number: int) -> None:
        """A sink has the signal of this number. Written with whatever is written next, or soon: killed before, the line
        delivers it once more."""
        self._delivered[sink] = number

    def refused(self, sink: str, numbered: Numbered, reason: str) -> None:
        """A sink will never take a signal: it is put aside, where a person finds it."""
        row = (numbered.number, sink, reason, numbered.signal.to_json())

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO refused VALUES (?, ?, ?, ?)", row)

        self._asked(write).result()

    def wait_beyond(self, number: int, seconds: float) -> bool:
        """Wait until there is a signal of a higher number, at most so long; whether there is."""
        with self._arrived:
            return self._arrived.wait_for(lambda: self._newest > number or self._is_closing, seconds)

    @property
    def newest(self) -> int:
        """The number of the newest signal."""
        return self._newest

    def last_signals(self, limit: int, station: str | None = None) -> list[Signal]:
        """The newest first; of all stations, or of one."""
        query = "SELECT json FROM signals WHERE ?1 IS NULL OR station = ?1 ORDER BY number DESC LIMIT ?2"
        rows = self._rows(query, (station, limit))
        return [self._signal(text) for (text,) in rows]

    def close(self) -> None:
        """Write what waits, and end."""
        with self._arrived:
            self._is_closing = True
            self._arrived.notify_all()
        self._thread.join()
        while self._readers:
            self._readers.pop().close()

    def _asked(self, write: Callable[[sqlite3.Connection], object]) -> Future:
        future: Future = Future()
        with self._arrived:
            if self._is_closing:
                raise RuntimeError("the outbox is closed")
            self._waiting.append((write, future))
            self._arrived.notify_all()
        return future

    def _write(self) -> None:
        with closing(self._connected()) as connection:
            while True:
                with self._arrived:
                    self._arrived.wait_for(lambda: self._waiting or self._is_closing, SOON_S)
                    batch, self._waiting = self._waiting, []
                    is_last = self._is_closing and not batch
                if not batch and (self._delivered == self._written or self._damage):
                    if is_last:
                        return
                    continue
                while not self._settle(connection, batch):
                    with self._arrived:
                        if self._arrived.wait_for(lambda: self._is_closing, RETRY_S):
                            for _, future in [*batch, *self._waiting]:
                                future.cancel()
                            return

    def _settle(self, connection: sqlite3.Connection, batch: Sequence[tuple[Callable, Future]]) -> bool:
        """Whether callers have heard what became of it."""
        if self._damage is None and self._commit(connection, batch):
            return True
        if self._damage is None:
            return False
        for _, future in batch:
            future.set_exception(Damaged(self._damage))
        return True

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[tuple[Callable, Future]]) -> bool:
        """Whether all of it is on disk. Callers hear of it then, and not before."""
        delivered = dict(self._delivered)
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_outcome(connection, write) for write, _ in batch]
            places = [(number, sink) for sink, number in delivered.items()]
            connection.executemany("UPDATE sinks SET delivered = MAX(delivered, ?) WHERE name = ?", places)
            newest = connection.execute("SELECT COALESCE(MAX(number), 0) FROM signals").fetchone()[0]
            self._since_pruned += newest - self._newest
            if self._since_pruned >= PRUNED_EVERY:
                last = min([newest - KEPT_SIGNALS, *delivered.values()])
                connection.execute("DELETE FROM signals WHERE number <= ?", (last,))
                self._since_pruned = 0
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._disk_problem = f"nothing can be written into {self.path} ({error})"
            self._heed_damage(error)
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return False
        self._disk_problem, self._written = None, delivered
        with self._arrived:
            self._newest = newest
            self._arrived.notify_all()
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._since_log += 1
        if self._since_log >= LOG_COMMITS and not self._waiting and any(isinstance(each, Signal) for each in outcomes):
            self._shorten_log(connection)
        return True

    def _shorten_log(self, connection: sqlite3.Connection) -> None:
        self._since_log = 0
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:  # the log grows then, and the next commit says what is wrong with the disk
            self._heed_damage(error)

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=15, check_same_thread=False)
        connection.text_factory = lambda text: text.decode(errors="replace")  # what is no text is damage: see _signal
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={MOST_LOG_PAGES}")
        return connection

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._readers.pop()
        except IndexError:  # all are in use, by other threads
            return self._connected()

    def _rows(self, query: str, values: Sequence) -> list[tuple]:
        try:
            connection = self._reader()
            try:
                return connection.execute(query, values).fetchall()
            finally:
                connection.close() if self._is_closing else self._readers.append(connection)
        except sqlite3.DatabaseError as error:
            self._heed_damage(error)
            if self._damage is None:
                raise
            raise Damaged(self._damage) from None

    def _signal(self, text: str) -> Signal:
        try:
            if not str(text).isascii():
                raise ValueError("a letter that no signal has")
            if (signal := Signal.from_json(text)).verdict not in VERDICTS:
                raise ValueError(f"a verdict {signal.verdict!r}")
            return signal
        except (TypeError, ValueError) as error:
            raise self._damaged(error) from None

    def _stored(self, connection: sqlite3.Connection, part_id: str) -> Signal | None:
        row = connection.execute("SELECT json FROM signals WHERE id = ?", (part_id,)).fetchone()
        return row and self._signal(row[0])

    def _heed_damage(self, error: sqlite3.Error) -> None:
        """The lower byte of SQLite's code says what kind it is; the disk's own errors are others, and may pass."""
        if self._damage is None and getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE:
            self._damage = str(self._damaged(error))
            LOG.error("no signal is written any more", extra={"metadata": {"reason": self._damage}})

    def _damaged(self, error: Exception) -> Damaged:
        return Damaged(f"{self.path} cannot be used ({error}): put it aside, or name another --state.")

    def _make(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise UserError(f"{self.path} is of a later heldout: use that one, or name another --state.")
        if found == 0:
            connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")


def _outcome(connection: sqlite3.Connection, write: Callable[[sqlite3.Connection], object]) -> object:
    """What it gives; or the error of one that is wrong by itself, and is undone alone. Raises sqlite3.Error, the
    disk's."""
    connection.execute("SAVEPOINT one")
    try:
        outcome = write(connection)
    except Exception as error:  # those beside it must not wait for it, nor the thread end
        if isinstance(error, sqlite3.Error) and not isinstance(error, OF_A_STATEMENT):
            raise
        connection.execute("ROLLBACK TO one")
        outcome = error
    connection.execute("RELEASE one")
    return outcome


def _add(connection: sqlite3.Connection, signal: Signal) -> None:
    row = (signal.id, signal.station, signal.verdict, signal.to_json())
    connection.execute("INSERT INTO signals (id, station, verdict, json) VALUES (?, ?, ?, ?)", row)


def _count(connection: sqlite3.Connection, station: str, part: int) -> None:
    query = "INSERT INTO stations VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET part = MAX(part, ?2)"
    connection.execute(query, (station, part))

"""A database of heldout 0.1 becomes one of today's, whole or not at all, on SQLite and on PostgreSQL."""

import json
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from conftest import REPOSITORY
from migrated import columns, execute, migrated
from sqlalchemy import create_engine, inspect, text

from downstream.service.database import Database, ResultFilter, url_of
from downstream.service.migrating import _config, alone
from downstream.service.tables import RESULTS, TABLES
from downstream.service.watch.camera import REFERENCES
from downstream.service.watch.camera_watch import CameraWatch
from pretrain.command import UserError

# As heldout 0.1 made them (commit 47c83b1).
TABLES_OF_0_1 = """
CREATE TABLE images (id {ID} NOT NULL, digest VARCHAR(64) NOT NULL, file TEXT NOT NULL, source TEXT NOT NULL,
    vector {BLOB} NOT NULL, PRIMARY KEY (id), UNIQUE (digest));
CREATE TABLE results (id {ID} NOT NULL, created VARCHAR(24) NOT NULL, model TEXT NOT NULL, category TEXT NOT NULL,
    name TEXT NOT NULL, digest VARCHAR(64) NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    score {FLOAT} NOT NULL, threshold {FLOAT} NOT NULL, is_defective BOOLEAN NOT NULL, confidence {FLOAT} NOT NULL,
    regions TEXT NOT NULL, milliseconds {FLOAT} NOT NULL, is_kept BOOLEAN NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_results_created ON results (created);
CREATE INDEX ix_results_digest ON results (digest);
CREATE TABLE settings (name VARCHAR(300) NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name));
INSERT INTO settings VALUES ('format', '2');
INSERT INTO settings VALUES ('threshold bolt', '1.5 0123456789abcdef');
INSERT INTO results (created, model, category, name, digest, width, height, score, threshold, is_defective,
    confidence, regions, milliseconds, is_kept)
    VALUES ('2026-01-31T23:59:59.123Z', 'bolt', 'bolts', 'é.png', '{DIGEST}', 64, 48, 3.5, 1.5, {TRUE}, 0.75,
    '[{{"area_px": 3}}]', 12.5, {TRUE});
INSERT INTO images (digest, file, source, vector) VALUES ('{DIGEST}', 'a.png', '', {BYTES});
"""
TYPES = {
    "sqlite": {"ID": "INTEGER", "BLOB": "BLOB", "FLOAT": "FLOAT", "TRUE": "1", "BYTES": "x'01'"},
    "postgresql": {"ID": "BIGSERIAL", "BLOB": "BYTEA", "FLOAT": "FLOAT(53)", "TRUE": "true", "BYTES": "'\\x01'::bytea"},
}

REVISIONS = [step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()]


@pytest.fixture
def old(location) -> str:
    """Of one that heldout 0.1 wrote."""
    execute(location, TABLES_OF_0_1.format(DIGEST="d" * 64, **TYPES[url_of(location).get_backend_name()]))
    return location


def test_a_database_of_0_1_keeps_all_it_has(old):
    for _ in range(2):  # migrated, and found so
        database = Database(old)
        (result,) = database.all_results(ResultFilter())
        assert (result.name, result.score, result.regions, result.is_defective) == (
            "é.png",
            3.5,
            [{"area_px": 3}],
            True,
        )
        assert (result.id, result.digest, result.is_kept, result.model_version) == (1, "d" * 64, True, "")
        assert database.image("d" * 64).vector == b"\1"
        assert database.settings() == {"format": "3", "threshold bolt": "1.5 0123456789abcdef"}
        database.close()
    database = Database(old)
    assert database.add_results([result._replace(model_version="v")]) == [2]
    assert [one.model_version for one in database.all_results(ResultFilter())] == ["v", ""]
    database.close()


def test_what_a_camera_showed_to_nobody_knows_which_version_is_learned_anew(location):
    migrated(location, "0005")
    looks = ["INSERT INTO camera_references (model, look) VALUES ('bolt', '{}')"] * REFERENCES
    execute(location, ";".join(looks))
    database = Database(location)
    watch = CameraWatch(database)
    assert watch.references("bolt", "a version") is None and watch.count("bolt", "") == 0
    database.close()


@pytest.mark.parametrize("start", ["empty", "0.1", *REVISIONS])
def test_the_tables_are_those_that_the_code_asks_for(location, start, request):
    if start == "0.1":
        request.getfixturevalue("old")
    elif start in REVISIONS:
        migrated(location, start)
    Database(location).close()
    engine = create_engine(url_of(location))
    if engine.dialect.name == "sqlite":  # alembic compares all but the condition of a partial index
        found = {index["name"]: index.get("dialect_options", {}) for index in inspect(engine).get_indexes("results")}
        wanted = {index.name: index.dialect_options["sqlite"]["where"] for index in RESULTS.indexes}
        assert {name: str(options.get("sqlite_where")) for name, options in found.items()} == {
            name: str(where) for name, where in wanted.items()
        }
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), TABLES) == []
        connection.exec_driver_sql("ALTER TABLE results ADD COLUMN more TEXT")
        assert compare_metadata(MigrationContext.configure(connection), TABLES) != []  # so it would have been seen
    engine.dispose()


def test_what_a_revision_is_stays_as_it_was_published(location):
    """0007 has the indexes and no column more: databases of that number are there, and 0008 begins at them."""
    migrated(location, "0007")
    assert "distance" not in columns(location)["results"]
    engine = create_engine(url_of(location))
    names = {index["name"] for index in inspect(engine).get_indexes("results")}
    engine.dispose()
    assert names == {"ix_results_digest", *(f"ix_results_{name}" for name in ("day", "page", "scores", "kept"))}


def test_of_many_that_start_together_one_migrates(old):
    def opened(_: int) -> int:
        database = Database(old)
        count = database.count(ResultFilter())
        database.close()
        return count

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(opened, range(6))) == [1] * 6
    engine = create_engine(url_of(old))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    engine.dispose()


def test_a_migration_is_said_and_others_wait_for_it_however_long(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("downstream.service.database.BUSY_S", 0.05)
    location = str(tmp_path / "results.sqlite")
    migrated(location, "0007")
    execute(location, "PRAGMA journal_mode=WAL")
    other = sqlite3.connect(location, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(1, other.close)
    done.start()
    Database(location).close()
    said = capsys.readouterr().err.splitlines()
    assert "waiting for another process" in said[0] and "up to date" in said[-1]
    Database(location).close()
    assert capsys.readouterr().err == ""
    done.join()


def test_what_runs_alone_has_nothing_beside_it(location):
    Database(location).close()
    engine = create_engine(url_of(location))

    def add_one(_: int) -> None:
        with alone(engine) as connection:
            (before,) = connection.exec_driver_sql("SELECT count(*) FROM settings").one()
            connection.exec_driver_sql(f"INSERT INTO settings VALUES ('number {before}', '')")  # one of its own each

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(20)))
    with pytest.raises(ZeroDivisionError), alone(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE half (a TEXT)")
        raise ZeroDivisionError
    assert "half" not in inspect(engine).get_table_names()
    engine.dispose()


# Every process of the loop is killed four statements later than the one before, until one gets through.
KILLED = """
import json, os, signal, sys
from sqlalchemy import create_engine, event, inspect
from downstream.service.database import Database, url_of

def state():
    engine = create_engine(url_of(sys.argv[1]))
    found = inspect(engine)
    names = {name: [column["name"] for column in found.get_columns(name)] for name in sorted(found.get_table_names())}
    with engine.connect() as connection:
        settings = [list(row) for row in connection.exec_driver_sql("SELECT name, value FROM settings ORDER BY name")]
    engine.dispose()
    return names, settings

states = [state()]
for last in range(1, 1000, 4):
    child = os.fork()
    if child == 0:
        count = 0
        def executed(*_):
            global count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
        from sqlalchemy import Engine
        event.listen(Engine, "after_cursor_execute", executed)
        Database(sys.argv[1]).close()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    states.append(state())
    if status == 0:
        break
print(json.dumps(states))
"""


def test_a_kill_at_any_statement_leaves_all_or_nothing(old):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, old], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    assert states[0] != states[-1] and all(state in (states[0], states[-1]) for state in states)
    assert states.count(states[0]) > 5  # so many kills came before the commit


def test_a_newer_database_is_refused_and_left_as_it_is(location):
    Database(location).close()
    execute(location, "UPDATE alembic_version SET version_num = '9999'; ALTER TABLE results ADD COLUMN more TEXT")
    before = columns(location)
    with pytest.raises(UserError, match=r"written by a newer heldout \(tables of revision 9999\): update heldout"):
        Database(location)
    assert columns(location) == before


@pytest.mark.parametrize(
    ("format", "words"),
    [
        ("99", r"newer heldout \(format 99\): update heldout"),
        ("1", r"older heldout than 0.1 \(format 1\): name another"),
    ],
)
def test_a_format_before_alembic_that_is_not_that_of_0_1_is_refused(tmp_path, format, words):
    location = str(tmp_path / "results.sqlite")
    execute(
        location, f"CREATE TABLE settings (name TEXT, value TEXT); INSERT INTO settings VALUES ('format', '{format}')"
    )
    with pytest.raises(UserError, match=words):
        Database(location)
    assert columns(location) == {"settings": ["name", "value"]}

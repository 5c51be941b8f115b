"""The database's tables, brought to what this heldout asks for: by alembic, in one transaction, once.

Of workers that start together the first migrates and the others wait for it. A killed one leaves the tables as they
were, since both databases can take back changes of tables too.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, select

from downstream.service.tables import AUDIT, FEEDBACK, RESULTS, SETTINGS
from pretrain.command import UserError

FORMAT_OF_0_1 = "2"  # of `settings`; later ones belong to migrations, which count for themselves
# Any number, as long as nothing else in that database locks it: "heldout" in ASCII.
LOCK = int.from_bytes(b"heldout", "big")


def migrate(engine: Engine, name: str) -> None:
    """Raises UserError where the database, to be called `name`, is of a newer heldout or of one before 0.1."""
    if _has_newest_tables(engine, name):
        return
    config = _config()
    with alone(engine) as connection:
        if _revision(connection) == ScriptDirectory.from_config(config).get_current_head():  # by another process
            return
        _check_origin(connection, name)
        if inspect(connection).has_table(RESULTS.name):
            print(f"results: bringing {name} up to date; with millions of results it takes minutes", file=sys.stderr)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_known(engine: Engine, name: str) -> None:
    """For who only reads: raises UserError where the database, to be called `name`, is of a newer heldout, or has no
    table of what is read."""
    _has_newest_tables(engine, name)
    there = inspect(engine)
    if not all(there.has_table(table.name) for table in (AUDIT, FEEDBACK)):
        raise UserError(f"{name} has no audit log: it is none of a service, or of one before there was such a log.")


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """A transaction beside which no other one of this kind runs, in any process; it commits at the end."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            yield connection
            connection.commit()
            return
        # Python's sqlite3 begins a transaction only when something is inserted: too late to read alone, and changes of
        # tables would be outside of it.
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def _has_newest_tables(engine: Engine, name: str) -> bool:
    """Without a lock: almost every start finds them so."""
    script = ScriptDirectory.from_config(_config())
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision is not None and revision not in {step.revision for step in script.walk_revisions()}:
        raise UserError(f"{name} was written by a newer heldout (tables of revision {revision}): update heldout.")
    return revision == script.get_current_head()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_origin(connection: Connection, name: str) -> None:
    """Before any table is made: a database that cannot be migrated is left as it is."""
    if _revision(connection) is not None or not inspect(connection).has_table(SETTINGS.name):
        return
    stored = connection.execute(select(SETTINGS.c.value).where(SETTINGS.c.name == "format")).scalar()
    if stored is None or stored == FORMAT_OF_0_1:
        return
    if int(stored) > int(FORMAT_OF_0_1):
        raise UserError(f"{name} was written by a newer heldout (format {stored}): update heldout.")
    raise UserError(
        f"{name} was written by an older heldout than 0.1 (format {stored}): name another database by --results."
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "downstream.service:migrations")
    return config

"""Databases of the service as earlier ones left them, for tests of what becomes of them."""

from pathlib import Path

from alembic import command
from sqlalchemy import create_engine, inspect

from downstream.service.database import url_of
from downstream.service.migrating import _config, alone


def execute(location: str, statements: str) -> None:
    url = url_of(location)
    if url.get_backend_name() == "sqlite":
        Path(location).parent.mkdir(exist_ok=True)
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in filter(str.strip, statements.split(";")):
            connection.exec_driver_sql(statement)
    engine.dispose()


def migrated(location: str, revision: str) -> None:
    """A new database as a heldout of that revision left it."""
    url = url_of(location)
    if url.get_backend_name() == "sqlite":
        Path(location).parent.mkdir(exist_ok=True)
    engine, config = create_engine(url), _config()
    with alone(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def columns(location: str) -> dict[str, list[str]]:
    engine = create_engine(url_of(location))
    found = inspect(engine)
    names = {table: [column["name"] for column in found.get_columns(table)] for table in found.get_table_names()}
    engine.dispose()
    return names

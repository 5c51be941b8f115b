"""What tests of the service share: an empty database of each kind."""

from collections.abc import Iterator

import pytest
from serving import postgres
from sqlalchemy import create_engine

from downstream.service.database import url_of


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres") / "server") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path) -> str:
    """Of a database with nothing in it."""
    if request.param == "sqlite":
        return str(tmp_path / "new" / "results.sqlite")
    url = request.getfixturevalue("postgres_url")
    engine = create_engine(url_of(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url

"""What tests ask of a service beside scripts/attacks/serving.py: a PostgreSQL, or a word that there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.attacks.serving import Postgres, program


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of a PostgreSQL that was started for this test and has nothing in it. Where none is installed, the test
    is skipped and says so; in CI, which installs one, it fails."""
    if program("initdb") is None:
        reason = "PostgreSQL is not installed, so results in it are NOT tested here; on Debian: apt install postgresql"
        if os.environ.get("HELDOUT_REQUIRE_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = Postgres(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()

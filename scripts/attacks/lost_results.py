"""A service, or the PostgreSQL that it keeps results in, dies or is full while images are posted. Whatever was answered
is kept; nobody is answered by a fault; and the service goes on as soon as it can."""

import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from downstream.service.database import Database, ResultFilter
from pretrain.command import UserError
from scripts.attacks.attack import Attack
from scripts.attacks.material import Material
from scripts.attacks.serving import Postgres, Posts, fill, posting, program, served, small_disk, wait_until_healthy

# An answer, a database that is not there, and one whose disk is full.
ALLOWED = {200, 503, 507}
FIRST_ANSWER_S, AGAIN_S = 60.0, 60.0
DISK_MB = 96


class ServiceKills(Attack):
    """One try is one kill of a service that is being asked; the next one serves the same results."""

    unit = "a kill"

    def __init__(self, material: Material) -> None:
        self._material, self._answered = material, set()

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        place = self._material.folder / "killed"
        with ExitStack() as stack:
            serving = stack.enter_context(served(self._material.judging, place))
            posts = stack.enter_context(posting(serving.url))
            wait_for_an_answer(posts)
            time.sleep(chance.uniform(0, 1.5))
            serving.process.kill()
        self._answered |= posts.ids
        if odd := posts.statuses - ALLOWED:
            return f"answers with status {odd}: {serving.log[-2000:]}"
        if failed := lost(self._answered, str(place / "results.sqlite")):
            shutil.copytree(place, folder / "kept")
        return failed


class PostgresAttacks(Attack):
    """One try kills PostgreSQL, or fills its disk, while images are posted, and gives it back."""

    unit = "a kill or a full disk"

    def __init__(self, material: Material) -> None:
        if program("initdb") is None:
            raise UserError("there is no PostgreSQL to attack; on Debian: apt install postgresql")
        self._open, self._answered, self._disk = ExitStack(), set(), material.folder / "postgres"
        try:
            self._open.enter_context(small_disk(self._disk, DISK_MB))
            self._kinds = ("killed", "full")
        except OSError:  # only who may mount has a disk that can be filled
            self._kinds = ("killed",)
        self._postgres = Postgres(self._disk / "server")
        self._postgres.start()
        self._open.callback(self._postgres.kill)
        options = ("--results", self._postgres.url, "--timeout-s", "10")
        self._serving = self._open.enter_context(served(material.judging, material.folder / "on-postgres", *options))

    def close(self) -> None:
        self._open.close()

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        kind = self._kinds[self.number % len(self._kinds)]
        with posting(self._serving.url) as posts:
            wait_for_an_answer(posts)
            time.sleep(chance.uniform(0, 1))
            if kind == "killed":
                self._postgres.kill()
                time.sleep(chance.uniform(0, 2))
            else:
                filler = fill(self._disk)
                wait_for_an_answer(posts, other_than=200)
                filler.unlink()
            if not self._postgres.is_running:  # of a full disk too, where no room is left for its log
                self._postgres.start()
            wait_until_healthy(self._serving, AGAIN_S)
        self._answered |= posts.ids
        if odd := posts.statuses - ALLOWED:
            return f"{kind}: answers with status {odd}: {self._serving.log[-2000:]}"
        with posting(self._serving.url, clients=1) as posts:
            wait_for_an_answer(posts)
        failed = lost(self._answered | posts.ids, self._postgres.url)
        return failed and f"{kind}: {failed}"


def wait_for_an_answer(posts: Posts, other_than: int | None = None) -> None:
    """Raises TimeoutError where none comes."""
    end_s = time.monotonic() + FIRST_ANSWER_S
    while not posts.statuses - {other_than}:
        if time.monotonic() > end_s:
            raise TimeoutError(f"no answer but {posts.statuses or 'none'} in {FIRST_ANSWER_S:g} s")
        time.sleep(0.02)


def lost(answered: set[int], results: str) -> str | None:
    """Those of the answered results that are not in the database."""
    database = Database(results)
    kept = {result.id for result in database.all_results(ResultFilter())}
    database.close()
    missing = answered - kept
    return f"{len(missing)} of {len(answered)} answered results are lost: {sorted(missing)[:5]}" if missing else None

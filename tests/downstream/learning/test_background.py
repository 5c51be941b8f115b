"""What learns in a process of its own says how it goes, also to others, and after it was killed."""

import pytest
from filelock import FileLock

from downstream.learning.background import LOCK, STATUS, Learning, Status
from pretrain.command import UserError
from pretrain.files import write_json


def test_what_was_said_last_counts_while_its_process_lives(tmp_path):
    learning = Learning(tmp_path / "learning")
    assert learning.status() == Status()  # nobody ever learned
    said = Status("runs", "nut", "ada", "2026-11-29T10:00:00+00:00", step="learns")
    (tmp_path / "learning").mkdir()
    write_json(tmp_path / "learning" / STATUS, said._asdict())
    with FileLock(tmp_path / "learning" / LOCK):  # as another worker holds it
        assert learning.status() == said
        with pytest.raises(UserError, match="the model nut learns just now"):
            learning.start(tmp_path / "bolt", "bolt", [], "bob")
        assert learning.status() == said
    killed = learning.status()
    assert (killed.state, killed.model, killed.version) == ("failed", "nut", None)
    assert "the version in use stays as it is" in killed.reason
    ended = said._replace(state="done", version=3)
    write_json(tmp_path / "learning" / STATUS, ended._asdict())
    assert learning.status() == ended
    learning.stop()  # of what it never started

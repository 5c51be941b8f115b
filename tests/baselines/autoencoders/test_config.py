"""Flags as users of earlier programs know them, and a mistyped one."""

from pathlib import Path

import pytest

from baselines.autoencoders.config import Config
from pretrain.command import read_config


def test_flags_as_their_users_know_them():
    typed = ["--batch_size", "4", "--size=32", "--data_path", "my_data", "-i", "100", "--ckpt_path", "a_b"]
    config = Config(batch_size=4, size_px=32, data=Path("my_data"), instances=100, out=Path("a_b"))
    assert read_config(Config, typed) == config
    own = ["--batch-size", "4", "--size-px=32", "--data", "my_data", "--instances", "100", "--out", "a_b"]
    assert read_config(Config, own) == config


def test_other_flags_are_left_as_they_are(capsys):
    with pytest.raises(SystemExit) as ended:
        read_config(Config, ["--print_config"])
    assert ended.value.code == 0 and "size_px: null" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        read_config(Config, ["--colr", "a_b"])
    assert ended.value.code == 2 and "did you mean --color" in capsys.readouterr().err

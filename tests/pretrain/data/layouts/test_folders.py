"""What layouts share."""

import pytest
from made_folders import image

from pretrain.command import UserError
from pretrain.data.layouts.folders import later_fifth, named


def test_the_last_fifth_by_name_is_tested_on(tmp_path):
    paths = [tmp_path / f"{number:02}.png" for number in range(11)]
    assert later_fifth(paths[::-1]) == set(paths[9:])
    assert later_fifth(paths[:4]) == set()


def test_a_name_leads_to_a_file_below_the_folder_or_to_a_sentence(tmp_path):
    table = tmp_path / "table.csv"
    there = image(tmp_path / "a/b.png")
    assert named(tmp_path, " a\\b.png", table) == there
    assert named(tmp_path, "a/c.png", table).reason == "is named in table.csv, but is not there"
    for outside in ("/etc/passwd.png", "a/../../b.png"):
        with pytest.raises(UserError, match=r"no path below .* relative to it\.$"):
            named(tmp_path, outside, table)

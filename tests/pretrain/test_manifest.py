"""The command: what it lists, and what it says."""

from PIL import Image

from pretrain.command import run_command
from pretrain.config import Manifest
from pretrain.data.manifest import read_rows
from pretrain.manifest import main


def test_a_folder_is_listed_once_and_brought_up_to_date(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    file = tmp_path / "images.parquet"
    arguments = [str(tmp_path), "--out", str(file)]
    assert run_command(main, Manifest, arguments) == 0
    assert f"{file}: 1 images, 1 of them new, 0 changed; 0 are gone" in capsys.readouterr().out
    assert [row.path for row in read_rows(file)] == ["a.png"]
    assert run_command(main, Manifest, arguments) == 0
    assert "1 images, 0 of them new" in capsys.readouterr().out
    assert run_command(main, Manifest, []) == 2
    assert "name one folder" in capsys.readouterr().err

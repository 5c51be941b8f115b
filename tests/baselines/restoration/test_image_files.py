"""Image files restored under their own names: every format, size and bit depth, and what cannot be read."""

from pathlib import Path

import numpy as np
import torch
from pair_folders import smooth
from PIL import Image
from restorer_runs import COMMANDS, refused

from baselines.contract.metrics import psnr
from baselines.restoration.image_files import ExactImage, files_to_restore, read_exact, write_exact
from pretrain.command import run_commands


def image_folder(folder: Path) -> Path:
    """Images of every format and mode that can be kept exactly."""
    folder.mkdir()
    color = (smooth(1, 30, 41)[0].permute(1, 2, 0).numpy() * 65535).astype(np.uint16)
    for name in ("deep.png", "deep.tiff"):
        write_exact(exact(color), folder / name)
    eight = (color >> 8).astype(np.uint8)
    Image.fromarray(color[..., 0]).save(folder / "deep_gray.png")
    Image.fromarray(eight).save(folder / "color.png")
    Image.fromarray(eight[..., 0]).save(folder / "gray.bmp")
    Image.fromarray(np.dstack((eight, eight[..., 0]))).save(folder / "clear.png")
    Image.fromarray(eight).convert("P").save(folder / "palette.png")
    Image.fromarray(eight).save(folder / "photo.jpg")
    return folder


def exact(pixels: np.ndarray) -> ExactImage:
    return ExactImage(torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1), False, True)


def test_files_are_read_and_written_at_their_full_bit_depth(tmp_path):
    folder = image_folder(tmp_path / "in")
    for path in sorted(folder.iterdir()):
        write_exact(read_exact(path), tmp_path / "out" / path.name)
        first, second = read_exact(path), read_exact(tmp_path / "out" / path.name)
        assert (first.is_gray, first.is_16_bit, first.alpha is None) == (
            second.is_gray,
            second.is_16_bit,
            second.alpha is None,
        )
        if path.suffix == ".jpg":
            assert psnr(first.image[None], second.image[None]) > 30
        else:
            assert torch.equal(first.image, second.image), path.name
    assert read_exact(folder / "deep.png").is_16_bit and read_exact(folder / "deep.tiff").is_16_bit
    assert read_exact(folder / "deep_gray.png").is_16_bit and read_exact(folder / "gray.bmp").is_gray
    assert (read_exact(folder / "deep.png").image * 65535 % 257 > 1).any()  # more than 8 bits of levels
    assert len(list((tmp_path / "out").iterdir())) == 8  # nothing unfinished is left


def test_a_link_to_itself_is_a_file_to_restore_as_any(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert files_to_restore([tmp_path], tmp_path / "out") == [(tmp_path / "loop.png", tmp_path / "out" / "loop.png")]


def test_restore_keeps_names_sizes_and_depths_and_tells_of_what_it_cannot_read(restorer_run, tmp_path, capsys):
    folder, out = image_folder(tmp_path / "in"), tmp_path / "out"
    (folder / "sub").mkdir()
    Image.new("RGB", (9, 7), "red").save(folder / "sub" / "small.png")
    (folder / "broken.png").write_bytes(b"no image")
    assert run_commands(COMMANDS, ["restore", str(folder), "--model", str(restorer_run), "--out", str(out)]) == 3
    said = capsys.readouterr()
    assert "9 images restored" in said.out and "broken.png" in said.err
    for path in (path for path in folder.rglob("*.*") if path.name != "broken.png"):
        before, after = read_exact(path), read_exact(out / path.relative_to(folder))
        assert before.image.shape == after.image.shape and before.is_16_bit == after.is_16_bit
        assert before.alpha is None or np.array_equal(before.alpha, after.alpha)
    assert "would write over" in refused(
        capsys, "restore", str(folder), "--model", str(restorer_run), "--out", str(folder)
    )
    assert "no images to restore" in refused(capsys, "restore", "--model", str(restorer_run))
    assert "no folder" in refused(capsys, "restore", str(tmp_path / "none"), "--model", str(restorer_run))

"""The bare decoder. Its processes import this file alone: their start is measured too."""

from pathlib import Path

import kornia_rs.io


def decode_only(path: Path) -> None:
    kornia_rs.io.decode_image_png_u8(path.read_bytes(), (1024, 1024), "rgb")

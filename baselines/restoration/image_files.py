"""Image files that keep what they are: size, name, format, gray or color, 8 or 16 bits, and their transparency.

Elsewhere an image is 8-bit RGB, which does for inspection. Who restores images wants the same ones back.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import kornia_rs.io
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pretrain.data.decode import Unreadable, decode
from pretrain.drawing import save_image

DEEP_LEVELS, LEVELS = 65535, 255
JPEG_QUALITY = 95
GRAY_MODES = ("1", "L", "LA")


@dataclass(frozen=True)
class ExactImage:
    """`image` float32 (3, h, w) in [0, 1], upright; `alpha` uint8 or uint16 (h, w) is kept as it is."""

    image: Tensor
    is_gray: bool
    is_deep: bool
    alpha: np.ndarray | None = None


def read_exact(path: Path) -> ExactImage:
    """Read an image with all its levels. Raises Unreadable for a file that holds none."""
    decode(path)  # says what is wrong with a file, and refuses what pretends to be an image
    if (deep := _deep_color(path)) is not None:
        alpha = deep[..., 3].copy() if deep.shape[-1] == 4 else None
        return ExactImage(_floats(deep[..., :3], DEEP_LEVELS), False, True, alpha)
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            return ExactImage(_floats(np.asarray(image)[..., None], DEEP_LEVELS), True, True)
        is_gray, alpha = image.mode in GRAY_MODES, None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = np.asarray(image.getchannel("A"))
        return ExactImage(_floats(np.asarray(image.convert("RGB")), LEVELS), is_gray, False, alpha)


def write_exact(exact_image: ExactImage, path: Path) -> None:
    """Write an image in the format that its name says, a reader meeting all of it or nothing. What a format cannot
    hold, such as 16 bits of color in anything but PNG and TIFF, cannot have been read from it either."""
    levels, kind = (DEEP_LEVELS, np.uint16) if exact_image.is_deep else (LEVELS, np.uint8)
    image = exact_image.image.mean(0) if exact_image.is_gray else exact_image.image.permute(1, 2, 0)
    pixels = image.clamp(0, 1).mul_(levels).round_().numpy().astype(kind)
    if exact_image.alpha is not None and not exact_image.is_gray:
        pixels = np.dstack((pixels, exact_image.alpha))
    if exact_image.is_deep and not exact_image.is_gray:
        _write_deep_color(np.ascontiguousarray(pixels), path)
        return
    file = Image.fromarray(pixels)
    if exact_image.is_gray and exact_image.alpha is not None:
        file.putalpha(Image.fromarray(exact_image.alpha))
    save_image(file, path, quality=JPEG_QUALITY)


def _floats(pixels: np.ndarray, levels: int) -> Tensor:
    """(h, w, 1 or 3) -> float32 (3, h, w)."""
    planes = torch.from_numpy(pixels.astype(np.float32)).div_(levels).permute(2, 0, 1)
    return planes.expand(3, -1, -1).contiguous()


def _deep_color(path: Path) -> np.ndarray | None:
    """uint16 (h, w, 3 or 4) of an image with 16 bits a channel, which Pillow cuts to 8; none of any other."""
    with open(path, "rb") as file:
        head = file.read(33)
    try:
        if head[:8] == b"\x89PNG\r\n\x1a\n" and head[24] == 16 and head[25] in (2, 6):
            width, height = struct.unpack(">II", head[16:24])
            return kornia_rs.io.decode_image_png_u16(
                path.read_bytes(), (height, width), "rgba" if head[25] == 6 else "rgb"
            )
        if head[:4] in (b"II*\x00", b"MM\x00*"):
            with Image.open(path) as image:
                if set(image.tag_v2.get(258, ())) != {16} or image.tag_v2.get(277) != 3:  # bits, channels
                    return None
            return kornia_rs.io.read_image_tiff_u16(str(path), "rgb")
    except Exception as error:  # its errors are of no stated class
        raise Unreadable(f"damaged or cut off ({error})") from None
    return None


def _write_deep_color(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".part-{path.name}")
    mode = "rgba" if pixels.shape[-1] == 4 else "rgb"
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            kornia_rs.io.write_image_tiff_u16(str(unfinished), pixels, mode)
        else:
            kornia_rs.io.write_image_png_u16(str(unfinished), pixels, mode)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)

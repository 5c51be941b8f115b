"""Restoring image files: each keeps its name, size, format, gray or color, 8 or 16 bits, and its transparency.

For inspection, images are read as 8-bit RGB. Whoever restores images wants the same files back.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import kornia_rs.io
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from baselines.restoration.config import Restore
from baselines.restoration.run import Load, open_restorer
from pretrain.command import UserError
from pretrain.data.decode import Unreadable, decode
from pretrain.data.layouts import scan_plain
from pretrain.drawing import save_image
from pretrain.files import whole_file
from pretrain.progress import Progress
from pretrain.reading import real_path

MAX_8_BIT, MAX_16_BIT = 255, 65535
JPEG_QUALITY = 95
GRAY_MODES = ("1", "L", "LA")


def restore_files(config: Restore, load_restorer: Load) -> int:
    """Restore every image; 3 where images could not be read."""
    restorer, summary = open_restorer(config.model, load_restorer, config.memory_mb, config.device)
    files = files_to_restore(config.images, config.out)
    unreadable = 0
    with Progress("restoring", len(files)) as progress:
        for source, target in files:
            try:
                image = read_exact(source)
                restored = restorer.restore(image.image[None])[0]  # (3, h, w)
                write_exact(replace(image, image=restored), target)
            except Unreadable as reason:
                unreadable += 1
                progress.print(f"{source}: {reason}")
            progress.advance()
    print(f"{len(files) - unreadable} images restored to {config.out}; learned from {summary['degradation']}")
    return 3 if unreadable else 0


def files_to_restore(images: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Each image with the path of its restored version. Raises UserError where a file would be written over."""
    files = []
    for path in images:
        if path.is_file():
            files.append((path, out / path.name))
        else:
            records = scan_plain(path).records
            files += [(record.path, out / record.path.relative_to(path)) for record in records]
    if not files:
        raise UserError("no images to restore: name images or folders of them.")
    for source, target in files:
        if real_path(target) == real_path(source):
            raise UserError(f"--out {out} would write over {source}: choose another folder.")
    if len({target for _, target in files}) < len(files):
        raise UserError("two images to restore have the same name: restore them into folders of their own.")
    return files


@dataclass(frozen=True)
class ExactImage:
    """`image` float32 (3, h, w) in [0, 1], upright; `alpha` uint8 or uint16 (h, w) is kept as it is."""

    image: Tensor
    is_gray: bool
    is_16_bit: bool
    alpha: np.ndarray | None = None


def read_exact(path: Path) -> ExactImage:
    """Read an image at its full bit depth. Raises Unreadable for a file that holds none."""
    decode(path)  # says what is wrong with a file, and refuses what pretends to be an image
    if (pixels := _16_bit_color(path)) is not None:
        alpha = pixels[..., 3].copy() if pixels.shape[-1] == 4 else None
        return ExactImage(_floats(pixels[..., :3], MAX_16_BIT), False, True, alpha)
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16-bit gray, which Pillow keeps
            return ExactImage(_floats(np.asarray(image)[..., None], MAX_16_BIT), True, True)
        is_gray, alpha = image.mode in GRAY_MODES, None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = np.asarray(image.getchannel("A"))
        return ExactImage(_floats(np.asarray(image.convert("RGB")), MAX_8_BIT), is_gray, False, alpha)


def write_exact(exact_image: ExactImage, path: Path) -> None:
    """Write an image in the format of its name's ending; a reader never meets half of it. What a format cannot hold,
    such as 16-bit color in anything but PNG and TIFF, cannot have been read from it either."""
    maximum, dtype = (MAX_16_BIT, np.uint16) if exact_image.is_16_bit else (MAX_8_BIT, np.uint8)
    image = exact_image.image.mean(0) if exact_image.is_gray else exact_image.image.permute(1, 2, 0)
    pixels = image.clamp(0, 1).mul_(maximum).round_().numpy().astype(dtype)
    if exact_image.alpha is not None and not exact_image.is_gray:
        pixels = np.dstack((pixels, exact_image.alpha))
    if exact_image.is_16_bit and not exact_image.is_gray:
        _write_16_bit_color(np.ascontiguousarray(pixels), path)
        return
    file = Image.fromarray(pixels)
    if exact_image.is_gray and exact_image.alpha is not None:
        file.putalpha(Image.fromarray(exact_image.alpha))
    save_image(file, path, quality=JPEG_QUALITY)


def _floats(pixels: np.ndarray, maximum: int) -> Tensor:
    """(h, w, 1 or 3) -> float32 (3, h, w)."""
    planes = torch.from_numpy(pixels.astype(np.float32)).div_(maximum).permute(2, 0, 1)
    return planes.expand(3, -1, -1).contiguous()


def _16_bit_color(path: Path) -> np.ndarray | None:
    """uint16 (h, w, 3 or 4) of an image with 16 bits a channel, which Pillow cuts to 8; none of any other."""
    with open(path, "rb") as file:
        head = file.read(33)
    try:
        # A PNG's header: bytes 16 to 23 its size, 24 the bits a channel, 25 the color type, 2 for RGB, 6 with alpha.
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


def _write_16_bit_color(pixels: np.ndarray, path: Path) -> None:
    mode = "rgba" if pixels.shape[-1] == 4 else "rgb"
    with whole_file(path) as unfinished:
        if path.suffix.lower() in (".tif", ".tiff"):
            kornia_rs.io.write_image_tiff_u16(str(unfinished), pixels, mode)
        else:
            kornia_rs.io.write_image_png_u16(str(unfinished), pixels, mode)

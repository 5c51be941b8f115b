"""One image file -> an RGB array, or the reason why not.

The fastest decoder that the dependencies bring is used where it gives the very pixels that Pillow gives, for 8-bit RGB
PNG. JPEG is quickest through Pillow, which unpacks it at the size wanted; everything else, and every damaged file, goes
that way too, since Pillow's refusals are worth reading. It is imported where it is used: many processes meet plain PNG
alone, and to start is a tenth of their time.
"""

import struct
import warnings
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar

import kornia_rs.io
import numpy as np

from pretrain.data.bands import banded_page
from pretrain.data.size import Size, sides
from pretrain.reading import read_regular

if TYPE_CHECKING:
    from PIL import Image

Read = TypeVar("Read")

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Larger images are refused before they are unpacked: a few kilobytes can claim to be gigabytes.
MAX_PIXELS = 178_956_970
TOO_MANY = f"claims more than {MAX_PIXELS / 1e6:.0f} million pixels: a decompression bomb?"
# A file above the first size is known by pieces.
DIGESTED_BYTES, DIGESTED_PIECES, PIECE_BYTES = 1 << 17, 9, 2048
SUMS_AT_ONCE = 200_000
# A mask whose brightest value is no more than this has numbers, not gray levels.
MOST_KINDS = 32


class Unreadable(Exception):
    """The file holds no image that can be used; the text says why."""


class Decoded(NamedTuple):
    """`pixels` uint8 (h, w, 3), upright RGB; `height` and `width` of the image on disk, which may be larger; a
    digest of the file."""

    pixels: np.ndarray
    height: int
    width: int
    file_digest: bytes = b""


def decode(path: Path, size_px: Size | None = None) -> Decoded:
    """Read an image upright, as 8-bit RGB: stretched to `size_px`, or as it is. Raises Unreadable."""
    return decode_bytes(bytes_of(path), size_px)


def decode_bytes(data: bytes, size_px: Size | None = None) -> Decoded:
    """The same of a file's bytes, wherever they come from."""
    if not data:
        raise Unreadable("the file is empty (0 bytes)")
    file_digest = _file_digest(data)  # while the core still has it at hand
    decoded = _decode_plain_png(data) or _decode_with_pillow(BytesIO(data), size_px)
    del data  # what follows takes its place in memory, and in the core's cache
    pixels = decoded.pixels if size_px is None else _stretch(decoded.pixels, *sides(size_px))
    return decoded._replace(pixels=pixels, file_digest=file_digest)


def decode_array(pixels: np.ndarray, size_px: Size | None = None) -> Decoded:
    """The same of pixels uint8 (h, w, 3) that are in memory already."""
    height, width = pixels.shape[:2]
    return Decoded(pixels if size_px is None else _stretch(pixels, *sides(size_px)), height, width)


def size_on_disk(path: Path) -> tuple[int, int]:
    """(height, width) of an image, upright, by the head of its file. Raises Unreadable."""
    data = bytes_of(path)
    page = banded_page(data)
    return page.size if page else open_with_pillow(BytesIO(data), _upright_size)


def read_mask(path: Path, size_px: Size | None = None) -> np.ndarray:
    """Read a mask as bool (h, w): whatever is brighter than half of its brightest value, in any of its files where it
    is a folder of several. Raises Unreadable."""
    from PIL import Image

    # Nearest pixel, so that the mask stays a mask.
    mask = Image.fromarray(_union(path) if path.is_dir() else _one_mask(path))
    return np.asarray(mask if size_px is None else mask.resize(sides(size_px)[::-1], Image.Resampling.NEAREST))


def mask_files(path: Path) -> list[Path]:
    """The files that a mask consists of."""
    return sorted(path.glob("[!.]*.*")) if path.is_dir() else [path]


def mask_value(file: Path) -> int:
    """The brightest value of a mask, by which some data sets tell types of defects. Raises Unreadable."""
    return int(open_with_pillow(BytesIO(bytes_of(file)), _mask_levels).max())


def _union(folder: Path) -> np.ndarray:
    masks = [_one_mask(path) for path in mask_files(folder)]
    if not masks:
        raise Unreadable("the folder holds no mask")
    if len(shapes := {mask.shape for mask in masks}) > 1:
        raise Unreadable(f"the folder holds masks of {len(shapes)} sizes")
    return np.logical_or.reduce(masks)


def _one_mask(path: Path) -> np.ndarray:
    levels = open_with_pillow(BytesIO(bytes_of(path)), _mask_levels)
    brightest = levels.max()
    # Both 0/1 and 0/255 are in use, and 0/1/2/3 where each kind of defect has its number, as in VisA.
    return levels > (brightest / 2 if brightest > MOST_KINDS else 0)


def bytes_of(path: Path) -> bytes:
    """The bytes of a file. Raises Unreadable."""
    try:
        return read_regular(path)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None


def _file_digest(data: bytes) -> bytes:
    """Of the length and the bytes; of a large file, of pieces from its beginning to its end: all of a megabyte would
    take a tenth of its decoding."""
    length = struct.pack("<Q", len(data))
    if len(data) > DIGESTED_BYTES:
        last = len(data) - PIECE_BYTES
        starts = (last * number // (DIGESTED_PIECES - 1) for number in range(DIGESTED_PIECES))
        data = b"".join([data[start : start + PIECE_BYTES] for start in starts])
    return sha256(length + data).digest()[:16]


def _mask_levels(image: "Image.Image") -> np.ndarray:
    """(h, w): the brightest channel, whatever is transparent being black."""
    if image.mode in ("P", "1", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "L")
    levels = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        levels = np.where(levels[..., -1:] > 0, levels[..., :-1], 0)
    return levels.max(axis=2) if levels.ndim == 3 else levels


def _decode_plain_png(data: bytes) -> Decoded | None:
    pixels = plain_color_png(data, 8)
    return None if pixels is None else Decoded(pixels, *pixels.shape[:2])


def plain_color_png(data: bytes, bits: int) -> np.ndarray | None:
    """The levels (h, w, 3) of an RGB PNG of 8 or 16 bits without rotation or transparency: of 8 bits about three times
    as fast as Pillow, which of 16 keeps 8. None: not such a file."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[24:26] != bytes((bits, 2)):
        return None
    if not _png_chunks(data).isdisjoint({b"eXIf", b"tRNS"}):
        return None
    width, height = struct.unpack(">II", data[16:24])
    if width * height > MAX_PIXELS:
        return None
    decode_png = kornia_rs.io.decode_image_png_u8 if bits == 8 else kornia_rs.io.decode_image_png_u16
    try:
        return decode_png(data, (height, width), "rgb")
    except Exception:  # its errors are of no stated class; Pillow says what is wrong
        return None


def _png_chunks(data: bytes) -> set[bytes]:
    """The names of a PNG's chunks, as far as it is whole. Their lengths lead from one to the next: to search the pixels
    for the names takes a hundredth of decoding them."""
    names, position = set(), 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        names.add(name)
        position += 12 + length
    return names


def _decode_with_pillow(file: BinaryIO, size_px: Size | None) -> Decoded:
    def upright_rgb(image: "Image.Image") -> Decoded:
        if image.format == "PNG":
            image.load()  # it may say only at its end that it is rotated
        height, width = _upright_size(image)
        if size_px is not None:
            wanted = sides(size_px) if _lies_on_its_side(image) else sides(size_px)[::-1]
            image.draft(None, wanted)  # JPEG alone: unpack at 1/2, 1/4 or 1/8 when that is still enough
        return Decoded(eight_bit_rgb(image), height, width)

    return open_with_pillow(file, upright_rgb)


def open_with_pillow(file: BinaryIO, read: "Callable[[Image.Image], Read]") -> Read:
    """Open with Pillow, let `read` take what it needs, and turn each of Pillow's refusals into a reason."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oversize is refused below; the rest is chatter about metadata
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return read(image)
    except UnidentifiedImageError:
        file.seek(0)
        page = banded_page(file.read())
        raise Unreadable(page.refusal if page else f"not an image that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise Unreadable(TOO_MANY) from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise Unreadable(f"damaged or cut off ({reason})") from None


def _upright_size(image: "Image.Image") -> tuple[int, int]:
    """(height, width) before anything is unpacked."""
    return (image.width, image.height) if _lies_on_its_side(image) else (image.height, image.width)


def _lies_on_its_side(image: "Image.Image") -> bool:
    """Orientations from 5 on swap the sides; of a TIFF, Pillow says the upright size from the start."""
    return image.format != "TIFF" and image.getexif().get(0x0112, 1) >= 5


def eight_bit_rgb(image: "Image.Image") -> np.ndarray:
    """Upright uint8 (h, w, 3); what is transparent lies on white. Raises Unreadable for 32 bits a pixel."""
    from PIL import Image, ImageOps

    if image.mode in ("I", "F") and image.format != "PNG":
        raise Unreadable("holds 32 bits a pixel: save it with 8 or 16")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, under one of Pillow's several names for it
        levels = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(levels[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _stretch(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """To that size, anti-aliased. Whole halvings come first: from 1024 to 256 px they take 0.7 ms where
    Pillow's filter takes 3.3."""
    while (factor := _whole_factor(pixels, height, width)) > 1:
        pixels = _box_means(pixels, factor)
    if pixels.shape[:2] != (height, width):
        from PIL import Image

        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return pixels


def _whole_factor(pixels: np.ndarray, height: int, width: int) -> int:
    """The largest power of two, up to 16, that divides both sides and leaves them no shorter than is wanted."""
    rows, columns = pixels.shape[:2]
    factor = 16
    while factor > 1 and (rows % factor or columns % factor or rows < factor * height or columns < factor * width):
        factor //= 2
    return factor


def _box_means(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of `factor` pixels, rounded: the sums of at most 16 x 16 fit in 16 bits.

    First the sums down the columns, then along the rows: at every position, though only one in `factor` is used, since
    numpy adds neighboring numbers many times as fast as distant ones. So many at once stay in a core's own cache.
    """
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    squares = pixels.reshape(height, factor, -1)
    means = np.empty((height, width * 3), np.uint8)
    rows_at_once = max(1, SUMS_AT_ONCE // squares.shape[2])
    for top in range(0, height, rows_at_once):
        part = squares[top : top + rows_at_once]
        sums = np.add.reduce(part, axis=1, dtype=np.uint16, initial=factor // 2).ravel()  # halves are rounded up
        step = 1
        while step < factor:
            sums = sums[: -3 * step] + sums[3 * step :]
            step *= 2
        used = np.empty((len(part) * width, 3), np.uint16)
        for channel in range(3):
            used[:, channel] = sums[channel :: 3 * factor]
        used >>= 2 * (factor.bit_length() - 1)
        means[top : top + rows_at_once] = used.reshape(len(part), -1)
    return means.reshape(height, width, 3)

"""TIFF pages of several bands, such as RGB and near infrared, or the ten bands of a multispectral camera.

Pillow opens some of them without the bands beyond color, and most not at all. So their heads are read here, and their
pixels by Pillow all the same: a page of n interleaved bands is, to the byte, a gray image of n times the width, which
libtiff unpacks as it does any other.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

HEADS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
# Of fields, those whose numbers are whole.
KINDS = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 266, 274, 277
PLANAR, PREDICTOR, EXTRA, FORMAT = 284, 317, 338, 339
# Where pixels lie: offsets, numbers of bytes, and the sides of each part.
STRIPS, TILES = (273, 279, None, 278), (324, 325, 322, 323)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSPECIFIED = 0  # what a band beyond color is; else it is transparency
# By their numbers in the format: none and PackBits; and those that may be of differences: LZW, deflate (two numbers),
# LZMA, zstd.
PLAIN, OF_DIFFERENCES = {1, 32773}, {5, 8, 32946, 34925, 50000}
NO_PREDICTOR, DIFFERENCES = 1, 2
MAX_LAYERS, MAX_NUMBERS = 1000, 2**20
UPRIGHT = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


class NotRead(ValueError):
    """The file is whole, and not of a kind that is read here; the text says what to do."""


class Layer(NamedTuple):
    """One image of a file: the number of its page, and which of the page's bands, three of color or one. None: all of
    the page, as Pillow reads it."""

    page: int
    bands: tuple[int, ...] = ()


class Page:
    """The fields of one page, as far as they are of use. Raises ValueError for what is none."""

    def __init__(self, data: bytes, order: str, fields: dict[int, tuple[str, int, int]]) -> None:
        self._data, self.order, self._fields = data, order, fields

    def numbers(self, field: int, usual: Sequence[int] = ()) -> list[int]:
        if field not in self._fields:
            return list(usual)
        kind, count, at = self._fields[field]
        if max(count, at) > len(self._data) or count > MAX_NUMBERS:
            raise ValueError("a field lies beyond its end")
        return np.frombuffer(self._data, self.order + kind, count, at).tolist()

    def number(self, field: int, usual: int | None = None) -> int:
        found = self.numbers(field, () if usual is None else (usual,))
        if not found:
            raise ValueError(f"field {field} is missing")
        return found[0]

    @property
    def samples(self) -> int:
        return self.number(SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Of each band. Raises ValueError where they differ."""
        if len(bits := set(self.numbers(BITS, (1,)))) != 1:
            raise ValueError(f"bands of {len(bits)} depths")
        return bits.pop()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), upright."""
        height, width = self.number(HEIGHT), self.number(WIDTH)
        return (width, height) if self.number(ORIENTATION, 1) >= 5 else (height, width)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Its bands, those of color together, without transparency: none where Pillow reads all of it."""
        samples, photometric = self.samples, self.number(PHOTOMETRIC, WHITE_IS_ZERO)
        of_color = 3 if photometric == RGB else 1
        if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or samples < of_color:
            return []
        kinds, more = self.numbers(EXTRA), samples - of_color
        if photometric == RGB and more == 1 and not kinds:  # transparency, as Pillow has it
            return []
        kinds = ([UNSPECIFIED] * more + kinds)[len(kinds) :]  # what is said is said of the last ones
        bands = [(of_color + number,) for number, kind in enumerate(kinds) if kind == UNSPECIFIED]
        # Of color in more than 8 bits Pillow keeps 8.
        is_deep_color = photometric == RGB and not more and self.bits > 8
        return [tuple(range(of_color)), *bands] if bands or is_deep_color else []

    @property
    def refusal(self) -> str:
        """Why it is no one image."""
        if len(self.groups) > 1:
            return f"holds {self.samples} bands: detect.py fit --lights sees each"
        return f"holds {self.bits} bits a channel: save it with 8 or 16"


def is_tiff(data: bytes) -> bool:
    return data[:4] in HEADS


def pages_in(data: bytes) -> Iterator[Page]:
    """The pages of a TIFF. Raises ValueError for what is damaged."""
    order, is_big = HEADS[data[:4]]
    head, entry, in_place, number = ("Q", "HHQ", 8, "Q") if is_big else ("H", "HHL", 4, "L")
    (at,) = _unpacked(order + number, data, 8 if is_big else 4)
    seen = set()
    while at and at not in seen:
        seen.add(at)
        (count,) = _unpacked(order + head, data, at)
        at, fields = at + struct.calcsize(order + head), {}
        for _ in range(count):
            field, kind, length = _unpacked(order + entry, data, at)
            at += struct.calcsize(order + entry)
            if kind in KINDS:
                is_here = length * int(KINDS[kind][1]) <= in_place
                fields.setdefault(
                    field, (KINDS[kind], length, at if is_here else _unpacked(order + number, data, at)[0])
                )
            at += in_place
        yield Page(data, order, fields)
        (at,) = _unpacked(order + number, data, at)


def layers_in(data: bytes) -> Iterator[Layer]:
    """The images that a TIFF holds, in its order, MAX_LAYERS at most. Raises ValueError for what is damaged."""
    layers = (Layer(number, bands) for number, page in enumerate(pages_in(data)) for bands in page.groups or [()])
    return islice(layers, MAX_LAYERS)


def page_at(data: bytes, number: int) -> Page:
    """Raises ValueError where there is none."""
    page = next(islice(pages_in(data), number, None), None)
    if page is None:
        raise ValueError(f"no page {number + 1}")
    return page


def banded_page(data: bytes) -> Page | None:
    """The first page of a TIFF, where Pillow does not read all of it; none of what is damaged."""
    try:
        page = page_at(data, 0) if is_tiff(data) else None
        return page if page and page.groups and all(page.size) else None
    except ValueError:
        return None


def as_gray(page: Page, data: bytes) -> Iterator[bytes]:
    """A page as TIFF files of one gray image each, as wide as all bands together, or where they lie one after the other
    one for each band. Raises ValueError for what cannot be."""
    method, predictor = page.number(COMPRESSION, 1), page.number(PREDICTOR, NO_PREDICTOR)
    if method not in PLAIN | OF_DIFFERENCES:
        raise NotRead(f"holds bands that are compressed by method {method}: save them by deflate, or as they are")
    if predictor != NO_PREDICTOR and (predictor != DIFFERENCES or method not in OF_DIFFERENCES):
        raise NotRead(f"holds bands that are packed by predictor {predictor}: save them without one")
    is_interleaved = page.number(PLANAR, 1) == 1
    offsets, counts, *_ = TILES if page.numbers(TILES[0]) else STRIPS
    pairs = list(zip(page.numbers(offsets), page.numbers(counts), strict=True))
    files, samples = (1, page.samples) if is_interleaved else (page.samples, 1)
    if not pairs or len(pairs) % files:
        raise ValueError("nothing says where its pixels lie")
    if any(start + count > len(data) for start, count in pairs) or sum(count for _, count in pairs) > len(data):
        raise ValueError("pixels lie beyond its end")
    each = len(pairs) // files
    for number in range(files):
        yield _gray_file(page, data, pairs[number * each : (number + 1) * each], samples)


def bands_of(page: Page, grays: Sequence[np.ndarray]) -> np.ndarray:
    """The levels (h, w, bands) of a page, upright, of those of its gray images."""
    shape = page.number(HEIGHT), page.number(WIDTH), -1
    planes = [_summed(gray.astype(gray.dtype.newbyteorder("=")).reshape(shape), page) for gray in grays]
    levels = np.concatenate(planes, axis=2)
    return UPRIGHT.get(page.number(ORIENTATION, 1), lambda pixels: pixels)(levels)


def _summed(levels: np.ndarray, page: Page) -> np.ndarray:
    """Levels (h, w, bands), of which a file may hold differences to the left, as numbers without a sign."""
    if page.number(PREDICTOR, NO_PREDICTOR) == NO_PREDICTOR:
        return levels
    sign = {2: "i", 3: "f"}.get(page.number(FORMAT, 1), "u")
    size = page.bits // 8
    whole = levels.view(f"u{size}") if sign == "f" else levels.astype(f"u{size}")
    width = page.number(TILES[2], levels.shape[1])
    for left in range(0, levels.shape[1], width):
        part = whole[:, left : left + width]
        np.cumsum(part, axis=1, dtype=part.dtype, out=part)
    return whole.view(f"{sign}{size}")


def _unpacked(form: str, data: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, at)
    except (struct.error, OverflowError):
        raise ValueError("a page lies beyond its end") from None


def _gray_file(page: Page, data: bytes, pairs: Sequence[tuple[int, int]], samples: int) -> bytes:
    """A TIFF of parts of another one's bytes, its width that of so many bands. (Of the older kind, which has room for
    four GB: of the newer one Pillow does not open what is big-endian. All numbers are of four bytes.)"""
    offsets_field, counts_field, tile_width, tile_height = TILES if page.numbers(TILES[0]) else STRIPS
    parts = [data[start : start + count] for start, count in pairs]
    fields = {
        WIDTH: page.number(WIDTH) * samples, HEIGHT: page.number(HEIGHT), BITS: page.bits,
        COMPRESSION: page.number(COMPRESSION, 1), PHOTOMETRIC: BLACK_IS_ZERO, FILL_ORDER: page.number(FILL_ORDER, 1),
        SAMPLES: 1, FORMAT: page.number(FORMAT, 1), tile_height: page.number(tile_height, page.number(HEIGHT)),
    }  # fmt: skip
    if tile_width:
        fields[tile_width] = page.number(tile_width) * samples
    body_at = 8 + 2 + 12 * (len(fields) + 2) + 4
    is_one = len(parts) == 1  # whose numbers stand in the fields themselves
    lengths = np.array([len(part) for part in parts])
    starts = body_at + (0 if is_one else 8 * len(parts)) + lengths.cumsum() - lengths
    entries = {field: (1, value) for field, value in fields.items()}
    entries[offsets_field] = (len(parts), int(starts[0]) if is_one else body_at)
    entries[counts_field] = (len(parts), int(lengths[0]) if is_one else body_at + 4 * len(parts))
    try:
        head = struct.pack(page.order + "2sHLH", b"II" if page.order == "<" else b"MM", 42, 8, len(entries))
        head += b"".join(struct.pack(page.order + "HHLL", field, 4, *entry) for field, entry in sorted(entries.items()))
    except struct.error:
        raise ValueError("its sides are too large") from None
    body = b"" if is_one else np.concatenate([starts, lengths]).astype(page.order + "u4").tobytes()
    return b"".join([head, bytes(4), body, *parts])

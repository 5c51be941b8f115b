"""The pixel formats of industrial cameras, by the names of GenICam's PFNC, as the 8-bit RGB that a line judges.

More than 8 bits a light keep their highest 8, as those of 16-bit files do. Formats that are not here are refused by
name: YCbCr, planes, depths, and three colors of more than 8 bits.
"""

import re

import numpy as np

from pretrain.command import UserError, installed_by

COLORS = {"RGB8": [0, 1, 2], "BGR8": [2, 1, 0], "RGBa8": [0, 1, 2], "BGRa8": [2, 1, 0]}
# One light a pixel: bits beyond 8 fill two bytes, or are packed as USB3 Vision (p) or GigE Vision (Packed) has it.
SINGLE = re.compile(r"(Mono|Bayer(?:RG|GR|GB|BG))(?:(8|10|12|14|16)|(10|12)(p|Packed))")
# PFNC names the first two lights of the first line, FFmpeg those of the first two lines.
PATTERNS = {"BayerRG": "rggb", "BayerGR": "grbg", "BayerGB": "gbrg", "BayerBG": "bggr"}


def rgb_of(name: str, data: np.ndarray, height: int, width: int, padding: int = 0) -> np.ndarray:
    """uint8 (h, w, 3) of uint8 (bytes,), in which `padding` bytes follow each line. Raises UserError for a format that
    cannot be read, and ValueError for too few bytes."""
    if name in COLORS:
        channels = 4 if "a" in name else 3
        pixels = _lines(data, height, width * channels, padding).reshape(height, width, channels)
        return np.ascontiguousarray(pixels[..., COLORS[name]])
    if (found := SINGLE.fullmatch(name)) is None:
        raise UserError(f"its pixel format {name} is none that can be read: set PixelFormat, under features, to Mono8, "
                        "RGB8, BGR8 or one of Bayer.")  # fmt: skip
    color, plain, packed, packing = found.groups()
    if packing:
        if padding:
            raise UserError("its lines of packed pixels are padded: set PixelFormat, under features, to another.")
        levels = _highest_bits(data, height * width, int(packed), packing)
    elif plain == "8":
        levels = _lines(data, height, width, padding)
    else:
        levels = (_lines(data, height, 2 * width, padding).view("<u2") >> (int(plain) - 8)).astype(np.uint8)
    levels = levels.reshape(height, width)
    return _mosaic(levels, PATTERNS[color]) if color in PATTERNS else np.repeat(levels[:, :, None], 3, axis=2)


def _lines(data: np.ndarray, height: int, line_bytes: int, padding: int) -> np.ndarray:
    """(h, bytes of a line), without what pads it."""
    lines = data[: height * (line_bytes + padding)].reshape(height, line_bytes + padding)
    return np.ascontiguousarray(lines[:, :line_bytes])


def _highest_bits(data: np.ndarray, count: int, bits: int, packing: str) -> np.ndarray:
    """(count,): the highest 8 bits of each level. A group is two levels in three bytes, or four in five."""
    group, levels = (5, 4) if (bits, packing) == (10, "p") else (3, 2)
    groups = -(-count // levels)
    data = data[: -(-count * group // levels)]
    if len(data) * levels < count * group:
        raise ValueError("too few bytes")
    by_group = np.zeros(groups * group, np.uint8)
    by_group[: len(data)] = data  # the last group may be cut off
    at = by_group.reshape(groups, group).T
    if packing == "Packed":  # the highest bits have bytes of their own
        found = at[0], at[2]
    elif bits == 12:
        found = at[0] >> 4 | at[1] << 4, at[2]
    else:
        found = at[0] >> 2 | at[1] << 6, at[1] >> 4 | at[2] << 4, at[2] >> 6 | at[3] << 2, at[4]
    return np.stack(found, axis=1).reshape(-1)[:count]


def _mosaic(levels: np.ndarray, pattern: str) -> np.ndarray:
    """Two of three lights of each pixel are those of its neighbors."""
    try:
        import av  # of the extra that cameras without GenICam need; most with it need none
    except ModuleNotFoundError:
        raise UserError(f"pixel formats of Bayer need PyAV: {installed_by('line')}.") from None
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format=f"bayer_{pattern}8")
    return frame.to_ndarray(format="rgb24")

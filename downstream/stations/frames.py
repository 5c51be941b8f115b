"""A frame as the model takes it, with its digest; and as a file that is kept."""

from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from downstream.service.decoding import RefusedImage, decode_checked, image_type_of
from downstream.stations.contract import Frame
from pretrain.data.channels import PLAIN, Channels, joined
from pretrain.data.decode import Decoded, decode_array
from pretrain.data.decode import Unreadable as NotDecoded
from pretrain.data.size import Size
from pretrain.files import write_whole
from pretrain.reading import read_regular

MAX_BYTES, MAX_PIXELS = 1 << 28, 200_000_000
# Of frames without a file, when they are kept: fine enough to judge again, a tenth of PNG's time and size.
JPEG_QUALITY = 95


class Unreadable(Exception):
    """Why a frame is no image."""


@dataclass(frozen=True)
class Opened:
    """A frame at the model's size, and the SHA-256 of its file, or of its RGB pixels."""

    frame: Frame
    decoded: Decoded
    digest: str


def opened(frame: Frame, size_px: Size | None, channels: Channels = PLAIN) -> Opened:
    """At `size_px`, or as it is. Raises Unreadable."""
    if frame.pixels is not None:
        return Opened(frame, _of_pixels(frame.pixels, size_px, channels), sha256(frame.pixels).hexdigest())
    data = bytes_of(frame)
    decoded = decode_checked(data, size_px, MAX_PIXELS, channels)
    if isinstance(decoded, RefusedImage):
        raise Unreadable(f"no image that can be read: {decoded}")
    return Opened(frame, decoded, sha256(data).hexdigest())


def _of_pixels(pixels: np.ndarray, size_px: Size | None, channels: Channels) -> Decoded:
    if channels == PLAIN:
        return decode_array(pixels, size_px)
    try:
        return joined([pixels], size_px, channels)
    except NotDecoded as reason:
        raise Unreadable(f"no image that can be read: it {reason}") from None


def bytes_of(frame: Frame) -> bytes:
    """Of its file. Raises Unreadable."""
    if frame.data is not None:
        return frame.data
    try:
        return read_regular(frame.path, MAX_BYTES)
    except OSError as error:
        raise Unreadable(f"the file cannot be read ({error.strerror or error})") from None


def keep_image(frame: Frame, folder: Path, part_id: str) -> Path:
    """The frame as a file, under the part's id. Raises OSError, and Unreadable for what is no image."""
    if frame.pixels is not None:
        path, data = folder / f"{part_id}.jpg", jpeg_of(frame)
    else:
        data = bytes_of(frame)
        try:
            path = folder / f"{part_id}{image_type_of(data).suffix}"
        except RefusedImage as refused:
            raise Unreadable(str(refused)) from None
    write_whole(path, data)
    return path


def jpeg_of(frame: Frame) -> bytes:
    """For a camera's frame, which has no file."""
    written = BytesIO()
    Image.fromarray(frame.pixels).save(written, "JPEG", quality=JPEG_QUALITY)
    return written.getvalue()

"""Images from strangers, decoded in a bounded way: by content, after their size is known, in processes of their own.

A decoder is the part of a service that hostile bytes reach. So an image's format is told from its bytes, its pixels are
counted from its header, and it is unpacked in a process that has limited memory and time: where that is used up, or the
decoder comes down, one image is refused and another process takes over.
"""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from io import BytesIO
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from pretrain.data.bands import banded_page
from pretrain.data.channels import PLAIN, Channels, read_contents
from pretrain.data.decode import FORMATS, Decoded, Unreadable
from pretrain.data.size import Size
from pretrain.workers import worker_pool

# Each pass of a progressive JPEG goes over the whole image; encoders make ten or so, a hostile file thousands.
MAX_JPEG_SCANS = 100
MEMORY_BYTES = 4 << 30


class RefusedImage(Exception):
    """An image that is not taken; `status` is HTTP's, the text says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)  # as it is made again at the other end of a pipe
        self.status, self.reason = status, reason

    def __str__(self) -> str:
        return self.reason


class ImageType(NamedTuple):
    """What the bytes are, one of FORMATS, and a suffix for a file of them."""

    format: str
    suffix: str


def image_type_of(data: bytes) -> ImageType:
    """By the first bytes, whatever name and type came with them. Raises RefusedImage (415) for what is no image."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return ImageType("PNG", ".png")
    if data[:3] == b"\xff\xd8\xff":
        return ImageType("JPEG", ".jpg")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageType("WEBP", ".webp")
    if data[:4] in (b"II*\0", b"MM\0*"):
        return ImageType("TIFF", ".tif")
    if data[:2] == b"BM":
        return ImageType("BMP", ".bmp")
    raise RefusedImage(415, f"not an image that can be read ({', '.join(FORMATS)})" if data else "the file is empty")


def check_size(data: bytes, max_pixels: int) -> None:
    """From the header alone. Raises RefusedImage: 413 for too many pixels, 422 for a header that cannot be read."""
    image_type = image_type_of(data)
    if image_type.format == "JPEG" and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise RefusedImage(422, f"more than {MAX_JPEG_SCANS} passes over the image: save it again as an ordinary JPEG")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # checked below, by a stricter number
    try:
        if page := banded_page(data):  # Pillow opens not all of them
            height, width = page.size
        else:
            with Image.open(BytesIO(data), formats=[image_type.format]) as image:
                width, height = image.size
    except UnidentifiedImageError:
        raise RefusedImage(422, "damaged: its header cannot be read") from None
    except Exception as error:  # whatever a hostile header brings about
        raise RefusedImage(422, f"damaged: its header cannot be read ({type(error).__name__})") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if width * height > max_pixels:
        sizes = f"{width} x {height} pixels are more than the {max_pixels / 1e6:g} million that are taken"
        raise RefusedImage(413, sizes)


def decode_limited(data: bytes, size_px: Size, max_pixels: int, channels: Channels) -> Decoded | RefusedImage:
    """`decode_checked` for a process that does nothing else."""
    limit_memory()
    return decode_checked(data, size_px, max_pixels, channels)


def decode_checked(
    data: bytes, size_px: Size | None, max_pixels: int, channels: Channels = PLAIN
) -> Decoded | RefusedImage:
    """The image at `size_px`, or as it is; or why not."""
    try:
        check_size(data, max_pixels)
        return read_contents([data], size_px, channels)
    except RefusedImage as refused:
        return refused
    except Unreadable as unreadable:
        return RefusedImage(422, str(unreadable))
    except MemoryError:
        return RefusedImage(413, "needs more memory than is given to one image")


class Decoders:
    """`count` processes that decode, each image within `seconds`; further images wait until one is free."""

    def __init__(self, count: int, max_pixels: int, seconds: float) -> None:
        self.count, self.max_pixels, self.seconds = count, max_pixels, seconds
        self._slots = asyncio.Semaphore(2 * count)
        self._tasks: set[asyncio.Task] = set()
        self._pool = self._started()

    async def decode(self, data: bytes, size_px: Size, channels: Channels = PLAIN) -> Decoded:
        """At `size_px`. Raises RefusedImage. The image of a caller that was cancelled is decoded all the same,
        until its time is over: else a hostile one could keep its process."""
        task = asyncio.ensure_future(self._decode(data, size_px, channels))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        outcome = await asyncio.shield(task)
        if isinstance(outcome, RefusedImage):
            raise outcome
        return outcome

    async def _decode(self, data: bytes, size_px: Size, channels: Channels) -> Decoded | RefusedImage:
        async with self._slots:
            try:
                return await self._decode_in(self._pool, data, size_px, channels)
            except (BrokenProcessPool, TimeoutError):
                # This image brought a process down, or another one that was decoded beside it: alone it will show.
                return await self._decode_alone(data, size_px, channels)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _decode_in(
        self, pool: ProcessPoolExecutor, data: bytes, size_px: Size, channels: Channels
    ) -> Decoded | RefusedImage:
        loop = asyncio.get_running_loop()
        try:
            task = loop.run_in_executor(pool, decode_limited, data, size_px, self.max_pixels, channels)
            return await asyncio.wait_for(task, self.seconds)
        except (BrokenProcessPool, TimeoutError):
            if pool is self._pool:
                self._pool = self._started()
            _end(pool)
            raise

    async def _decode_alone(self, data: bytes, size_px: Size, channels: Channels) -> Decoded | RefusedImage:
        pool = worker_pool(1)
        try:
            return await self._decode_in(pool, data, size_px, channels)
        except (BrokenProcessPool, TimeoutError):
            return RefusedImage(422, "brings the decoder down, or takes it too long: a hostile file?")
        finally:
            _end(pool)

    def _started(self) -> ProcessPoolExecutor:
        pool = worker_pool(self.count)
        for _ in range(self.count):
            pool.submit(limit_memory)
        return pool


@cache
def limit_memory() -> None:
    """For the rest of this process's life."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        pass  # no such limit on this system: the number of pixels is the one that holds


def _end(pool: ProcessPoolExecutor) -> None:
    """At once, whatever its processes do."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)

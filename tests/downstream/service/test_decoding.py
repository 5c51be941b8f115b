"""Hostile images meet a closed door: by content, by size, by time, and never this process."""

import asyncio
import os
import struct
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from png_files import png_chunk

from downstream.service import decoding
from downstream.service.decoding import Decoders, RefusedImage, check_size, decode_checked, image_type_of
from pretrain.data.channels import Channels
from scripts.attacks.serving import image_bytes

KINDS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}


def claimed(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_told_by_content(kind):
    assert image_type_of(image_bytes(kind=kind)) == (kind, KINDS[kind])
    decoded = decode_checked(image_bytes(kind=kind), 16, 10_000)
    assert decoded.pixels.shape == (16, 16, 3) and (decoded.width, decoded.height) == (40, 30)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(50), b"%PDF-1.7", b"<svg xmlns=''/>", b"\x89PNG", bytes(100)])
def test_what_is_no_image_is_refused_whatever_it_is_called(data):
    with pytest.raises(RefusedImage) as refused:
        image_type_of(data)
    assert refused.value.status == 415


def test_pixels_are_counted_before_anything_is_unpacked():
    for width, height in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (101, 100)):
        start_s = time.perf_counter()
        refused = decode_checked(claimed(width, height), 16, 10_000)
        assert isinstance(refused, RefusedImage) and refused.status in (413, 422)
        assert time.perf_counter() - start_s < 2
    check_size(image_bytes(size=(100, 100)), 10_000)


def test_a_jpeg_of_a_thousand_passes_is_refused():
    file = BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    usual = file.getvalue()
    assert decode_checked(usual, 16, 10_000).pixels.shape == (16, 16, 3)
    at = usual.rindex(b"\xff\xda")
    refused = decode_checked(usual[:at] + usual[at:-2] * 1000 + b"\xff\xd9", 16, 10_000)
    assert isinstance(refused, RefusedImage) and refused.status == 422 and "passes" in str(refused)


def test_a_damaged_image_is_refused_with_its_reason():
    refused = decode_checked(image_bytes()[:200], 16, 10_000)
    assert isinstance(refused, RefusedImage) and refused.status == 422 and "damaged" in str(refused)


def test_a_refusal_comes_back_from_its_process_with_its_reason():
    async def test():
        decoders = Decoders(1, 10_000, 30)
        pool = decoders._pool
        try:
            large = image_bytes(size=(101, 100))
            for data, status, word in ((image_bytes()[:200], 422, "damaged"), (large, 413, "million")):
                with pytest.raises(RefusedImage, match=word) as refused:
                    await decoders.decode(data, 16)
                assert refused.value.status == status
            assert decoders._pool is pool
        finally:
            decoders.close()

    asyncio.run(test())


def test_pixels_are_those_that_every_command_sees(tmp_path):
    from pretrain.data.decode import decode

    (tmp_path / "image.png").write_bytes(image_bytes(3, (100, 80)))

    async def test():
        decoders = Decoders(1, 10_000, 30)
        try:
            return await decoders.decode(image_bytes(3, (100, 80)), 32)
        finally:
            decoders.close()

    assert np.array_equal(asyncio.run(test()).pixels, decode(tmp_path / "image.png", 32).pixels)


def bring_down(data: bytes, size_px: int, max_pixels: int, channels: Channels):
    """What a decoder with a fault might do, by the image's last byte."""
    if data.endswith(b"kill"):
        os._exit(1)
    if data.endswith(b"hang"):
        time.sleep(60)
    return decode_checked(data, size_px, max_pixels, channels)


@pytest.mark.parametrize(("end", "timeout_s"), [(b"kill", 60), pytest.param(b"hang", 8, marks=pytest.mark.slow)])
def test_an_image_that_brings_its_process_down_harms_no_other(end, timeout_s, monkeypatch):
    monkeypatch.setattr(decoding, "decode_limited", bring_down)

    async def test():
        decoders = Decoders(2, 10_000, timeout_s)
        try:
            good, bad = image_bytes(1), image_bytes(1) + end
            first = await asyncio.gather(*(decoders.decode(data, 16) for data in (good, good)))
            outcomes = await asyncio.gather(
                *(decoders.decode(data, 16) for data in (good, bad, good, good)), return_exceptions=True
            )
            return first + outcomes + [await decoders.decode(good, 16)]
        finally:
            decoders.close()

    outcomes = asyncio.run(test())
    (refused,) = (outcome for outcome in outcomes if isinstance(outcome, BaseException))
    assert outcomes[3] is refused and isinstance(refused, RefusedImage) and refused.status == 422
    assert all(outcome.pixels.shape == (16, 16, 3) for outcome in outcomes if outcome is not refused)

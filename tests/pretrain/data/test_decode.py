"""Every kind of file that people have, and every way in which one can be broken."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from png_files import png_chunk

from pretrain.data import decode as decode_module
from pretrain.data.decode import Unreadable, decode, read_mask, size_on_disk

ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # a quarter turn clockwise makes it upright


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def png(width: int, height: int, bits: int, color: int, data: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_give_the_pixels(suffix, pixels, tmp_path):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path, lossless=True)
    decoded = decode(path)
    assert np.array_equal(decoded.pixels, pixels)
    assert (decoded.height, decoded.width) == (60, 90)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_rotation_is_undone(suffix, tmp_path):
    """A red top on disk is a red right side once turned; sizes are those of the upright image."""
    lying = np.zeros((32, 64, 3), np.uint8)
    lying[:16, :, 0] = 255
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(lying).save(path, exif=ROTATED, quality=95)
    for size_px in (None, 16):
        decoded = decode(path, size_px)
        assert (decoded.height, decoded.width) == (64, 32)
        red = decoded.pixels[:, :, 0].astype(int)
        assert red[:, -4:].min() > 200 and red[:, :4].max() < 50


@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
def test_rotation_is_found_wherever_a_png_says_it(place, tmp_path):
    lying = np.zeros((32, 64, 3), np.uint8)
    lying[:16] = 255
    Image.fromarray(lying).save(tmp_path / "image.png", exif=ROTATED)
    whole = (tmp_path / "image.png").read_bytes()
    start = whole.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", whole[start : start + 4])[0]
    without = whole[:start] + whole[end:]
    at = without.index(b"IDAT" if place == "before the pixels" else b"IEND") - 4
    (tmp_path / "image.png").write_bytes(without[:at] + whole[start:end] + without[at:])
    assert decode(tmp_path / "image.png").pixels.shape == (64, 32, 3)


def test_gray_palette_and_bilevel(pixels, tmp_path):
    for mode, name in (("L", "gray.png"), ("P", "palette.png"), ("1", "bilevel.png"), ("L", "gray.jpg")):
        Image.fromarray(pixels).convert(mode).save(tmp_path / name)
        decoded = decode(tmp_path / name).pixels
        assert decoded.shape == (60, 90, 3) and decoded.dtype == np.uint8
        if mode != "P":
            assert np.array_equal(decoded[..., 0], decoded[..., 2])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white_paper(mode, tmp_path):
    image = Image.new(mode, (8, 8), "black")
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[0, 255]]), 8, axis=0)).resize((8, 8), 0))
    image.save(tmp_path / "image.png")
    decoded = decode(tmp_path / "image.png").pixels
    assert (decoded[:, :4] == 255).all() and (decoded[:, 4:] == 0).all()


def test_transparent_palette_and_rgb_color_are_white_paper(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 10, 10, 200, 0, 0])
    image.save(tmp_path / "palette.png", transparency=1)
    Image.new("RGB", (4, 4), (200, 0, 0)).save(tmp_path / "key.png", transparency=(200, 0, 0))
    assert (decode(tmp_path / "palette.png").pixels == 255).all()
    assert (decode(tmp_path / "key.png").pixels == 255).all()


def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    for name in ("red.tif", "red.jpg"):
        red, green, blue = decode(tmp_path / name).pixels[8, 8].astype(int)
        assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_gray_keeps_its_scale(suffix, pixels, tmp_path):
    """One scale for all images, 65535 is white: a dark 16-bit image must stay dark."""
    levels = pixels[..., 0].astype(np.uint16)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(levels * 257).save(path)
    assert np.array_equal(decode(path).pixels[..., 1], pixels[..., 0])
    Image.fromarray(levels).save(path)
    assert decode(path).pixels.max() == 0


def test_sixteen_bit_color(pixels, tmp_path):
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in pixels)
    (tmp_path / "image.png").write_bytes(png(90, 60, 16, 2, rows))
    assert np.array_equal(decode(tmp_path / "image.png").pixels, pixels)


def test_thirty_two_bits_are_refused_with_advice(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.ones((8, 8), np.int32)).save(tmp_path / "integer.tif")
    for name in ("float.tif", "integer.tif"):
        with pytest.raises(Unreadable, match="save it with 8 or 16"):
            decode(tmp_path / name)


def test_fast_decoder_gives_the_same_pixels_as_pillow(pixels, tmp_path):
    for name, options in (("plain", {}), ("small", {"optimize": True})):
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path, **options)
        fast = decode_module._decode_plain_png(path.read_bytes())
        assert fast is not None, "the fast path was not taken at all"
        assert np.array_equal(fast.pixels, np.asarray(Image.open(path)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files_are_refused(suffix, pixels, tmp_path):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(Unreadable):
            decode(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (b"GIF89a\x01\x00\x01\x00\x00\xff\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x00;", "not an image"),
        (png(60000, 60000, 8, 2, b"\0" * 1000), "decompression bomb"),
        (png(9000, 9000, 8, 2, b"\0" * 1000), "damaged or cut off"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(content, reason, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        decode(path, 32)


def test_a_flipped_bit_is_noticed(pixels, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Unreadable, match="damaged"):
        decode(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(Unreadable, match="No such file"):
        decode(tmp_path / "none.png")
    with pytest.raises(Unreadable, match="directory"):
        decode(tmp_path)


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (1000, 700), (33, 500), (16, 16), (1, 1), (64, 64)])
def test_stretching_keeps_means_and_never_aliases(height, width, tmp_path):
    """Stripes one pixel wide become even gray; without anti-aliasing they would become stripes of another width."""
    striped = np.zeros((height, width, 3), np.uint8)
    striped[:, ::2] = 200
    Image.fromarray(striped).save(tmp_path / "image.png")
    small = decode(tmp_path / "image.png", 64).pixels
    assert small.shape == (64, 64, 3)
    assert abs(float(small.mean()) - striped.mean()) < 2.5
    if width >= 256:
        assert small[:, 2:-2].std() < 12


def test_stretching_is_close_to_pillows_filter(tmp_path):
    noise = np.random.default_rng(1).normal(size=(512, 512, 3)).cumsum(0).cumsum(1)
    pixels = np.uint8(255 * (noise - noise.min()) / np.ptp(noise))
    Image.fromarray(pixels).save(tmp_path / "image.png")
    for size_px in (64, 100, 128, 200):
        ours = decode(tmp_path / "image.png", size_px).pixels.astype(int)
        theirs = np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(ours - theirs).mean() < 1


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_whole_factors_are_means_of_squares(factor, tmp_path):
    """Also of the brightest squares, whose sums are the largest; and rounded, so that nothing becomes darker."""
    small = np.random.default_rng(2).integers(0, 256, (16, 16, 3))
    spread = np.random.default_rng(3).integers(-90, 91, (16 * factor, 16 * factor, 3))
    pixels = np.uint8((small.repeat(factor, axis=0).repeat(factor, axis=1) + spread).clip(0, 255))
    pixels[: 4 * factor, : 4 * factor] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    ours = decode(tmp_path / "image.png", 16).pixels
    means = pixels.reshape(16, factor, 16, factor, 3).mean((1, 3))
    assert np.abs(ours - means).max() <= (0.5 if factor <= 16 else 1)
    assert (ours[:4, :4] == 255).all()
    theirs = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(("height", "width", "size_px"), [(1024, 1024, 256), (700, 900, 224), (1001, 998, 256)])
def test_stretched_noise_is_as_quiet_as_pillows(height, width, size_px, tmp_path):
    """What is left of noise tells how many pixels each new one is the mean of: aliasing would leave more."""
    pixels = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png", compress_level=1)
    ours = decode(tmp_path / "image.png", size_px).pixels
    whole = Image.fromarray(pixels)
    box, bilinear = (
        np.asarray(whole.resize((size_px, size_px), kind)) for kind in (Image.Resampling.BOX, Image.Resampling.BILINEAR)
    )
    assert ours.std() < 1.02 * max(box.std(), bilinear.std())


def test_masks_of_every_format_become_the_same_bools(tmp_path):
    truth = np.zeros((40, 50), bool)
    truth[5:20, 10:30] = True
    as_saved = {
        "levels": Image.fromarray(np.uint8(truth) * 255),
        "ones": Image.fromarray(np.uint8(truth)),
        "bilevel": Image.fromarray(truth),
        "color": Image.fromarray(np.repeat(np.uint8(truth)[:, :, None] * 255, 3, axis=2)),
        "deep": Image.fromarray(np.uint16(truth) * 65535),
        "opaque": Image.fromarray(np.uint8(truth) * 255).convert("RGBA"),
        "gray with alpha": Image.fromarray(np.uint8(truth) * 255).convert("LA"),
        "cut out": Image.merge("LA", [Image.new("L", (50, 40), 255), Image.fromarray(np.uint8(truth) * 255)]),
        "a number for each kind of defect": Image.fromarray(
            truth * np.where(np.arange(40) < 9, 1, 4)[:, None].astype(np.uint8)
        ),
        "palette": Image.fromarray(np.uint8(truth) * 255).convert("P"),
    }
    for name, image in as_saved.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), truth), name
    small = read_mask(tmp_path / "levels.png", 20)
    assert small.shape == (20, 20) and small.dtype == bool
    assert abs(small.mean() - truth.mean()) < 0.05


def test_an_empty_mask_is_empty(tmp_path):
    Image.new("L", (8, 8), 0).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_file_digest_sees_beginning_middle_and_end(place, tmp_path):
    """Large unpacked images of one size that differ in a few rows."""
    pixels = np.zeros((300, 300, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "first.bmp")
    assert (tmp_path / "first.bmp").stat().st_size > decode_module.DIGESTED_BYTES
    pixels[int(place * 290) :][:10] = 1
    Image.fromarray(pixels).save(tmp_path / "second.bmp")
    assert decode(tmp_path / "first.bmp").file_digest != decode(tmp_path / "second.bmp").file_digest


def test_file_digest_is_the_files_whatever_the_size(pixels, tmp_path):
    for name in ("first", "second"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.fromarray(pixels[::-1]).save(tmp_path / "other.png")
    digests = {
        decode(tmp_path / f"{name}.png", size_px).file_digest for name in ("first", "second") for size_px in (8, 32)
    }
    assert len(digests) == 1
    assert decode(tmp_path / "other.png").file_digest not in digests


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.bmp"])
def test_rectangles(name, tmp_path):
    """What is on the left stays on the left, and a JPEG unpacked at a fraction is never smaller than what is wanted."""
    stripes = np.zeros((400, 640, 3), np.uint8)
    stripes[:, 320:] = stripes[300:, :, 0:1] = 255
    Image.fromarray(stripes).save(tmp_path / name)
    whole, (height, width) = decode(tmp_path / name), (48, 160)
    decoded = decode(tmp_path / name, (height, width))
    assert decoded.pixels.shape == (48, 160, 3) and (decoded.height, decoded.width) == (400, 640)
    expected = Image.fromarray(whole.pixels).resize((width, height), Image.Resampling.BILINEAR)
    assert np.abs(decoded.pixels.astype(int) - np.asarray(expected)).mean() < 1
    assert size_on_disk(tmp_path / name) == (400, 640)


def test_a_rectangle_of_a_photo_that_lies_on_its_side(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 512, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.jpg", exif=ROTATED, quality=95)
    assert size_on_disk(tmp_path / "image.jpg") == (512, 64)
    # At full height and an eighth of the width, Pillow may unpack nothing smaller.
    whole, tall = decode(tmp_path / "image.jpg").pixels, decode(tmp_path / "image.jpg", (512, 8)).pixels
    expected = Image.fromarray(whole).resize((8, 512), Image.Resampling.BILINEAR)
    assert tall.shape == (512, 8, 3) and np.abs(tall.astype(int) - np.asarray(expected)).mean() < 1


def test_a_mask_of_a_rectangle(tmp_path):
    mask = np.zeros((40, 100), np.uint8)
    mask[:20, :50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    small = read_mask(tmp_path / "mask.png", (4, 10))
    assert small.shape == (4, 10) and small[:2, :5].all() and small.sum() == 10

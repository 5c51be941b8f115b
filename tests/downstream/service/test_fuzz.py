"""A thousand broken images, and requests made up from the service's own description: each is answered, none by a
fault, and nothing is left behind."""

import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image
from png_files import png_chunk
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from pretrain.data.decode import FORMATS
from scripts.attacks.serving import Serving, image_bytes, served

IMAGES_A_REQUEST = 64
# Made-up images are refused for what is in them, however well-formed the request.
LEFT_OUT = [positive_data_acceptance]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def serving(models_folder, temporary, tmp_path_factory) -> Iterator[Serving]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))  # whatever the server writes on the way is seen
        with served(models_folder, tmp_path_factory.mktemp("served"), "--model", "mean", "--max-megapixels", "4",
                    "--max-image-mb", "1", "--timeout-s", "20") as serving:  # fmt: skip
            yield serving


@pytest.mark.parametrize("examples", [3, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_requests_made_up_from_the_description(serving, mode, examples):
    """What the description allows, and what it does not: each answer is one that it says."""
    count = 0
    description = schemathesis.openapi.from_url(f"{serving.url}/openapi.json")
    for operation in (result.ok() for result in description.get_all_operations()):

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def ask(case: schemathesis.Case) -> None:
            nonlocal count
            count += 1
            case.call_and_validate(excluded_checks=LEFT_OUT, timeout=30)

        with suppress(Unsatisfiable):  # of one without fields nothing can be wrong
            ask()
    assert count > 50
    assert "Traceback" not in serving.log


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def seeds() -> list[bytes]:
    """Small images of many kinds, to be broken."""
    image_file = Image.open(BytesIO(image_bytes(size=(48, 40))))
    usual = [saved(image_file, kind) for kind in FORMATS]
    modes = [saved(image_file.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    exif = Image.Exif()
    exif[0x0112] = 6
    packed = (("1", "group4"), ("RGB", "tiff_lzw"), ("RGB", "jpeg"), ("RGB", "tiff_adobe_deflate"))
    tiffs = [saved(image_file.convert(mode), "TIFF", compression=how) for mode, how in packed]
    others = [
        saved(image_file, "JPEG", progressive=True, exif=exif), saved(image_file.convert("CMYK"), "JPEG"),
        saved(image_file, "WEBP", lossless=True), saved(image_file.convert("P"), "BMP"),
        saved(image_file.convert("RGBA"), "WEBP"),
        saved(image_file, "PNG", save_all=True, append_images=[image_file.rotate(9)]),
        saved(image_file, "TIFF", save_all=True, append_images=[image_file] * 3),
    ]  # fmt: skip
    return usual + modes + tiffs + others


def broken(count: int, draw: random.Random) -> Iterator[bytes]:
    """Flipped bits, cut ends, bytes put in, taken out, repeated and overwritten; most near the beginning, where headers
    are."""
    originals = seeds()
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        for _ in range(draw.choice((1, 1, 2, 8, 64))):
            at = min(int(draw.expovariate(1 / 60)), len(data) - 1) if draw.random() < 0.7 else draw.randrange(len(data))
            how = draw.randrange(6)
            if how == 0:
                data[at] ^= 1 << draw.randrange(8)
            elif how == 1:
                data[at : at + 4] = struct.pack(">I", draw.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, draw.getrandbits(32))))
            elif how == 2:
                data[at:at] = draw.randbytes(draw.randrange(1, 50))
            elif how == 3:
                del data[at : at + draw.randrange(1, 50)]
            elif how == 4:
                data[at:at] = data[: draw.randrange(1, 300)]
            else:
                del data[max(8, at) :]
            if not data:
                break
        yield bytes(data)


def hostile() -> dict[str, bytes]:
    """Made to cost much, or to be taken for something else."""
    png, jpeg = image_bytes(), image_bytes(kind="JPEG")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 2000, 8, 2, 0, 0, 0))
    much = zlib.compress(bytes(200 << 20), 9)
    start, end = b"\x89PNG\r\n\x1a\n", png_chunk(b"IEND", b"")
    loop = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 256, 4, 1, 4) + struct.pack("<I", 8)
    return {
        "unpacks to 200 MB": start + header + png_chunk(b"IDAT", much) + end,
        "text of 200 MB": png[:33] + png_chunk(b"zTXt", b"a\0\0" + much) + png[33:],
        "profile of 200 MB": png[:33] + png_chunk(b"iCCP", b"a\0\0" + much) + png[33:],
        "claims 10^9 pixels": start + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 40000, 25000, 8, 2, 0, 0, 0)) + end,
        "no pixels": start + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)) + end,
        "wide and flat": saved(Image.new("1", (3_900_000, 1)), "PNG"),
        "a directory that leads to itself": loop + bytes(100),
        "a thousand passes": jpeg[: jpeg.index(b"\xff\xda")] + jpeg[jpeg.index(b"\xff\xda") : -2] * 1000,
        "an archive behind an image": png + b"PK\x05\x06" + bytes(18),
        "a page behind an image": jpeg + b"<script>alert(1)</script>",
        "a page before an image": b"<html>" + png,
        "a vector graphic": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run",
        "a pickle": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
        "a GIF": saved(Image.new("P", (4, 4)), "GIF"),
        "a BMP of negative height": struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 58, 0, 0, 54, 40, 1, -(2**31), 1, 24, 0, 4,
                                                0, 0, 0, 0) + bytes(4),
        "a WebP that claims 16383 x 16383": b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xfe\xff\xff\x0f" + bytes(8),
    }  # fmt: skip


def send(serving: Serving, images: list[bytes]) -> Counter:
    """The status of each image."""
    answer = serving.client.post("/api/batch_test", files=[("images", ("x.png", data)) for data in images])
    assert answer.status_code in (200, 422), answer.text[:300]
    said = answer.json()
    statuses = [200] * len(said.get("results", [])) + [failure["status"] for failure in said["failures"]]
    assert len(statuses) == len(images)
    return Counter(statuses)


def held(serving: Serving) -> tuple[int, int, int]:
    """Open files, processes, and bytes in memory of the server and all that it started."""
    server = psutil.Process(serving.process.pid)
    everyone = [server, *server.children(recursive=True)]
    return (
        sum(len(one.open_files()) for one in everyone),
        len(everyone),
        sum(one.memory_info().rss for one in everyone),
    )


def throw_at(serving: Serving, count: int, seed: int, temporary: Path) -> Counter:
    """Broken images in great number; the server must be none the worse for them."""
    send(serving, [image_bytes()] * IMAGES_A_REQUEST)
    before, files, statuses, batch = held(serving), set(temporary.rglob("*")), Counter(), []
    for data in broken(count, random.Random(seed)):
        batch.append(data)
        if len(batch) == IMAGES_A_REQUEST:
            statuses += send(serving, batch)
            batch = []
    assert set(statuses) <= {200, 413, 415, 422}
    after = held(serving)
    assert after[:2] == before[:2]
    assert after[2] < before[2] + (200 << 20)
    assert serving.test(image_bytes()).status_code == 200
    assert set(temporary.rglob("*")) == files and "Traceback" not in serving.log
    assert {place.suffix for place in serving.folder.iterdir()} == {".txt", ".sqlite", ".sqlite-shm", ".sqlite-wal"}
    return statuses


def test_a_thousand_broken_images(serving, temporary):
    statuses = throw_at(serving, 1024, 0, temporary)
    assert statuses[415] > 30 and statuses[422] > 300


@pytest.mark.slow
def test_many_more_broken_images(serving, temporary):
    for seed in range(1, 11):
        throw_at(serving, 10_000, seed, temporary)


def test_a_hostile_image_costs_little(serving):
    harmless = {"an archive behind an image", "a page behind an image", "wide and flat", "unpacks to 200 MB"}
    for name, data in hostile().items():
        assert len(data) < 1 << 20, f"{name} would never reach the decoder"
        answer = serving.test(data)
        assert answer.status_code == 200 if name in harmless else 400 <= answer.status_code < 500, (name, answer.text)
        assert answer.elapsed.total_seconds() < 10, name
        assert serving.test(image_bytes()).status_code == 200, name


HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
BODIES = [b"", bytes(1000), b"--x\r\n" * 1000, HEAD, HEAD.replace(b"; name", b"; nome") + b"\r\n--x--"]
KINDS = ["multipart/form-data; boundary=x", "multipart/form-data", "application/json", "x",
         "application/x-www-form-urlencoded"]  # fmt: skip


@pytest.mark.parametrize("data", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["/api/test_image", "/api/batch_test", "/api/search", "/api/load_model"])
def test_bodies_that_are_none(serving, place, kind, data):
    answer = serving.client.post(place, content=data, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500 and isinstance(answer.json()["detail"], str)

"""Folders of hostile files under the commands that read images: each ends in time, with what its exit code says."""

import json
import os
import random
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from scripts.attacks.attack import Attack
from scripts.attacks.material import SMALL, Material, command
from scripts.attacks.writers import made

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
NAMES = ("plain", "with space", "-rf", "ümlaut", "<script>", "a" * 200, "%s%n", "new\nline", "$(reboot)", ".hidden")
FILES, SECONDS = 40, 300


def inspecting(images: Path, material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "run", images, "--model", material.judging, "--out", out)


def triaging(images: Path, material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "triage", images, "--encoder", material.encoder, "--size-px", "64", "--out", out)


def fitting(images: Path, material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "fit", "--data", images, "--out", out, *SMALL)


def searching(images: Path, material: Material, out: Path) -> tuple:
    return ("embeddings/search.py", images, "--vectors", material.vectors, "--encoder", material.encoder, "--sheet",
            out / "sheet.html")  # fmt: skip


def extracting(images: Path, material: Material, out: Path) -> tuple:
    return ("embeddings/extract.py", "--data", images, "--encoder", material.encoder, "--size-px", "64", "--out", out)


def surveying(images: Path, material: Material, out: Path) -> tuple:
    return ("pretrain/survey.py", "--data", images, "--json", out / "survey.json")


def mending(images: Path, material: Material, out: Path) -> tuple:
    return ("downstream/restore.py", "restore", images, "--model", made(material, "restorer"), "--out", out)


def learning(images: Path, material: Material, out: Path) -> tuple:
    """Of images that somebody sorted."""
    shutil.copytree(material.model, out)
    (images.parent / "sorted" / "defective").mkdir(parents=True)
    images.rename(images.parent / "sorted" / "good")
    return ("downstream/detect.py", "learn", "--model", out, "--feedback", images.parent / "sorted")


COMMANDS = (inspecting, triaging, inspecting, searching, inspecting, learning, inspecting, fitting, inspecting,
            extracting, inspecting, surveying, inspecting, mending)  # fmt: skip
# Where all is well or some images cannot be read, of those that say more than that nothing could be done.
ENDS = {inspecting: (0, 1, 3), mending: (0, 2, 3)}


class HostileImages(Attack):
    """One try is a folder of forty files, and one command; they take turns, every other one is detect.py run."""

    unit = f"a folder of {FILES} files"

    def __init__(self, material: Material) -> None:
        self._material = material

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        images = folder / "images"
        images.mkdir()
        for number in range(FILES):
            hostile(images, f"{number}-{chance.choice(NAMES)}", chance)
        words = COMMANDS[self.number % len(COMMANDS)]
        try:
            done = command(*words(images, self._material, folder / "found"), timeout_s=SECONDS)
        except subprocess.TimeoutExpired:
            return f"{words.__name__}: it hangs for {SECONDS} s"
        is_refused = done.returncode == 2 and words is not inspecting
        if done.returncode not in ENDS.get(words, (0, 2)) or "Traceback" in done.stderr:
            return f"{words.__name__}: exit code {done.returncode}: {done.stderr[-300:]}"
        if is_refused and "error: " not in done.stderr:
            return f"{words.__name__}: it does not say what is wrong: {done.stderr[-300:]}"
        if words is not inspecting:
            return None
        lines = [json.loads(line) for line in (folder / "found" / "results.jsonl").read_text().splitlines()]
        if (done.returncode == 1) != any(line["is_defective"] for line in lines):
            return f"exit code {done.returncode} does not say what {len(lines)} results say"
        return None


class Spoiled(NamedTuple):
    """An image file's bytes, and the end of a name that promises a format."""

    data: bytes
    suffix: str


def spoiled_image(chance: random.Random) -> Spoiled:
    """One that is whole, cut off, flipped, noise, empty, or promises more pixels than there are."""
    form = chance.choice(list(FORMATS))
    side = (1, 1) if chance.random() < 0.1 else (chance.randrange(1, 200), chance.randrange(1, 200))
    pixels = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, (*side, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, form)
    data = bytearray(file.getvalue())
    kind = chance.choice(("whole", "cut", "flipped", "noise", "empty", "bomb"))
    if kind == "cut":
        del data[chance.randrange(len(data)) :]
    elif kind == "flipped":
        for _ in range(chance.randrange(1, 30)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "noise":
        data = bytearray(chance.randbytes(len(data)))
    elif kind == "empty":
        data.clear()
    elif kind == "bomb" and form == "PNG":
        data[16:24] = (60_000).to_bytes(4, "big") * 2  # its width and height
    return Spoiled(bytes(data), FORMATS[form])


def hostile(folder: Path, name: str, chance: random.Random) -> None:
    """A file that holds a spoiled image, or blocks, never ends, is huge, leads nowhere."""
    spoiled = spoiled_image(chance)
    path = folder / (name + spoiled.suffix)
    kind = chance.choice(("image", "image", "image", "pipe", "endless", "gone", "loop", "sparse"))
    if kind == "image":
        path.write_bytes(spoiled.data)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 1 << chance.randrange(20, 42))
    else:
        path.symlink_to({"endless": "/dev/zero", "gone": folder / "nowhere", "loop": path}[kind])

"""What is attacked: a small product, and a model, vectors and a run of it, made by the commands themselves."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pretrain.demo import make

REPOSITORY = Path(__file__).resolve().parents[2]
CATEGORY = "hazelnut"
SMALL = ("--size-px", "64", "--encoder", "random", "--options", "grid=8,dimensions=24")


@dataclass(frozen=True)
class Material:
    """Everything lies in `folder`, and may be copied from there."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "demo"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def encoder(self) -> Path:
        return self.model / "encoder.safetensors"

    @property
    def vectors(self) -> Path:
        return self.folder / "vectors"


def make_material(folder: Path) -> Material:
    material = Material(folder)
    make(material.data, categories=(CATEGORY, "leather"), train=8, good=3, defective=1)
    done = command(*fitting(material, material.model))
    done = done if done.returncode else command(*extracting(material, material.vectors))
    if done.returncode:
        raise RuntimeError(f"there is nothing to attack: {done.stderr}")
    return material


def copied_models(material: Material, folder: Path) -> Path:
    """A folder of two models, `a` and `b`, which differ by their names alone."""
    for name in ("a", "b"):
        shutil.copytree(material.model, folder / name)
    return folder


def fitting(material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "fit", "--data", material.data, "--category", CATEGORY, "--out", out, *SMALL)


def extracting(material: Material, out: Path) -> tuple:
    of = ("--data", material.data, "--encoder", material.encoder, "--out", out)
    return ("embeddings/extract.py", *of, "--size-px", "64", "--device", "cpu")


def pretraining(material: Material, out: Path) -> tuple:
    small = ("--architecture", "resnet18", "--start", "random", "--size-px", "32", "--batch", "8", "--steps", "4")
    kept = ("--checkpoint-minutes", "0", "--device", "cpu", "--out", out)
    return ("pretrain/simclr.py", "--data", material.data, "--hold-out", CATEGORY, *small, *kept)


def started(*words: object) -> subprocess.Popen:
    """A command as its user types it."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)


def command(*words: object, timeout_s: float = 300) -> subprocess.CompletedProcess:
    """The same, to its end. Raises TimeoutExpired where it hangs."""
    process = started(*words)
    try:
        out, error = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)

"""What is attacked: a small product, and a model, vectors and a run of it, made by the commands themselves."""

import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pretrain.demo import make

REPOSITORY = Path(__file__).resolve().parents[2]
CATEGORY = "hazelnut"
FORKS = multiprocessing.get_context("forkserver")
IMPORTED = ["torchvision", "onnxscript", "onnxruntime", "baselines.autoencoder", "baselines.sadnet",
            "baselines.vgg_cam", "downstream.area", "downstream.audit", "downstream.detect", "downstream.evaluate",
            "downstream.export", "downstream.learning.learn", "downstream.pull", "downstream.push",
            "downstream.restore", "embeddings.build", "embeddings.image_map", "embeddings.knn", "embeddings.search",
            "pretrain.convert", "pretrain.simclr", "pretrain.survey"]  # fmt: skip
TRAIN = 12  # good images, as many as an auto-encoder takes at least
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
    def given(self) -> Path:
        """A copy of the user's model, if there is one."""
        return self.folder / "given"

    @property
    def judging(self) -> Path:
        """The model that is served, stands in a line, inspects hostile images and is damaged."""
        return self.given if self.given.exists() else self.model

    @property
    def encoder(self) -> Path:
        return self.model / "encoder.safetensors"

    @property
    def vectors(self) -> Path:
        return self.folder / "vectors"


def make_material(folder: Path) -> Material:
    material = Material(folder)
    make(material.data, categories=(CATEGORY, "leather"), train=TRAIN, good=3, defective=2)
    done = command(*fitting(material, material.model))
    done = done if done.returncode else command(*extracting(material, material.vectors))
    if done.returncode:
        raise RuntimeError(f"there is nothing to attack: {done.stderr}")
    return material


def copied_models(material: Material, folder: Path) -> Path:
    """A folder of two models, `a` and `b`, which differ by their names alone."""
    for name in ("a", "b"):
        shutil.copytree(material.judging, folder / name)
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


class Started:
    """A command as its user types it, in a process of its own that is forked from one that has imported all there is:
    four of five seconds of a command are imports, and nothing can go wrong in them that another try has not had."""

    def __init__(self, *words: object) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._said = (Path(self._folder.name, "out"), Path(self._folder.name, "error"))
        FORKS.set_forkserver_preload(IMPORTED)  # which the first one starts
        arguments = (list(map(str, words)), *self._said, dict(os.environ))
        self.args, self._process = arguments[0], FORKS.Process(target=typed, args=arguments)
        self._process.start()
        self.kill, self.terminate, self.pid = self._process.kill, self._process.terminate, self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said, once it ends. Raises TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        said = tuple(file.read_text(errors="replace") if file.exists() else "" for file in self._said)
        self._folder.cleanup()
        return said


def typed(words: list[str], out: Path, error: Path, environment: dict[str, str]) -> None:
    """Run a command of this repository in this process, with its output in files."""
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    sys.argv, sys.path[:0] = words, [str(REPOSITORY)]
    for stream, file in ((sys.stdout, out), (sys.stderr, error)):
        stream.flush()
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), stream.fileno())
    runpy.run_path(words[0], run_name="__main__")


def command(*words: object, timeout_s: float = 300) -> subprocess.CompletedProcess:
    """The same, to its end. Raises TimeoutExpired where it hangs."""
    process = Started(*words)
    try:
        out, error = process.communicate(timeout_s)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)

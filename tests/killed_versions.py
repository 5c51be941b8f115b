"""A process for test_versions.py that is killed again and again while it changes the versions of a model.

    python killed_versions.py MODEL    # a folder with versions 1, in use, and 2

Before each step that makes, links, renames, flushes or removes a file or folder, and right after two were exchanged, a
child of it is killed; then all that is there must be whole, and the version in use one of those that may be. It prints
how many steps there were. It imports no torch, so that a child is forked in a moment.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

from dying import dies_at  # noqa: E402

from baselines.contract.model_folder import check_parts, parts_of  # noqa: E402
from downstream.learning.versions import (  # noqa: E402
    add_version,
    changing,
    promote,
    roll_back,
    version_in_use,
    versions_of,
)
from pretrain.files import check_digest, write_whole  # noqa: E402


def assert_whole(folder: Path) -> None:
    parts = parts_of(folder)
    assert parts and {path.name for path in folder.glob("*.safetensors")} == set(parts), folder
    check_parts(folder, parts)
    for name in parts:
        check_digest(folder / name)


def learn(model: Path, number: int) -> None:
    """A version like version 2, each file written anew."""

    def write(folder: Path) -> None:
        for file in sorted((model / "versions" / "2").iterdir()):
            write_whole(folder / file.name, file.read_bytes())

    with changing(model):
        add_version(model, number, write)


def killed(model: Path, work: Callable[[Path], object], allowed: set[int]) -> int:
    """Do `work` on copies of a model, killed at one step after the other: how many there are."""
    step = 0
    while True:
        copy = shutil.copytree(model, model.with_name("copy"))
        has_died = dies_at(step, lambda: work(copy))  # noqa: B023
        assert_whole(copy)
        assert version_in_use(copy) in allowed
        assert {1, 2} <= {version.number for version in versions_of(copy)}
        for version in versions_of(copy):
            assert_whole(version.folder)
        if has_died and version_in_use(copy) == version_in_use(model):  # what is left of it stands in nobody's way
            work(copy)
            assert_whole(copy)
        shutil.rmtree(copy)
        if not has_died:
            return step
        step += 1


def main(model: Path) -> None:
    steps = {
        "learn": killed(model, lambda copy: learn(copy, 3), {1}),
        "promote": killed(model, lambda copy: promote(copy, 2), {1, 2}),
    }
    promote(model, 2)
    steps["roll back"] = killed(model, roll_back, {1, 2})
    print(json.dumps(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

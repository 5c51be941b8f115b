"""The prepared run on a GPU, tried on the CPU: every part, what is kept of one that is stopped, and what is packed."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from embeddings.index.exact import exact_distances
from pretrain.command import Names, UserError
from pretrain.files import write_json
from scripts.benchmarks import gpu
from scripts.benchmarks.config import Gpu
from scripts.benchmarks.gpu import APART_ALWAYS, PARTS, Results, main, run_apart, run_here, targets
from scripts.benchmarks.parts import packing
from scripts.benchmarks.parts.checks import MARK, broken_ones, counted
from scripts.benchmarks.parts.inference import anomalibs, inference, material
from scripts.benchmarks.parts.recipes import baselines, pretraining
from scripts.benchmarks.parts.setting import Setting
from scripts.benchmarks.parts.training import sizes, training, views

# Stands before all else that Python imports, and lets it find nothing of what the machine has not.
WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in LACKING:
            return next(filter(None, (finder.find_spec(name, path, target) for finder in FINDERS)), None)

    def find_distributions(self, *given, **named):
        for finder in FINDERS:
            yield from getattr(finder, "find_distributions", lambda *_, **__: ())(*given, **named)

FINDERS, LACKING = sys.meta_path[:], set({lacking})
sys.meta_path[:] = [Without()]
"""
# pip, with nothing to install, and the Python that runs this.
PYTHON = """#!/usr/bin/env bash
if [ "$2" = pip ]; then
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2"
    exec cp {without} "$2/sitecustomize.py"
fi
exec {python} "$@"
"""


def with_requirements(names: Iterable[str]) -> set[str]:
    """These packages, and what they bring along."""
    known, waiting = set(), [*map(canonicalize_name, names)]
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            with suppress(PackageNotFoundError):
                wanted = [Requirement(each) for each in requires(name) or ()]
                wanted = [each for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
                waiting += [canonicalize_name(each.name) for each in wanted]
    return known


@cache  # a second to read what every package says of itself
def lacking_there() -> list[str]:
    """What can be imported here, and on such a machine not, with the pack beside it."""
    carried = [name.partition("==")[0] for name in (*packing.WHEELS, *packing.SOURCES)]
    there = with_requirements(packing.THERE) | {*map(canonicalize_name, carried), "heldout"}
    stand_ins = {path.stem for path in packing.STAND_INS.glob("*.py")}
    return sorted(
        module
        for module, packages in packages_distributions().items()
        if module not in stand_ins and there.isdisjoint(map(canonicalize_name, packages))
    )


@pytest.fixture
def pip(monkeypatch):
    """A registry whose wheels are a kilobyte each."""

    def run(command: list[str], check: bool) -> None:
        folder = Path(command[command.index("-d" if "-d" in command else "-w") + 1])
        folder.mkdir(exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.whl").write_bytes(bytes(1024))

    return lambda patched=monkeypatch: patched.setattr(subprocess, "run", run)


@pytest.fixture
def packed(pip, demo_folder, tmp_path, monkeypatch) -> Path:
    """A pack as `--pack` leaves it, but for the wheels, with a few images of two products."""
    for folder in [folder for name in ("hazelnut", "leather") for folder in demo_folder.glob(f"{name}/*/*")]:
        (few := tmp_path / "few" / folder.relative_to(demo_folder)).mkdir(parents=True)
        count = 10 if folder.parent.name == "train" else 2 if folder.name == "good" else 1
        for path in sorted(folder.iterdir())[:count]:
            shutil.copy(path, few)
    with monkeypatch.context() as patched:
        pip(patched)
        main(Gpu(pack=tmp_path / "pack", data=tmp_path / "few"))
    return tmp_path / "pack"


def dry_run(packed: Path, tmp_path: Path, *parts: str) -> dict[str, object]:
    """What its last line says, by run.sh itself, on the CPU, with nothing that the machine lacks."""
    lacking, without, python = lacking_there(), tmp_path / "without.py", tmp_path / "bin" / "python3"
    assert {"heldout", "torch", "alembic", "mako", "pytest"}.isdisjoint(lacking) and "hydra" in lacking
    without.write_text(WITHOUT.format(lacking=lacking))
    python.parent.mkdir()
    python.write_text(PYTHON.format(without=without, python=sys.executable))
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "OUT": str(tmp_path / "out"),
                   "TMPDIR": str(tmp_path)}  # fmt: skip
    command = ["bash", packed / "run.sh", "--dry-run", "--check", "--parts", ",".join(parts)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"results.json", "results.md", *(["log.txt"] if APART_ALWAYS in parts else [])}
    found = json.loads((tmp_path / "out" / "results.json").read_text())["parts"]
    assert list(found) == list(parts) and result["missed"] == []
    for name, figures in found.items():
        assert figures["seconds"] > 0 and len(figures) > 2 and not figures.get("broken"), name
        left_out = {each for each in figures if each.startswith("left out")}
        assert left_out == ({"left out: anomalib"} if name == "inference" else set())
    assert (tmp_path / "out" / "results.md").read_text().startswith("## On one GPU: a dry run")
    return result


@pytest.mark.slow
def test_a_dry_run_goes_through_a_part_with_what_the_machine_has(packed, tmp_path):
    result = dry_run(packed, tmp_path, "views")
    assert result["views_per_s kornia"] > 0 and result["views_per_s fast"] > 0


@pytest.mark.slow
def test_a_dry_run_goes_through_every_part_with_what_the_machine_has(packed, tmp_path):
    result = dry_run(packed, tmp_path, *PARTS)
    assert result["collected"] > 0 and result["tests"] > 5
    assert result["images_per_s padim"] > 0 and result["over_bare lite0"] > 0 and result["errors"] == 0
    assert result["images_per_s padim at 48 px"] > 0 and result["compiled_over_bare lite0"] > 0
    assert 0 < result["cpu_share lite0"] < 1
    assert any("SimCLR" in row for row in result["auroc default"]) and result["restored by sadnet"]["steps"] == 1
    assert result["vae on hazelnut"]["epochs"] == 2
    assert "    baselines, " in (tmp_path / "out" / "results.md").read_text()


def test_gpu_tests_import_nothing_that_the_machine_lacks():
    """Nor do the test modules that they import. What a function imports is for tests of something else."""
    folder, lacking = REPOSITORY / "tests", set(lacking_there())
    waiting = [path for path in folder.rglob("test_*.py") if MARK in path.read_text() and path.name != "test_gpu.py"]
    seen, imported = {*waiting}, set()
    while waiting:
        for node in ast.parse(waiting.pop().read_text()).body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
            found = {folder / f"{name}.py" for name in names} - seen
            waiting += [path for path in found if path.is_file()]
            seen |= found
    assert {"pytest", "torch", "method_suite"} <= imported and not imported & lacking


def test_the_pack_has_what_setup_cfg_asks_for():
    setup = ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    asked = setup["options"]["install_requires"] + setup["options.extras_require"]["serve"]
    names = {canonicalize_name(Requirement(line).name) for line in asked.splitlines() if line}
    carried = {name.partition("==")[0] for name in (*packing.WHEELS, *packing.SOURCES)}
    assert len(names) > 20 and not {"alembic", "kornia", "lightly"} - carried
    assert names - carried - {*packing.THERE} == {"faiss-gpu", "faiss-cpu"}  # for which stand_ins/faiss.py stands in


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting("cpu", True, 60.0, tmp_path, tmp_path / "part")


def test_a_part_that_breaks_keeps_what_it_had_and_is_missed(setting, tmp_path, monkeypatch, capsys):
    def part(_):
        yield {"first": 1.0}
        raise ZeroDivisionError("half way")

    monkeypatch.setattr("scripts.benchmarks.parts.checks.tests", part)
    results = Results(tmp_path, gpu.DRY_RUN)
    run_here("tests", PARTS["tests"], setting, results)
    stored = json.loads((tmp_path / "results.json").read_text())["parts"]["tests"]
    assert stored == {"first": 1.0, "broken": ["ZeroDivisionError: half way"]}
    assert targets(gpu.DRY_RUN, results.figures()) == {"missed": ["ZeroDivisionError: half way"]}
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("limit_s", "name"), [(0.05, "left out: the rest"), (120, "broken")])
def test_a_process_of_a_part_may_be_stopped_or_die(limit_s, name, setting, tmp_path):
    """Here it dies, as there is no GPU. What it had found is kept."""
    results = Results(tmp_path, "a GPU")
    write_json(tmp_path / "part-alone" / "results.json", {"parts": {"part": {"first": 1.0}}})
    run_apart("part", setting, Gpu(out=tmp_path), results, limit_s)
    assert name in results.parts["part"] and results.parts["part"]["first"] == 1.0


def test_parts_end_between_contestants(setting, monkeypatch):
    """And say what they left out; a training that would be too short says so too."""
    monkeypatch.setattr("scripts.benchmarks.parts.recipes.tested", lambda setting: ["nut", "pill"])
    monkeypatch.setattr("scripts.benchmarks.parts.training.load", lambda *_, **__: range(8))
    tiny = sizes(setting)
    monkeypatch.setattr("scripts.benchmarks.parts.training.sizes", lambda _: tiny)
    over = replace(setting, is_tiny=False, seconds=0.0)
    for part in (views, inference, pretraining, baselines, training):
        figures = {name: why for figures in part(over) for name, why in figures.items()}
        assert figures and all(name.startswith("left out") for name in figures), part
    assert "SADNet beside our restorer" in str(list(baselines(over))[0])
    now = replace(setting, is_tiny=False, began_s=time.monotonic())
    assert 1 / 3 <= now.minutes(0.5) <= 0.5 and now.minutes(0.3) is None


def test_anomalibs_models_are_asked_at_their_size(setting, demo_folder, monkeypatch):
    """By a process that is not there."""
    asked = []

    @contextmanager
    def started(command):
        wanted = json.loads(command[-1])
        yield SimpleNamespace(do=lambda task, **given: asked.append((wanted["model"], task)) or {"seconds": 0.5})

    monkeypatch.setattr("scripts.benchmarks.parts.inference.started", started)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    setting.folder.mkdir()
    normals, _ = material(replace(setting, data=demo_folder), 48, 2)
    figures = {name: value for figures in anomalibs(setting, normals) for name, value in figures.items()}
    assert figures["images_per_s anomalib padim"] == 8 and figures["ms_alone anomalib patchcore"] == 25
    assert asked[:4] == [("padim", task) for task in ("fit", "repeat", "repeat", "predict")] and len(asked) == 8
    assert np.load(setting.folder / "train.npy").shape == (4, 48, 48, 3)


def test_targets_are_those_of_the_gpu():
    figures = {"views_per_s resnet18": 12_500.0, "passed": 1, "tests": 30, "failed": 0, "skipped": 29, "broken": []}
    h100, h200 = (targets(f"NVIDIA {name}", figures)["at_least"] for name in ("H100 80GB", "H200"))
    assert h200["views_per_s resnet18"] == 15_000 and h100["views_per_s resnet18"] == 12_000 and h100["passed"] == 30
    assert targets("NVIDIA H200", figures)["at_most"] == {"failed": 0, "skipped": 0}
    assert "images_per_s padim was not measured" in targets("NVIDIA H200", figures)["missed"]


def test_what_pytest_says_is_counted():
    said = "FAILED tests/a.py::test_b - assert\n2 failed, 30 passed, 1 skipped in 3.0s"
    assert counted(said) == {"passed": 30, "failed": 2, "skipped": 1}
    assert broken_ones(subprocess.CompletedProcess([], 1, said)) == ["tests/a.py::test_b"]
    assert broken_ones(subprocess.CompletedProcess([], -9, "")) == ["pytest ended with -9"]


def test_a_pack_has_all_test_images_and_as_many_good_ones_as_fit(pip, demo_folder, tmp_path, capsys):
    pip()
    for name, limit_mb in (("all", 100.0), ("some", 8.0)):
        main(Gpu(pack=tmp_path / name, data=demo_folder, limit_mb=limit_mb))
        assert packing.size_of(tmp_path / name) <= limit_mb * 2**20
        with tarfile.open(tmp_path / name / "images.tar") as tar:
            names = tar.getnames()
        tests = sum("/test/" in each for each in names)
        assert tests == len(list(demo_folder.glob("*/test/*/*")))
        learned = [
            sum(f"/{category}/train/" in each for each in names) for category in ("bottle", "hazelnut", "leather")
        ]
        assert learned == [12] * 3 if name == "all" else 0 < max(learned) < 12 and max(learned) - min(learned) < 2
        assert any("/ground_truth/" in each for each in names)
        assert (tmp_path / name / "stand_ins" / "faiss.py").is_file()
    said = capsys.readouterr().out
    assert f"OUT=FOLDER bash {tmp_path / 'some'}/run.sh --minutes 9" in said


def test_a_pack_that_cannot_be_is_one_sentence(pip, demo_folder, tmp_path):
    pip()
    for config, words in (
        (Gpu(pack=tmp_path / "a"), "--data FOLDER"),
        (Gpu(pack=tmp_path / "b", data=demo_folder, limit_mb=1), "give a higher --limit-mb"),
        (Gpu(pack=demo_folder, data=demo_folder), "is not empty"),
        (Gpu(parts=Names("veiws")), "did you mean views"),
    ):
        with pytest.raises(UserError, match=words):
            main(config)


def test_what_stands_in_for_faiss_finds_the_nearest():
    spec = importlib.util.spec_from_file_location("stand_in", packing.STAND_INS / "faiss.py")
    faiss = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faiss)
    generator = np.random.default_rng(0)
    vectors, queries = (generator.normal(size=(count, 6)).astype(np.float32) for count in (50, 9))
    index = faiss.IndexFlatL2(6)
    index.add(vectors[:20]), index.add(vectors[20:])
    squared, rows = index.search(queries, 3, params=faiss.SearchParameters(sel=None))
    expected = exact_distances(queries, vectors, np.tile(np.arange(50), (9, 1)))
    assert np.array_equal(rows, expected.argsort(axis=1)[:, :3]) and index.ntotal == 50
    np.testing.assert_allclose(squared, np.sort(expected, axis=1)[:, :3], rtol=1e-4)
    assert np.array_equal(faiss.rev_swig_ptr(index.get_xb(), 300).reshape(50, 6), vectors)
    assert faiss.get_num_gpus() == 0 and isinstance(faiss.IndexIVFPQ | None, type(int | None))

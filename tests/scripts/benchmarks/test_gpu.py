"""The prepared run on a GPU, tried on the CPU: every part, what is kept of one that is stopped, and what is packed."""

import importlib.util
import json
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from embeddings.index.exact import exact_distances
from pretrain.command import Names, UserError
from scripts.benchmarks import gpu
from scripts.benchmarks.config import Gpu
from scripts.benchmarks.gpu import PARTS, Results, main, run_apart, run_here, targets
from scripts.benchmarks.parts import packing
from scripts.benchmarks.parts.checks import counted
from scripts.benchmarks.parts.setting import Setting


@pytest.fixture
def cache_of_before(monkeypatch):
    """Parts have caches of their own, by the environment."""
    monkeypatch.setenv("HELDOUT_CACHE", os.environ["HELDOUT_CACHE"])


def test_a_dry_run_goes_through_every_part(tmp_path, cache_of_before, capsys):
    assert main(Gpu(dry_run=True, out=tmp_path, check=True)) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert list(parts) == list(PARTS) and result["missed"] == []
    for name, figures in parts.items():
        assert figures["seconds"] > 0 and len(figures) > 2 and not figures.get("broken"), name
    assert result["images_per_s padim"] > 0 and result["over_bare lite0"] > 0 and result["errors"] == 0
    assert any("SimCLR" in row for row in result["auroc default"]) and result["restored by sadnet"]["steps"] == 1
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("## On one GPU: a dry run") and "    baselines, " in text


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting("cpu", True, 60.0, tmp_path, tmp_path / "part", "")


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
    """Here it dies, as there is no GPU."""
    results = Results(tmp_path, "a GPU")
    (tmp_path / "views").mkdir()
    run_apart("views", setting, Gpu(out=tmp_path), results, limit_s)
    assert name in results.parts["views"]


def test_targets_are_those_of_the_gpu():
    figures = {"views_per_s resnet18": 12_500.0, "passed": 30, "failed": 0, "broken": []}
    h100, h200 = (targets(f"NVIDIA {name}", figures)["at_least"] for name in ("H100 80GB", "H200"))
    assert h200["views_per_s resnet18"] == 15_000 and h100["views_per_s resnet18"] == 12_000 and h100["passed"] == 1
    assert "images_per_s padim was not measured" in targets("NVIDIA H200", figures)["missed"]


def test_what_pytest_says_is_counted():
    said = "FAILED tests/a.py::test_b - assert\n2 failed, 30 passed, 1 skipped in 3.0s"
    assert counted(said) == {"passed": 30, "failed": 2, "skipped": 1, "broken": ["tests/a.py::test_b"]}


@pytest.fixture
def pip(monkeypatch):
    """A registry whose wheels are a kilobyte each."""

    def run(command: list[str], check: bool) -> None:
        folder = Path(command[command.index("-d" if "-d" in command else "-w") + 1])
        folder.mkdir(exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.whl").write_bytes(bytes(1024))

    monkeypatch.setattr(subprocess, "run", run)


def test_a_pack_has_all_test_images_and_as_many_good_ones_as_fit(pip, demo_folder, tmp_path, capsys):
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
    assert f"bash {tmp_path / 'some'}/run.sh --minutes 12" in said


def test_a_pack_that_cannot_be_is_one_sentence(pip, demo_folder, tmp_path):
    for config, words in (
        (Gpu(pack=tmp_path / "a"), "--data FOLDER"),
        (Gpu(pack=tmp_path / "b", data=demo_folder, limit_mb=1), "give a higher --limit-mb"),
        (Gpu(pack=demo_folder, data=demo_folder), "is not empty"),
        (Gpu(parts=Names("veiws")), "did you mean views"),
    ):
        with pytest.raises(UserError, match=words):
            main(config)


def test_run_sh_is_a_shell_script(tmp_path):
    (tmp_path / "run.sh").write_text(packing.RUN)
    assert subprocess.run(["bash", "-n", tmp_path / "run.sh"], check=False).returncode == 0


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

"""What the tests share: a small demo set on disk, and a cache that is thrown away."""

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from filelock import FileLock

# Before anything imports torch in this process, as `import pretrain` does for a user.
import pretrain  # noqa: F401

if TYPE_CHECKING:
    import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]


# A quarter of a minute and more each, or near it. They begin, so that no worker is left with one at the end.
LONG = ("test_serve.py", "test_dashboard.py", "test_catalogue.py", "test_simclr_command.py", "test_simclr_resume.py",
        "test_fuzz.py", "test_onnx_file.py", "test_evaluate.py", "test_encoder.py", "test_int8.py", "test_simclr.py",
        "test_gpu.py", "test_extract.py", "test_live_page.py", "test_line.py", "test_kills.py", "test_heldout.py",
        "test_docs.py", "test_any_backbone.py", "test_on_ray.py")  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported stays: Python would look through these millions of objects for garbage again and again, while
    they become more and whenever a test leaves some."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A test run started in the background ignores Ctrl-C, and so would every process that a test starts to stop it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def set_session_threads() -> Callable[[], None]:
    """Sets back how many threads torch computes with in this process."""
    import torch  # after pretrain

    count = torch.get_num_threads()
    return lambda: torch.set_num_threads(count)


@pytest.fixture(autouse=True)
def threads_of_the_session(set_session_threads):
    """A training in this process gives the bits of one in a new process only with as many threads. The service sets
    their number in its process, and which test follows it in a worker is a matter of time."""
    set_session_threads()


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory):
    """No test reads or fills the cache of the person who runs it; subprocesses inherit this."""
    before = os.environ.get("HELDOUT_CACHE")
    os.environ["HELDOUT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["HELDOUT_CACHE"]
    else:
        os.environ["HELDOUT_CACHE"] = before


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> MakeOnce:
    """`make_once(name, make)` is a path at which `make(path)` left something that no test changes: once for all workers
    of pytest-xdist, of which the first makes it and the others wait."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        path, mark = root / "shared" / name, root / f"{name.replace('/', '-')}.made"
        with FileLock(mark.with_suffix(".lock")):
            if not mark.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                make(path)
                mark.touch()
        return path

    return made


@pytest.fixture
def mlflow_files(tmp_path, monkeypatch):
    """MLflow's client, and the store that it keeps in files: runs, figures and artifacts are written and read back by
    MLflow itself, of which only the server is missing."""
    from pretrain.training.trackers import MLFLOW_DEFAULTS

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    for name in (*MLFLOW_DEFAULTS, "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "")  # so that what the tracker sets is gone after the test
        monkeypatch.delenv(name)
    from mlflow import MlflowClient  # 2 s

    return MlflowClient()


STUDY_OPTIONS = ("--train", "hazelnut,leather", "--test", "bottle", "--methods", "knn,padim", "--shots", "2,all",
                 "--seeds", "0,1", "--size-px", "32", "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="session")
def encoder_file(make_once) -> Path:
    """What pretraining on the demo data without bottle would leave, but for the training. (Of several seeds the one
    that in `study_folder` is furthest above its control: random weights are not to have the highest row.)"""
    from pretrain.encoder import Encoder
    from pretrain.weights import Origin

    encoder = Encoder("timm/test_resnet", 12, origin=Origin("demo", ("hazelnut", "leather"), is_demo=True))
    return make_once("encoder.safetensors", encoder.save)


@pytest.fixture(scope="session")
def small_methods() -> dict:
    """For `monkeypatch.setitem(METHODS, ...)`: k-NN reads images as they are, where it would stretch 32 px to 224."""
    from downstream.methods.catalogue import METHODS

    return {"knn": replace(METHODS["knn"], without_gpu={"input_px": None})}


@pytest.fixture(scope="session")
def study_folder(demo_folder, encoder_file, small_methods, make_once) -> Path:
    """A finished study of a few methods, seeds 0 and 1, made by the command. (At 32 px PaDiM has a quarter of the
    Gaussians that it has at 64, and they are most of its time.)"""
    from downstream.evaluate import main
    from downstream.methods.catalogue import METHODS
    from downstream.study.config import Evaluate
    from pretrain.command import read_config

    def make(out: Path) -> None:
        arguments = ["--data", demo_folder, "--out", out, "--encoder", encoder_file, *STUDY_OPTIONS]
        with patch.dict(METHODS, small_methods), redirect_stdout(StringIO()) as printed:
            assert main(read_config(Evaluate, list(map(str, arguments)))) == 0
        (out / "printed.txt").write_text(printed.getvalue())

    return make_once("study", make)


@pytest.fixture(scope="session")
def study(study_folder) -> dict:
    """Its plan, study.json."""
    from downstream.study.record import read_study

    return read_study(study_folder)


@pytest.fixture(scope="session")
def summarized(study_folder, study) -> tuple:
    """All its figures, and its cells by row, category and seed."""
    from downstream.study.summary import summarize

    return summarize(study_folder, study)


@pytest.fixture(scope="session")
def demo_folder(make_once) -> Path:
    """Three categories of generated products: 12 train/good, 6 test/good and 3 of each defect."""
    from pretrain.demo import make

    products = ("bottle", "hazelnut", "leather")
    return make_once("demo", lambda folder: make(folder, seed=0, categories=products, train=12, good=6, defective=3))


@pytest.fixture(scope="session")
def listed_images(demo_folder, make_once) -> Path:
    """Two dozen images and two files that are none, for a manifest."""
    from manifests import images_to_inspect

    return make_once("listed/images", lambda folder: images_to_inspect(folder, demo_folder))


@pytest.fixture(scope="session")
def listed_rows(listed_images, padim_folder, tmp_path_factory) -> list[dict]:
    """The rows of their inspection in this process."""
    from manifests import rows_of, run_manifest

    out = tmp_path_factory.mktemp("listed")
    assert run_manifest(listed_images, padim_folder, out) == 1
    return rows_of(out)


@pytest.fixture
def few_steps(monkeypatch) -> None:
    """A quarter of those that residuals are trained for finds what there is to find in small images."""
    monkeypatch.setattr("downstream.methods.residual.STEPS", 100)


@pytest.fixture(scope="session")
def models_folder(demo_folder, tmp_path_factory) -> Path:
    """Two small models for the service: PaDiM with an encoder of its own, and the mean image without one."""
    from fitted_models import RESNET

    from downstream.inspection.config import Fit
    from downstream.inspection.fitting import fit

    folder = tmp_path_factory.mktemp("service") / "models"
    common = {"data": demo_folder, "category": "hazelnut", "size_px": 64}
    small = RESNET + "dimensions=24,grid=8,neighborhood=1"
    fit(Fit(**common, method="padim", options=small, out=folder / "hazelnut"))
    fit(Fit(**common, method="mean", out=folder / "mean"))
    return folder


@pytest.fixture(scope="session")
def restorer_run(demo_folder, make_once) -> Path:
    """The run folder of a small restorer, trained for four steps on hazelnut and leather."""
    from restorer_runs import trained

    return make_once("runs/restore", lambda folder: trained(folder, demo_folder))


@pytest.fixture(scope="session")
def padim_folder(demo_folder, make_once) -> Path:
    """A PaDiM fitted to one demo category, a folder."""
    from fitted_models import fitted

    return make_once("models/nut", lambda folder: fitted(folder, demo_folder))


@pytest.fixture(scope="session")
def fused_folder(demo_folder, make_once) -> Path:
    """A fused model of the same, on a network of a moment, which can learn more."""
    from fitted_models import fitted

    return make_once("models/fused", lambda folder: fitted(folder, demo_folder, "fused, tiny"))


@pytest.fixture(scope="session")
def sorted_images(demo_folder, make_once) -> Path:
    """Test images of the same category, as somebody sorted them: four good ones, and six defective ones, with masks."""

    def sort(folder: Path) -> None:
        nuts = demo_folder / "hazelnut"
        for kind in ("good", "defective"):
            (folder / kind).mkdir(parents=True)
        for path in sorted((nuts / "test" / "good").iterdir())[:4]:
            shutil.copy(path, folder / "good")
        for mask in sorted((nuts / "ground_truth").rglob("*.png"))[:6]:
            name = f"{mask.parent.name} {mask.name}"
            shutil.copy(mask, folder / "defective" / name)
            image = nuts / "test" / mask.parent.name / mask.name.replace("_mask", "")
            shutil.copy(image, folder / "defective" / name.replace("_mask", ""))

    return make_once("sorted", sort)


@pytest.fixture(scope="session")
def area_folder(demo_folder, tmp_path_factory) -> Path:
    """A PaDiM fitted to 8 of the 12 good images of a demo category: four are left to validate an area by."""
    from fitted_models import SMALL, run_detect

    folder = tmp_path_factory.mktemp("models") / "hazelnut"
    data = ("--data", demo_folder, "--category", "hazelnut", "--validation-share", "0.33")
    assert run_detect("fit", *data, "--out", folder, *SMALL) == 0
    return folder


@pytest.fixture
def area_model(area_folder, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(area_folder, tmp_path / "model")


@pytest.fixture
def validated(area_model, demo_folder) -> Path:
    """The same with a rule: 60 pixels."""
    from fitted_models import run_area

    assert run_area("validate", "--model", area_model, "--data", demo_folder, "--area", "60") == 0
    return area_model


@pytest.fixture
def blotched(demo_folder, tmp_path) -> Path:
    """A folder of two good images, one of which was given a blatant defect, at a known position."""
    from PIL import Image

    folder = tmp_path / "line 3"
    folder.mkdir()
    paths = sorted((demo_folder / "hazelnut" / "test" / "good").iterdir())[:2]
    shutil.copy(paths[0], folder / "a good.png")
    image = Image.open(paths[1]).convert("RGB")
    image.paste((255, 0, 255), (100, 60, 140, 110))
    image.save(folder / "b bad.png")
    return folder


@pytest.fixture
def mixed(demo_folder, blotched, tmp_path) -> Path:
    """Twelve good images and a defective one, in no layout."""
    folder = tmp_path / "mixed"
    shutil.copytree(demo_folder / "hazelnut" / "train" / "good", folder)
    shutil.copy(blotched / "b bad.png", folder / "sneaked in.png")
    return folder


@pytest.fixture(scope="session")
def onnx_file(padim_folder, make_once) -> Path:
    """The same as an ONNX file."""
    from fitted_models import run_export

    def make(_: Path) -> None:
        assert run_export(padim_folder) == 0

    return make_once("models/nut.onnx", make)


@pytest.fixture
def nut_converted(onnx_file, monkeypatch) -> None:
    """Whoever exports `padim_folder` as fp32 has the graph of `onnx_file` at once; torch takes 4 s to convert it."""
    import onnx

    monkeypatch.setattr("downstream.export.onnx_model", lambda graph: onnx.load(onnx_file))


@pytest.fixture(scope="session")
def nut_pixels(demo_folder) -> "np.ndarray":
    """Every image of the category: uint8 (n, h, w, 3); not a multiple of the batch."""
    from fitted_models import SIZE_PX

    from pretrain.data.dataset import load

    images = load(demo_folder, SIZE_PX).of("hazelnut")
    return images.batch(range(len(images)))

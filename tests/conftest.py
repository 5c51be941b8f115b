"""What the tests share: a small demo set on disk, and a cache that is thrown away."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before anything imports torch in this process, as `import pretrain` does for a user.
import pretrain  # noqa: F401

if TYPE_CHECKING:
    import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]


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


STUDY_OPTIONS = ("--train", "hazelnut,leather", "--test", "bottle", "--methods", "knn,padim", "--shots", "2,all",
                 "--seeds", "0,1", "--size-px", "64", "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory) -> Path:
    """What pretraining on the demo data without bottle would leave, but for the training."""
    from pretrain.encoder import Encoder
    from pretrain.weights import Origin

    path = tmp_path_factory.mktemp("pretrained") / "encoder.safetensors"
    Encoder("resnet18", 7, origin=Origin("demo", ("hazelnut", "leather"), is_demo=True)).save(path)
    return path


@pytest.fixture(scope="session")
def study_folder(demo_folder, encoder_file, tmp_path_factory) -> Path:
    """A finished study of a few methods, seeds 0 and 1, made by the command."""
    out = tmp_path_factory.mktemp("runs") / "study"
    command = [sys.executable, REPOSITORY / "downstream/evaluate.py", "--data", demo_folder, "--out", out]
    done = subprocess.run(
        [*map(str, command), "--encoder", str(encoder_file), *STUDY_OPTIONS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (out / "printed.txt").write_text(done.stdout)
    return out


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
def demo_folder(tmp_path_factory) -> Path:
    """Three categories of generated products: 12 train/good, 6 test/good and 3 of each defect."""
    from pretrain.demo import make

    folder = tmp_path_factory.mktemp("data") / "demo"
    make(folder, seed=0, categories=("bottle", "hazelnut", "leather"), train=12, good=6, defective=3)
    return folder


@pytest.fixture(scope="session")
def models_folder(demo_folder, tmp_path_factory) -> Path:
    """Two small models for the service: PaDiM with an encoder of its own, and the mean image without one."""
    from downstream.inspection.config import Fit
    from downstream.inspection.fitting import fit

    folder = tmp_path_factory.mktemp("service") / "models"
    common = {"data": demo_folder, "category": "hazelnut", "size_px": 64}
    small = "dimensions=24,grid=8,neighborhood=1"
    fit(Fit(**common, method="padim", encoder=Path("random"), options=small, out=folder / "hazelnut"))
    fit(Fit(**common, method="mean", out=folder / "mean"))
    return folder


@pytest.fixture(scope="session")
def restorer_run(demo_folder, tmp_path_factory) -> Path:
    """The run folder of a small restorer, trained for four steps on hazelnut and leather."""
    from restorer_runs import trained

    return trained(tmp_path_factory.mktemp("runs") / "restore", demo_folder)


@pytest.fixture(scope="session")
def padim_folder(demo_folder, tmp_path_factory) -> Path:
    """A PaDiM fitted to one demo category, a folder."""
    from fitted_models import fitted

    return fitted(tmp_path_factory.mktemp("models") / "nut", demo_folder)


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


@pytest.fixture(scope="session")
def onnx_file(padim_folder) -> Path:
    """The same as an ONNX file."""
    from fitted_models import run_export

    assert run_export(padim_folder) == 0
    return padim_folder.with_suffix(".onnx")


@pytest.fixture(scope="session")
def nut_pixels(demo_folder) -> "np.ndarray":
    """Every image of the category: uint8 (n, h, w, 3); not a multiple of the batch."""
    from fitted_models import SIZE_PX

    from pretrain.data.dataset import load

    images = load(demo_folder, SIZE_PX).of("hazelnut")
    return images.batch(range(len(images)))

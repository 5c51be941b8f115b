"""The public face: `import heldout`, the command `heldout`, and what `pip install .` puts where."""

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import heldout
from downstream.methods.catalogue import METHODS
from pretrain.command import UserError
from scripts.attacks.serving import served

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("heldout-stubs", "pretrain", "embeddings", "baselines", "downstream")
# Of what a distribution is built beside the packages; and a test, which is to stay out of it.
BESIDE = ("heldout.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "tests/test_house.py")
HEAVY = ("torch", "numpy", "PIL", "sklearn", "scipy", "faiss")

# A fork each, so that a command meets a fresh interpreter at the price of none.
EVERY_HELP = """
import contextlib, io, json, os, sys
import heldout
answers = {}
for name in [None, *heldout.COMMANDS]:
    read, write = os.pipe()
    if not os.fork():
        sys.argv = ["heldout", *filter(None, [name]), "--help"]
        printed, code = io.StringIO(), 0
        with contextlib.redirect_stdout(printed):
            try:
                code = heldout.main()
            except SystemExit as end:
                code = end.code
            except Exception as error:
                code = repr(error)
        with os.fdopen(write, "w") as pipe:
            json.dump([code or 0, printed.getvalue(), [m for m in sys.argv_heavy if m in sys.modules]], pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answers[name or "heldout"] = json.load(pipe)
    os.wait()
print(json.dumps(answers))
"""


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=REPOSITORY, **options
    )


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int | str, str, list[str]]]:
    """By command: exit code and text of its --help, and the heavy modules that it imported."""
    done = run("-c", EVERY_HELP.replace("sys.argv_heavy", repr(HEAVY)))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_there_is_a_command_for_every_file_that_can_be_typed():
    runnable = {
        f"{package}.{path.stem}"
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if '\nif __name__ == "__main__":' in path.read_text()
    }
    assert runnable == {*heldout.COMMANDS.values()}


def test_the_help_lists_every_command_with_its_headline(helps):
    code, text, _ = helps["heldout"]
    assert code == 0
    for name, module in heldout.COMMANDS.items():
        headline = Path(find_spec(module).origin).read_text().removeprefix('"""').split("\n")[0]
        assert any(line.split()[:1] == [name] and line.split()[1] in headline for line in text.splitlines()), name


@pytest.mark.parametrize("name", heldout.COMMANDS)
def test_a_command_explains_itself_under_the_name_that_was_typed(helps, name):
    code, text, _ = helps[name]
    assert code == 0 and text.startswith(f"usage: heldout {name} ")


@pytest.mark.parametrize("name", ["heldout", *heldout.COMMANDS])
def test_help_imports_nothing_heavy(helps, name):
    """Torch alone takes a second; without heavy modules, help took 0.1 to 0.4 s on the slowest machine tried."""
    assert helps[name][2] == []


def test_the_import_is_light_and_the_names_are_there():
    done = run("-c", f"import sys, heldout; print([m for m in {HEAVY} if m in sys.modules], heldout.__all__)")
    assert done.stdout.startswith("[] ['load', "), done.stderr
    assert {"Encoder", "load_encoder", "Inspector", "Index", "PaDiM"} < {*heldout.__all__} <= {*dir(heldout)}
    for name in heldout.__all__:
        assert getattr(heldout, name).__name__ == name


def test_every_method_has_a_name_there():
    assert len(METHODS) > 5
    assert {method.path.rpartition(".")[2] for method in METHODS.values()} < {*heldout.__all__}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'PaDim'"):
        heldout.PaDim  # noqa: B018


def test_load_gives_what_is_in_the_folder(padim_folder, tmp_path):
    assert isinstance(heldout.load(padim_folder), heldout.Inspector)
    method_alone = tmp_path / "method"
    shutil.copytree(padim_folder, method_alone, ignore=shutil.ignore_patterns("inspector.json"))
    assert isinstance(heldout.load(str(method_alone)), heldout.PaDiM)
    with pytest.raises(UserError):
        heldout.load(tmp_path / "nothing")


def test_a_mistyped_command_is_answered_with_the_nearest():
    done = run("-m", "heldout", "serch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no command serch; did you mean search?\n"


def test_the_version_is_that_of_the_package():
    assert run("heldout.py", "--version").stdout == f"heldout {heldout.__version__}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [("heldout se", ["search", "serve"]), ("heldout demo --see", ["--seed"]),
     ("heldout detect fit --data x --minimum", ["--minimum-area"])],
)  # fmt: skip
def test_a_shell_may_ask_for_what_comes_next(line, expected, tmp_path):
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
             "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer")}  # fmt: skip
    run("-m", "heldout", env={**os.environ, **asked})
    assert [word.strip() for word in (tmp_path / "answer").read_text().split("\n")] == expected


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """What `pip install SDIST` would install: built from the source distribution alone."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, source / name)
    for what in ("sdist", "wheel"):
        build = f"from setuptools.build_meta import build_{what}; build_{what}({str(out)!r})"
        done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if what == "sdist":
            with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
                archive.extractall(out, filter="data")
            source = out / f"heldout-{heldout.__version__}"
    assert not (source / "tests").exists()  # a part of them would not run
    return next(out.glob("*.whl"))


@pytest.fixture(
    scope="module", params=["the packages of this environment", pytest.param("its own", marks=pytest.mark.slow)]
)
def environment(request, wheel, tmp_path_factory) -> Path:
    """A new virtual environment into which pip installed the wheel: without what it needs, which is found where it is
    installed already, or with all of it (some 7 GB)."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", folder, "--disable-pip-version-check", "install", "--quiet"]
    if request.param == "its own":
        subprocess.run([*pip, f"{wheel}[serve]"], check=True)
        return folder
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", wheel], check=True)
    # A folder that a .pth names is searched, but its own .pth is not heeded: the editable installation stays unseen.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return folder


def test_all_of_the_packages_is_installed_and_nothing_else(wheel):
    """Pages, styles, templates and the marks for type checkers too, which setup.cfg names by pattern."""
    wanted = {
        path.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == wanted | {"heldout.py"}
    assert {*(f"{package}/py.typed" for package in PACKAGES[1:]), f"{PACKAGES[0]}/__init__.pyi"} < names


# A fork for each command but the last, as what they import takes them longer than what they do.
USED = """
import os, sys
import heldout, downstream.detect, downstream.evaluate, downstream.serve, pretrain.encoder, pretrain.loss
assert heldout.__file__.startswith(sys.prefix), heldout.__file__
assert not {"torchvision", "timm", "lightly", "lightning_fabric"} & sys.modules.keys(), "imports are to be cheap"
for expected, *words in COMMANDS:
    child = os.fork()
    if not child:
        sys.argv = ["heldout", *words]
        sys.exit(heldout.main())
    if (code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) != expected:
        sys.exit(f"heldout {' '.join(words)}: {code} and not {expected}")
sys.argv[0] = "heldout"
heldout.main()
"""


def test_what_is_installed_is_used_without_the_checkout(environment, tmp_path, monkeypatch):
    """In an empty folder: examined, fitted, run, served."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    Path("good").mkdir()
    for number, brightness in enumerate((100, 110, 120, 130)):
        Image.new("L", (32, 32), brightness).save(f"good/{number}.png")
    Image.new("L", (32, 32), 250).save("bright.png")
    asked = subprocess.run([environment / "bin" / "heldout", "--version"], capture_output=True, text=True, check=False)
    assert asked.stdout == f"heldout {heldout.__version__}\n", asked.stderr
    commands = [
        (0, "doctor"),
        (0, "detect", "fit", "--data", "good", "--method", "mean", "--size-px", "32", "--out", "models/gray"),
        (1, "detect", "run", "bright.png", "good/1.png", "--model", "models/gray", "--out", "found"),
    ]
    program = (environment / "bin" / "python", "-c", USED.replace("COMMANDS", repr(commands)), "serve")
    with served(tmp_path / "models", tmp_path / "served", program=program) as serving:
        assert serving.client.get("/health").json()["status"] == "ok"
    lines = Path("found/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["is_defective"] for line in lines] == [True, False]


def test_the_types_are_of_the_names_that_are_there():
    stub = ast.parse((REPOSITORY / "heldout-stubs/__init__.pyi").read_text())
    given = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    (load,) = (node for node in stub.body if isinstance(node, ast.FunctionDef) and node.name == "load")
    assert {*filter(None, given), load.name} == {*heldout.__all__}
    assert [argument.arg for argument in load.args.args] == [*inspect.signature(heldout.load).parameters]

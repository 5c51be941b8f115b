"""What is missing is named with how to get it; required or optional decides the exit code."""

from importlib import metadata
from pathlib import Path

import pytest

from pretrain import doctor
from pretrain.encoder import make_encoder

REQUIRES = [
    "numpy>=2",
    "a-package-of-another-system>=1; sys_platform == 'nowhere'",
    'pytest>=8; extra == "test"',
    'a-package-nobody-has>=3; extra == "serve"',
]


@pytest.fixture
def examined(monkeypatch, capsys):
    """Examine with other requirements: exit code, what was printed, errors."""

    def examine(requires: list[str], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["heldout doctor", *arguments])
        monkeypatch.setattr(metadata, "requires", lambda _: requires)
        code = doctor.main()
        return code, *capsys.readouterr()

    return examine


def test_requirements_are_read_for_this_machine_and_by_extra():
    required, extras = doctor.read_requirements(REQUIRES)
    assert [name for name, _ in required] == ["numpy"]
    assert {extra: [name for name, _ in needs] for extra, needs in extras.items()} == {
        "test": ["pytest"], "serve": ["a-package-nobody-has"],
    }  # fmt: skip


def test_a_missing_extra_is_named_with_its_installation_and_is_no_error(examined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "simclr").mkdir(parents=True)
    (tmp_path / "runs" / "simclr" / "encoder.safetensors").write_bytes(bytes(3_000_000))
    make_encoder("resnet18").save(Path("runs/other/encoder.safetensors"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / "abc" / "model.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(bytes(2_000_000))
    code, printed, errors = examined(REQUIRES)
    assert (code, errors) == (0, "")
    assert "missing a-package-nobody-has: pip install -e '.[serve]' in the checkout" in printed
    assert "test            ready" in printed
    assert "abc/model.safetensors, 2 MB\n" in printed
    assert "runs/simclr/encoder.safetensors, 3 MB, cannot be read" in printed
    assert "runs/other/encoder.safetensors, 45 MB, started from random (" in printed and "\n  CPU: " in printed


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [("a-package-nobody-has>=3", "a-package-nobody-has is missing: pip install -e . in the checkout."),
     ("numpy>=999", "is installed, >=999 is needed: pip install -e . in the checkout.")],
)  # fmt: skip
def test_what_is_required_and_missing_is_an_error(examined, requirement, problem):
    code, printed, errors = examined([*REQUIRES, requirement])
    assert code == 1 and errors.startswith("error: ") and errors.endswith(problem + "\n")
    assert "required packages" in printed


def test_two_packages_that_overwrite_each_other_are_an_error(examined, monkeypatch):
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.14" if name.startswith("faiss") else version(name))
    code, _, errors = examined(REQUIRES)
    assert code == 1 and "overwrite each other" in errors


def test_without_an_installation_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["heldout doctor"])
    monkeypatch.setattr(doctor, "PROJECT", "a-package-nobody-has")
    assert doctor.main() == 1
    errors = capsys.readouterr().err
    assert errors == "error: a-package-nobody-has is not installed here: pip install -e . in the checkout.\n"

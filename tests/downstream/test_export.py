"""The command: an engine where trtexec is, and a sentence for each mistake."""

import sys

import pytest
from fitted_models import run_export

from downstream.export import normals_of
from downstream.exporting.config import Config
from downstream.inspection.inspector import Inspector


def test_an_engine_is_made_by_trtexec_or_the_command_is_said(
    nut_converted, padim_folder, tmp_path, monkeypatch, capsys
):
    """TensorRT itself is on no machine of ours: this tests what trtexec is called with."""
    out = tmp_path / "nut.engine"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert run_export(padim_folder, "--to", "tensorrt", "--out", out) == 2
    words = capsys.readouterr().err
    assert "no trtexec" in words and "--maxShapes=images:16x64x64x3" in words
    assert out.with_suffix(".onnx").is_file() and not out.exists()
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    written = "open(sys.argv[2].removeprefix('--saveEngine='), 'w').write(' '.join(sys.argv[1:]))"
    program.write_text(f"#!{sys.executable}\nimport sys\n{written}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert run_export(padim_folder, "--to", "tensorrt", "--out", out) == 2  # the ONNX file is there
    assert "is there already" in capsys.readouterr().err
    assert run_export(padim_folder, "--to", "tensorrt", "--out", out, "--overwrite") == 0
    said = out.read_text()
    assert said.startswith(f"--onnx={out.with_suffix('.onnx')} --saveEngine=")
    program.write_text(
        f"#!{sys.executable}\nimport sys\nopen(sys.argv[2].split('=')[1], 'w').write('half')\nsys.exit(1)\n"
    )
    assert run_export(padim_folder, "--to", "tensorrt", "--out", out, "--overwrite") == 2
    assert out.read_text() == said and "exit code 1" in capsys.readouterr().err, "the engine that was there stays"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name one model"),
        (("nowhere",), "there is no model in nowhere"),
        (("MODEL", "--to", "onxx"), "must be one of"),
        (("MODEL", "--out", "x.bin"), "must end in .onnx"),
        (("FILE",), "is a file"),
        (("MODEL", "--to", "onnx"), "is there already"),
        (("MODEL", "--out", "y.onnx", "--data", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, padim_folder, onnx_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": padim_folder, "FILE": onnx_file}
    try:
        code = run_export(*(places.get(word, word) for word in arguments))
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_normals_of_a_model_are_those_whose_pixels_it_names(padim_folder, demo_folder):
    """One that left out outliers was fitted to others than a draw would give."""
    model = Inspector.load(padim_folder)
    config = Config(model=padim_folder, data=demo_folder, category="hazelnut")
    drawn = normals_of(model, config)
    kept = drawn.subset([i for i in range(len(drawn)) if i not in (2, 5)])
    model.metadata["learned_from"] = [entry.digest.hex() for entry in kept.entries]
    model.method.pooled_ = model.method.pooled_[: len(kept)]
    assert normals_of(model, config).records == kept.records

"""Every command that computes says where: --device, one way of choosing it, and one sentence where there is no GPU."""

from dataclasses import fields

import pytest
import torch
from fitted_models import run_area, run_detect, run_export

from baselines import autoencoder, sadnet, vgg_cam
from baselines.autoencoders.config import Config as AutoEncoderConfig
from baselines.cam import config as cam
from baselines.restoration import config as sadnet_config
from downstream import evaluate, restore, serve
from downstream.exporting.config import Config as Export
from downstream.inspection import config as inspection
from downstream.methods import exported
from downstream.restoration import config as restoration
from downstream.service.config import Config as Serve
from downstream.study.config import Evaluate
from embeddings import config as embeddings
from embeddings import duplicates, extract, image_map, knn, outliers, search
from pretrain import simclr
from pretrain.command import run_command
from pretrain.config import Config as SimClr

CONFIGS = (
    *(SimClr, AutoEncoderConfig, Evaluate, Serve, Export, cam.Train, cam.Test),
    *(embeddings.Extract, embeddings.Search, embeddings.Duplicates, embeddings.Outliers, embeddings.Knn),
    *(embeddings.ImageMap, sadnet_config.Train, sadnet_config.Evaluate, sadnet_config.Restore, restoration.Train),
    *(restoration.Evaluate, restoration.Restore, restoration.RestorationStudy, inspection.Fit, inspection.Run),
    *(inspection.AreaFinetune, inspection.AreaValidate, inspection.AreaTest),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.__module__}.{config.__name__}")
def test_commands_that_compute_have_the_option(config):
    (device,) = (field for field in fields(config) if field.name == "device")
    assert device.default == "auto"


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def asked_of(main, config, *arguments) -> int:
    return run_command(main, config, [*map(str, arguments), "--device", "cuda"])


def test_a_gpu_that_is_not_there_is_one_sentence(no_gpu, demo_folder, encoder_file, padim_folder, tmp_path, capsys):
    data, out = ("--data", demo_folder), ("--out", tmp_path / "out")
    image = next((demo_folder / "hazelnut/test/good").iterdir())
    known = (*data, "--encoder", encoder_file)
    attempts = {
        "simclr": lambda: asked_of(simclr.main, SimClr, *data, *out),
        "extract": lambda: asked_of(extract.main, embeddings.Extract, *known, *out),
        "knn": lambda: asked_of(knn.main, embeddings.Knn, *known),
        "autoencoder": lambda: asked_of(autoencoder.main, AutoEncoderConfig, *data, *out),
        "vgg_cam": lambda: asked_of(vgg_cam.train, cam.Train, *data, *out, "--weights", "random", "--width", "0.1"),
        "sadnet": lambda: asked_of(sadnet.train, sadnet_config.Train, *data, *out),
        "restore": lambda: asked_of(restore.train, restoration.Train, *known, *out),
        "evaluate": lambda: asked_of(evaluate.main, Evaluate, *known, *out, "--methods", "mean",
                                     "--train", "hazelnut,leather", "--test", "bottle"),
        "serve": lambda: asked_of(serve.main, Serve, "--models", padim_folder, "--port", "0",
                                  "--results", tmp_path / "results.sqlite"),
        "detect fit": lambda: run_detect("fit", *data, "--category", "hazelnut", *out, "--device", "cuda"),
        "detect run": lambda: run_detect("run", image, "--model", padim_folder, *out, "--device", "cuda"),
        "area": lambda: run_area("test", "--model", padim_folder, *data, *out, "--device", "cuda"),
    }  # fmt: skip
    for name, attempt in attempts.items():
        assert attempt() == 2, name
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: torch finds no CUDA device here; use --device cpu"), (name, last)


@pytest.mark.parametrize("command", [search, duplicates, outliers, image_map], ids=lambda module: module.__name__)
def test_what_extracts_vectors_on_the_way_says_it_too(command, no_gpu, demo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {search: embeddings.Search, duplicates: embeddings.Duplicates, outliers: embeddings.Outliers,
               image_map: embeddings.ImageMap}[command]  # fmt: skip
    image = [next((demo_folder / "hazelnut/test/good").iterdir())] if command is search else []
    assert asked_of(command.main, options, *image, "--data", demo_folder, "--encoder", "random") == 2
    assert "torch finds no CUDA device here" in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_exported_file_asks_onnxruntime_for_the_gpu(onnx_file, padim_folder, nut_converted, tmp_path, capsys):
    """With the build for CPUs, auto is the CPU and cuda one sentence."""
    model = exported.Exported(onnx_file, device="auto")
    assert model.device == "cpu" and model.to("cpu") is model
    assert run_detect("run", onnx_file.parent, "--model", onnx_file, "--device", "cuda") == 2
    assert "onnxruntime has no CUDA here" in capsys.readouterr().err
    assert run_detect("run", onnx_file.parent, "--model", onnx_file, "--runtime", "onnxruntime-gpu") == 2
    assert "onnxruntime has no CUDA here" in capsys.readouterr().err
    assert run_export(padim_folder, "--out", tmp_path / "a.onnx", "--device", "cuda") == 2
    assert "pip install onnxruntime-gpu" in capsys.readouterr().err and not list(tmp_path.iterdir())


TRAININGS = {
    "autoencoder": (autoencoder.main, AutoEncoderConfig, "--model ae --size 32 --width 4 --category leather"),
    "vgg_cam": (vgg_cam.train, cam.Train, "--train hazelnut,leather --weights random --width 0.0625 --size-px 32"),
    "restore": (restore.train, restoration.Train, "--train leather --steps 2 --input-size 32 --crop-px 32 --blocks 1"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_that_a_gpu_cannot_hold_says_which_batch_would_fit(
    name, demo_folder, encoder_file, tmp_path, monkeypatch, capsys
):
    main, config, options = TRAININGS[name]
    asked, sizes, backward = [], [], torch.Tensor.backward

    def full_at_first(loss: torch.Tensor) -> None:
        if not asked:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(1)
        backward(loss)

    def largest(train_some, device, batch) -> int:
        asked.append(batch)
        train_some(2)
        return 3

    monkeypatch.setattr(torch.Tensor, "backward", full_at_first)
    monkeypatch.setattr("pretrain.training.memory.largest_batch", largest)
    words = ["--data", demo_folder, *options.split(), "--batch-size", 8, "--device", "cpu", "--out", tmp_path / "out"]
    words += ["--encoder", encoder_file] if name == "restore" else []
    assert run_command(main, config, [*map(str, words)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: 8 images of 32 px do not fit into the GPU's memory: --batch-size 3 would, with")
    assert asked == [8] and sizes == [1]  # one step was tried, of two

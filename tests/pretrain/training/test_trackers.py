"""Trackers: what they are told is what metrics.jsonl has, and none of them stops or holds up a training."""

import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from pretrain.command import Names, UserError
from pretrain.training import trackers
from pretrain.training.run import Run


@dataclass(frozen=True)
class Options:
    track: Names
    rate: float = 0.1


def train(folder: Path, steps: range, is_finished: bool = True, track: str = "tensorboard") -> None:
    run = Run(folder)
    with run.held(Options(Names(track))):
        run.forget_figures_from(steps[0])
        for step in steps:
            run.log(step, loss=1 / (1 + step), auroc=None)
        if is_finished:
            Image.new("RGB", (8, 6), (255, 0, 0)).save(folder / "curves.png")
            (folder / "model").mkdir()
            (folder / "model" / "encoder.safetensors").write_bytes(b"weights")
            (folder / "somebody else's").mkdir()
            Image.new("RGB", (2, 2)).save(folder / "somebody else's" / "drawing.png")
            run.finish("model", "curves.png", "samples.png")


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_tensorboard_has_figures_options_and_pictures(tmp_path):
    train(tmp_path, range(5))
    found = events(tmp_path)
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in Run(tmp_path).metrics()]
    assert found.Tags()["scalars"] == ["loss"], "what is none is no figure"
    assert found.Tags()["images"] == ["curves"], "only what is the run's"
    (picture,) = found.Images("curves")
    assert (picture.step, picture.width, picture.height) == (4, 8, 6)
    (table,) = found.Tensors("options/text_summary")
    assert b"| rate | 0.1 |" in table.tensor_proto.string_val[0]


@pytest.mark.parametrize("checkpoint", [0, 3])
def test_steps_taken_again_count_once(checkpoint, tmp_path):
    train(tmp_path, range(6), is_finished=False)  # killed
    train(tmp_path, range(checkpoint, 8))
    assert [event.step for event in events(tmp_path).Scalars("loss")] == list(range(8))


def test_who_was_told_nothing_made_nothing(tmp_path):
    with Run(tmp_path).held(Options(Names("tensorboard"))):
        pass
    assert not (tmp_path / "tensorboard").exists()


def test_who_follows_is_no_option_of_the_training(tmp_path):
    train(tmp_path, range(3), is_finished=False)
    train(tmp_path, range(3, 5), track="")
    assert len(Run(tmp_path).metrics()) == 5 and "track" not in Run(tmp_path).config()


class Broken(trackers.TensorBoard):
    def figures(self, step, figures):
        if step == 2:
            raise ConnectionError("http://ann:secret@server is\n away")
        super().figures(step, figures)


def test_a_tracker_that_fails_is_told_no_more_and_the_training_ends_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", (Broken, "tensorboard"))
    train(tmp_path, range(5))
    assert Run(tmp_path).is_finished and len(Run(tmp_path).metrics()) == 5
    said = capsys.readouterr().err
    assert said.startswith("tensorboard follows no more (http://server is away);")
    assert said.count("\n") == 1


class Hanging(trackers.TensorBoard):
    def figures(self, step, figures):
        time.sleep(60)


def test_a_tracker_that_hangs_holds_nothing_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", (Hanging, "tensorboard"))
    monkeypatch.setattr(trackers, "SECONDS_TO_END", 0.05)
    start_s = time.monotonic()
    train(tmp_path, range(5))
    assert time.monotonic() - start_s < 30 and Run(tmp_path).is_finished
    assert "did not take all within" in capsys.readouterr().err


def test_what_cannot_follow_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="did you mean tensorboard"):
        train(tmp_path / "a", range(3), track="tensorbord")
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--track mlflow .* pip install 'heldout\[mlflow\]'"):
        train(tmp_path / "b", range(3), track="mlflow")
    assert not (tmp_path / "a" / "metrics.jsonl").exists() and not (tmp_path / "b" / "metrics.jsonl").exists()


NO_SERVER = find_spec("flask") is None or find_spec("mlflow") is None


@pytest.mark.slow
@pytest.mark.skipif(NO_SERVER, reason="needs mlflow with its server: pip install mlflow")
def test_a_real_mlflow_server_has_it_all_and_may_go_away(tmp_path, monkeypatch, capsys):
    port, store = 5391, f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--artifacts-destination",
               str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(3000):  # it takes half a minute, and a busy machine minutes
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        train(tmp_path / "bolt", range(6), is_finished=False, track="mlflow")
        train(tmp_path / "bolt", range(3, 8), track="mlflow")
        from mlflow import MlflowClient

        client = MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("heldout").experiment_id])
        assert run.info.status == "FINISHED" and run.info.run_name == "bolt" and run.data.params["rate"] == "0.1"
        assert {metric.step for metric in client.get_metric_history(run.info.run_id, "loss")} == set(range(8))
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "config.yaml",
            "curves.png",
            "metrics.jsonl",
            "model",
        }
        assert [file.path for file in client.list_artifacts(run.info.run_id, "model")] == ["model/encoder.safetensors"]
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    train(tmp_path / "nut", range(3), track="mlflow")
    assert Run(tmp_path / "nut").is_finished and "mlflow follows no more" in capsys.readouterr().err

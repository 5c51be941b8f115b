"""Trackers: what they are told is what metrics.jsonl has, and none of them stops or holds up a training."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from event_files import events
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


def test_tensorboard_has_figures_options_and_pictures(tmp_path):
    train(tmp_path, range(5))
    found = events(tmp_path / "tensorboard")
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
    assert [event.step for event in events(tmp_path / "tensorboard").Scalars("loss")] == list(range(8))


def test_who_was_told_nothing_made_nothing(tmp_path):
    with Run(tmp_path).held(Options(Names("tensorboard"))):
        pass
    assert not (tmp_path / "tensorboard").exists()


def test_who_follows_is_no_option_of_the_training(tmp_path):
    train(tmp_path, range(3), is_finished=False)
    train(tmp_path, range(3, 5), track="")
    assert len(Run(tmp_path).metrics()) == 5 and "track" not in Run(tmp_path).config()


class Broken(trackers.TensorBoard):
    def figures(self, step, figures, part=""):
        if step == 2:
            raise ConnectionError("http://ann:secret@server is\n away")
        super().figures(step, figures, part)


def test_a_tracker_that_fails_is_told_no_more_and_the_training_ends_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", (Broken, "tensorboard"))
    train(tmp_path, range(5))
    assert Run(tmp_path).is_finished and len(Run(tmp_path).metrics()) == 5
    said = capsys.readouterr().err
    assert said.startswith("tensorboard follows no more (http://server is away);")
    assert said.count("\n") == 1


class Hanging(trackers.TensorBoard):
    def figures(self, step, figures, part=""):
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
    with pytest.raises(UserError, match=r"--track mlflow .* pip install -e '\.\[mlflow\]' in the checkout"):
        train(tmp_path / "b", range(3), track="mlflow")
    assert not (tmp_path / "a" / "metrics.jsonl").exists() and not (tmp_path / "b" / "metrics.jsonl").exists()


def test_parts_have_figures_and_options_of_their_own(tmp_path):
    told = trackers.Trackers(["tensorboard"], tmp_path, {"seeds": "0,1"})
    told.part("padim", {"dimensions": 50})
    told.figures(1, {"auroc": 0.75, "none": None}, "padim")
    told.end("FINISHED")
    found = events(tmp_path / "tensorboard" / "padim")
    assert [(event.step, event.value) for event in found.Scalars("auroc")] == [(1, 0.75)]
    assert found.Tags()["scalars"] == ["auroc"]
    (table,) = found.Tensors("options/text_summary")
    assert b"| dimensions | 50 |" in table.tensor_proto.string_val[0]


def check_resumed_training(folder: Path, client) -> None:
    """Train, be killed, resume, and read all of it back."""
    train(folder / "bolt", range(6), is_finished=False, track="mlflow")
    experiment = client.get_experiment_by_name("heldout").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "KILLED"
    train(folder / "bolt", range(3, 8), track="mlflow")
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED" and run.info.run_name == "bolt" and run.data.params["rate"] == "0.1"
    assert {metric.step for metric in client.get_metric_history(run.info.run_id, "loss")} == set(range(8))
    assert {*run.data.metrics} == {"loss"}, "what is none is no figure"
    files = {"config.yaml", "curves.png", "metrics.jsonl", "model"}
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == files
    assert [file.path for file in client.list_artifacts(run.info.run_id, "model")] == ["model/encoder.safetensors"]


# A quote in a name is none of the question that finds it.
PART = "padim of Ann's"


def check_parts(folder: Path, client) -> None:
    """A run with a part, told twice, as by a study that is resumed."""
    for status in ("KILLED", "FAILED"):
        told = trackers.Trackers(["mlflow"], folder / "study", {"seeds": "0,1"})
        told.part(PART, {"dimensions": 50})
        told.figures(1, {"bolt (new)/auroc": 0.5}, PART)
        told.end(status, {PART: "FINISHED"} if status == "FAILED" else {})
    experiment = client.get_experiment_by_name("heldout").experiment_id
    (whole,) = client.search_runs([experiment], "attributes.run_name = 'study'")
    (part,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{whole.info.run_id}'")
    assert (whole.info.status, part.info.status, part.info.run_name) == ("FAILED", "FINISHED", PART)
    assert whole.data.params == {"seeds": "0,1"} and part.data.params == {"dimensions": "50"}
    assert part.data.metrics == {"bolt _new_/auroc": 0.5} and not whole.data.metrics


def test_mlflow_goes_on_in_the_run_of_a_killed_training_and_has_all_of_it(mlflow_files, tmp_path):
    check_resumed_training(tmp_path, mlflow_files)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_mlflow_has_parts_as_child_runs(mlflow_files, tmp_path):
    (tmp_path / "study").mkdir()
    check_parts(tmp_path, mlflow_files)


def test_a_server_that_is_away_costs_one_line(mlflow_files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{free_port()}")
    train(tmp_path / "nut", range(3), track="mlflow")
    said = capsys.readouterr().err
    assert Run(tmp_path / "nut").is_finished and len(Run(tmp_path / "nut").metrics()) == 3
    assert said.startswith("mlflow follows no more (") and "secret" not in said
    assert said.count("\n") == 1 and said.endswith("; nothing else depends on it.\n")


def free_port() -> int:
    """On which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("flask") is None, reason="needs mlflow with its server: pip install mlflow")
def test_a_real_mlflow_server_has_it_all_and_may_go_away(mlflow_files, tmp_path, monkeypatch, capsys):
    port, store = free_port(), f"sqlite:///{tmp_path}/mlflow.db"
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
        from mlflow import MlflowClient

        (tmp_path / "study").mkdir()
        check_resumed_training(tmp_path, client := MlflowClient())
        check_parts(tmp_path, client)
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    train(tmp_path / "nut", range(3), track="mlflow")
    assert Run(tmp_path / "nut").is_finished and "mlflow follows no more" in capsys.readouterr().err

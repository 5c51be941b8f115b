"""VGG16-CAM: torchvision's network, the frozen layers' cache, resuming, and both commands as their users meet them."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from torch.nn import functional as F

from baselines import vgg_cam
from baselines.cam import network as vgg_network
from baselines.cam.frozen_features import FrozenFeatures
from baselines.cam.method import VggCam
from baselines.cam.network import FROZEN, VggNetwork, make_network
from baselines.cam.report import probability
from baselines.cam.training import Recipe, Training
from baselines.contract.method import Samples
from baselines.contract.split import Split
from downstream.detect import Fit, Run, fit, run
from pretrain.command import UserError, run_commands
from pretrain.data.dataset import load
from pretrain.files import read_tensors

COMMANDS = {"train": (vgg_cam.train, vgg_cam.Train), "test": (vgg_cam.test, vgg_cam.Test)}
TINY = ("--weights", "random", "--width", "0.0625", "--size-px", "32", "--batch-size", "8", "--learning-rate", "1e-3")
SMALL = {"width": 1 / 16, "train_batch": 8, "epochs": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def samples(demo_folder) -> Samples:
    return Samples(load(demo_folder, 32, ("hazelnut", "leather")))


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A file like those of torchvision: convolutions and the classifier of a thousand classes, cut short."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    state = {f"features.{name}": weight for name, weight in make_network(seed=9).features.state_dict().items()}
    torch.save(state | {"classifier.6.bias": torch.zeros(1000)}, path)
    return path


def test_features_are_torchvisions():
    from torchvision.models import vgg16

    theirs, ours = vgg16(weights=None).features[:-1], make_network()
    theirs.load_state_dict(ours.features.state_dict())
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (images - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(ours.late(ours.early(images)), theirs(normalized), rtol=1e-4, atol=1e-5)
    # conv4_3 is number 21: it is the last that is frozen, and 24 is conv5_1.
    assert isinstance(theirs[21], torch.nn.Conv2d) and theirs[21].out_channels == 512
    assert isinstance(theirs[FROZEN], torch.nn.Conv2d) and len(theirs) == len(ours.features) == 30


def test_head_is_pooling_by_two_then_by_seven():
    network = make_network(width=1 / 16)
    late = torch.rand(3, 32, 14, 14)
    pooled = F.avg_pool2d(F.max_pool2d(late, 2), 7).flatten(1)
    torch.testing.assert_close(network.logits(late), network.classifier(pooled))


def test_map_is_the_weighted_sum_of_channels():
    network = make_network(width=1 / 16)
    late = torch.rand(2, 32, 3, 4)
    expected = torch.zeros(2, 3, 4)
    for k in range(32):
        expected += network.classifier.weight[1, k] * late[:, k]
    torch.testing.assert_close(network.activation_maps(late), expected)


def test_pretrained_layers_are_frozen_and_random_ones_are_not(weights_file):
    network = make_network(str(weights_file))
    trained = [name for name, weights in network.named_parameters() if weights.requires_grad]
    assert trained == [f"{part}.{kind}" for part in ("features.24", "features.26", "features.28", "classifier")
                       for kind in ("weight", "bias")]  # fmt: skip
    assert torch.equal(network.features[0].weight, make_network(seed=9).features[0].weight)
    assert all(weights.requires_grad for weights in make_network().parameters())


def test_weights_that_cannot_be_had_are_mistakes(tmp_path, weights_file, monkeypatch):
    with pytest.raises(UserError, match="no file"):
        make_network(str(tmp_path / "none.pth"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold a VGG16"):
        make_network(str(tmp_path / "other.pth"))
    (tmp_path / "bytes.pth").write_bytes(b"no weights at all")
    with pytest.raises(UserError, match="damaged"):
        make_network(str(tmp_path / "bytes.pth"))
    with pytest.raises(UserError, match="width 1"):
        make_network(str(weights_file), width=0.5)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    assert not vgg_network.has_imagenet_weights()
    with pytest.raises(UserError, match="offline.*elsewhere.*weights random"):
        make_network("imagenet")


def test_cached_training_is_the_plain_one(samples, weights_file):
    """Frozen layers' results from the disk, or computed anew in every step: the same weights in the end."""
    few = [samples[i] for i in range(0, len(samples), 3)]
    options = {"weights": str(weights_file), "train_batch": 8, "epochs": 2, "device": "cpu"}
    plain, ours = (VggCam(cached=cached, **options).fit(few) for cached in (False, True))
    for (name, first), second in zip(
        plain.network_.state_dict().items(), ours.network_.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-6, msg=name)
    early = make_network(str(weights_file)).features[:FROZEN].state_dict()
    assert all(torch.equal(ours.network_.features[:FROZEN].state_dict()[name], early[name]) for name in early)
    start = make_network(str(weights_file)).features[FROZEN].weight
    assert not torch.equal(ours.network_.features[FROZEN].weight, start)


def test_frozen_layers_are_asked_once_for_each_image(tmp_path):
    asked = []

    def early(positions):
        asked.extend(positions)
        return torch.tensor([[[float(p)]] for p in positions])

    known = FrozenFeatures(early, 7, tmp_path / "frozen.f32", batch=3)
    assert known([6, 0, 3]).flatten().tolist() == [6, 0, 3]
    # The first is asked for its shape too, and fills up the last batch.
    assert sorted(set(asked)) == list(range(7)) and len(asked) == 1 + 9
    assert (tmp_path / "frozen.f32").stat().st_size == 7 * 4
    again = FrozenFeatures(early, 7, tmp_path / "frozen.f32", batch=3)
    assert again([5]).item() == 5 and len(asked) == 11
    assert [path.name for path in tmp_path.iterdir()] == ["frozen.f32"]


def test_a_full_disk_is_a_mistake_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="make room"):
        FrozenFeatures(lambda positions: torch.zeros(len(positions), 4), 7, tmp_path / "f", batch=3)
    assert not list(tmp_path.iterdir())


def make_training(recipe: Recipe, validation=(6, 7), images=None) -> Training:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) if images is None else images
    network = make_network(width=1 / 32)
    labels = torch.tensor([0.0, 1, 0, 1, 0, 1, 0, 1])
    parts = Split(list(range(6)), list(validation), labels)
    return Training(network, lambda positions: network.early(images[positions]), parts, recipe)


def test_loss_weighs_anomalies_three_times():
    training = make_training(Recipe(batch=6, epochs=1))
    with torch.no_grad():
        logits = training.network(torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))[:6]
    weights, labels = torch.tensor([1.0, 3, 1, 3, 1, 3]), torch.tensor([0, 1, 0, 1, 0, 1])
    chosen = logits.log_softmax(1)[range(6), labels]
    (step,) = training.walk()
    assert step.loss == pytest.approx(float(-(weights * chosen).sum() / weights.sum()), rel=1e-5)


def test_training_ends_without_a_better_epoch(monkeypatch):
    training = make_training(Recipe(batch=2, epochs=10, patience=2))
    losses = iter([0.5, 0.4, 0.6, 0.45, 0.1])
    monkeypatch.setattr(training, "_validate", lambda: (next(losses), 0.5))
    ends = [step for step in training.walk() if step.epoch]
    assert [step.is_best for step in ends] == [True, True, False, False]
    assert training.state.best_epoch == 1 and training.state.step == 12


def test_training_ends_at_the_target_accuracy():
    always = torch.zeros(8, 3, 32, 32)
    training = make_training(Recipe(batch=6, epochs=5, target_accuracy=0.4), images=always)
    assert len(list(training.walk())) == 1  # black images are all called alike: half of them are right


def test_without_held_out_images_the_training_loss_decides():
    training = make_training(Recipe(batch=6, epochs=2), validation=())
    last = list(training.walk())[-1].epoch
    assert last.validation_loss is None and last.validation_accuracy is None
    assert training.state.best_loss <= last.train_loss


def test_a_loss_that_is_no_number_is_a_mistake():
    images = torch.full((8, 3, 32, 32), torch.inf)
    with pytest.raises(UserError, match="learning rate"):
        list(make_training(Recipe(batch=6), images=images).walk())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"target_accuracy": 98.0}])
def test_values_that_teach_nothing_are_mistakes(wrong):
    with pytest.raises(UserError):
        make_training(Recipe(**wrong))


def test_scores_are_probabilities_that_do_not_saturate():
    method = VggCam(device="cpu")
    method.network_, method.normal_scores_ = VggNetwork(1 / 32).eval(), torch.zeros(0)
    scores = []
    for logit in (-80.0, 0.0, 80.0, 81.0):
        torch.nn.init.zeros_(method.network_.classifier.weight)
        method.network_.classifier.bias.data = torch.tensor([0.0, logit])
        (found,) = method.predict([torch.rand(3, 32, 32)])
        scores.append(found.scores.item())
    assert scores[0] > 0 and scores == sorted(set(scores)) and scores[3] - scores[2] == pytest.approx(1)
    assert [round(probability(score), 3) for score in scores[:3]] == [0.0, 0.5, 1.0]


def test_other_sizes_and_too_small_ones(samples):
    method = VggCam(input_px=32, **SMALL).fit(samples)
    ((scores, maps),) = method.predict([torch.rand(3, 50, 70)])
    assert maps.shape == (1, 50, 70) and scores.isfinite().all()
    with pytest.raises(UserError, match="too small"):
        list(VggCam(**SMALL).fit(samples).predict([torch.rand(3, 31, 70)]))
    with pytest.raises(UserError, match="no good ones or no defective"):
        VggCam(**SMALL).fit([sample for sample in (samples[i] for i in range(len(samples))) if not sample.label])


# The commands.


def vgg(*arguments: object) -> int:
    return run_commands(COMMANDS, list(map(str, arguments)))


@pytest.fixture(scope="module")
def trained(demo_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vgg"
    options = ("--data", demo_folder, "--train", "hazelnut,leather", "--epochs", 3, *TINY)
    assert vgg("train", *options, "--out", out) == 0
    return out


def test_train_leaves_a_run_folder(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "curves.png", "model", "calibration.json", "finished"} <= names
    assert not names & {"checkpoint.safetensors", "best.safetensors"} and not list(trained.glob("frozen*"))
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    ends = [line for line in lines if "epoch" in line]
    assert [line["step"] for line in lines] == list(range(len(lines))) and [e["epoch"] for e in ends] == [0, 1, 2]
    best = min(ends, key=lambda line: line["validation_loss"])["epoch"]
    assert json.loads((trained / "calibration.json").read_text())["best_epoch"] == best


def test_test_prints_both_readings_and_leaves_images(trained, demo_folder, capsys, tmp_path):
    done = vgg("test", "--data", demo_folder, "--test", "bottle", "--model", trained, "--out", tmp_path)
    assert done == 0
    printed = capsys.readouterr().out
    assert "from scratch" in printed and "demo data" in printed and "always good" in printed
    assert "as published" in printed and "0.702" in printed and "0.893" in printed and "0.409" in printed
    result = json.loads((tmp_path / "results.json").read_text())
    figures = result["figures"]["calibrated"]["all"]
    count = sum(figures[name] for name in ("true_good", "false_alarms", "missed", "found"))
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert count == len(lines) == len(load(demo_folder, 32, ("bottle",)))
    called = sum(line["is_called"] for line in lines)
    assert called == figures["false_alarms"] + figures["found"]
    assert result["always_good"][0]["recall"] == 0 and result["published"][1]["positive"] == "good"
    for name in ("confusion.png", "predictions.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size[0] > 300


def test_test_of_the_test_folders_alone(trained, demo_folder, capsys, tmp_path):
    options = ("--data", demo_folder, "--test", "bottle", "--model", trained, "--out", tmp_path)
    assert vgg("test", *options, "--images", "test") == 0
    tests = [record for record in load(demo_folder, 32, ("bottle",)).records if record.split == "test"]
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == len(tests)


def test_mistakes_of_users_are_one_sentence(trained, demo_folder, capsys, tmp_path):
    wrong = [
        (("test", "--data", demo_folder, "--test", "leather", "--model", trained), "was trained on"),
        (("test", "--data", demo_folder, "--test", "bottel", "--model", trained), "did you mean bottle"),
        (("test", "--data", demo_folder, "--model", tmp_path / "none"), "no finished training"),
        (("train", "--data", tmp_path / "none", "--train", "leather", *TINY), "there is no folder"),
        (("train", "--data", demo_folder, "--train", "bottle", *TINY, "--epochs", 0, "--out", tmp_path / "a"), "above"),
        (("train", "--data", demo_folder, "--train", "bottle", *TINY, "--size-px", 16, "--out", tmp_path / "b"),
         "too small"),
        (("train", "--data", demo_folder, "--train", "bottle", "--weights", "x.pth", "--out", tmp_path / "c"),
         "no file"),
        (("train", "--data", demo_folder, "--train", "hazelnut", *TINY, "--out", trained), "other options"),
    ]  # fmt: skip
    for arguments, words in wrong:
        assert vgg(*arguments) == 2, arguments
        (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
        assert words in line
    assert not any((tmp_path / name).exists() for name in "abc"), "a folder must stay free for the mended command"


@pytest.mark.parametrize("start", ["random", "file"])
def test_killed_and_resumed_is_bit_identical(start, demo_folder, tmp_path, weights_file):
    options = [*TINY, "--epochs", "4", "--checkpoint-minutes", "0"]
    if start == "file":  # a checkpoint is 180 MB then, so there are few steps
        options += ["--weights", str(weights_file), "--width", "1", "--epochs", "3", "--batch-size", "16"]
    base = [sys.executable, REPOSITORY / "baselines/vgg_cam.py", "train", "--data", demo_folder,
            "--train", "hazelnut", *options, "--out"]  # fmt: skip

    def finish(out):
        done = subprocess.run([*map(str, base), str(out)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    finish(tmp_path / "whole")
    killed = tmp_path / "killed"
    running = subprocess.Popen([*map(str, base), str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (killed / "finished").exists()
    assert "going on after step" in finish(killed)
    whole, resumed = (read_tensors(tmp_path / name / "model/method.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()


def test_detect_fits_and_runs_it(demo_folder, tmp_path, capsys):
    commands = {"fit": (fit, Fit), "run": (run, Run)}
    common = ["fit", "--data", demo_folder, "--category", "bottle", "--method", "vgg-cam", "--size-px", "64"]
    options = ["--options", "width=0.0625,epochs=1,train_batch=8", "--out", tmp_path / "model"]
    done = run_commands(commands, [*map(str, [*common, *options, "--train", demo_folder])])
    assert done == 0
    printed = capsys.readouterr().out
    assert "labelled images of hazelnut, leather" in printed
    metadata = json.loads((tmp_path / "model/inspector.json").read_text())
    assert len(metadata["normal_scores"]) == 12 and metadata["map_threshold"]["count"] == 12
    images = demo_folder / "bottle/test/good"
    assert run_commands(commands, ["run", str(images), "--model", str(tmp_path / "model"), "--out",
                                   str(tmp_path / "out")]) in (0, 1)  # fmt: skip
    assert len((tmp_path / "out/results.jsonl").read_text().splitlines()) == 6
    assert run_commands(commands, list(map(str, [*common, *options]))) == 2
    assert "--train" in capsys.readouterr().err

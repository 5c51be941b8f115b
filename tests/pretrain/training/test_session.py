"""One session for every training: it resumes, logs, saves, stops, and says when a loss is no number."""

import math
import signal
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pretrain.command import Stopped, UserError
from pretrain.training.run import Run
from pretrain.training.session import Session, evaluate_every, steps_that_fit, stop_asked

ALONE = SimpleNamespace(world_size=1)


@dataclass
class Best:
    loss: float = math.inf
    epoch: int = 0


@dataclass(frozen=True)
class Options:
    seed: int = 0


class Training:
    """A line through the origin, fitted to noise that is a function of the step."""

    def __init__(self, run: Run | None = None, **options) -> None:
        self.layer = nn.Linear(3, 1, bias=False)
        nn.init.ones_(self.layer.weight)
        self.optimizer = torch.optim.Adam(self.layer.parameters(), 0.1)
        self.best = Best()
        self.session = Session("training", self.layer, self.optimizer, run, state=self.best, **options)

    def step(self, step: int, _: int = 0) -> torch.Tensor:
        rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        loss = (self.layer(rows) - rows.sum(1, keepdim=True) * 2).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def train(self, steps: int = 6, stop_at: int | None = None) -> torch.Tensor:
        with self.session as session:
            session.steps = session.steps or steps
            for step in session:
                loss = self.step(step)
                session.log(loss=loss)
                if loss < self.best.loss:
                    self.best.loss, self.best.epoch = loss.item(), step
                if step == stop_at:
                    signal.raise_signal(signal.SIGTERM)
        return self.layer.weight.detach().clone()


def test_stopped_and_resumed_ends_in_the_very_weights(tmp_path):
    uninterrupted = Training()
    weights = uninterrupted.train()
    run = Run(tmp_path)
    with run.held(Options()):
        with pytest.raises(Stopped, match="stopped after 3 of 6 steps"):
            Training(run).train(stop_at=2)
        resumed = Training(run)
        assert resumed.session.step == 3 and resumed.session.steps == 6
        assert torch.equal(resumed.train(), weights)
    assert resumed.best == uninterrupted.best
    assert [line["step"] for line in run.metrics()] == list(range(6))


def test_a_stop_in_the_last_step_is_no_stop(tmp_path):
    run = Run(tmp_path)
    with run.held(Options()):
        Training(run).train(stop_at=5)
    assert len(run.metrics()) == 6


def test_lines_after_the_last_checkpoint_are_taken_again(tmp_path):
    run = Run(tmp_path)
    with run.held(Options()), pytest.raises(Stopped):
        Training(run).train(stop_at=2)
    run.log(3, loss=9.0)  # a killed process came that far
    with run.held(Options()):
        Training(run).train()
    assert [line["step"] for line in run.metrics()] == list(range(6))
    assert 9.0 not in [line["loss"] for line in run.metrics()]


def test_checkpoints_by_the_clock(tmp_path):
    run = Run(tmp_path)
    with run.held(Options()), Training(run, checkpoint_minutes=0.0).session as session:
        session.steps = 3
        for step in session:
            assert run.checkpoint_file.exists() == (step > 0)


def test_a_training_can_end_early():
    training = Training()
    with training.session as session:
        session.steps = 10
        for step in session:
            training.step(step)
            session.is_over = step == 3
        assert session.step == 4


def test_a_loss_that_is_no_number_is_named_and_the_good_checkpoint_stays(tmp_path):
    run = Run(tmp_path)
    training = Training(run)
    with run.held(Options()), pytest.raises(UserError, match="not a number any more at step 1"), training.session as s:
        s.steps = 3
        for step in s:
            s.log(loss=training.step(step) if step == 0 else math.nan)
            s.save()
            assert run.checkpoint_file.exists()
    stored = run.checkpoint_file.read_bytes()
    with torch.no_grad():
        training.layer.weight.fill_(math.nan)
    training.session.save()
    assert run.checkpoint_file.read_bytes() == stored


def test_a_learning_rate_beyond_float32_is_a_sentence(tmp_path):
    training = Training()
    training.optimizer.param_groups[0]["lr"] = 1e100
    with pytest.raises(UserError, match="not a number any more at step 0: lower the learning rate.$"):
        training.train()


def test_timing_leaves_no_trace():
    training, untouched = Training(), Training()
    with training.session as session:
        assert session.steps_within(1e-9, training.step) == 1
        assert session.steps_within(1.0, training.step) > 100
    assert torch.equal(training.train(), untouched.train())


def test_minutes_pay_for_timing_and_evaluations_too():
    took = []

    def step(number: int, steps: int) -> None:
        took.append("step")
        time.sleep(0.02)

    def evaluate() -> None:
        took.append("evaluation")
        time.sleep(0.1)

    with Training().session as session:
        steps = session.steps_within(0.05, step, evaluate)  # 3 s, of which 0.3 are for timing
    assert took.count("evaluation") == 1 and 2 <= took.count("step") <= 5
    evaluations = 1 + -(-steps // evaluate_every(steps))
    assert 0.02 * (steps + 5) + 0.1 * (evaluations + 1) < 3.0
    assert steps > 20  # 150 alone, less 11 evaluations


def test_of_slow_steps_few_are_timed():
    took = []
    with Training().session as session:
        session.steps_within(0.01, lambda number, steps: took.append(number) or time.sleep(0.06))
    assert took == [0, 3]  # not the first alone, nor one of the beginning


@pytest.mark.parametrize("seconds", [0.0, 7.0, 30.0, 57.0, 300.0])
def test_the_steps_that_fit_are_the_most(seconds):
    def takes(steps: int) -> float:
        return 2.0 * steps + 1.5 * (1 + math.ceil(steps / evaluate_every(steps)))

    steps = steps_that_fit(seconds, 2.0, 1.5)
    assert steps == max([n for n in range(1, 400) if takes(n) <= seconds], default=1)


def test_without_a_run_only_progress_is_shown(capsys):
    training = Training()
    training.train()
    assert "training: 6/6 steps" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ctrl_c_stops(number):
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), stop_asked(ALONE) as is_stop_asked:
        assert not is_stop_asked()
        signal.raise_signal(number)
        assert is_stop_asked() and is_stop_asked()
        signal.raise_signal(signal.SIGTERM)  # torchrun passes it on to those that stop already
        assert is_stop_asked()
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second Ctrl-C was ignored")
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before
    with stop_asked(ALONE) as is_stop_asked:  # what was asked before is over
        assert not is_stop_asked()
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("others", [0.0, 1.0])
def test_one_rank_that_is_asked_stops_all(others):
    """The other rank's share is added by a stand-in for Fabric."""
    fabric = SimpleNamespace(world_size=2, all_reduce=lambda asked, reduce_op: {"sum": asked + others}[reduce_op])
    with stop_asked(fabric) as is_stop_asked:
        assert is_stop_asked() == (others > 0)
        signal.raise_signal(signal.SIGTERM)
        assert is_stop_asked() is True

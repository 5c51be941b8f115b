"""demo.sh: its commands are those of today, and each takes what the one before it left."""

import re
import shlex
from pathlib import Path

from conftest import REPOSITORY

from downstream.evaluate import restoration_study
from downstream.inspection.config import Fit, Run
from downstream.study.config import Evaluate
from pretrain.command import read_config
from pretrain.config import HELD_OUT_BY_DEFAULT, Config, Demo, Survey

CONFIGS = {
    "pretrain/demo.py": Demo, "pretrain/survey.py": Survey, "pretrain/simclr.py": Config,
    "downstream/evaluate.py": Evaluate, "downstream/detect.py fit": Fit, "downstream/detect.py run": Run,
}  # fmt: skip


def commands() -> dict[str, object]:
    """What demo.sh runs, and its options as they are read."""
    script = (REPOSITORY / "scripts/demo.sh").read_text()
    (encoder,) = re.findall("^encoder=(.*)$", script, re.MULTILINE)
    lines = re.findall(r"^python (.*?)(?: \|\| .*)?$", script, re.MULTILINE)
    found = {}
    for line in lines:
        name = next(name for name in CONFIGS if line.startswith(name + " "))
        found[name] = read_config(CONFIGS[name], shlex.split(line.replace("$encoder", encoder).removeprefix(name)))
    return found


def test_each_command_takes_what_the_one_before_it_left():
    ran = commands()
    assert list(ran) == list(CONFIGS)
    pretraining, study, fit = ran["pretrain/simclr.py"], ran["downstream/evaluate.py"], ran["downstream/detect.py fit"]
    assert ran["pretrain/demo.py"].out == ran["pretrain/survey.py"].data == pretraining.data == study.data
    assert fit.data.parent == study.data and fit.data.name in pretraining.hold_out == HELD_OUT_BY_DEFAULT
    assert list(map(Path, study.encoder)) == [pretraining.out / "encoder.safetensors"]
    assert fit.encoder is None  # ImageNet's weights
    assert ran["downstream/detect.py run"].model == fit.out and ran["downstream/detect.py run"].images == (fit.data,)
    assert study.quick and restoration_study(study).rows == ("sadnet", "simclr")

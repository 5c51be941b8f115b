"""Small models, one for each kind of statistics, made and exported by the commands: for the tests of exported files."""

from pathlib import Path

from downstream import area, detect, export
from downstream.exporting.config import Config
from downstream.inspection.config import AreaFinetune, AreaTest, AreaValidate, Fit, Run, Triage
from downstream.inspection.fitting import fit
from downstream.inspection.triage import triage
from downstream.learning import learn, switch
from downstream.learning.config import Learn, Promote, RollBack, Versions
from pretrain.command import run_command, run_commands

SIZE_PX = 64
PATCHCORE = "grid=8,dimensions=16,coreset_ratio=0.2"
# Random weights with which something is found.
RESNET = "encoder=random,architecture=resnet18,"
# A network of a moment: where nothing is to be found, half of a test's time is to make, write and run a ResNet-18.
TINY = "encoder=random,architecture=timm/test_resnet,"
# One line for each kind of statistics, with what is special in its graph.
MODELS = {
    "padim": ("padim", RESNET + "dimensions=24,grid=8"),
    "every channel, background": (
        "padim",
        TINY + "dimensions=null,grid=4,neighborhood=1,levels=[level2],foreground=0.5,image_weight=0.5",
    ),
    "mixed channels": ("padim", TINY + "dimensions=7,grid=8,reduction=orthogonal,variance_weight=0.0"),
    "fused": ("fused", RESNET + PATCHCORE),
    "patchcore": ("patchcore", TINY + PATCHCORE),
    "several scales": ("patchcore", TINY + PATCHCORE + ",image_weight=0.5"),
    "patchcore, several neighbors": ("patchcore", TINY + PATCHCORE + ",num_neighbors=3,image_weight=1.0"),
}

# Of a moment, and not among those that are exported: the tests of learning make it ten times.
LEARNING = {"fused, tiny": ("fused", TINY + PATCHCORE)}


SMALL = ("--size-px", SIZE_PX, "--encoder", "random", "--options", TINY + "dimensions=24,grid=8,neighborhood=1")


def run_export(*arguments: object) -> int:
    return run_command(export.main, Config, list(map(str, arguments)))


def run_detect(*arguments: object) -> int:
    commands = {"fit": (fit, Fit), "run": (detect.run, Run), "triage": (triage, Triage), "learn": (learn.main, Learn)}
    commands |= {"promote": (switch.promote, Promote), "roll-back": (switch.roll_back, RollBack)}
    commands |= {"versions": (switch.versions, Versions)}
    return run_commands(commands, list(map(str, arguments)))


def run_area(*arguments: object) -> int:
    """area.py's commands, and detect.py's."""
    commands = {"finetune": (area.finetune, AreaFinetune), "validate": (area.validate, AreaValidate)}
    commands |= {"test": (area.test, AreaTest), "fit": (fit, Fit), "run": (detect.run, Run)}
    return run_commands(commands, list(map(str, arguments)))


def fitted(folder: Path, data: Path, name: str = "padim", *more: object) -> Path:
    method, options = (MODELS | LEARNING)[name]
    small = ("--size-px", SIZE_PX, "--encoder", "random", "--options", options)
    small += ("--scales", "0.5,1") if name == "several scales" else ()
    arguments = ("--data", data, "--category", "hazelnut", "--method", method, "--out", folder)
    assert run_detect("fit", *arguments, *small, *more) == 0
    return folder

"""Small models, one for each kind of statistics, made and exported by the commands: for the tests of exported files."""

from pathlib import Path

from downstream import detect, export
from pretrain.command import run_command, run_commands

SIZE_PX = 64
BANK = "grid=8,dimensions=16,share=0.2"
# One line for each kind of statistics, with what is special in its graph.
MODELS = {
    "padim": ("padim", "dimensions=24,grid=8"),
    "every channel, background": (
        "padim",
        "dimensions=null,grid=4,neighborhood=1,levels=[level2],foreground=0.5,whole=0.5",
    ),
    "mixed channels": ("padim", "dimensions=7,grid=8,reduction=orthogonal,quiet=0.0"),
    "bank": ("bank", BANK),
    "bank, several neighbors": ("bank", BANK + ",neighbors=3,whiten=true,whole=1.0"),
}


def run_export(*arguments: object) -> int:
    return run_command(export.main, export.Config, list(map(str, arguments)))


def run_detect(*arguments: object) -> int:
    return run_commands({"fit": (detect.fit, detect.Fit), "run": (detect.run, detect.Run)}, list(map(str, arguments)))


def fitted(folder: Path, data: Path, name: str = "padim", *more: object) -> Path:
    method, options = MODELS[name]
    small = ("--size-px", SIZE_PX, "--encoder", "random", "--options", options)
    arguments = ("--data", data, "--category", "hazelnut", "--method", method, "--out", folder)
    assert run_detect("fit", *arguments, *small, *more) == 0
    return folder

"""The catalogue: every method that can be named, in one table. To add one: write its file, and add its entry here.

Classes stand here by their dotted path and are imported when they are asked for: what runs an exported model needs no
torch, and a command that is asked for help needs no method at all.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING

from pretrain.command import UserError, nearest
from pretrain.data.images import check_names

if TYPE_CHECKING:  # importing the contract imports torch, 1.5 s that a run of an exported model does without
    from baselines.contract.method import Method

# The families, in the order in which tables list them. `--quick` takes the first method of each in the table below.
HEADS, CONTROLS = "heads on the encoder", "controls"
PATCHES, REFERENCES = "patch statistics", "references"
CLASS_ACTIVATION, AUTO_ENCODERS = "class activation maps", "auto-encoders"


@dataclass(frozen=True)
class Entry:
    """One method: the name that a user types, its title and family in tables, and its class as a dotted path.

    `quick` are arguments for `--quick`, beside smaller images and fewer seeds; `without_gpu` those of the full study on
    a machine without a GPU, where training as published would take a day. `few_normals` says whether it is worth
    asking with a few normals. `start` is the dotted path of a function
    that chooses arguments by what the machine has: `start(quick) -> dict`. `in_detect` says whether `detect.py` fits
    it; what needs labels alone or shows no product does not help there. `in_study` whether the study compares it,
    `in_ensemble` whether it can look at several scales, or at several channels.
    """

    name: str
    title: str
    family: str
    path: str
    quick: Mapping[str, object] = field(default_factory=dict)
    without_gpu: Mapping[str, object] = field(default_factory=dict)
    few_normals: bool = True
    start: str = ""
    in_detect: bool = True
    in_study: bool = True
    in_ensemble: bool = False

    @property
    def method_class(self) -> "type[Method]":
        return imported(self.path)


# Auto-encoders at the size of --quick, on which an epoch takes seconds.
_SMALL = {"size_px": 64, "width": 16, "instances": 200}
# An auto-encoder of four images reproduces those four, and a covariance of four is mostly shrinkage.
_MANY = {"few_normals": False}
_SMALL_CAM = {"epochs": 3, "width": 0.25, "input_px": 64, "learning_rate": 1e-3}
# Larger than the study's images they show no more.
_AS_THEY_ARE = {"input_px": None}
_CAM, _AE = "baselines.cam.", "baselines.autoencoders.method."

METHODS = {
    entry.name: entry
    for entry in (
        Entry("logistic", "logistic head", HEADS, "downstream.methods.heads.LogisticHead", _AS_THEY_ARE,
              in_detect=False),
        Entry("knn", "k-NN head", HEADS, "downstream.methods.heads.KnnHead", _AS_THEY_ARE, in_detect=False),
        Entry("fine-tuned", "fine-tuned encoder", HEADS, "downstream.methods.fine_tuned.FineTuned", {"epochs": 2},
              {"epochs": 2, "input_px": 96}, in_detect=False),
        Entry("fused", "PaDiM and PatchCore fused", PATCHES, "downstream.methods.fused.Fused", in_ensemble=True),
        Entry("padim", "PaDiM", PATCHES, "downstream.methods.padim.PaDiM", {"dimensions": 50}, **_MANY,
              in_ensemble=True),
        Entry("patchcore", "PatchCore", REFERENCES, "downstream.methods.patchcore.PatchCore", in_ensemble=True),
        Entry("ensemble", "several scales", PATCHES, "downstream.methods.ensemble.Ensemble", in_detect=False,
              in_study=False),
        Entry("residual", "residuals", REFERENCES, "downstream.methods.residual.Residual"),
        Entry("vgg-cam", "VGG16-CAM", CLASS_ACTIVATION, _CAM + "method.VggCam", _SMALL_CAM, {"epochs": 5},
              start=_CAM + "network.start_arguments"),
        Entry("cam", "CAM on EfficientNet-Lite0, ImageNet weights", CLASS_ACTIVATION, _CAM + "method.Cam",
              {"epochs": 3, "learning_rate": 1e-3}, {"epochs": 5, "input_px": 160}),
        Entry("ae", "auto-encoder", AUTO_ENCODERS, _AE + "AutoEncoder", _SMALL, _SMALL | {"instances": 400}, **_MANY),
        Entry("vae", "variational auto-encoder", AUTO_ENCODERS, _AE + "VariationalAutoEncoder", _SMALL,
              _SMALL | {"instances": 400}, **_MANY),
        Entry("cae", "convolutional auto-encoder, SSIM", AUTO_ENCODERS, _AE + "ConvolutionalAutoEncoder",
              {"size_px": 64, "instances": 200}, {"size_px": 64, "instances": 250}, **_MANY),
        Entry("mean", "mean image", CONTROLS, "baselines.trivial.MeanImage"),
        Entry("frame", "frame only", CONTROLS, "baselines.trivial.FrameColor", in_detect=False),
    )
}  # fmt: skip


@dataclass(frozen=True)
class ConfiguredMethod:
    """A method of the study: its entry, and `arguments`, those that differ from its defaults."""

    entry: Entry
    arguments: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def title(self) -> str:
        """As the tables have it; that nothing was pretrained, or that images were reduced, is said with it."""
        title = self.entry.title
        if self.arguments.get("weights") == "random":
            title += f", from scratch at {self.arguments['width']:g} of its width"
        size_px = self.arguments.get("input_px") or self.arguments.get("size_px")
        return f"{title}, at {size_px} px" if size_px else title

    @property
    def family(self) -> str:
        return self.entry.family

    @property
    def is_control(self) -> bool:
        return self.family == CONTROLS

    @property
    def sees_normals(self) -> bool:
        return self.entry.method_class.sees_normals

    @property
    def needs_training(self) -> bool:
        """Whether it cannot do without images of other categories."""
        try:
            self.make().fit([])
        except UserError:
            return True
        return not self.sees_normals

    @property
    def takes_encoder(self) -> bool:
        return "encoder" in _parameters(self.entry.method_class)

    @property
    def takes_seed(self) -> bool:
        return "seed" in _parameters(self.entry.method_class)

    def make(self, **more: object) -> "Method":
        """A new one, not fitted; `more` are arguments such as `encoder` and `seed`."""
        return self.entry.method_class(**self.arguments, **more)


def study_methods(names: Sequence[str] = (), quick: bool = False, has_gpu: bool = False) -> list[ConfiguredMethod]:
    """The methods that were asked for, in the order of the catalogue; the controls always, last. Default is all, for a
    quick look the first of each family. Without a GPU what is trained is smaller.

    Raises UserError for a name that is none.
    """
    known = {name: entry for name, entry in METHODS.items() if entry.in_study}
    check_names(names, known, "method")
    names = names or (_first_of_each_family(known) if quick else known)
    chosen = [entry for name, entry in known.items() if name in names]
    chosen += [entry for entry in known.values() if entry.family == CONTROLS and entry not in chosen]
    return [ConfiguredMethod(entry, _arguments(entry, quick, has_gpu)) for entry in chosen]


def at_scales(method: ConfiguredMethod, scales: Sequence[float]) -> ConfiguredMethod:
    """A method that can as one that looks at several scales, under its own name; any other as it is."""
    if not method.entry.in_ensemble or not scales:
        return method
    title = f"{method.entry.title}, at {' and '.join(f'{scale:g}' for scale in scales)} of the size"
    entry = replace(method.entry, title=title, path=METHODS["ensemble"].path)
    return ConfiguredMethod(entry, {"method": method.name, "scales": list(scales), "options": method.arguments})


def _first_of_each_family(known: Mapping[str, Entry]) -> set[str]:
    families = {entry.family: name for name, entry in reversed(known.items())}
    return set(families.values())


def detect_class(name: str) -> "type[Method]":
    """The class of a method that `detect.py` fits. Raises UserError for a name that is none."""
    known = {name: entry for name, entry in METHODS.items() if entry.in_detect}
    if name not in known:
        raise UserError(f"there is no method {name!r}; {nearest(name, known)}")
    return known[name].method_class


def _arguments(entry: Entry, quick: bool, has_gpu: bool) -> dict:
    started = imported(entry.start)(quick) if entry.start else {}
    smaller = {} if has_gpu else entry.without_gpu
    return {**started, **(entry.quick if quick else smaller)}


def _parameters(method_class: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(method_class).parameters


def imported(path: str) -> object:
    """What a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)

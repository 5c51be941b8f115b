"""Who takes part in the study: the methods by family, and what each needs.

A method of `catalogue.py` takes part by its line there. Its family, where it has one, is named in FAMILIES.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module

from downstream.methods.catalogue import METHODS
from pretrain.command import UserError
from pretrain.data.images import check_names

HEADS, CONTROLS, FURTHER = "heads on the encoder", "controls", "further methods"
FAMILIES = {
    HEADS: ("logistic", "knn", "fine-tuned"),
    "patch statistics": ("padim",),
    "references": ("bank", "residual"),
    "VGG16 with class activation maps": ("vgg-cam",),
    "auto-encoders": ("ae", "vae", "cae"),
    CONTROLS: ("mean", "frame"),
}
# Methods that only the study uses.
STUDY_METHODS = {
    "logistic": "downstream.methods.heads.Logistic",
    "knn": "downstream.methods.heads.Neighbors",
    "fine-tuned": "downstream.methods.fine_tuned.FineTuned",
    "frame": "baselines.trivial.FrameColor",
}
TITLES = {
    "padim": "PaDiM",
    "bank": "patch bank",
    "residual": "residuals",
    "logistic": "logistic head",
    "knn": "k-NN head",
    "fine-tuned": "fine-tuned encoder",
    "ae": "auto-encoder",
    "vae": "variational auto-encoder",
    "cae": "convolutional auto-encoder, SSIM",
    "vgg-cam": "VGG16-CAM",
    "mean": "mean image",
    "frame": "frame only",
}
# What --quick lowers, beside sizes and seeds.
QUICK = {
    "padim": {"dimensions": 50},
    "fine-tuned": {"epochs": 2},
    "ae": {"size_px": 64, "width": 16, "instances": 200},
    "vae": {"size_px": 64, "width": 16, "instances": 200},
    "cae": {"size_px": 64, "instances": 200},
    "vgg-cam": {"epochs": 3, "width": 0.25, "input_px": 64, "learning_rate": 1e-3},
}


@dataclass(frozen=True)
class Entrant:
    """A method that takes part. `arguments` are those that differ from its defaults."""

    name: str
    kind: type = field(repr=False)
    arguments: dict = field(default_factory=dict)

    @property
    def title(self) -> str:
        title = TITLES.get(self.name, self.name)
        if self.arguments.get("weights") == "random":
            title += f", from scratch at {self.arguments['width']:g} of its width"
        return title

    @property
    def family(self) -> str:
        return next((family for family, names in FAMILIES.items() if self.name in names), FURTHER)

    @property
    def is_control(self) -> bool:
        return self.family == CONTROLS

    @property
    def sees_normals(self) -> bool:
        return self.kind.sees_normals

    @property
    def needs_training(self) -> bool:
        """Whether it cannot do without images of other categories."""
        try:
            self.kind(**self.arguments).fit([])
        except UserError:
            return True
        return not self.sees_normals

    @property
    def takes_encoder(self) -> bool:
        return "encoder" in inspect.signature(self.kind).parameters

    @property
    def takes_seed(self) -> bool:
        return "seed" in inspect.signature(self.kind).parameters


def entrants(names: Sequence[str] = (), quick: bool = False) -> list[Entrant]:
    """The methods that were asked for, default all that are built, in the order of their families; the controls always.

    Raises UserError for a name that is none.
    """
    places = built()
    check_names(names, places, "method")
    in_order = [name for family in FAMILIES.values() for name in family] + sorted(places)
    asked = [name for name in dict.fromkeys(in_order) if name in places and (not names or name in names)]
    asked += [name for name in FAMILIES[CONTROLS] if name not in asked]
    found = []
    for name in asked:
        module, _, kind = places[name].rpartition(".")
        arguments = start_of(name, quick) | (QUICK.get(name, {}) if quick else {})
        found.append(Entrant(name, getattr(import_module(module), kind), arguments))
    return found


def start_of(name: str, quick: bool) -> dict[str, object]:
    """What a method that brings its own backbone begins with: ImageNet's weights where torch's cache has them. Without,
    nothing is frozen, and the published size would take hours on a processor to learn from a few hundred images."""
    if name != "vgg-cam":
        return {}
    from baselines.cam.network import IMAGENET, RANDOM, has_imagenet_weights

    if has_imagenet_weights() and not quick:
        return {"weights": IMAGENET}
    return {"weights": RANDOM, "width": 0.25, "input_px": 128, "learning_rate": 1e-3}


def built() -> dict[str, str]:
    """Where each method is, by name."""
    return METHODS | STUDY_METHODS

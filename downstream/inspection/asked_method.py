"""The method that `detect.py fit` is asked for: its class, its arguments, the encoder that it sees with."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from baselines.contract.method import Method
from downstream.inspection.config import FitSettings
from downstream.methods.catalogue import detect_class
from downstream.methods.ensemble import Ensemble, shares_of
from embeddings.encoding import choose_encoder
from pretrain.command import UserError, check_type, nearest
from pretrain.demo import is_demo
from pretrain.reading import parse_yaml

# Takes line after line of what there is to say.
Say = Callable[[str], None]


def make_method(settings: FitSettings, data: Path, say: Say, lights: int = 1) -> Method:
    """The method that was asked for, with its options, for images of the folder `data`, of parts of so many lights.
    Raises UserError for options that it does not have."""
    method_class = detect_class(settings.method)
    allowed = inspect.signature(method_class).parameters
    arguments = typed_options(settings.options)
    for name, value in arguments.items():
        if name not in allowed:
            raise UserError(f"{settings.method} has no option {name!r}; {nearest(name, allowed)}")
        check_type(f"{settings.method}'s option {name}", value, allowed[name].annotation)
    if "encoder" in allowed:
        encoder, name = choose_encoder(settings.encoder, settings.seed, is_demo(data))
        say(f"encoder: {name}, {encoder.history}")
        arguments = {"encoder": encoder, **arguments}  # what was typed in --options wins
    if "seed" in allowed:
        arguments = {"seed": settings.seed, **arguments}
    if settings.scales or lights > 1:
        return ensemble_of(settings, arguments, lights)
    return method_class(**arguments)


def typed_options(typed: str | Mapping[str, object]) -> dict[str, object]:
    """A method's arguments, as they are in Python, or typed as NAME=VALUE,NAME=VALUE. Raises UserError for others."""
    if not isinstance(typed, str):
        return dict(typed)
    try:  # as YAML, so that levels=[level2,level3] is a list
        return parse_yaml("{" + typed.replace("=", ": ") + "}")
    except ValueError:
        raise UserError(f"--options {typed} cannot be read: give NAME=VALUE,NAME=VALUE.") from None


def ensemble_of(settings: FitSettings, arguments: dict, lights: int) -> Ensemble:
    """The patch method that was asked for at several scales or in several lights. Raises UserError for one that is
    none."""
    scales = shares_of(settings.scales) if settings.scales else [1.0]
    shared = {name: arguments.pop(name) for name in ("encoder", "architecture", "seed") if name in arguments}
    return Ensemble(method=settings.method, options=arguments, scales=scales, lights=lights, **shared)

"""The card of a repository: what an encoder or a model started from, has seen and can promise, from its own files.

What its owner did not say, a license above all, the card says to be unknown; nothing in it is guessed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from scipy.special import betaincinv

from baselines.contract.threshold import ROUNDING
from downstream.hub.config import Push
from downstream.hub.repository import ENCODER
from downstream.inspection.inspector import Inspector
from pretrain.command import UserError
from pretrain.data.size import named
from pretrain.encoder import Encoder, fingerprint

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{1,60}")
LEVEL = 0.95
# An absolute one, wherever in a text it stands; not what follows the scheme of an address.
PATH = re.compile(r"(?<![\w/:.~])(?:~?/|[A-Za-z]:[\\/])[\w.~][^\s()\"',;]*")
UNKNOWN = "not stated; ask the owner of this repository"


def card(name: str, contents: Encoder | Inspector, encoder: Encoder | None, config: Push) -> str:
    """Markdown with the Hub's metadata before it. `encoder` is the one that a model looks through, if any."""
    if config.license is not None and not LICENSE.fullmatch(config.license):
        raise UserError(f"--license {config.license!r} is no name of a license: give one such as mit or cc-by-4.0.")
    is_model, short = isinstance(contents, Inspector), name.partition("/")[2]
    parts = [
        _metadata(config),
        f"# {short}",
        _what_a_model_is(contents) if is_model else "An image encoder for the inspection of products.",
        f"```bash\nheldout pull {name} --out models/{short}\n{_use(is_model, short)}\n```",
    ]
    if is_model:
        parts += ["## The model", _table(_of_model(contents)), "## What it promises", promise(contents)]
    if encoder is not None:
        parts += ["## What the encoder is and has seen", _table(_of_encoder(encoder)), *_recipe(encoder)]
    licenses = {"weights": config.license or UNKNOWN, "images that it learned from": config.data_license or UNKNOWN}
    if encoder is not None and encoder.started_from and encoder.started_from.name != "random":
        licenses["what it started from"] = f"its publisher's ({_without_paths(encoder.started_from.name)})"
    parts += ["## Licenses", _table(licenses)]
    parts.append(
        "Written by `heldout push` from what stands in the files. `SHA256SUMS` proves them whole; none is a pickle."
    )
    return "\n\n".join(parts) + "\n"


def promise(model: Inspector) -> str:
    """The false alarms to expect, with the number of images and an interval where the threshold is the k-th lowest of n
    scores: a further one is above it with a probability that, over draws of the n, follows Beta(n + 1 - k, k)."""
    if model.zone_rule:
        return _promise_of_zones(model)
    decision, scores = model.decision, np.asarray(model.decision_scores, np.float32)
    said = f"A score above {decision.value:.4g} is defective: {_cell(decision.why)}"
    limit, count = np.float32(decision.value), len(scores)
    if limit not in scores:
        return f"{said}\n\nHow many false alarms that makes has no interval here, and no defect was tried."
    above = int((scores > limit).sum())
    low, high = betaincinv(above + 1, count - above, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (
        f"{said}\n\n{above} of {count} good images, each scored without what was learned from it, were above it. Of "
        f"further ones of the same kind {(above + 1) / (count + 1):.1%} are expected to be ({LEVEL:.0%} interval "
        f"{low:.1%} to {high:.1%}). How many defects it finds was not tried here."
    )


def _promise_of_zones(model: Inspector) -> str:
    """Each zone's threshold comes from the same images, and the worst of several is above more often than any: the sum
    over zones bounds it (Bonferroni), and the images' worst zones, by which all were chosen, say nothing."""
    rule, shares = model.zone_rule, []
    for zone, drawn in zip(rule.zones, model.drawn_roi.zones, strict=True):
        count, rate = zone.threshold.count, zone.threshold.false_alarm_rate
        if (
            drawn.threshold is None
        ):  # n + 1 - k of n + 1 are above the k-th lowest; none where n is too few for the rate
            shares.append(int(rate * (count + 1) + ROUNDING) / (count + 1))
        else:
            shares.append((round(rate * count) + 1) / (count + 1))
    said = [
        "Defective is what is above the threshold of any of its zones:",
        _table({zone.name: f"{zone.threshold.value:.4g}: {zone.threshold.why}" for zone in rule.zones}),
    ]
    if all(shares) and rule.threshold.value >= 1:
        said.append(
            f"Of further good images of the same kind at most {min(1, sum(shares)):.1%} are expected to be above in "
            "one or another, the sum of the zones' own shares; that has no interval. How many defects it finds was not "
            "tried here."
        )
    else:
        said.append("How many false alarms that makes is not known here, and no defect was tried.")
    return "\n\n".join(said)


def local_paths(stored: object) -> Iterator[str]:
    """Texts in a file's header that are paths on the machine where it was made."""
    if isinstance(stored, Mapping):
        stored = list(stored.values())
    if isinstance(stored, list | tuple):
        for value in stored:
            yield from local_paths(value)
    elif isinstance(stored, str):
        yield from PATH.findall(stored)


def _metadata(config: Push) -> str:
    lines = ["---", "library_name: heldout", "tags: [heldout, anomaly-detection, industrial-inspection]"]
    return "\n".join([*lines, *([f"license: {config.license}"] if config.license else []), "---"])


def _what_a_model_is(model: Inspector) -> str:
    return f"Says whether an image of {_cell(model.category)} is defective, and where; for no other product."


def _use(is_model: bool, short: str) -> str:
    if is_model:
        return f"heldout detect run IMAGE_OR_FOLDER --model models/{short}"
    return f"heldout detect fit --data FOLDER_OF_GOOD_IMAGES --encoder models/{short}/{ENCODER}"


def _of_model(model: Inspector) -> dict[str, object]:
    metadata = model.metadata
    return {
        "method": type(model.method).__name__,
        "product": model.category,
        "images": metadata.get("data", "unknown"),
        "good images": metadata.get("normals", len(model.normal_scores)),
        "seen at": f"{named(model.size_px)} px",
        "false alarms asked for": f"{model.decision.false_alarm_rate:.1%}",
        "smallest region": _smallest_region(model),
    }


def _smallest_region(model: Inspector) -> str:
    if model.zone_rule:
        return ", ".join(f"{_area(zone.minimum_area_px)} in {zone.name}" for zone in model.zone_rule.zones)
    return _area(model.area_rule.minimum_area_px if model.area_rule else model.minimum_area_px)


def _area(area_px: int) -> str:
    return f"{area_px} px" if area_px > 1 else "any"


def _of_encoder(encoder: Encoder) -> dict[str, object]:
    started = encoder.started_from
    described: dict[str, object] = {
        "architecture": encoder.architecture,
        "input": f"{encoder.input_size_px} px",
        "fingerprint": fingerprint(encoder),
        "started from": started.name if started else "not known",
        "fingerprint of that": started.fingerprint if started else "not known",
        "pretrained on": "nothing known",
    }
    if origin := encoder.origin:
        described["pretrained on"] = origin.data
        described["categories seen"] = ", ".join(origin.categories) or "none by name"
        if origin.is_demo:
            described["note"] = "made on generated demo images: it says nothing about real products"
        if found := origin.recipe.get("synthetic_auroc"):
            described["AUROC of synthetic anomalies"] = _synthetic(found, origin.recipe)
    return described


def _synthetic(auroc: float, recipe: Mapping) -> str:
    """The monitor's figure, with n and interval where the training recorded them."""
    said = f"{auroc:.3f}"
    interval = recipe.get("synthetic_auroc_interval", [None])
    if None not in interval:
        said += f" ({LEVEL:.0%} interval {interval[0]:.3f} to {interval[1]:.3f}"
        said += f", {recipe['synthetic_anomalies']} anomalies on {recipe['synthetic_normals']} unseen normals"
        said += "; the highest of its evaluations)" if recipe.get("keep") == "best" else ")"
    else:
        said += " (no interval was recorded)"
    before = recipe.get("synthetic_auroc_of_start")
    return f"{said}; of its start {'not known' if before is None else f'{before:.3f}'}"


def _recipe(encoder: Encoder) -> Sequence[str]:
    recipe = encoder.origin.recipe if encoder.origin else {}
    shown = {name: value for name, value in recipe.items() if value is not None and not name.startswith("synthetic_")}
    return ["## Recipe", _table(shown)] if shown else []


def _table(rows: Mapping[str, object]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())])


def _cell(value: object) -> str:
    """A value as text that is neither markup nor a path of somebody's machine."""
    value = _without_paths(value)
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", " ".join(text.split()))


def _without_paths(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(inner) for inner in value]
    if isinstance(value, Path | str):
        return PATH.sub(lambda path: PureWindowsPath(path[0]).name, str(value))
    return value

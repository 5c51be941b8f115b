"""detect.py fit: a method fitted to good images, its thresholds, and the model written to a folder."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from baselines.contract.method import Images, Method, Samples
from baselines.contract.threshold import MIN_OWN_NORMALS, Threshold, threshold_from_normals
from downstream.inspection.asked_method import Say, make_method
from downstream.inspection.config import Fit, FitSettings
from downstream.inspection.images import good_images, good_images_given
from downstream.inspection.inspector import Inspector
from downstream.inspection.memory import keep_within
from downstream.inspection.normals import (
    ZonesOfNormals,
    aligned,
    look_within,
    other_products,
    usual_aspect,
    usual_size,
    without_outliers,
)
from downstream.methods.catalogue import imported
from downstream.methods.mutual import check_contamination
from downstream.methods.references import (
    calibration_normals,
    draw,
    fitting_count,
    own_threshold,
    shots_of,
    suspicious,
)
from embeddings.encoding import check_encoder
from pretrain.command import UserError, check_type
from pretrain.data.channels import PLAIN, ToFind, typed_range, unseen_of
from pretrain.data.dataset import ImageSet, check_size, data_name
from pretrain.data.images import LayoutName
from pretrain.data.manifest import SUFFIX
from pretrain.data.size import INVISIBLE, Asked, is_other, named, sides
from pretrain.encoder import asked_encoder
from pretrain.training.device import choose_device

# A side of an image on disk, as a multiple of what the method sees, from which on small defects are worth a word.
MUCH_SMALLER = 2.5
# Options that do not belong to what was fitted.
NOT_SAID = ("roi", "out", "memory_gb", "device", "address", "patience_s")


def fit(config: Fit) -> None:
    """Fit, report, and write the model."""
    if config.data.suffix == SUFFIX:
        return imported("downstream.inspection.manifest.fit.fit")(config)  # stands above this file
    if config.address is not None:
        raise UserError("--address is for a manifest: heldout manifest lists the images of a folder or a URL.")
    check(config)
    normals = good_images(config.data, config.category, pixels_of(config), True, config.layout, to_find(config))
    model = fitted(config, normals, print)
    model.metadata |= {"layout": config.layout, "arguments": arguments_of(config)}
    out = config.out or Path("models") / model.category
    model.save(out)
    print(f"model: {out}")
    print(f"next:  python downstream/detect.py run IMAGE_OR_FOLDER --model {out}")


def arguments_of(config: Fit) -> list[str]:
    """What fits such a model again, as it is typed; but where to look, where to write, and on which device."""
    said = {field.name: getattr(config, field.name) for field in fields(config)
            if field.name not in NOT_SAID and getattr(config, field.name) != field.default}  # fmt: skip
    words = [(f"--{name.replace('_', '-')}", "" if value is True else str(value)) for name, value in said.items()]
    return [word for pair in words for word in pair if word]


def fitted_to(
    images: object, category: str | None, layout: LayoutName | None, settings: FitSettings, say: Say
) -> Inspector:
    """An inspector fitted to good images as Python has them: a folder, as `fit` takes it, or one image or many in any
    form that `Inspector.predict` takes."""
    check(settings)
    check_type("category", category, str | None)
    if isinstance(images, str | Path) and Path(images).is_dir():
        normals = good_images(Path(images), category, pixels_of(settings), True, layout, to_find(settings))
    else:
        if layout:
            raise UserError(f"the layout {layout} is that of a folder, and none was given: leave it out.")
        normals = good_images_given(images, category or "images", pixels_of(settings), to_find(settings))
    model = fitted(settings, normals, say)
    model.metadata["layout"] = layout
    return model


def check(settings: FitSettings) -> None:
    """Raise UserError for what can be refused before any image is opened."""
    if isinstance(settings.size_px, int):
        check_size(settings.size_px)
    if settings.seed < 0:
        raise UserError(f"the seed {settings.seed} cannot be: give 0 or more.")
    check_contamination(settings.allow_contamination)
    check_encoder(settings.encoder)
    check_align(settings)
    check_lights(settings)


def check_align(settings: FitSettings) -> None:
    """Raise UserError for a reference that nothing is aligned to, and for a region of interest that moves along while
    nobody says on which image it was drawn."""
    if settings.reference is not None and not settings.align:
        raise UserError("--reference is the image that others are aligned to: add --align.")
    if settings.align and settings.roi is not None and settings.reference is None:
        raise UserError("with --align a region of interest moves along: name by --reference the image it is drawn on.")


def check_lights(settings: FitSettings) -> None:
    """Raise UserError for what sees one image of a part alone."""
    alone = ("align", "train", "allow_contamination")
    if settings.lights and (given := [f"--{name.replace('_', '-')}" for name in alone if getattr(settings, name)]):
        raise UserError(
            f"--lights sees several images of a part, which {given[0]} does not yet: leave one of them out."
        )


def to_find(settings: FitSettings) -> ToFind:
    """What good images are to tell of their channels."""
    return ToFind(settings.lights, typed_range(settings.range))


def pixels_of(settings: FitSettings) -> Asked:
    """The size as images are loaded with it."""
    return None if settings.size_px == "native" else settings.size_px


def fitted(settings: FitSettings, normals: ImageSet, say: Say) -> Inspector:
    """An inspector fitted to these good images of one category; `say` is given line after line what there is to say."""
    (category,), size_px = normals.categories, normals.size_px
    if normals.channels != PLAIN:
        say(f"images of {normals.channels}")
    if not settings.lights and (unseen := unseen_of(normals.records[0].path)):
        say(unseen)
    say_size(settings, normals, say)
    method = make_method(settings, normals.folder, say, normals.channels.lights).to(choose_device(settings.device))
    roi = None if settings.roi is None else look_within(method, settings, normals, say)
    has_zones = roi is not None and roi.drawn is not None and bool(roi.drawn.zones)
    keep_within(
        method, size_px, settings.memory_gb, say, settings.method, len(normals), settings.align, by_rule=has_zones
    )
    dropped = normals.subset([])
    if settings.allow_contamination:
        normals, dropped = without_outliers(normals, method, settings, say)
    shots = shots_of(settings.shots, fitting_count(len(normals), settings.validation_share))
    references = normals.subset(draw(len(normals), shots, settings.seed))
    others = other_products(settings, method, normals, say)
    alignment, references = aligned(references, settings, size_px, say) if settings.align else (None, references)
    images = Images(references)
    zones = ZonesOfNormals(roi, references, settings.minimum_area) if has_zones else None
    if zones:
        method.watch_normals(zones.add)
    method.fit(Samples(others) if others else []).refer(images)
    if scores_normals := not method.sees_normals and len(references) >= MIN_OWN_NORMALS:
        score_normals(method, images)
    threshold = own_threshold(method, images, settings.false_alarm_rate, calibration_normals(others), settings.seed)
    threshold = threshold._replace(why=threshold.why + if_good_after_all(len(dropped), len(normals), settings))
    scores = method.normal_scores_.tolist()
    model = Inspector(
        method, category, size_px, threshold, map_threshold_of(method, settings, len(references)),
        settings.minimum_area, scores, described(settings, method, references, dropped),
        drawn_roi=roi and roi.drawn, zone_rule=zones and zones.rule(method, images, settings.false_alarm_rate),
        alignment=alignment, channels=normals.channels,
    )  # fmt: skip
    say_learned(model, settings, references, others, say)
    if len(scores) == len(references) and (method.sees_normals or scores_normals):
        say_suspicious(references, scores, threshold, say)
    return model


def described(settings: FitSettings, method: Method, references: ImageSet, dropped: ImageSet) -> dict:
    """What a model says of how it was made, as plain JSON."""
    metadata = {
        "data": data_name(references.folder),
        "normals": len(references),
        "aspect": usual_aspect(references),
        "image_size": list(usual_size(references)[::-1]) if 2 * odd_sizes(references) < len(references) else None,
        "method": settings.method,
        "scales": list(settings.scales),
        "false_alarm_rate": settings.false_alarm_rate,
        "learned_from": [entry.digest.hex() for entry in references.entries],
        "allow_contamination": settings.allow_contamination,
        "left_out_as_outliers": [
            {"name": record.path.name, "digest": entry.digest.hex()}
            for record, entry in zip(dropped.records, dropped.entries, strict=True)
        ],
    }
    if hasattr(method, "encoder"):
        metadata["encoder"] = asked_encoder(method.encoder, method.architecture, method.seed).as_json()
    return metadata


def odd_sizes(images: ImageSet) -> int:
    """How many images are larger or smaller than is usual among them."""
    usual = usual_size(images)
    return sum(is_other(usual, entry.height, entry.width) for entry in images.entries)


def say_size(settings: FitSettings, normals: ImageSet, say: Say) -> None:
    """At which size images are seen, where they told it, and what to do where they are much larger; how many have
    another size than most."""
    (height, width), size_px = usual_size(normals), normals.size_px
    if 2 * (others := odd_sizes(normals)) >= len(normals):
        say("images are of many sizes; all are seen at one")
    elif others:
        say(f"{others} of {len(normals)} images are larger or smaller than the {named((height, width))} px of most")
    shares = [on_disk / side for on_disk, side in zip((height, width), sides(size_px), strict=True)]
    shrunk, enlarged = max(shares), 1 / max(shares)
    more = ": a larger --size-px, or native, finds smaller defects and takes longer"
    if settings.size_px == "auto":
        say(f"images of {width}x{height} px are seen at {named(size_px)} px"
            + (more if shrunk > 1 else ": --size-px sets another size"))  # fmt: skip
    elif shrunk >= MUCH_SMALLER:
        say(f"these images are {shrunk:.1f} times as large as they are seen{more}")
    elif enlarged > 1 + INVISIBLE:
        say(f"these images of {named((height, width))} px are enlarged to {named(size_px)} px, which takes longer and "
            "shows nothing more: --size-px native sees them as large as they are")  # fmt: skip


def say_learned(
    model: Inspector, settings: FitSettings, references: ImageSet, others: ImageSet | None, say: Say
) -> None:
    """What it learned from, and where its thresholds come from."""
    learned = f"{len(references)} good images of {model.category} ({data_name(references.folder)})"
    if others is not None and not model.method.sees_normals:
        learned = f"{len(others)} labeled images of {', '.join(others.categories)}; it learned nothing of {learned}"
    seen = f"{named(model.size_px)} px" + (f" and at {settings.scales} of it" if settings.scales else "")
    say(f"{settings.method} fitted to {learned}, seen at {seen}")
    if hasattr(model.method, "cells_"):
        say(f"{model.method.cells_.shape[1]} neighboring patches share a Gaussian, since there are so many")
    if not model.zone_rule:
        say_threshold(model, settings, say)
        return
    for zone in model.zone_rule.zones:
        area = f", regions of {zone.minimum_area_px} px and more" if zone.minimum_area_px > 1 else ""
        say(f"zone {zone.name}: threshold {zone.threshold.value:.4g}{area}: {zone.threshold.why}")
    say(f"all zones: {model.zone_rule.threshold.why}")


def say_threshold(model: Inspector, settings: FitSettings, say: Say) -> None:
    """Above what an image is defective, and why."""
    say(f"threshold {model.threshold.value:.4g} at {settings.false_alarm_rate:.0%} false alarms: {model.threshold.why}")


def say_suspicious(references: ImageSet, scores: Sequence[float], threshold: Threshold, say: Say) -> None:
    """A defect among the good images makes all thresholds lax: name what looks like one."""
    for position in suspicious(scores):
        path, ratio = references.records[position].path, scores[position] / threshold.value
        say(f"suspicious: {path} scores {ratio:.1f} times the threshold among the good ones; look at it")


def if_good_after_all(dropped: int, kept: int, settings: FitSettings) -> str:
    """What leaving out does to the threshold: it comes from those that remain, and each good image left out by mistake
    would have been above it. So the false-alarm rate is bounded, and no score is invented for them."""
    if not dropped:
        return ""
    share = dropped / (dropped + kept)
    bound = settings.false_alarm_rate * (1 - share) + share
    return f" Were all {dropped} images left out good, up to {bound:.1%} of good images would be above."


def score_normals(method: Method, images: Sequence[Tensor]) -> None:
    """Take the threshold from the user's good images: a method that learned nothing of them may be asked about them,
    and they say more of this product than those of the products it learned from."""
    batches = [batch.cpu() for batch in method.predict(images)]
    method.normal_scores_ = torch.cat([batch.scores for batch in batches])
    if batches[0].maps is not None:
        method.normal_peaks_ = torch.cat([batch.maps.flatten(1).amax(1) for batch in batches])


def map_threshold_of(method: Method, settings: FitSettings, count: int) -> Threshold | None:
    """The threshold above which a pixel belongs to a region; none where the method has no maps of `count` normals."""
    peaks = getattr(method, "normal_peaks_", ())
    if len(peaks):
        return threshold_from_normals(peaks.cpu().numpy(), settings.false_alarm_rate)
    if settings.minimum_area:
        raise UserError(
            f"--minimum-area needs a threshold for maps, which {settings.method} does not find of {count}: leave it "
            "out, and python downstream/area.py validate finds one with good images that were left out of the model."
        )
    return None

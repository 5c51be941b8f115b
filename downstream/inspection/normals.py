"""The good images that a method is fitted to: which are left out, how they lie, where it looks at them; and the images
of other products that it learns from."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from baselines.contract.method import Method
from downstream.inspection.alignment import AlignedPixels, Alignment, fit_alignment
from downstream.inspection.asked_method import Say
from downstream.inspection.config import FitSettings
from downstream.inspection.roi import Roi, read_roi
from downstream.inspection.triage import ranked
from downstream.inspection.zones import LEFT_OUT, ZoneRule, zone_rates, zone_rule, zone_scores
from downstream.methods.ensemble import Ensemble
from downstream.methods.maps import counted_share
from downstream.methods.mutual import CLEAR_DEVIATIONS, Mutual, clear_outliers
from downstream.methods.patch_method import PatchMethod
from downstream.methods.references import MIN_TO_SUSPECT, moved
from downstream.methods.region import resized
from embeddings.encoding import choose_encoder
from pretrain.command import UserError
from pretrain.data.cache import Entry, let_go
from pretrain.data.channels import ToFind, read_image
from pretrain.data.dataset import ImageSet, load
from pretrain.data.decode import Unreadable, decode_array
from pretrain.data.size import Size, named, scaled, sides
from pretrain.demo import is_demo


def without_outliers(normals: ImageSet, method: Method, settings: FitSettings, say: Say) -> tuple[ImageSet, ImageSet]:
    """The images to fit to, and those left out: the clear outliers, at most the share that the user allows. Scored by
    mutual resemblance, not by the method itself, to which two defects of a kind would be normal."""
    if len(normals) < MIN_TO_SUSPECT:
        raise UserError(
            f"of {len(normals)} images none can be told as an outlier: give {MIN_TO_SUSPECT} or more, or leave out "
            "--allow-contamination."
        )
    encoder = {name: getattr(method, name) for name in ("encoder", "architecture") if hasattr(method, name)}
    if "encoder" not in encoder:  # an auto-encoder, say, has none
        encoder["encoder"], _ = choose_encoder(settings.encoder, settings.seed, is_demo(normals.folder))
    mutual = Mutual(**encoder, seed=settings.seed).to(method.device)
    compared = not_large(normals)
    if compared.size_px != normals.size_px:
        say(f"outliers are told at {named(compared.size_px)} px, where a defect of a few pixels does not show")
    if not settings.align and hasattr(method, "roi_"):  # else it lies where it was drawn only once they are aligned
        mutual.look_within(resized(method.roi_, sides(compared.size_px)))
    mutual.keep_within(getattr(method, "tile_px", None))
    ranking = ranked(compared, mutual)
    left_out = clear_outliers(ranking.scores, settings.allow_contamination)
    clear = int((ranking.deviations > CLEAR_DEVIATIONS).sum())
    say(f"{clear} of {len(normals)} images are clear outliers, more than {CLEAR_DEVIATIONS:g} robust deviations "
        f"above the median; the worst {len(left_out)} are left out")  # fmt: skip
    for position in left_out:
        say(f"left out: {normals.records[position].path}, {ranking.deviations[position]:.1f} deviations")
    kept = sorted(set(range(len(normals))) - set(left_out))
    return normals.subset(kept), normals.subset(left_out)


class Reduced:
    """In place of an ImageSet's `pixels`: its rows at a smaller size."""

    def __init__(self, pixels: np.ndarray, size_px: Size) -> None:
        self._pixels, self._size_px = pixels, size_px

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        smaller = np.stack([decode_array(self._pixels[row], self._size_px).pixels for row in rows])
        let_go(self._pixels)
        return smaller


def not_large(images: ImageSet) -> ImageSet:
    """Images as they are, and large ones as those of LARGE_PX are: to compare all patches of each with all of each
    other one takes memory and time by the square."""
    shape = sides(images.size_px)
    size_px = scaled(shape, counted_share(shape))
    if size_px == shape:
        return images
    return replace(images, size_px=size_px, pixels=Reduced(images.pixels, size_px))


def other_products(settings: FitSettings, method: Method, normals: ImageSet, say: Say) -> ImageSet | None:
    """The labeled images to learn from, where a folder of them was named: without the product itself, which must not
    teach what is known of others, by its name there or another. Raises UserError where the method needs them."""
    if settings.train is not None:
        others = load(settings.train, normals.size_px, settings.train_categories, channels=ToFind())
        own, known = set(normals.categories), digests_of(normals.entries)
        named_otherwise = {
            record.category
            for record, entry in zip(others.records, others.entries, strict=True)
            if known & digests_of([entry])
        } - own
        for category in sorted(named_otherwise):
            say(f"left out of {settings.train}: {category}, which holds images that were given as good ones")
        own |= named_otherwise
        others = others.subset([i for i, record in enumerate(others.records) if record.category not in own])
        if others.records or method.sees_normals:
            return others
        raise UserError(f"{settings.train} holds no other product to learn from: name a folder with others by --train.")
    if not method.sees_normals:
        raise UserError(
            f"{settings.method} learns from labeled images of other products: name their folder by --train."
        )
    return None


def digests_of(entries: Iterable[Entry]) -> set[bytes]:
    """Of pixels, and of files, which tell copies that were read by other ranges; arrays have none."""
    return {digest for entry in entries for digest in (entry.digest, entry.file_digest) if digest}


def look_within(method: Method, settings: FitSettings, normals: ImageSet, say: Say) -> Roi:
    """Have a method count what lies in the region of interest alone. Raises UserError for one that cannot, and for
    zones that leave no false-alarm rate."""
    if not isinstance(method, PatchMethod | Ensemble):
        raise UserError(f"{settings.method} sees images as a whole: --roi takes padim, patchcore, fused or residual.")
    roi = read_roi(settings.roi, usual_size(normals), normals.size_px, settings.minimum_area)
    method.look_within(torch.from_numpy(roi.mask))
    zones = f" in {len(roi.drawn.zones)} zones" if roi.drawn and roi.drawn.zones else ""
    share = f"{roi.mask.mean():.0%}" if roi.mask.mean() >= 0.01 else "less than 1%"
    say(f"region of interest: {settings.roi}, {share} of the image{zones}")
    if zones:  # before all that takes long
        zone_rates(roi.drawn.zones, settings.false_alarm_rate)
    return roi


def aligned(references: ImageSet, settings: FitSettings, size_px: Size, say: Say) -> tuple[Alignment, ImageSet]:
    """An alignment onto the references, and these as it shows them; says how they lay, and which of them it cannot
    align. Raises UserError where they have nothing to align by."""
    chosen = None
    if settings.reference is not None:
        try:
            chosen = read_image(settings.reference, size_px, references.channels).pixels
        except Unreadable as unreadable:
            raise UserError(f"the reference {settings.reference} cannot be used: {unreadable}.") from None
    rows = [entry.row for entry in references.entries]
    alignment, poses = fit_alignment((references.pixels[row] for row in rows), usual_aspect(references), chosen)
    say(f"aligned: good images lie turned by up to {alignment.max_turn:.0f} degrees and moved by up to "
        f"{alignment.max_shift:.0%} of their side; others, and those with a correlation below "
        f"{alignment.least_correlation:.2f}, are judged as they lie")  # fmt: skip
    for record, pose in zip(references.records, poses, strict=True):
        if not pose.is_aligned:
            say(f"not aligned: {record.path}, correlation {pose.correlation:.2f}, turned by {pose.turn:.0f} degrees")
    pixels = AlignedPixels(references.pixels, alignment, dict(zip(rows, poses, strict=True)))
    return alignment, replace(references, pixels=pixels)


def usual_size(images: ImageSet) -> tuple[int, int]:
    """(height, width) on disk of most images."""
    return Counter((entry.height, entry.width) for entry in images.entries).most_common(1)[0][0]


def usual_aspect(images: ImageSet) -> float:
    """Width : height on disk of most images."""
    return float(np.median([entry.width / entry.height for entry in images.entries]))


class ZonesOfNormals:
    """What normals score in the zones of a region of interest, each without what was learned of it."""

    def __init__(self, roi: Roi, normals: ImageSet, minimum_area_px: int) -> None:
        self._image_size = usual_size(normals)
        self._zones = [
            replace(zone, min_area_px=minimum_area_px) if zone.min_area_px is None else zone for zone in roi.drawn.zones
        ]
        self._labels = roi.drawn.labels(normals.size_px)
        self._scores: list[np.ndarray] = []

    def add(self, maps: Tensor) -> None:
        """Take in the maps (n, h, w) of normals."""
        areas_px = [zone.min_area_px for zone in self._zones]
        self._scores += [zone_scores(each, self._labels, areas_px, self._image_size) for each in maps.cpu().numpy()]

    def rule(self, method: Method, normals: Sequence[Tensor], false_alarm_rate: float) -> ZoneRule:
        """By what the zones decide. A single normal, which cannot be left out, is moved a little."""
        seen = LEFT_OUT
        if not self._scores:
            seen = "views of the only good image, each moved a little, "
            for prediction in method.predict(moved(normals[0])):
                self.add(prediction.maps)
        return zone_rule(self._zones, np.stack(self._scores), false_alarm_rate, seen)

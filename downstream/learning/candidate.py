"""detect.py learn: what operators say of a model's verdicts becomes a new version of it, which is proved and written.

Learning begins at the model that was fitted, with all that is confirmed today: so what was taken back is unlearned, and
the order in which feedback came does not matter. Good images become references, defective ones evidence; the threshold
is found anew from normals that were left out, at the false-alarm rate that the model was fitted with.
"""

import copy
from collections.abc import Callable, Container, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from baselines.contract.method import Method
from baselines.contract.model_folder import parts_of
from baselines.contract.threshold import Threshold, threshold_from_normals
from downstream.inspection.inspection import Inspection
from downstream.inspection.inspector import Inspector
from downstream.learning.feedback import Confirmed, Feedback, bytes_of, confirmed, shapes_of
from downstream.learning.golden import is_kept_apart, judged, prove
from downstream.learning.report import Learned, write_report
from downstream.learning.versions import (
    BASE,
    FOLDER,
    NUMBER,
    add_version,
    changing,
    next_number,
    version_in_use,
    version_of,
)
from downstream.methods.ensemble import Ensemble
from downstream.methods.fused import Fused, Marked
from downstream.methods.padim import PaDiM
from downstream.methods.patchcore import PatchCore
from pretrain.command import UserError
from pretrain.data.channels import PLAIN
from pretrain.data.decode import Decoded, Unreadable, decode_bytes, read_mask
from pretrain.data.decode_pool import pixel_digest
from pretrain.data.images import Problem
from pretrain.data.size import Size, sides
from pretrain.remembered_maps import remembered_maps

# Of 16 of each kind, twice the reach gave .884 balanced accuracy on five products, once .867, four times .888 with more
# false alarms.
TRUSTED, MOST_TRUSTED = 8, 2.0
# What `learn` says that it does, in this order.
STEPS = READS, LEARNS, PROVES, WRITES = "reads the model and the images", "learns", "is proved", "is written"


class Lessons(NamedTuple):
    """Images to learn from, uint8 (h, w, 3) of the size that the method sees, and the masks of the defective ones, bool
    (h, w) or none."""

    good: list[np.ndarray]
    defective: list[np.ndarray]
    masks: list[np.ndarray | None]


class Images(Sequence[Tensor]):
    """Pixels as float32 (3, h, w), each made when it is asked for."""

    def __init__(self, pixels: Sequence[np.ndarray]) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, position: int) -> Tensor:
        return torch.from_numpy(self._pixels[position].copy()).permute(2, 0, 1).float().div_(255)


class Seen(NamedTuple):
    """A confirmed image as the method sees it, of the very bytes that were judged, and where it is defective, bool
    (h, w), or none. What is `known` has the digest of these pixels: a copy in another file is the same image."""

    known: Confirmed
    image: Decoded
    mask: np.ndarray | None


# Both versions are asked about each image, after one of them learned from it: the encoder sees it once.
@remembered_maps(2**30)
def learn(
    model: Path, records: Sequence[Feedback], device: str = "auto", tell: Callable[[str], None] = lambda step: None
) -> Learned:
    """Make the next version of the model in a folder, and prove it beside the one in use, which stays in use. Raises
    UserError where the model cannot learn, or nothing is learned. Others may change versions while it computes. `tell`
    hears of each of STEPS as it begins."""
    tell(READS)
    version_in_use(model)  # where there is no model, nothing is to be made
    with changing(model):  # so that all that is read is of one moment
        in_use = version_in_use(model)
        base = version_of(model, version_of(model, in_use).base)
        inspector = Inspector.load(base.folder, device)
        current = inspector if in_use == base.number else Inspector.load(model, device)
        check_learns(inspector)
        check_learns(current)
        if isinstance(inspector.method, Fused):
            inspector.method.remember(base.folder)
    seen, problems = usable(confirmed(records), inspector.size_px, inspector.metadata.get("learned_from", ()))
    if not seen:
        raise UserError(f"of {len(records)} records of feedback none says of a readable new image what it is.")
    tell(LEARNS)
    candidate = taught(inspector, lessons_of([each for each in seen if not is_kept_apart(each.known.digest)]))
    check_learned(candidate, len(seen))
    tell(PROVES)
    proof = prove(judged([each.known for each in seen], *(inspected(each, seen) for each in (current, candidate))))
    tell(WRITES)
    with changing(model):
        if parts_of(version_of(model, base.number).folder) != inspector.parts:
            raise UserError(f"{model} was fitted anew meanwhile: learn again.")
        number = next_number(model)
        candidate.metadata |= history_of_lessons(inspector, [each.known for each in seen])
        candidate.metadata |= {NUMBER: number, BASE: base.number}
        learned = Learned(number, model / FOLDER / str(number), in_use, proof, problems, candidate.metadata["learned"])

        def write(folder: Path) -> None:
            candidate.fill(folder)
            write_report(folder, learned)

        add_version(model, number, write)
    return learned


def check_learns(inspector: Inspector) -> None:
    """Raise UserError for a model that cannot learn more."""
    name = type(inspector.method).__name__
    if inspector.channels.lights > 1:
        raise UserError("a model of several lights cannot learn yet: fit it again with what was confirmed.")
    if isinstance(inspector.method, Ensemble):
        raise UserError("a model of several scales cannot learn yet: fit one without --scales.")
    if not isinstance(inspector.method, PaDiM | PatchCore):  # fused is both
        raise UserError(f"a model of {name} learns nothing further: fit one with --method fused.")
    if inspector.alignment:
        raise UserError("a model that aligns images cannot learn yet: fit one without --align.")
    if inspector.channels != PLAIN:
        raise UserError("a model of more than 8 bits a channel cannot learn yet: fit it again with what was confirmed.")
    if inspector.rule:
        raise UserError(
            f"a model that decides by {'area' if inspector.area_rule else 'zones'} cannot learn yet, as its maps would "
            "change under the rule that was found for them: fit one that decides by score."
        )


def check_learned(candidate: Inspector, seen: int) -> None:
    """Raise UserError where a version would be what it was made of."""
    learned = candidate.metadata["learned"]
    if learned["good"] or learned["tells_defects"]:
        return
    if learned["defective"]:
        raise UserError(f"{learned['defective']} defective images teach nothing alone yet: confirm good ones, or more.")
    raise UserError(f"all {seen} confirmed images are kept apart for the proof: confirm some more.")


def history_of_lessons(inspector: Inspector, known: Sequence[Confirmed]) -> dict:
    """What a version says of when and of what it was made, images by the digests of their pixels."""
    good = [each.digest for each in known if not each.is_defective and not is_kept_apart(each.digest)]
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "learned_from": [*inspector.metadata.get("learned_from", ()), *good],
        "feedback": {each.digest: "defective" if each.is_defective else "good" for each in known},
    }


def taught(inspector: Inspector, lessons: Lessons) -> Inspector:
    """An inspector that has learned more; the one it came from stays as it is."""
    method, metadata = copy.copy(inspector.method), dict(inspector.metadata)
    rate = metadata.get("false_alarm_rate", inspector.threshold.false_alarm_rate)
    thresholds = (inspector.threshold, inspector.map_threshold)
    has_memory = isinstance(method, Fused)
    if lessons.good or has_memory:
        method.add(Images(lessons.good))
    if lessons.good:
        thresholds = thresholds_of(method, inspector, rate)
    marked = zip(Images(lessons.defective), lessons.masks, strict=True)
    marked = [Marked(image, None if mask is None else torch.from_numpy(mask.copy())) for image, mask in marked]
    tells = bool(marked) and has_memory and method.mark(marked, reach_of(method, rate, len(marked)))
    if tells:  # with the spread of scores the threshold may fall, though evidence lowers none
        thresholds = map(higher, thresholds, thresholds_of(method, inspector, rate))
    if has_memory:
        method.without_memory()
    metadata["learned"] = {"good": len(lessons.good), "defective": len(lessons.defective), "tells_defects": tells}
    threshold, map_threshold = thresholds
    return Inspector(
        method,
        inspector.category,
        inspector.size_px,
        threshold,
        map_threshold,
        inspector.minimum_area_px,
        method.normal_scores_.tolist(),
        metadata,
        drawn_roi=inspector.drawn_roi,
    )


def higher(first: Threshold | None, second: Threshold | None) -> Threshold | None:
    return max(filter(None, (first, second)), key=lambda threshold: threshold.value, default=None)


def reach_of(method: Method, false_alarm_rate: float, defective: int) -> float:
    """How much evidence of so many defective images may add to a score. Of TRUSTED, from the median of normals to the
    threshold: an image that the statistics find no stranger than half of all good ones cannot become defective by it.
    Of fewer less; of more up to twice as much, and then it can."""
    scores = method.normal_scores_.cpu().numpy()
    clear = float(threshold_from_normals(scores, false_alarm_rate).value - np.median(scores))
    return clear * min(MOST_TRUSTED, defective / TRUSTED)


def thresholds_of(method: Method, inspector: Inspector, rate: float) -> tuple[Threshold, Threshold | None]:
    """Of scores and of maps, from normals that the method did not learn from; as they were where it has none."""
    if not len(method.normal_scores_):
        return inspector.threshold, inspector.map_threshold
    threshold = threshold_from_normals(method.normal_scores_.cpu().numpy(), rate)
    return threshold, threshold_from_normals(method.normal_peaks_.cpu().numpy(), rate)


def usable(known: Sequence[Confirmed], size_px: Size, fitted: Container[str] = ()) -> tuple[list[Seen], list[Problem]]:
    """The confirmed images that can be read and are those that were judged, each once, by its pixels' digest, which
    says nothing of when it came; and what is wrong with the others. `fitted` are digests that a model knows."""
    copies: dict[str, list[Seen]] = {}
    problems = []
    for each in sorted(known, key=lambda each: each.digest):
        try:
            opened = seen_as(each, size_px)
            copies.setdefault(opened.known.digest, []).append(opened)
        except (UserError, Unreadable) as error:
            problems.append(Problem(each.image, str(error)))
    seen = []
    for digest, (first, *others) in sorted(copies.items()):
        if digest in fitted:
            reason = "it is one of the images that the model was fitted to"
            reason += ", as a good one: fit without it" if first.known.is_defective else ""
        elif any(other.known.is_defective != first.known.is_defective for other in others):
            reason = "it and copies of it, which are the same pixels, are called good and defective"
        else:
            reason = ""
            seen.append(first)
        problems += [Problem(each.known.image, reason) for each in (first, *others) if reason]
    return seen, problems


def seen_as(known: Confirmed, size_px: Size) -> Seen:
    """Raises UserError or Unreadable for an image or a mask that is none, or is another than was judged."""
    data = bytes_of(known.image)
    if sha256(data).hexdigest() != known.digest:
        raise UserError("its file is another one than that which was judged")
    image = decode_bytes(data, size_px)
    try:
        mask = mask_of(known, image.height, image.width, size_px)
    except (Unreadable, ValueError) as error:  # a name with a zero in it is a ValueError
        raise UserError(f"its mask {known.mask} cannot be read ({error})") from None
    return Seen(known._replace(digest=pixel_digest(image.pixels).hex()), image, mask)


def lessons_of(seen: Sequence[Seen]) -> Lessons:
    """The images that are learned from."""
    good = [each.image.pixels for each in seen if not each.known.is_defective]
    defective = [each for each in seen if each.known.is_defective]
    return Lessons(good, [each.image.pixels for each in defective], [each.mask for each in defective])


def inspected(inspector: Inspector, seen: Sequence[Seen]) -> Iterator[Inspection | Problem]:
    """What a version says of each."""
    size = inspector.method.batch_size
    for start in range(0, len(seen), size):
        part = seen[start : start + size]
        yield from inspector.inspect_decoded([each.known.image for each in part], [each.image for each in part])


def mask_of(known: Confirmed, height: int, width: int, size_px: Size) -> np.ndarray | None:
    """Where the defect of an image of that height and width is, bool (h, w) of `size_px`. None where nobody said."""
    if known.mask is None:
        return None
    if isinstance(known.mask, Path):
        return read_mask(known.mask, size_px)
    seen_height, seen_width = sides(size_px)
    scale = np.array([seen_width / width, seen_height / height])
    drawn = Image.new("1", (seen_width, seen_height), 0)
    for shape in shapes_of(known.mask):
        for name, numbers in shape.items():
            points = np.array(numbers, float).reshape(-1, 2) * scale
            if name == "box":
                (left, top), (right, bottom) = points
                points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
            ImageDraw.Draw(drawn).polygon([tuple(point) for point in points], fill=1)
    return np.array(drawn)

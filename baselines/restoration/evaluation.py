"""What a restorer is worth: figures of every image and every category, always beside the degraded image itself."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from baselines.contract.method import Pair
from baselines.contract.metrics import SSIM_WINDOW_PX, psnr, ssim
from baselines.restoration.pairs import NamedPair
from pretrain.command import UserError
from pretrain.files import write_json, write_whole

DEGRADED = "degraded input"
ALL = "all"
FIGURES = ("psnr", "ssim", "masked_psnr", "masked_ssim", "inflated_psnr", "inflated_ssim")
HEADERS = ("PSNR", "SSIM", "in mask", "SSIM in mask", "inflated", "SSIM inflated")


class RestoredFigures(NamedTuple):
    """Of one image: PSNR in dB, infinite where nothing differs, and SSIM, over all pixels and over the mask's.

    `inflated` is the reading in which the original publishes its figures in defects: what is outside the mask is black
    in both images and counts as restored, which adds 10 log10(1 / share of the mask) dB. None without a defect.
    """

    psnr: float
    ssim: float
    masked_psnr: float | None = None
    masked_ssim: float | None = None
    inflated_psnr: float | None = None
    inflated_ssim: float | None = None


class Mean(NamedTuple):
    """Over a category's images: the mean of those that are finite, how many there are, and how many are perfect."""

    value: float | None
    count: int
    perfect: int


@dataclass(frozen=True)
class Judged:
    """An image's figures, by who restored it."""

    name: str
    category: str
    figures: dict[str, RestoredFigures]


class Sight(NamedTuple):
    """What there is to look at: float32 (3, h, w) thrice, and the mask bool (h, w) or none."""

    name: str
    category: str
    degraded: Tensor
    restored: Tensor
    clean: Tensor
    mask: Tensor | None


def restored_figures(restored: Tensor, clean: Tensor, mask: Tensor | None) -> RestoredFigures:
    """float32 (3, h, w) in [0, 1] twice, bool (h, w) or none. Raises UserError for an image smaller than SSIM's window,
    or one that is not finite."""
    height, width = clean.shape[-2:]
    if min(height, width) < SSIM_WINDOW_PX:
        raise UserError(
            f"an image of {width}x{height} is smaller than SSIM's window of {SSIM_WINDOW_PX} px: leave it out."
        )
    if not (restored.isfinite().all() and clean.isfinite().all()):
        raise UserError("an image has values that are NaN or infinite: look for what the restorer was given.")
    one, other = restored[None], clean[None]
    whole = (psnr(one, other).item(), ssim(one, other).item())
    if mask is None or not mask.any():
        return RestoredFigures(*whole)
    inside = mask[None]
    black = (one * inside[:, None], other * inside[:, None])
    return RestoredFigures(
        *whole,
        psnr(one, other, inside).item(),
        ssim(one, other, inside).item(),
        psnr(*black).item(),
        ssim(*black).item(),
    )


def at_size(pair: Pair, size_px: int | None, interpolate: bool, restore: Callable[[Tensor], Tensor]) -> tuple:
    """Restore an image as it is, or stretched to a square of `size_px`: -> degraded, restored, clean, mask.

    With `interpolate` the result is stretched back to the image's own size, else all is compared in the square.
    """
    size = None if size_px is None else (size_px, size_px)
    if size is None or pair.clean.shape[-2:] == size:
        return pair.degraded, restore(pair.degraded[None])[0], pair.clean, pair.mask
    restored = restore(stretched(pair.degraded, size))[0]
    if interpolate:
        return pair.degraded, stretched(restored, pair.clean.shape[-2:])[0], pair.clean, pair.mask
    mask = pair.mask if pair.mask is None else F.interpolate(pair.mask[None, None].float(), size)[0, 0] > 0.5
    return stretched(pair.degraded, size)[0], restored, stretched(pair.clean, size)[0], mask


def stretched(image: Tensor, size: Sequence[int]) -> Tensor:
    """(3, h, w) -> (1, 3, *size)."""
    return F.interpolate(image[None], tuple(size), mode="bilinear", antialias=True).clamp(0, 1)


def judge(
    pairs: Iterable[NamedPair],
    restore: Callable[[Tensor], Tensor],
    title: str,
    size_px: int | None = None,
    interpolate: bool = True,
) -> Iterator[tuple[Judged, Sight]]:
    """Restore one image after another, (1, 3, h, w) -> the same."""
    for name, category, pair in pairs:
        degraded, restored, clean, mask = at_size(pair, size_px, interpolate, restore)
        try:
            figures = {
                DEGRADED: restored_figures(degraded, clean, mask),
                title: restored_figures(restored, clean, mask),
            }
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        yield Judged(name, category, figures), Sight(name, category, degraded, restored, clean, mask)


def means(judged: Sequence[Judged], category: str = ALL) -> dict[str, dict[str, Mean]]:
    """By restorer and figure, over the images of a category."""
    chosen = [one for one in judged if category in (ALL, one.category)]
    names = dict.fromkeys(name for one in chosen for name in one.figures)
    return {
        name: {figure: _mean([getattr(one.figures[name], figure) for one in chosen]) for figure in FIGURES}
        for name in names
    }


def categories_of(judged: Sequence[Judged]) -> list[str]:
    """Those that have images, and all together where there are several."""
    found = sorted({one.category for one in judged})
    return found + [ALL] * (len(found) > 1)


def print_table(judged: Sequence[Judged], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption="inflated: outside the mask black counts as restored, as the original reads it")
    for header in ("", "restored by", *HEADERS, "images", "with mask"):
        table.add_column(header, justify="left" if header in ("", "restored by") else "right")
    for category in categories_of(judged):
        for number, (name, figures) in enumerate(means(judged, category).items()):
            values = [in_words(figures[figure], 2 if "psnr" in figure else 3) for figure in FIGURES]
            counts = (str(figures["psnr"].count), str(figures["masked_psnr"].count))
            table.add_row("" if number else category, name, *values, *counts)
        table.add_section()
    Console(width=130).print(table)


def write_results(judged: Sequence[Judged], out: Path, metadata: dict) -> None:
    """results.json with means and every image, categories.csv and images.csv."""
    by_category = {
        category: {name: {figure: mean._asdict() for figure, mean in figures.items()}
                   for name, figures in means(judged, category).items()}
        for category in categories_of(judged)
    }  # fmt: skip
    images = [
        {"name": one.name, "category": one.category, "restored_by": name}
        | {figure: _plain(value) for figure, value in figures._asdict().items()}
        for one in judged
        for name, figures in one.figures.items()
    ]
    result = {**metadata, "categories": by_category, "images": images}
    write_json(out / "results.json", result)
    rows = [
        {"category": category, "restored_by": name, "images": figures["psnr"]["count"],
         "with_mask": figures["masked_psnr"]["count"]} | {figure: mean["value"] for figure, mean in figures.items()}
        for category, restorers in by_category.items() for name, figures in restorers.items()
    ]  # fmt: skip
    write_whole(out / "categories.csv", _csv(rows))
    write_whole(out / "images.csv", _csv(images))


def in_words(mean: Mean, digits: int) -> str:
    if mean.value is None:
        return "perfect" if mean.perfect else "n/a"
    return f"{mean.value:.{digits}f}" + (f" and {mean.perfect} perfect" if mean.perfect else "")


def _mean(values: Sequence[float | None]) -> Mean:
    known = [value for value in values if value is not None]
    finite = [value for value in known if math.isfinite(value)]
    return Mean(math.fsum(finite) / len(finite) if finite else None, len(known), len(known) - len(finite))


def _plain(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "perfect" if value is not None and math.isinf(value) else value


def _csv(rows: Sequence[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "n/a" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue().encode()

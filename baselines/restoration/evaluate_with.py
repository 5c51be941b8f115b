"""Judging a trained restorer: which images, in which title, and everything that is left to read and look at."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines.contract.metrics import SSIM_WINDOW_PX
from baselines.restoration.evaluation import judge, print_table, write_results
from baselines.restoration.pair_folder import PairFolder
from baselines.restoration.pairs import DegradedImages, NamedPair
from baselines.restoration.run import Load, opened
from baselines.restoration.strips import save_strip, sheet
from pretrain.command import UserError
from pretrain.data.dataset import choose_folder, data_name, load
from pretrain.data.images import category_folders
from pretrain.degrade import in_words
from pretrain.drawing import save_image
from pretrain.progress import Progress

if TYPE_CHECKING:
    from baselines.sadnet import Evaluate


def evaluate_with(config: "Evaluate", load_restorer: Load) -> None:
    """Judge, print the table, and write figures and images."""
    restorer, metadata = opened(config.model, load_restorer, config.memory_mb)
    pairs, size_px, title, told = what_to_judge(config, metadata)
    out, name = config.out or config.model / "test", type(restorer).__name__.removesuffix("Restorer")
    judged, first, drawn = [], {}, {}
    with Progress("judging", len(pairs)) as progress:
        for one, sight in judge(pairs, restorer.restore, name, size_px, config.interpolate):
            judged.append(one)
            drawn[one.category] = drawn.get(one.category, 0) + 1
            if config.shown < 0 or drawn[one.category] <= config.shown:
                save_strip(sight, out / "images")
            if sight.mask is not None and sight.mask.any() and (kind := one.name.rsplit("/", 1)[0]) not in first:
                first[kind] = sight
            progress.advance()
    print_table(judged, title)
    print(f"degradation, {told}")
    write_results(judged, out, {"title": title, "degradation": told, "training": metadata, "seed": config.seed})
    if first:
        save_image(sheet(list(first.values()), f"{name}: first image of each kind"), out / "images.png")
    print(f"figures:  {out / 'results.json'}, categories.csv, images.csv")
    print(f"images: {out / 'images'}")


def what_to_judge(config: "Evaluate", metadata: dict) -> tuple[Sequence[NamedPair], int | None, str, str]:
    """Pairs, the square they are stretched to, a title, and how they were degraded. Raises UserError for what was
    trained on."""
    size_px = metadata["input_size"] if config.input_size is None else config.input_size or None
    if size_px is not None and size_px < SSIM_WINDOW_PX:
        raise UserError(f"--input-size {size_px} is smaller than SSIM's window: give {SSIM_WINDOW_PX} or more, or 0.")
    known = dict.fromkeys([*metadata["categories"], *metadata["encoder_saw"]])
    trained = ", ".join(known)
    if config.pairs:
        pairs = PairFolder(config.pairs, None, config.test).check(SSIM_WINDOW_PX)
        return pairs, size_px, f"{config.pairs}, trained on {trained} ({metadata['data']})", "as the pairs have it"
    if size_px is None:
        raise UserError("--input-size 0 is for real pairs: images to be degraded are cached as squares of one size.")
    folder = choose_folder(config.data)
    found = category_folders(folder)
    wanted = config.test or [name for name in found if config.allow_seen or name not in known]
    seen = sorted(set(wanted) & set(known))
    if not wanted or (seen and not config.allow_seen):
        raise UserError(
            f"{', '.join(seen or found)} was trained on, so figures there would say nothing of unseen products: choose "
            f"--test without {trained}, or say --allow-seen."
        )
    trained += ", SEEN IN TRAINING" if seen else ""
    level = config.level or metadata["level"] or "medium"
    words = in_words(level)
    images = load(folder, size_px, wanted)
    tests = images.subset([i for i, record in enumerate(images.records) if record.split == "test"])
    if not len(tests):
        raise UserError(f"{', '.join(images.categories)} has no test images: name other categories by --test.")
    title = f"tested on {', '.join(tests.categories)} ({data_name(tests.folder)}), trained on {trained}"
    return DegradedImages(tests, level, config.seed), size_px, title, words

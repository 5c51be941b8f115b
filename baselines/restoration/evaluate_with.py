"""Judging a trained restorer: which pictures, in which title, and everything that is left to read and look at."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines.contract.metrics import SSIM_WINDOW_PX
from baselines.restoration.evaluation import judge, print_table, write_results
from baselines.restoration.pair_folder import PairFolder
from baselines.restoration.pairs import DegradedPictures, NamedPair
from baselines.restoration.run import Load, opened
from baselines.restoration.strips import save_strip, sheet
from pretrain.command import Mistake
from pretrain.data.dataset import choose_folder, data_name, load
from pretrain.data.images import category_folders
from pretrain.degrade import in_words
from pretrain.drawing import save_picture
from pretrain.progress import Progress

if TYPE_CHECKING:
    from baselines.sadnet import Evaluate


def evaluate_with(config: "Evaluate", load_restorer: Load) -> None:
    """Judge, print the table, and write figures and pictures."""
    restorer, facts = opened(config.model, load_restorer, config.memory_mb)
    pairs, size_px, title, told = what_to_judge(config, facts)
    out, name = config.out or config.model / "test", type(restorer).__name__.removesuffix("Restorer")
    judged, first, drawn = [], {}, {}
    with Progress("judging", len(pairs)) as progress:
        for one, sight in judge(pairs, restorer.restore, name, size_px, config.interpolate):
            judged.append(one)
            drawn[one.category] = drawn.get(one.category, 0) + 1
            if config.shown < 0 or drawn[one.category] <= config.shown:
                save_strip(sight, out / "pictures")
            if sight.mask is not None and sight.mask.any() and (kind := one.name.rsplit("/", 1)[0]) not in first:
                first[kind] = sight
            progress.advance()
    print_table(judged, title)
    print(f"degradation, {told}")
    write_results(judged, out, {"title": title, "degradation": told, "training": facts, "seed": config.seed})
    if first:
        save_picture(sheet(list(first.values()), f"{name}: first picture of each kind"), out / "pictures.png")
    print(f"figures:  {out / 'results.json'}, categories.csv, pictures.csv")
    print(f"pictures: {out / 'pictures'}")


def what_to_judge(config: "Evaluate", facts: dict) -> tuple[Sequence[NamedPair], int | None, str, str]:
    """Pairs, the square they are stretched to, a title, and how they were degraded. Raises Mistake for what was
    trained on."""
    size_px = facts["input_size"] if config.input_size is None else config.input_size or None
    if size_px is not None and size_px < SSIM_WINDOW_PX:
        raise Mistake(f"--input-size {size_px} is smaller than SSIM's window: give {SSIM_WINDOW_PX} or more, or 0.")
    known = dict.fromkeys([*facts["categories"], *facts["encoder_saw"]])
    trained = ", ".join(known)
    if config.pairs:
        pairs = PairFolder(config.pairs, None, config.test).check(SSIM_WINDOW_PX)
        return pairs, size_px, f"{config.pairs}, trained on {trained} ({facts['data']})", "as the pairs have it"
    if size_px is None:
        raise Mistake("--input-size 0 is for real pairs: pictures to be degraded are cached as squares of one size.")
    folder = choose_folder(config.data)
    found = category_folders(folder)
    wanted = config.test or [name for name in found if config.allow_seen or name not in known]
    seen = sorted(set(wanted) & set(known))
    if not wanted or (seen and not config.allow_seen):
        raise Mistake(
            f"{', '.join(seen or found)} was trained on, so figures there would say nothing of unseen products: choose "
            f"--test without {trained}, or say --allow-seen."
        )
    trained += ", SEEN IN TRAINING" if seen else ""
    level = config.level or facts["level"] or "medium"
    words = in_words(level)
    pictures = load(folder, size_px, wanted)
    tests = pictures.subset([i for i, record in enumerate(pictures.records) if record.split == "test"])
    if not len(tests):
        raise Mistake(f"{', '.join(pictures.categories)} has no test pictures: name other categories by --test.")
    title = f"tested on {', '.join(tests.categories)} ({data_name(tests.folder)}), trained on {trained}"
    return DegradedPictures(tests, level, config.seed), size_px, title, words

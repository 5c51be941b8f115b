"""What a trained auto-encoder leaves: its model, figures on test images, reconstructions, samples, curves."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from baselines.autoencoders.augmentation import normals as normal_numbers
from baselines.autoencoders.networks import architecture_of
from baselines.contract.method import Images, Samples, batches
from baselines.contract.metrics import image_figures, pixel_figures
from baselines.contract.model_folder import write_model
from baselines.contract.threshold import threshold_from_normals
from pretrain.data.dataset import ImageSet, data_name
from pretrain.drawing import Curve, Thumbnail, contact_sheet, curves, save_image
from pretrain.files import write_json
from pretrain.training.run import Run

if TYPE_CHECKING:
    from baselines.autoencoder import Config
    from baselines.autoencoders.method import AutoEncoder

FIGURES = "figures.json"
SAMPLES, SAMPLES_IN_ROW = 24, 8
SHOWN_OF_EACH_KIND, SHOWN_ROWS = 2, 12
GRAY_CHECKED = 8


def announce(config: "Config", method: "AutoEncoder", normals: ImageSet, tests: ImageSet) -> None:
    """Say what is about to be trained, and on what."""
    recipe = method.recipe(round(0.9 * len(normals)))
    count = sum(weights.numel() for weights in method.make_network().parameters())
    print(f"{config.category}, {data_name(config.data)}: {len(normals)} good images, a tenth of them held out; "
          f"{len(tests)} test images")  # fmt: skip
    title, length = architecture_of(config.model).title, f"{recipe.epochs} epochs, batch {recipe.batch}"
    print(f"{title}, {count:,} weights, {config.size_px} px, {config.color}, {recipe.loss}")
    print(f"{length}, {config.device}, {config.precision}")
    some = normals.batch(range(min(GRAY_CHECKED, len(normals))))  # (n, h, w, 3)
    if config.color == "rgb" and (some == some[..., :1]).all():
        print("the images are gray: --color gray learns the same from a third of the numbers.")
    if config.model == "backbone":
        from pretrain.encoder import asked_encoder

        origin = asked_encoder(config.start, config.backbone, config.seed).origin
        seen = ", ".join(origin.categories) or origin.data if origin else "nothing: its weights are random"
        print(f"the backbone saw {seen}")
    sys.stdout.flush()


def conclude(config: "Config", run: Run, method: "AutoEncoder", normals: ImageSet, tests: ImageSet) -> dict:
    """Write the model, figures and images, and mark the run as finished. The figures."""
    threshold = threshold_from_normals(method.normal_scores_.cpu().numpy(), config.false_alarm_rate)
    limit = threshold_from_normals(method.normal_peaks_.cpu().numpy(), config.false_alarm_rate)
    (category,) = config.category
    print(f"threshold {threshold.value:.4g} at {config.false_alarm_rate:.0%} false alarms: {threshold.why}")
    figures = measured(method, tests, threshold.value, limit.value)
    shown = tests if len(tests) else normals.subset(method.held_out_)
    save_image(reconstructions(method, shown, limit.value, f"{category}: {config.model}"),
                 config.out / "reconstructions.png")  # fmt: skip
    if hasattr(method.network_, "sampled"):
        save_image(samples(method, config.seed, f"{category}: samples"), config.out / "samples.png")
    save_image(drawn_curves(run, f"{category}: {config.model}"), config.out / "curves.png")
    write_json(config.out / FIGURES, figures)
    metadata = {
        "data": data_name(config.data),
        "normals": len(normals),
        "method": config.model,
        "false_alarm_rate": config.false_alarm_rate,
    }
    write_model(
        config.out,
        method,
        category=category,
        size_px=config.size_px,
        threshold=threshold,
        map_threshold=limit,
        minimum_area_px=config.minimum_area,
        normal_scores=method.normal_scores_.tolist(),
        metadata=metadata,
    )
    run.finish()
    print(f"model: {config.out}")
    return figures


def kept_figures(folder: Path) -> dict:
    """The figures of a finished run."""
    return json.loads((folder / FIGURES).read_text())


def measured(method: "AutoEncoder", tests: ImageSet, threshold: float, limit: float) -> dict:
    """Figures of test images at frozen thresholds, of scores and of maps; those of pixels where there are masks."""
    labels = np.array([record.is_anomaly for record in tests.records], dtype=bool)
    parts = [(part.scores.cpu(), part.maps.cpu()) for part in method.predict(on_device(Images(tests), method))]
    scores, maps = (torch.cat(some).numpy() for some in zip(*parts, strict=True)) if parts else (np.zeros(0), None)
    figures = image_figures(labels, scores, threshold)._asdict()
    has_truth = [i for i, record in enumerate(tests.records) if record.mask or not record.is_anomaly]
    if any(tests.records[i].mask for i in has_truth):
        truth, empty = Samples(tests), np.zeros(maps.shape[1:], bool)
        masks = np.stack([truth[i].mask.numpy() if tests.records[i].mask else empty for i in has_truth])
        pixel = pixel_figures(maps[has_truth], masks, limit)
        figures |= {f"pixel_{name}": value for name, value in pixel._asdict().items()}
    return figures


def print_figures(figures: Mapping[str, dict], title: str, config: "Config") -> None:
    """A line for each category, and the mean over those that have a figure."""
    from rich.console import Console
    from rich.table import Table

    columns = {"pixel AUROC": "pixel_auroc", "pixel AP": "pixel_average_precision", "image AUROC": "auroc",
               "balanced accuracy": "balanced_accuracy", "false alarms": "false_alarm_rate"}  # fmt: skip
    rows = {category: [found.get(name) for name in columns.values()] for category, found in figures.items()}
    if len(rows) > 1:
        known = [[value for value in values if value is not None] for values in zip(*rows.values(), strict=True)]
        rows["mean"] = [math.fsum(values) / len(values) if values else None for values in known]
    table = Table(title=title)
    for header in ("", *columns):
        table.add_column(header, justify="right" if header else "left")
    for category, values in rows.items():
        table.add_row(category, *("n/a" if value is None else f"{value:.3f}" for value in values))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    first = next(iter(figures))
    print(f"images: {config.out}/{first}/reconstructions.png, curves.png")
    print(f"next:     python downstream/detect.py run IMAGES --model {config.out}/{first}")


def reconstructions(method: "AutoEncoder", images: ImageSet, limit: float, title: str):
    """Images, what the network makes of them, and their maps on one scale: white is twice the threshold."""
    chosen, seen = [], {}
    for position, record in enumerate(images.records):
        seen[record.defect] = seen.get(record.defect, 0) + 1
        if seen[record.defect] <= SHOWN_OF_EACH_KIND:
            chosen.append(position)
    chosen = chosen[:SHOWN_ROWS]
    samples_ = Samples(images)
    rows = []
    for position in chosen:
        (batch,) = batches(on_device([samples_[position].image], method), 1)
        restored, (part,) = method.reconstruct(batch), method.predict(batch)
        heat = (part.maps / max(2 * limit, 1e-12)).clamp(0, 1)[:, None]
        mask = samples_[position].mask
        rows.append((images.records[position].defect, [
            Thumbnail(as_pixels(batch)[0], "image", None if mask is None else mask.numpy()),
            Thumbnail(as_pixels(restored)[0], "reconstruction"),
            Thumbnail(as_pixels(heat)[0], "map"),
        ]))  # fmt: skip
    return contact_sheet(rows, title, thumbnail_px=160)


@torch.no_grad()
def samples(method: "AutoEncoder", seed: int, title: str):
    """Images that nobody took: decoded from random numbers."""
    network = method.network_
    numbers = normal_numbers(range(SAMPLES), network.latent, seed, "samples")[:, :, None, None]
    decoded = as_pixels(network.decoder(numbers.to(next(network.parameters()).device)))
    rows = [decoded[start : start + SAMPLES_IN_ROW] for start in range(0, SAMPLES, SAMPLES_IN_ROW)]
    return contact_sheet([("", [Thumbnail(pixels) for pixels in row]) for row in rows], title)


def drawn_curves(run: Run, title: str):
    """The loss of every step, and of the held-out images after every epoch."""
    lines = run.metrics()
    panels = [Curve("loss", [(line["step"], line["loss"]) for line in lines if "loss" in line])]
    held_out = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    panels += [Curve("loss on the held-out tenth", held_out, min(loss for _, loss in held_out))] if held_out else []
    return curves(panels, title)


def as_pixels(images: torch.Tensor) -> np.ndarray:
    """float (b, 1 or 3, h, w) in [0, 1] -> uint8 (b, h, w, 3)."""
    return images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).mul(255).round().byte().cpu().numpy()


def on_device(images, method: "AutoEncoder"):
    """Images, one by one, where the network is."""
    device = next(method.network_.parameters()).device
    return (images[position].to(device) for position in range(len(images)))

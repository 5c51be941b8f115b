"""What a training prints and writes: its plan, then the model, figures on test images, reconstructions, curves."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from baselines.autoencoders.augmentation import standard_normal
from baselines.autoencoders.config import Config
from baselines.autoencoders.method import AutoEncoder
from baselines.autoencoders.networks import architecture_of
from baselines.contract.method import Images, Samples
from baselines.contract.metrics import image_figures, number
from baselines.contract.model_folder import write_model
from baselines.contract.pixel_metrics import pixel_figures
from baselines.contract.threshold import threshold_from_normals
from pretrain.data.dataset import ImageSet, data_name
from pretrain.drawing import Curve, Thumbnail, contact_sheet, curves, save_image
from pretrain.encoder import asked_encoder
from pretrain.files import stored_json, write_json
from pretrain.training.run import Run

FIGURES = "figures.json"
# The last one of networks that can be sampled alone.
IMAGES = ("curves.png", "reconstructions.png", "samples.png")
COLUMNS = {"pixel AUROC": "pixel_auroc", "pixel AP": "pixel_average_precision", "image AUROC": "auroc",
           "balanced accuracy": "balanced_accuracy", "false alarms": "false_alarm_rate"}  # fmt: skip
SAMPLES, SAMPLES_IN_ROW = 24, 8
SHOWN_OF_EACH_DEFECT, SHOWN_ROWS = 2, 12
GRAY_CHECKED = 8


def print_plan(config: Config, method: AutoEncoder, normals: ImageSet, tests: ImageSet) -> None:
    """What is about to be trained, and on what."""
    recipe = method.recipe(round(0.9 * len(normals)))
    count = sum(weights.numel() for weights in method.make_network().parameters())
    print(f"{config.category}, {data_name(config.data)}: {len(normals)} good images, a tenth of them held out; "
          f"{len(tests)} test images")  # fmt: skip
    title, length = architecture_of(config.model).title, f"{recipe.epochs} epochs, batch {recipe.batch}"
    print(f"{title}, {count:,} weights, {config.size_px} px, {config.color}, {recipe.loss}")
    print(f"{length}, {config.device}, {config.precision}")
    pixels = normals.batch(range(min(GRAY_CHECKED, len(normals))))  # (n, h, w, 3)
    if config.color == "rgb" and (pixels == pixels[..., :1]).all():
        print("the images are gray: --color gray learns the same from a third of the numbers.")
    if config.model == "backbone":
        encoder = asked_encoder(config.start, config.backbone, config.seed)
        print(f"backbone: {encoder.architecture}, {encoder.history}")
    sys.stdout.flush()


def write_results(config: Config, run: Run, method: AutoEncoder, normals: ImageSet, tests: ImageSet) -> dict:
    """Write the model, figures and images. The figures."""
    threshold = threshold_from_normals(method.normal_scores_.cpu().numpy(), config.false_alarm_rate)
    limit = threshold_from_normals(method.normal_peaks_.cpu().numpy(), config.false_alarm_rate)
    (category,) = config.category
    print(f"threshold {threshold.value:.4g} at {config.false_alarm_rate:.0%} false alarms: {threshold.why}")
    figures = evaluate(method, tests, threshold.value, limit.value)
    shown = tests if len(tests) else normals.subset(method.held_out_)
    save_image(reconstructions(method, shown, limit.value, f"{category}: {config.model}"),
                 config.out / "reconstructions.png")  # fmt: skip
    if hasattr(method.network_, "sampled"):
        save_image(samples(method, config.seed, f"{category}: samples"), config.out / "samples.png")
    save_image(draw_curves(run, f"{category}: {config.model}"), config.out / "curves.png")
    write_json(config.out / FIGURES, figures)
    metadata = {
        "data": data_name(config.data),
        "layout": config.layout,
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
    print(f"model: {config.out}")
    return figures


def read_figures(folder: Path) -> dict:
    """The figures of a finished run."""
    return stored_json(folder / FIGURES, "train the model anew")


def evaluate(method: AutoEncoder, tests: ImageSet, threshold: float, limit: float) -> dict:
    """Figures of test images at frozen thresholds, of scores and of maps; those of pixels where there are masks."""
    labels = np.array([record.is_anomaly for record in tests.records], dtype=bool)
    predictions = [prediction.cpu() for prediction in method.predict(Images(tests))]
    scores = torch.cat([torch.zeros(0), *(prediction.scores for prediction in predictions)]).numpy()
    figures = image_figures(labels, scores, threshold)._asdict()
    # A defective image without a mask says nothing of pixels; a good one says that none is defective.
    has_truth = [i for i, record in enumerate(tests.records) if record.mask or not record.is_anomaly]
    if any(tests.records[i].mask for i in has_truth):
        maps = torch.cat([prediction.maps for prediction in predictions]).numpy()  # (n, h, w)
        truth, empty = Samples(tests), np.zeros(maps.shape[1:], bool)
        masks = np.stack([truth[i].mask.numpy() if tests.records[i].mask else empty for i in has_truth])
        pixel = pixel_figures(maps[has_truth], masks, limit)
        figures |= {f"pixel_{name}": value for name, value in pixel._asdict().items()}
    return figures


def print_figures(figures: Mapping[str, dict], title: str, config: Config) -> None:
    """A line for each category, and the mean over those that have a figure."""
    rows = {category: [values.get(name) for name in COLUMNS.values()] for category, values in figures.items()}
    if len(rows) > 1:
        known = [[value for value in values if value is not None] for values in zip(*rows.values(), strict=True)]
        rows["mean"] = [math.fsum(values) / len(values) if values else None for values in known]
    table = Table(title=title)
    for header in ("", *COLUMNS):
        table.add_column(header, justify="right" if header else "left")
    for category, values in rows.items():
        table.add_row(category, *map(number, values))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    first = next(iter(figures))
    print(f"images:   {config.out}/{first}/reconstructions.png, curves.png")
    print(f"next:     python downstream/detect.py run IMAGES --model {config.out}/{first}")


def reconstructions(method: AutoEncoder, images: ImageSet, limit: float, title: str) -> Image.Image:
    """Images, what the network makes of them, and their maps on one scale: white is twice the threshold."""
    chosen, seen = [], {}
    for position, record in enumerate(images.records):
        seen[record.defect] = seen.get(record.defect, 0) + 1
        if seen[record.defect] <= SHOWN_OF_EACH_DEFECT:
            chosen.append(position)
    chosen = chosen[:SHOWN_ROWS]
    labeled, rows = Samples(images), []
    for position in chosen:
        batch = labeled[position].image[None]
        restored, (prediction,) = method.reconstruct(batch), method.predict(batch)
        # One scale for all images: white is twice the threshold.
        brightness = (prediction.maps / max(2 * limit, 1e-12)).clamp(0, 1)[:, None]
        mask = labeled[position].mask
        rows.append((images.records[position].defect, [
            Thumbnail(as_pixels(batch)[0], "image", None if mask is None else mask.numpy()),
            Thumbnail(as_pixels(restored)[0], "reconstruction"),
            Thumbnail(as_pixels(brightness)[0], "map"),
        ]))  # fmt: skip
    return contact_sheet(rows, title, thumbnail_px=160)


@torch.no_grad()
def samples(method: AutoEncoder, seed: int, title: str) -> Image.Image:
    """Images that a VAE decodes from random numbers: what it knows of the category."""
    network = method.network_
    codes = standard_normal(range(SAMPLES), network.latent, seed, "samples")[:, :, None, None]
    decoded = as_pixels(network.decoder(codes.to(method.device)))
    rows = [decoded[start : start + SAMPLES_IN_ROW] for start in range(0, SAMPLES, SAMPLES_IN_ROW)]
    return contact_sheet([("", [Thumbnail(pixels) for pixels in row]) for row in rows], title)


def draw_curves(run: Run, title: str) -> Image.Image:
    """The loss of every step, and of the held-out images after every epoch."""
    lines = run.metrics()
    panels = [Curve("loss", [(line["step"], line["loss"]) for line in lines if "loss" in line])]
    held_out = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    panels += [Curve("loss on the held-out tenth", held_out, min(loss for _, loss in held_out))] if held_out else []
    return curves(panels, title)


def as_pixels(images: Tensor) -> np.ndarray:
    """float (b, 1 or 3, h, w) in [0, 1] -> uint8 (b, h, w, 3)."""
    return images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).mul(255).round().byte().cpu().numpy()

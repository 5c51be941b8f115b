"""detect.py triage: the images of a mixed folder, ranked by how little each resembles the rest."""

import json
import shlex
import sys
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sklearn.metrics import roc_auc_score

from baselines.contract.method import Images
from baselines.contract.regions import regions
from downstream.inspection.config import Triage
from downstream.inspection.images import images_of
from downstream.inspection.overlay import overlay
from downstream.methods.mutual import CLEAR_DEVIATIONS, MIN_TO_COMPARE, Mutual
from downstream.methods.references import robust_deviations, robust_limit
from embeddings.encoding import check_encoder, choose_encoder
from pretrain.command import UserError
from pretrain.data.channels import ToFind, read_image
from pretrain.data.dataset import ImageSet, check_size, data_name
from pretrain.data.images import UNLABELED
from pretrain.demo import is_demo
from pretrain.drawing import GAP_PX, INK, MARGIN_PX, PAPER, TITLE_PX, save_image
from pretrain.files import sole_writer, write_whole
from pretrain.progress import Progress, duration
from pretrain.training.device import choose_device

SHOWN_PX, COLUMNS = 220, 3


@dataclass(frozen=True)
class Ranking:
    """Of images in their order: `scores` (n,), higher where fewer others have what an image shows; how far each lies
    above the median, `deviations` (n,); `order`, the worst first; the `maps` of the worst, by position; and the value
    `limit` above which a map's pixel is as odd as an outlier's."""

    scores: np.ndarray
    deviations: np.ndarray
    order: list[int]
    maps: dict[int, np.ndarray]
    limit: float


def triage(config: Triage) -> None:
    """Rank, report, and write."""
    if len(config.folder) != 1:
        raise UserError(f"{len(config.folder)} folders were named: name one, of images of one product.")
    if config.show < 1:
        raise UserError(f"--show {config.show} shows nothing: give 1 or more.")
    check_size(config.size_px)
    check_encoder(config.encoder)
    start_s = time.perf_counter()
    (folder,) = config.folder
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name one of images of one product.")
    images = images_of(folder, config.category, config.size_px, True, config.layout, config.split, channels=ToFind())
    encoder, name = choose_encoder(config.encoder, config.seed, is_demo(folder))
    print(f"encoder: {name}, {encoder.history}")
    method = Mutual(encoder=encoder, against=config.against, seed=config.seed).to(choose_device(config.device))
    ranking = ranked(images, method, config.show)
    with sole_writer(config.out, "writes a triage into", "another --out"):
        lines = "".join(json.dumps(line) + "\n" for line in lines_of(images, ranking))
        write_whole(config.out / "triage.jsonl", lines.encode())
        save_image(sheet_of(images, ranking, f"least like the others in {data_name(folder)}"), config.out / "sheet.png")
    print_table(images, ranking, config.show)
    print_figures(images, ranking)
    clear = int((ranking.deviations > CLEAR_DEVIATIONS).sum())
    print(f"{clear} of {len(images)} images are clear outliers, more than {CLEAR_DEVIATIONS:g} robust deviations above "
          f"the median; {duration(time.perf_counter() - start_s)}")  # fmt: skip
    print(f"ranked: {config.out / 'triage.jsonl'}")
    print(f"sheet:  {config.out / 'sheet.png'}")
    # Of those that fit would see: of a laid out folder, train/good. It leaves out at most this share.
    seen = [i for i, record in enumerate(images.records) if record.split != "test" and not record.is_anomaly]
    odd = int((ranking.deviations[seen] > CLEAR_DEVIATIONS).sum())
    share = min(0.45, np.ceil(100 * odd / max(1, len(seen))) / 100)
    options = "".join(
        f" --{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name in ("category", "layout", "encoder", "size_px")
        if (value := getattr(config, name)) != getattr(Triage, name)
    )
    options += f" --allow-contamination {share:g}" if odd else ""
    print(f"next:   python downstream/detect.py fit --data {shlex.quote(str(folder))}{options}")


def ranked(images: ImageSet, method: Mutual, keep: int = 0) -> Ranking:
    """Each image compared with the others; the maps of the worst `keep` are kept, and no more in memory. Raises
    UserError where there is nothing to compare."""
    if len(images) < MIN_TO_COMPARE:
        raise UserError(f"{len(images)} images cannot be told apart from the rest: give {MIN_TO_COMPARE} or more.")
    if len({entry.digest for entry in images.entries}) == 1:
        raise UserError(f"all {len(images)} images are the same, pixel for pixel: there is nothing to rank.")
    if method.against < MIN_TO_COMPARE - 1:
        raise UserError(f"--against {method.against} compares with too few: give {MIN_TO_COMPARE - 1} or more.")
    originals, scores, peaks, maps = Images(images), [], [], {}
    with Progress("comparing", len(images)) as progress:
        method.fit([]).refer(originals)
        for batch in method.each_left_out(originals):
            batch = batch.cpu()
            for score, anomaly_map in zip(batch.scores.tolist(), batch.maps.numpy(), strict=True):
                maps[len(scores)] = anomaly_map.copy()  # a view would keep its whole batch in memory
                scores.append(score)
                peaks.append(float(anomaly_map.max()))
            for position in sorted(maps, key=lambda position: -scores[position])[keep:]:
                del maps[position]
            progress.advance(len(batch.scores))
    order = sorted(range(len(scores)), key=lambda position: -scores[position])
    limit = robust_limit(peaks, CLEAR_DEVIATIONS)
    return Ranking(np.array(scores), robust_deviations(scores), order, maps, limit)


def lines_of(images: ImageSet, ranking: Ranking) -> list[dict]:
    """One line an image, the worst first."""
    lines = []
    for rank, position in enumerate(ranking.order, 1):
        record, deviations = images.records[position], float(ranking.deviations[position])
        line = {"rank": rank, "path": str(record.path), "score": float(ranking.scores[position])}
        line |= {"deviations": deviations, "is_outlier": deviations > CLEAR_DEVIATIONS}
        lines.append(line | ({"label": record.defect} if record.defect != UNLABELED else {}))
    return lines


def print_table(images: ImageSet, ranking: Ranking, show: int) -> None:
    table = Table(title="the least like the others", title_justify="left")
    for header in ("rank", "score", "deviations"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("image", overflow="fold")
    for line in lines_of(images, ranking)[:show]:
        verdict = "[red]outlier[/]" if line["is_outlier"] else ""
        shown = (str(line["rank"]), f"{line['score']:.4g}", f"{line['deviations']:.1f}", verdict, escape(line["path"]))
        table.add_row(*shown)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def print_figures(images: ImageSet, ranking: Ranking) -> None:
    """How right the ranking is, where the folder says what is in an image: looked at here for the first time."""
    if any(record.defect == UNLABELED for record in images.records):
        return
    labels = np.array([record.is_anomaly for record in images.records])
    defective = int(labels.sum())
    if 0 < defective < len(labels):
        print(f"by the folder's labels: AUROC {roc_auc_score(labels, ranking.scores):.3f}, "
              f"{int(labels[ranking.order[:defective]].sum())} of the worst {defective} images are defective, "
              f"as {defective} of all {len(labels)} are")  # fmt: skip


def sheet_of(images: ImageSet, ranking: Ranking, title: str) -> Image.Image:
    """The worst images, each beside its heatmap with boxes, in rows."""
    worst = sorted(ranking.maps, key=lambda position: -ranking.scores[position])
    drawings = [drawn(images, ranking, position, rank) for rank, position in enumerate(worst, 1)]
    rows = [drawings[start : start + COLUMNS] for start in range(0, len(drawings), COLUMNS)]
    width_px = max(sum(each.width + GAP_PX for each in row) for row in rows)
    height_px = sum(max(each.height for each in row) for row in rows)
    sheet = Image.new("RGB", (2 * MARGIN_PX + width_px, 2 * MARGIN_PX + TITLE_PX + height_px), PAPER)
    ImageDraw.Draw(sheet).text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(22))
    top = MARGIN_PX + TITLE_PX
    for row in rows:
        left = MARGIN_PX
        for drawing in row:
            sheet.paste(drawing, (left, top))
            left += drawing.width + GAP_PX
        top += max(each.height for each in row)
    return sheet


def drawn(images: ImageSet, ranking: Ranking, position: int, rank: int) -> Image.Image:
    """An image with its heatmap on the scale that all share, and where it is as odd as an outlier."""
    pixels = read_image(images.records[position].path, channels=images.channels).pixels
    anomaly_map, deviations = ranking.maps[position], ranking.deviations[position]
    odd = regions(anomaly_map, ranking.limit, 0, pixels.shape[:2])
    verdict = f"{rank}: {deviations:.1f} deviations"  # names may be long, and stand in the table
    is_outlier = bool(deviations > CLEAR_DEVIATIONS)
    return overlay(pixels, anomaly_map, ranking.limit, odd, verdict, is_outlier, shown_px=SHOWN_PX)

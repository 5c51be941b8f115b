"""Does the nearest neighbor of a defective image share its defect? On categories the encoder never saw.

    python scripts/leave_one_out.py --data data/mvtec --seeds 0,1,2     # makes the encoders
    python scripts/defect_neighbors.py --data data/mvtec --seeds 0,1,2 --record RESULTS.md

Precision at 1 and 5 of types of defect among the category's defective test images, by cosine distance of pooled
vectors, beside a random encoder of the same seed and beside chance. `embeddings/knn.py` does this for one encoder and
seed; here are means over seeds, also for vectors minus the mean of the category's good images.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.config import DefectNeighbors

    start("scripts.defect_neighbors:main", DefectNeighbors)

import json
import os
import platform
import shlex
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path
from statistics import mean, stdev

from embeddings.encoding import RANDOM
from embeddings.knn import VIEWS, NeighborFigures, defect_figures, pooled
from pretrain.command import Names, UserError
from pretrain.data.dataset import load
from pretrain.data.images import check_names
from pretrain.data.layouts import category_folders
from pretrain.encoder import Encoder, commit, load_encoder
from pretrain.files import write_whole
from scripts.config import DefectNeighbors

ENCODERS = (str(RANDOM), "pretrained")
FIGURES = ("among_defective_1", "among_defective_5")


def main(config: DefectNeighbors) -> None:
    """Measure and print a table for vectors as they are, and one for their difference from good images."""
    available = category_folders(config.data, config.layout)
    check_names(config.categories, available, f"category in {config.data}")
    categories = config.categories or Names(sorted(available))
    files = {
        (category, seed): config.runs / f"without-{category}-seed-{seed}" / "encoder.safetensors"
        for seed in config.seeds
        for category in categories
    }
    if missing := [path for path in files.values() if not path.is_file()]:
        raise UserError(f"there is no {missing[0]}: scripts/leave_one_out.py with the same seeds makes it.")
    figures: dict = defaultdict(lambda: defaultdict(list))  # by view and category: one of each seed
    for (category, seed), path in files.items():
        images = load(config.data, config.size_px, [category], layout=config.layout)
        for encoder_name, encoder in encoders(path, category, int(seed)).items():
            vectors = pooled(encoder, images)
            for view in VIEWS:
                measured = defect_figures(vectors, images, view)[category]
                figures[view][category].append({"encoder": encoder_name, "seed": seed, "figures": measured})
        print(f"{category}, seed {seed}: done", file=sys.stderr, flush=True)
    text = "\n\n".join(f"Vectors {view}:\n\n" + "\n".join(as_markdown(figures[view])) for view in VIEWS)
    print(text)
    if config.json:
        write_whole(config.json, (json.dumps(figures, indent=2, default=vars) + "\n").encode())
    if config.record:
        command = shlex.join(["python", "scripts/defect_neighbors.py", *sys.argv[1:]])
        hardware = f"{os.cpu_count()} cores, {platform.machine()}"
        metadata = f"{date.today()}, {hardware}, seeds {config.seeds}, {config.size_px} px, fp32, commit {commit()}"
        with open(config.record, "a") as file:
            file.write(f"\n## Do neighbors share the defect?\n\n{metadata}\n\n    {command}\n\n{text}\n")


def encoders(path: Path, category: str, seed: int) -> dict:
    """The random control and the pretrained encoder. Raises UserError if that one saw the category."""
    encoder = load_encoder(path)
    if encoder.origin and category in encoder.origin.categories:
        raise UserError(f"{path} saw {category}: figures there say nothing.")
    return dict(zip(ENCODERS, (Encoder(encoder.architecture, seed), encoder), strict=True))


def as_markdown(by_category: dict[str, list[dict]]) -> list[str]:
    """Precision at 1 and at 5, mean and standard deviation over seeds."""
    lines = [
        "| category, defect types | chance | at 1: random | pretrained | at 5: random | pretrained |",
        "|---|---|---|---|---|---|",
    ]
    columns = [(figure, encoder) for figure in FIGURES for encoder in ENCODERS]
    values_of: dict[tuple[str, str], list[list[float]]] = {column: [] for column in columns}  # by category and seed
    chances = []
    for category, measured in by_category.items():
        first: NeighborFigures = measured[0]["figures"]
        texts = []
        for figure, encoder in columns:
            values = [getattr(result["figures"], figure) for result in measured if result["encoder"] == encoder]
            values_of[figure, encoder].append(values)
            texts.append(mean_and_spread(values))
        chances.append(first.chance_defective)
        label = f"{category}, {first.defect_types} types of {first.defective}"
        lines.append(f"| {label} | {first.chance_defective:.3f} | " + " | ".join(texts) + " |")
    means = [mean_and_spread([mean(of_seed) for of_seed in zip(*values, strict=True)]) for values in values_of.values()]
    lines.append(f"| mean | {mean(chances):.3f} | " + " | ".join(means) + " |")
    return lines


def mean_and_spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")

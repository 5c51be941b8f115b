"""Results at a glance: a table of the most telling figures in RESULTS.md, written into README.md and RESULTS.md.

    python scripts/glance.py             # write both
    python scripts/glance.py --check     # write nothing; exit code 1 if they would change

No figure is typed here: each is looked up in a table or printed output that a command wrote to RESULTS.md.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.glance import Glance

    start("scripts.glance:main", Glance)

import re
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BEGIN = "<!-- glance: written by python scripts/glance.py from RESULTS.md -->"
END = "<!-- end of glance -->"
STUDY = "The study: patch statistics, each category left out in turn"
START = "The start at 384 px: the default method on ImageNet weights, each product's own normals, three seeds"
ALONE = "The start at 224 px: PaDiM, PatchCore and the two fused, from one good image to all, three seeds"
OTHERS = "The start: what is trained on other products, on ImageNet weights, each product left out, three seeds"
CAM = "The start: what is trained on other products, on ImageNet weights, each product left out, one seed"
LEFT_OUT = "SimCLR from ImageNet's weights on other products, two seeds"
OWN = "SimCLR from ImageNet's weights on the products' own normals, all five together, one seed"
# (shown as, section, row there)
STARTS = (
    ("PatchCore and PaDiM fused (the default), ImageNet weights", START, "fused-ImageNet-all-normals"),
    ("the same with four good images", START, "fused-ImageNet-4-normals"),
    ("PatchCore, ImageNet weights, 224 px", ALONE, "patchcore-ImageNet-all-normals"),
    ("fused, 224 px, after SimCLR on other products, two seeds", LEFT_OUT, "fused-SimCLR-all-normals"),
    ("its start, with the same two seeds", LEFT_OUT, "fused-ImageNet-all-normals"),
    ("fused after SimCLR on the products' own good images, one seed", OWN, "fused-SimCLR-all-normals"),
    ("its start, with the same seed", OWN, "fused-ImageNet-all-normals"),
    ("PaDiM, ImageNet weights, 224 px", ALONE, "padim-ImageNet-all-normals"),
    ("fused, random weights", START, "fused-random-all-normals"),
    ("residuals, 224 px, learned from the other four", OTHERS, "residual-ImageNet-all-normals"),
    ("CAM, ImageNet weights, labels of the other four", CAM, "cam"),
    ("auto-encoder, 64 px", OTHERS, "ae-all-normals"),
    ("frame only (control)", START, "frame-all-normals"),
)
# (shown as, row of the study with the SimCLR encoder, the same with the random one)
METHODS = (
    ("PaDiM", "padim-SimCLR-all-normals", "padim-random-all-normals"),
    ("PatchCore", "patchcore-SimCLR-all-normals", "patchcore-random-all-normals"),
    ("residuals", "residual-SimCLR-all-normals", "residual-random-all-normals"),
    ("mean image (control)", None, "mean-all-normals"),
    ("frame only (control)", None, "frame-all-normals"),
)
# (task, compared with, section, what stands before the figure in the section's printed output)
SPEEDS = (
    ("search among a million vectors", "faiss's exact index", "Speed of search", "ours over faiss's exact"),
    ("inspect, PaDiM, int8 ONNX, 256 px", "anomalib's PaDiM on ResNet-18 in torch, 256 px",
     "Speed of answering at the size of anomalib's images", "faster_1_thread"),
    ("inspect, the default method at 384 px, ONNX", "the same",
     "Speed of answering, the default method at 384 px on capsule", "faster_2_threads"),
    ("fit PaDiM", "anomalib", "Speed of patch statistics", "fit "),
    ("pretrain on files of 1024 px", "lightly's loop", "Speed of pretraining", "over_lightly_1024"),
    ("restore an image", "SADNet", "Speed of restoration, and its worth after equal training", "speed "),
    ("inspect over HTTP, 32 clients", "the model alone", "Speed of the inspection service", "of_model "),
)  # fmt: skip


@dataclass(frozen=True)
class Glance:
    """Write the table Results at a glance into README.md and RESULTS.md.

    Attributes:
        check: Write nothing; exit code 1 if the files would change.
    """

    check: bool = False


def main(config: Glance) -> int:
    results = (REPOSITORY / "RESULTS.md").read_text()
    sections = sections_of(results)
    table = glance(sections)
    changed = {
        REPOSITORY / "README.md": with_glance((REPOSITORY / "README.md").read_text(), table),
        REPOSITORY / "RESULTS.md": with_glance(results, f"{index(sections)}\n\n{table}"),
    }
    changed = {path: text for path, text in changed.items() if text != path.read_text()}
    for path, text in changed.items():
        if config.check:
            print(f"error: {path.name} is not what python scripts/glance.py writes.", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"wrote {path.name}")
    return 1 if changed and config.check else 0


def sections_of(text: str) -> dict[str, str]:
    """The text under each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_table(section: str) -> dict[str, dict[str, str]]:
    """The cells of a section's first table, by row and column."""
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)[0].splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def printed_figure(section: str, label: str) -> str:
    """The number after a label in what a benchmark printed, the last one: of the largest size."""
    found = re.findall(rf"^ +{re.escape(label)}\s*([\d.]+)", section, re.MULTILINE)
    if not found:
        raise LookupError(f"RESULTS.md has no figure {label!r} where it is looked for")
    return found[-1]


def added(record: str) -> str:
    """What SimCLR added to its start, or took from it, by the first sentence of the record."""
    said = (
        r"SimCLR (added|took) (\S+) AUROC (?:to|from) its start.*?on average over (.*?) \(95 % interval (\S+) to (\S+),"
    )
    did, gain, rows, low, high = re.search(said, record).groups()
    gain = gain if did == "added" else f"-{gain}"
    return f"{gain} AUROC on average over {rows}, 95 % interval {low} to {high}"


def glance(sections: dict[str, str]) -> str:
    started = {section: first_table(sections[section]) for section in (START, ALONE, LEFT_OUT, OWN, OTHERS, CAM)}
    study = first_table(sections[STUDY])
    figures = ("image AUROC", "balanced accuracy", "oracle's", "AUPRO")
    lines = [
        "Five real products, each from its own good images alone, and without pretraining, unless a row says so;",
        "mean and standard deviation over three seeds, or one seed; balanced accuracy at the threshold set from good",
        "images, and at the best one, which knows the labels; AUPRO is of two products.",
        "",
        f"| method | {' | '.join(figures)} |",
        "|---" * (1 + len(figures)) + "|",
        *(
            f"| {title} | {' | '.join(started[section][row][figure] for figure in figures)} |"
            for title, section, row in STARTS
        ),
        "",
        "To ImageNet's weights SimCLR adds nothing that is shown, neither on products that it never saw",
        f"({added(sections[LEFT_OUT])})",
        f"nor on the products' own images ({added(sections[OWN])}):",
        "`detect.py` takes it only where its monitor finds it clearly better.",
        "What it adds to random weights, with the statistics of 0.1: four real products, each left out in turn, so",
        "that neither encoder nor method was trained on it; all of its normals are references; mean and standard",
        "deviation over three seeds; AUPRO is of one product.",
        "",
        "| method | image AUROC: random encoder | SimCLR | AUPRO: random encoder | SimCLR |",
        "|---|---|---|---|---|",
    ]
    for title, pretrained, other in METHODS:
        cells = [
            study[row][figure] if row else "" for figure in ("image AUROC", "AUPRO") for row in (other, pretrained)
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", "| speed on two CPU cores | compared with | times as fast |", "|---|---|---|"]
    lines += [f"| {task} | {peer} | {printed_figure(sections[name], label)} |" for task, peer, name, label in SPEEDS]
    return "\n".join(lines)


def index(sections: dict[str, str]) -> str:
    """Links to the sections, by the anchors that GitHub and mkdocs give to headings."""
    anchors = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in sections)
    return "\n".join(f"- [{heading}](#{anchor})" for heading, anchor in zip(sections, anchors, strict=True))


def with_glance(text: str, table: str) -> str:
    """The text with what stands between the two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise LookupError(f"the marks {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"

"""The study as one page that a person wants to read: self-contained, light and dark, no network, no script."""

from html import escape
from pathlib import Path

from downstream.report.category import category_section
from downstream.report.html import value_of
from downstream.report.tables import (
    cost_section,
    decisions_section,
    restoration_section,
    results_section,
    thresholds_section,
)
from downstream.report.terminal import title
from downstream.study.cell import RANDOM, SIMCLR
from downstream.study.summary import Results, failure_lines
from pretrain.files import write_whole

STYLE = Path(__file__).with_name("report.css")
QUESTIONS = {
    "held-out": "How well are defects found on products that nothing was trained on?",
    "leave-one-out": "How well are defects found on each product when only the others were trained on?",
    "one-class": "How well are defects found when a method learns from nothing but a product's own good images?",
}


def write_report(summary: dict, results: Results, file: Path) -> None:
    """Write report.html; the images in it are read from the data folder and stay as they are."""
    categories = summary["categories"]
    links = {"results": "Results"} | {f"c{place}": name for place, name in enumerate(categories)}
    links |= {"restoration": "Restoration"} if summary["restoration"] else {}
    links |= {"decisions": "Decisions", "thresholds": "Thresholds", "cost": "Cost", "made": "How it was made"}
    navigation = "".join(f'<a href="#{place}">{escape(name)}</a>' for place, name in links.items())
    sections = [
        results_section(summary),
        *(category_section(category, summary, results) for category in categories),
        restoration_section(summary),
        decisions_section(summary),
        thresholds_section(summary),
        cost_section(summary),
        made_section(summary),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title(summary))}</title><style>{STYLE.read_text()}</style></head><body>"
        f"<header>{opening(summary)}</header><nav><div>{navigation}</div></nav><main>{''.join(sections)}</main>"
        f"<footer>Drawn by heldout from {escape(title(summary))}.</footer></body></html>\n"
    )
    write_whole(file, page.encode())


def opening(summary: dict) -> str:
    """The question, the answer in figures, and what speaks against believing them."""
    badges = ["demo data"] * summary["is_demo"] + ["quick"] * summary["quick"]
    marks = "".join(f'<span class="badge">{badge}</span>' for badge in badges)
    count = sum(sum(images.values()) for images in summary["images"].values())
    trained = {tuple(fold["train"]) for fold in summary["folds"]}
    train = ", ".join(summary["folds"][0]["train"]) if len(trained) == 1 else "all others in turn"
    parts = [
        f"<p>{marks}</p>" if marks else "",
        f"<h1>{QUESTIONS[summary['protocol']]}</h1>",
        f'<p class="lead">{answer(summary)}</p>',
        f'<p class="faint">{escape(summary["data"])}: tested on {escape(", ".join(summary["categories"]))}, {count} '
        f"images{f'; labels from {escape(train)}' if train else ''}. Seeds {', '.join(map(str, summary['seeds']))}; "
        f"{summary['size_px']} px; {summary['date']}.</p>",
    ]
    if summary["is_demo"]:
        parts.append('<p class="faint">Demo data are generated: no figure here says anything about real products.</p>')
    if lines := [*summary["warnings"], *failure_lines(summary["failures"])]:
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        parts.append(f'<div class="warnings"><b>Before you believe it</b><ul>{items}</ul></div>')
    return "".join(parts)


def answer(summary: dict) -> str:
    """The highest image AUROC among rows that are no controls, with its interval and its own control, in words."""
    rows = [row for row in summary["rows"] if not row["is_control"] and value_of(row, "auroc") is not None]
    if not rows:
        return "No figure that compares good with defective images is defined here."
    best = max(rows, key=lambda row: value_of(row, "auroc"))
    low, high = best["interval"]
    encoder = f" on the {best['encoder']} encoder" if best["encoder"] else ""
    sentences = [
        f"Highest of {len(rows)} rows: <b>{escape(best['title'])}{encoder}</b>, having seen {best['saw']} of the "
        f"tested product, with image AUROC <b>{value_of(best, 'auroc'):.3f}</b> (95 % interval over images "
        f"{low:.3f} to {high:.3f})."
    ]
    alike = [row for row in rows if (row["method"], row["shots"]) == (best["method"], best["shots"])]
    for row in alike:
        if row["encoder"] == RANDOM and row is not best:
            sentences.append(f"The same with random weights: {value_of(row, 'auroc'):.3f}.")
    gains = [row["control"] for row in rows if row["control"] and row["encoder"] == SIMCLR]
    if gains:
        clear = [gain["difference"] for gain in gains if gain["p_holm"] < 0.05]
        up, down = sum(value > 0 for value in clear), sum(value < 0 for value in clear)
        sentences.append(
            f"Of {len(gains)} rows with the SimCLR encoder, {up} beat{'s' if up == 1 else ''} the random one beyond "
            f"chance, {down} fall{'s' if down == 1 else ''} behind it, and {len(gains) - up - down} cannot be told "
            "from it."
        )
    return " ".join([*sentences, "Guessing has 0.5."])


def made_section(summary: dict) -> str:
    """Everything that is needed to make the same again."""
    encoders = "".join(
        f"<li><code>{escape(one['file'])}</code>: {escape(one['architecture'])}, fingerprint {one['fingerprint']}, "
        f"pretrained on {escape(one['data'])} ({escape(', '.join(one['saw']))}), judged on "
        f"{escape(', '.join(one['judged_on']) or 'nothing')}</li>"
        for one in summary["encoders"]
    )
    metadata = {
        "data": summary["data"],
        "protocol": summary["protocol"],
        "seeds": ", ".join(map(str, summary["seeds"])),
        "parts": f"{summary['parts']['finished']} of {summary['parts']['planned']} finished",
        "commit": summary["commit"] or "not known: installed, not a checkout",
        "versions": ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
        "machine": summary["machine"],
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in metadata.items())
    listed += f"<dt>encoders</dt><dd>{f'<ul>{encoders}</ul>' if encoders else 'none'}</dd>"
    return f'<h2 id="made">How it was made</h2><pre>{escape(summary["command"])}</pre><dl>{listed}</dl>'

"""The study as one page that a person wants to read: self-contained, light and dark, no network, no script.

What is computed stands here, in tables.py and in category.py; how it is laid out and worded stands in templates/. All
that comes from outside, such as names of folders, is escaped by Jinja2.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from baselines.contract.metrics import number
from downstream.report.category import category_section
from downstream.report.finding import main_finding, rows_sentence, start_sentence, start_table
from downstream.report.rows import mean_figure, p_value, row_title, row_variant, signed, signed_interval, study_title
from downstream.report.tables import decisions_table, results_table, thresholds_table
from downstream.study.record import Results
from downstream.study.significance import is_clear
from downstream.study.warnings import failure_warnings
from pretrain.files import write_whole

HERE = Path(__file__).parent
QUESTIONS = {
    "held-out": "How well are defects found on products that nothing was trained on?",
    "leave-one-out": "How well are defects found on each product when only the others were trained on?",
    "one-class": "How well are defects found when a method learns from nothing but a product's own good images?",
}


def write_report(summary: dict, results: Results, file: Path) -> None:
    """Write report.html; the images in it are read from the data folder and stay as they are."""
    training = {", ".join(fold["train"]) for fold in summary["folds"]}
    page = (
        environment()
        .get_template("page.html")
        .render(
            summary=summary,
            title=study_title(summary),
            question=QUESTIONS[summary["protocol"]],
            image_count=sum(sum(counts.values()) for counts in summary["images"].values()),
            trained_on=training.pop() if len(training) == 1 else "all others in turn",
            start_sentence=start_sentence(summary),
            rows_sentence=rows_sentence(summary),
            start_table=start_table(summary),
            finding=main_finding(summary),
            warnings=[*summary["warnings"], *failure_warnings(summary["failures"])],
            results=results_table(summary),
            categories=[category_section(category, summary, results) for category in summary["categories"]],
            decisions=decisions_table(summary),
            thresholds=thresholds_table(summary),
        )
    )
    write_whole(file, page.encode("utf-8", "replace"))  # names of files need not be UTF-8


def environment() -> Environment:
    """The templates, with the helpers that they call. A name that is missing is an error, never an empty text."""
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = (number, p_value, row_title, row_variant, signed, signed_interval)
    templates.filters |= {text.__name__: text for text in texts}
    templates.globals["mean_figure"] = mean_figure
    templates.globals["style"] = Markup((HERE / "report.css").read_text())  # ours: escaping would break its quotes
    templates.tests["clear"] = is_clear
    return templates

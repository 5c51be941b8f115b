"""The study on a terminal."""

import io

from rich.console import Console

from downstream.report.finding import start_sentence
from downstream.report.terminal import (
    MAX_CATEGORIES,
    WIDTH,
    categories_table,
    differences_table,
    main_table,
    print_tables,
    restoration_table,
    versus,
)
from downstream.restoration.table import COLUMNS


def shown(table) -> str:
    console = Console(width=WIDTH, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_every_row_and_trivial_answer_stands_in_the_table(summarized):
    summary, _ = summarized
    text = shown(main_table(summary))
    for row in [*summary["rows"], *summary["trivial"]]:
        assert row["title"] in text
    assert text.index("PaDiM") < text.index("frame only") < text.index("always good")


def test_of_many_categories_the_first_are_shown_and_the_others_counted(summarized):
    summary, _ = summarized
    names = ["bottle", *(f"product {i}" for i in range(MAX_CATEGORIES + 1))]
    text = shown(categories_table({**summary, "categories": names}))
    assert "(2 more in the report)" in text and "n/a" in text and "product 4" not in text


def test_names_are_no_markup_and_failures_are_told(summarized, capsys):
    summary, _ = summarized
    failure = {
        "row": {"method": "padim", "encoder": "", "shots": "all"},
        "category": "nut",
        "seed": 0,
        "reason": "dark",
    }
    table = {"lead": "Restored.", "columns": ["restored by", "PSNR"], "rows": [["sadnet", "31.00"]], "note": "Read it."}
    print_tables({**summary, "data": "[red]data[/red]", "warnings": ["a [bold] one"], "failures": [failure],
                  "restoration": table})  # fmt: skip
    printed = capsys.readouterr().out
    for words in ("[red]data[/red]", "warning: a [bold] one", "on nut): dark", "sadnet", "31.00", "Restored. Read it."):
        assert words in printed


def test_a_star_says_that_chance_is_unlikely():
    assert versus(None) == ""
    assert versus({"difference": 0.1, "p_holm": 0.01}) == "+.100*"
    assert versus({"difference": -0.1, "p_holm": 0.2}) == "-.100 " == versus({"difference": -0.1, "p_holm": None})


def test_the_first_line_is_what_simclr_added_and_its_table_fits(summarized, capsys):
    summary, _ = summarized
    print_tables(summary)
    printed = capsys.readouterr().out
    assert " ".join(printed.split()).startswith(start_sentence(summary))
    assert "SimCLR minus its start" in printed and "mean of 3 rows" in printed
    assert max(map(len, printed.splitlines())) <= WIDTH
    names = ["bottle", *(f"product {i}" for i in range(MAX_CATEGORIES + 1))]
    assert "(2 more in the report)" in shown(differences_table({**summary, "categories": names}))
    print_tables({**summary, "versus_start": None})
    assert "SimCLR minus its start" not in capsys.readouterr().out


def test_restorers_fit_with_every_word_whole():
    rows = [["degraded input", *["27.65 ± 0.00"] * 6, "", "", ""], ["imagenet", *["0.793 ± 0.003"] * 7, "36", "0.2"]]
    text = shown(restoration_table({"columns": COLUMNS, "rows": rows}))
    assert max(map(len, text.splitlines())) <= WIDTH
    words = text.replace("┃", " ").replace("│", " ").split()
    assert {word for heading in COLUMNS for word in heading.split()} <= {*words} and words.count("0.793") == 7

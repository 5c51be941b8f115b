"""The notebooks run, what is kept in them is what their cells give, and the site shows it."""

import json
import re
import time

import pytest
from conftest import REPOSITORY

from scripts.notebook_pages import markdown
from scripts.notebooks import FOLDER, executed

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 300_000
MAX_SECONDS, SECONDS = 120, {}


def kinds(cell: dict) -> list[str]:
    """Of what a cell gives: printed text, a picture, a value."""
    return [[*output.get("data", {"text": ""})][0] for output in cell.get("outputs", ())]


def words(cell: dict) -> list[str]:
    """Of what it prints, in any order: numbers, and with them the order of lines, differ a little among machines, and
    so does the precision that a training chooses."""
    printed = "".join("".join(output.get("text", ())) for output in cell.get("outputs", ()))
    lines = [line for line in printed.splitlines() if "process(es)" not in line]
    return sorted(re.findall(r"[^\W\d_]{3,}", " ".join(lines)))


LONGEST = "does_simclr_help"  # which trains, in half of the time of them all


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == LONGEST else []) for path in NOTEBOOKS],
)
def test_a_notebook_runs_and_holds_what_its_cells_give(path, tmp_path):
    kept, start_s = json.loads(path.read_text()), time.process_time()
    run = executed(kept, tmp_path)
    SECONDS[path.stem] = time.process_time() - start_s
    assert [kinds(cell) for cell in run["cells"]] == [kinds(cell) for cell in kept["cells"]]
    assert [words(cell) for cell in run["cells"]] == [words(cell) for cell in kept["cells"]]
    assert sum("image/jpeg" in kinds(cell) for cell in kept["cells"]) > 0


def test_all_of_them_take_less_than_two_minutes():
    """Of this process, whoever shares the machine; where all of this file is run."""
    assert {*SECONDS, LONGEST} in ({LONGEST}, {path.stem for path in NOTEBOOKS}) and sum(
        SECONDS.values()
    ) < MAX_SECONDS, SECONDS


def test_they_are_small_and_known_to_the_site():
    assert len(NOTEBOOKS) == 3 and sum(path.stat().st_size for path in NOTEBOOKS) < MAX_BYTES
    pages = (REPOSITORY / "mkdocs.yml").read_text()
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in pages] == []


def test_a_cells_fault_is_raised_and_its_outputs_are_kept(tmp_path):
    def notebook(*sources: str) -> dict:
        return {"cells": [{"cell_type": "code", "source": [source], "outputs": []} for source in sources]}

    first, second, third = executed(notebook("a = 2\nprint('x')\na + 1", "a = 5", "None"), tmp_path)["cells"]
    assert [output.get("text") or output["data"] for output in first["outputs"]] == [["x\n"], {"text/plain": ["3"]}]
    assert second["outputs"] == third["outputs"] == [] and second["execution_count"] == 2
    with pytest.raises(ZeroDivisionError):
        executed(notebook("1 / 0"), tmp_path)


def test_a_page_has_text_code_and_outputs_in_their_order():
    image = {"output_type": "execute_result", "data": {"image/jpeg": "AAAA"}}
    code = {"cell_type": "code", "source": ["f()"], "outputs": [{"output_type": "stream", "text": ["1\n"]}, image]}
    cells = [{"cell_type": "markdown", "source": ["# Title\n", "text"]}, code]
    assert markdown({"cells": cells}) == (
        "# Title\ntext\n\n```python\nf()\n```\n\n```text\n1\n```\n\n"
        "![what the cell shows](data:image/jpeg;base64,AAAA)\n"
    )

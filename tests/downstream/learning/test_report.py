"""The proof as a page and as words: what got worse comes first, and names are escaped."""

import json

import numpy as np
from PIL import Image

from downstream.learning.golden import Judged, prove
from downstream.learning.report import PAGE, Learned, as_json, print_proof, rows_of, verdict_of, write_report
from downstream.learning.versions import PROOF
from pretrain.data.images import Problem
from pretrain.reading import read_json


def learned(tmp_path, images) -> Learned:
    problems = [Problem(tmp_path / "gone.png", "cannot be read")]
    return Learned(3, tmp_path, 1, prove(images), problems, {"good": 5, "defective": 2, "tells_defects": True})


def judged(name: str, is_defective: bool, before: float, after: float) -> Judged:
    return Judged(name, name, is_defective, True, before, 1.0, before > 1, after, 1.0, after > 1)


def test_what_would_change_is_shown_worse_first(tmp_path, capsys):
    Image.fromarray(np.full((300, 200, 3), 90, np.uint8)).save(tmp_path / "nut.png")
    images = [
        judged(str(tmp_path / "nut.png"), False, 2.0, 0.5),
        judged("<b>gone.png", True, 2.0, 0.5),
        judged("same.png", True, 2.0, 2.0),
    ]
    made = learned(tmp_path, images)
    assert [each.image for each in made.changed] == ["<b>gone.png", str(tmp_path / "nut.png")]
    assert rows_of(made)[1] == ("missed", "0 of 2 defective [.000 to .658]", "1 of 2 defective [.095 to .905]")
    write_report(tmp_path, made)
    page = (tmp_path / PAGE).read_text()
    assert "&lt;b&gt;gone.png" in page and "<b>gone.png" not in page
    assert page.count("data:image/jpeg") == 1 and "not on this disk any more" in page
    assert page.index("worse") < page.index("better</b>: it is good")
    assert read_json(tmp_path / PROOF) == json.loads(json.dumps(as_json(made)))
    print_proof(made)
    words = capsys.readouterr().out
    assert "0.50 of the threshold" in words and "version 3, new" in words
    assert "prove too little" in verdict_of(made)


def test_without_changes_it_says_so(tmp_path, capsys):
    made = learned(tmp_path, [judged("same.png", True, 2.0, 3.0)])
    write_report(tmp_path, made)
    assert "No verdict would change" in (tmp_path / PAGE).read_text()
    print_proof(made)
    assert "no verdict on any of 1 confirmed images would change" in capsys.readouterr().out

"""detect.py learn: make a version, show how it is proved, and put it into use where the rule and the user allow it."""

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from downstream.learning.candidate import learn
from downstream.learning.config import Learn
from downstream.learning.feedback import Feedback, read_feedback
from downstream.learning.golden import why_not_better
from downstream.learning.report import PAGE, print_proof, verdict_of
from downstream.learning.versions import promote
from pretrain.progress import duration


def main(config: Learn) -> None:
    """Learn, report, and promote or say how."""
    start_s = time.perf_counter()
    learned = learn(config.model, of_model(config.model, read_feedback(config.feedback)), config.device)
    for path, reason, _ in learned.problems:
        print(f"left out: {path}: {reason}")
    print(f"version {learned.number} of {config.model} learned from {learned.sentence}, "
          f"in {duration(time.perf_counter() - start_s)}")  # fmt: skip
    print_proof(learned)
    print(f"by the rule it is {verdict_of(learned)}")
    print(f"report: {learned.folder / PAGE}")
    if config.promote == "if-better" and not why_not_better(learned.proof):
        promote(config.model, learned.number, config.by, "promoted by the rule", in_place_of=learned.in_use)
        print(f"version {learned.number} is in use; version {learned.in_use} stays")
        print(f"undo:   python downstream/detect.py roll-back --model {shlex.quote(str(config.model))}")
    else:
        print(f"version {learned.in_use} stays in use")
        print(f"next:   python downstream/detect.py promote --model {shlex.quote(str(config.model))} "
              f"--version {learned.number}")  # fmt: skip


def of_model(model: Path, records: Sequence[Feedback]) -> list[Feedback]:
    """The records of a model's verdicts, and of none known; of other models' it is said how many there are."""
    name = model.resolve().name
    for other, count in Counter(record.model for record in records).items():
        if other not in ("", name):
            print(f"left out: {count} records of the model {other}")
    return [record for record in records if record.model in ("", name)]

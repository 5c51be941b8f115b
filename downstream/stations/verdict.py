"""One verdict from several frames of a part."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from downstream.inspection.inspection import Inspection
from downstream.stations.model import NotJudged

Rule = Literal["any", "majority", "max"]


class Decision(NamedTuple):
    """Whether the part fails, and which of its frames stands for that."""

    fails: bool
    frame: int


def decide(inspections: Sequence[Inspection], rule: Rule) -> Decision:
    """`any`: one defective frame is enough; `majority`: more than half; `max`: the frame of the highest score alone
    decides, also where another one is defective by its regions. The frame that stands for it has the highest score
    among those that say so. Raises NotJudged for a score that is no number."""
    if not all(math.isfinite(inspection.score) for inspection in inspections):
        raise NotJudged("the model gave a score that is no number")
    places = range(len(inspections))
    defective = [place for place in places if inspections[place].is_defective]
    if rule == "max":
        highest = max(places, key=lambda place: inspections[place].score)
        return Decision(inspections[highest].is_defective, highest)
    fails = len(defective) > (0 if rule == "any" else len(inspections) / 2)
    saying_so = [place for place in places if (place in defective) == fails]
    return Decision(fails, max(saying_so, key=lambda place: inspections[place].score))


def reason_of(inspection: Inspection, fails: bool) -> str:
    """What people should know of the frame that decided."""
    words = [f"in {', '.join(inspection.defective_zones)}"] if fails and inspection.defective_zones else []
    words += ["not aligned: judged as it lies"] if inspection.is_not_aligned else []
    words += ["drawn out of shape to the model's size"] if inspection.is_distorted else []
    words += ["larger or smaller than the model's images"] if inspection.has_other_size else []
    return "; ".join(words)

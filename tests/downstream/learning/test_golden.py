"""The golden set: who is kept apart, what is counted, and the rule by which a version is better."""

from hashlib import sha256

import pytest

from downstream.learning.golden import APART, Judged, is_kept_apart, prove, why_not_better


def image(number: int, is_defective: bool, before: float, after: float, is_apart: bool = True) -> Judged:
    """Scores beside a threshold of 1."""
    return Judged(f"{number}.png", str(number), is_defective, is_apart, before, 1.0, before > 1, after, 1.0, after > 1)


def images(before_good=0, before_bad=0, after_good=0, after_bad=0, count=6, apart=True) -> list[Judged]:
    """`count` of each kind, of which so many are wrong; a wrong one is just on the wrong side."""
    made = []
    for number in range(count):
        made.append(
            image(number, False, 1.1 if number < before_good else 0.5, 1.1 if number < after_good else 0.5, apart)
        )
        made.append(image(number, True, 0.9 if number < before_bad else 2, 0.9 if number < after_bad else 2, apart))
    return made


def test_one_in_five_is_kept_apart_whatever_was_before():
    digests = [sha256(bytes([a, b])).hexdigest() for a in range(40) for b in range(50)]
    share = sum(map(is_kept_apart, digests)) / len(digests)
    assert share == pytest.approx(1 / APART, abs=0.03)
    assert [number for number in range(12) if is_kept_apart(f"{number:08x}" + 56 * "7")] == [0, 5, 10]  # for ever


def test_figures_are_of_those_kept_apart():
    proof = prove([*images(2, 1, 0, 1), *images(6, 6, 6, 6, apart=False)])
    assert (proof.before.false_alarms, proof.before.missed, proof.before.good) == (2, 1, 6)
    assert (proof.after.false_alarms, proof.after.missed, proof.after.defective) == (0, 1, 6)
    assert proof.before.auroc == pytest.approx(1 - 2 / 36) and proof.after.auroc == 1
    assert proof.auroc_difference.value == pytest.approx(2 / 36)
    few = prove(images(2, 2, count=2))
    assert (few.before.auroc, few.after.auroc, few.auroc_difference) == (0, 1, None)  # and no interval from 1 to 1
    assert proof.before.missed_interval.low == pytest.approx(0.0301, abs=1e-4)  # Wilson's for one of six
    assert proof.before.missed_interval.high == pytest.approx(0.5635, abs=1e-4)
    changed = [each for each in proof.images if each.is_changed]
    assert len(changed) == 2 and all(each.is_better for each in changed)


def test_without_both_kinds_there_is_no_auroc():
    proof = prove([image(0, False, 0.5, 0.6)])
    assert proof.after.auroc is None and proof.auroc_difference is None and proof.after.missed_interval is None
    assert prove([]).after.good == 0


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (images(2, 1, 1, 1), ""),
        (images(2, 1, 2, 0), ""),
        (images(2, 1, 0, 2), "it misses 2 of 6 defective images, 1 were missed before"),
        (images(0, 2, 1, 0), "it raises 1 false alarms of 6 good images, 0 before"),
        (images(1, 1, 1, 1), "as many mistakes as before"),
        (images(2, 1, 0, 0, count=4), "prove too little: 5 of each are needed"),
        (images(2, 1, 0, 0, apart=False), "0 good and 0 defective"),
    ],
)
def test_better_is_fewer_mistakes_and_none_of_a_kind_more(made, words):
    why_not = why_not_better(prove(made))
    assert words in why_not and bool(why_not) == bool(words)

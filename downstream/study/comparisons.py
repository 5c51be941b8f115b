"""Rows against their controls, tested in pairs on the same images: the SimCLR encoder against what it started from, and
trained encoders against random ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from downstream.study.cell import NO_ENCODER, RANDOM, SIMCLR, CellResult, RowKey
from downstream.study.figures import won_by
from downstream.study.record import Results
from downstream.study.significance import difference, holm, is_clear

# By category, two matrices of `won_pairs` over the same images: the row's and its control's.
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


def compare_with_random(rows: Sequence[dict], results: Results) -> None:
    """Test each row with a trained encoder against the same row with the random one, on the images of the categories
    that both have, over the seeds that both have. Fills in `versus_random`."""
    tests = []
    for row in rows:
        if row["encoder"] in (NO_ENCODER, RANDOM):
            continue
        pairs = paired(results, row, lambda _: RANDOM)
        tested = difference([pair[0] for pair in pairs.values()], [pair[1] for pair in pairs.values()])
        if tested is not None:
            row["versus_random"] = {"difference": tested.value, "p": tested.p, "categories": len(pairs)}
            tests.append(row["versus_random"])
    _correct(tests)


def compare_with_start(rows: Sequence[dict], results: Results, encoders: Sequence[dict]) -> dict | None:
    """Test each row with the SimCLR encoder against the same row with what that encoder started from. Fills in
    `versus_start` and `start_note`, and returns the same of the mean over these rows; none without such rows.

    Of several encoder files each cell is compared with the start of its own. `p_holm` of the rows is corrected over
    them and their mean, that of categories over all that the table by category shows.
    """
    starts = {file["fingerprint"]: file["start"] for file in encoders if file.get("start", {}).get("row")}
    pairs_of_rows = []
    for row in rows:
        if row["encoder"] != SIMCLR:
            continue
        row["start_note"] = "; ".join(note for file in encoders if (note := file.get("start", {}).get("note")))
        if pairs := paired(results, row, lambda result: starts.get(result.cell["encoder_id"], {}).get("row")):
            pairs_of_rows.append(pairs)
            row["versus_start"] = _comparison(pairs)
    if not pairs_of_rows:
        return None
    compared = [row["versus_start"] for row in rows if row["versus_start"]]
    mean = _comparison(mean_pairs(pairs_of_rows)) if len(compared) > 1 else compared[0]
    shown = compared if len(compared) == 1 else [*compared, mean]
    _correct(shown)
    _correct([test for comparison in shown for test in comparison["categories"].values()])
    clear = [test["difference"] for test in compared if is_clear(test)]
    return {
        **mean,
        "starts": list(dict.fromkeys(start["name"] for start in starts.values())),
        "rows": len(compared),
        "better": sum(value > 0 for value in clear),
        "worse": sum(value < 0 for value in clear),
    }


def paired(results: Results, row: Mapping[str, str], control_of: Callable[[CellResult], str | None]) -> Pairs:
    """A row's predictions beside those of its control, over the categories and seeds that both have; `control_of` names
    the encoder of a cell's control. Without categories whose test images are all good or all defective."""
    ours, pairs = results[RowKey(row["method"], row["encoder"], row["shots"])], {}
    for category in sorted(ours):
        sides: tuple[dict[int, CellResult], dict[int, CellResult]] = ({}, {})
        for seed, result in sorted(ours[category].items()):
            control = RowKey(row["method"], control_of(result) or NO_ENCODER, row["shots"])
            other = results.get(control, {}).get(category, {}).get(seed)
            if other is not None:
                sides[0][seed], sides[1][seed] = result, other
        if sides[0] and (first := won_by(sides[0])) is not None:
            pairs[category] = first, won_by(sides[1])
    return pairs


def mean_pairs(pairs_of_rows: Sequence[Pairs]) -> Pairs:
    """The mean over rows, category by category: what an AUROC averaged over rows rests on."""
    categories = sorted({category for pairs in pairs_of_rows for category in pairs})
    of_category = {name: [pairs[name] for pairs in pairs_of_rows if name in pairs] for name in categories}
    return {
        name: (np.mean([pair[0] for pair in pairs], 0), np.mean([pair[1] for pair in pairs], 0))
        for name, pairs in of_category.items()
    }


def _comparison(pairs: Pairs) -> dict:
    """The difference over all categories, and in each."""
    return {**_tested(pairs.values()), "categories": {name: _tested([pair]) for name, pair in pairs.items()}}


def _tested(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Plain JSON; interval and p are none where a category has a single good or defective image."""
    first, second = zip(*pairs, strict=True)
    tested = difference(first, second)
    value = float(np.mean([ours.mean() - theirs.mean() for ours, theirs in zip(first, second, strict=True)]))
    return {
        "difference": value,
        "interval": list(tested.interval) if tested else None,
        "p": tested.p if tested else None,
        "p_holm": None,
    }


def _correct(tests: Sequence[dict]) -> None:
    # Over all at once: every one of them is a further chance of a false finding.
    tests = [test for test in tests if test["p"] is not None]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p

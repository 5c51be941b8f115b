"""The figures of infer.py --sizes, from measurements that are made up."""

import pytest

from pretrain.command import Names, UserError
from scripts.benchmarks.by_size import figures_of, sizes_of, table_of


def test_a_size_is_compared_with_the_first_round_by_round():
    def measured(ms: float, mib: float) -> dict:  # a slow round, in which the machine was half as fast for all
        seconds = [slow * ms / 1e3 for slow in (1, 2, 1)]
        return {"seconds": seconds, "cpu_seconds": seconds, "peak_mib": [mib] * 3, "image_mib": [mib - 300.0] * 3}

    sizes = {"224": measured(20, 400), "512": measured(100, 700)}
    figures = figures_of({"padim": {"224": measured(10, 350), "512": measured(90, 500)}, "fused": sizes}, "512")
    assert figures["default_over_smallest"] == pytest.approx(5)
    assert figures["table"]["padim, 512"]["times_first"] == pytest.approx(9)
    (line,) = (line for line in table_of(figures["table"]) if "fused, 512" in line)
    assert line.split()[2:] == ["100.0", "100.0", "5.00", "700", "400"]
    assert "default_over_smallest" not in figures_of({"fused": sizes}, "384")  # which was not measured


def test_sizes_are_pixels_or_native():
    assert sizes_of(Names("224,native")) == {"224": 224, "native": None}
    with pytest.raises(UserError, match="--sizes big is none"):
        sizes_of(Names("big"))

"""Who gets which record."""

from pathlib import Path

import numpy as np

from pretrain.data.images import Record, same_content, some_of, split_records

FRACTIONS = {"fit": 0.7, "validation": 0.15, "calibration": 0.15}


def records_and_digests(count: int = 200) -> tuple[list[Record], list[bytes]]:
    kinds = [("nut", "good"), ("nut", "crack"), ("lid", "good"), ("lid", "hole")]
    records = [Record(Path(f"{i}.png"), kinds[i % 4][0], "test", kinds[i % 4][1]) for i in range(count)]
    return records, [str(i).encode() for i in range(count)]


def test_some_are_spread_over_all_as_numpy_spreads_them():
    for count in (0, 1, 2, 3, 50, 64, 65, 127, 1000, 2047):
        for most in (1, 2, 7, 32, 64, 200):
            assert some_of(count, most) == np.linspace(0, count - 1, min(count, most)).astype(int).tolist()


def test_split_is_disjoint_complete_and_stratified():
    records, digests = records_and_digests()
    parts = split_records(records, digests, digests, FRACTIONS, seed=0)
    assert sorted(sum(parts.values(), [])) == list(range(200))
    for part, fraction in FRACTIONS.items():
        for kind in range(4):
            members = [i for i in parts[part] if i % 4 == kind]
            assert abs(len(members) - 50 * fraction) <= 1


def test_split_depends_on_content_and_seed_not_on_order():
    records, digests = records_and_digests()
    order = np.random.default_rng(0).permutation(200)
    straight = split_records(records, digests, digests, FRACTIONS, seed=3)
    shuffled = split_records(*([part[i] for i in order] for part in (records, digests, digests)), FRACTIONS, seed=3)
    assert {part: sorted(order[members]) for part, members in shuffled.items()} == straight
    assert split_records(records, digests, digests, FRACTIONS, seed=4) != straight


def test_copies_never_fall_on_two_sides_whatever_they_are_called():
    records, digests = records_and_digests()
    digests = [str(i // 8).encode() for i in range(200)]  # eight copies each, of all four kinds
    parts = split_records(records, digests, digests, FRACTIONS, seed=0)
    sides = [{digests[i] for i in members} for members in parts.values()]
    assert sum(map(len, sides)) == len(set(digests))
    assert sorted(sum(parts.values(), [])) == list(range(200))


def test_split_follows_the_files_not_the_cache():
    records, files = records_and_digests()
    cached_small, cached_large = ([f"{size}-{i}".encode() for i in range(200)] for size in (16, 32))
    small = split_records(records, cached_small, files, FRACTIONS, seed=0)
    assert split_records(records, cached_large, files, FRACTIONS, seed=0) == small


def test_split_of_few_images_gives_to_the_first_part():
    records, digests = records_and_digests(4)
    assert split_records(records, digests, digests, FRACTIONS, seed=0)["fit"] == [0, 1, 2, 3]


def test_same_content_lists_groups():
    assert same_content(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]

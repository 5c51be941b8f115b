"""One part, one id, one that may say what became of it."""

import time
from concurrent.futures import ThreadPoolExecutor

from downstream.stations.contract import Frame
from downstream.stations.part import Part


def test_of_many_that_claim_a_part_one_gets_it():
    for _ in range(20):
        part = Part("cap", "", time.monotonic(), 1000.0)
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _, part=part: part.claim(), range(8))) == 1
        assert part.is_over


def test_the_id_follows_from_the_key_and_else_is_new():
    keyed = [Part("cap", name, 0.0, 1.0, [Frame(name, 0.0, "a 12 34")]) for name in "ab"]
    assert keyed[0].id == keyed[1].id
    assert Part("cap", "a", 0.0, 1.0).id != Part("cap", "a", 0.0, 1.0).id


def test_a_fault_says_since_when_and_how_long():
    part = Part("cap", "7", time.monotonic() - 0.2, 500.0)
    part.number = 3
    fault = part.fault("no frame")
    assert (fault.verdict, fault.reason, fault.part, fault.name, fault.score) == ("fault", "no frame", 3, "7", None)
    assert 200 <= fault.latency_ms < 1000 and fault.time == part.begun().time
    assert abs(part.deadline_s - time.monotonic() - 0.3) < 0.1

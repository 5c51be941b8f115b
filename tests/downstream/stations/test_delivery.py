"""At least once, in order, however the receiver behaves."""

import pytest
from line_here import until
from made_signals import verdict

from downstream.stations import delivery as module
from downstream.stations.contract import NotDelivered, Refused, Sink
from downstream.stations.delivery import Delivery
from downstream.stations.outbox import Outbox


class Receiver(Sink):
    """Takes what it is told to; `got` are ids with each time that they came."""

    def __init__(self) -> None:
        self.got, self.fails, self.refuses = [], 0, set()

    def send(self, signal) -> None:
        self.got.append(signal.part)
        if self.fails:
            self.fails -= 1
            raise NotDelivered("away") if self.fails % 2 else ConnectionResetError()
        if signal.part in self.refuses:
            raise Refused("no such part")


@pytest.fixture
def outbox(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.005)
    opened = Outbox(tmp_path)
    yield opened
    opened.close()


def delivering(outbox, sink, stations=("cap",)) -> Delivery:
    delivery = Delivery("mes", sink, stations, outbox)
    delivery.start()
    return delivery


def test_a_receiver_that_fails_gets_all_of_them_in_order(outbox):
    sink = Receiver()
    sink.fails = 5
    delivery = delivering(outbox, sink)
    for part in range(1, 21):
        outbox.finish(verdict(part))
    until(lambda: delivery.delivered == 20)
    assert sink.got == [1] * 5 + [*range(1, 21)] and delivery.problem is None
    delivery.stop(5)


def test_what_is_refused_is_put_aside_and_the_next_goes_on(outbox):
    sink = Receiver()
    sink.refuses = {2}
    delivery = delivering(outbox, sink)
    for part in (1, 2, 3):
        outbox.finish(verdict(part))
    until(lambda: delivery.delivered == 2)
    assert sink.got == [1, 2, 3] and delivery.put_aside == 1
    assert outbox._rows("SELECT sink, reason FROM refused", ()) == [("mes", "no such part")]
    delivery.stop(5)


def test_signals_of_other_stations_are_passed_over(outbox):
    sink = Receiver()
    delivery = delivering(outbox, sink, ("lid",))
    for part in range(1, 4):
        outbox.finish(verdict(part, station="cap"))
    outbox.finish(verdict(9, station="lid"))
    until(lambda: delivery.place == 4)
    assert sink.got == [9] and delivery.count_waiting() == 0
    delivery.stop(5)


def test_while_it_is_away_it_says_so_and_after_a_restart_it_gets_what_waited(tmp_path, outbox):
    sink = Receiver()
    sink.fails = 10**9
    delivery = delivering(outbox, sink)
    for part in (1, 2, 3):
        outbox.finish(verdict(part)).result(5)
    until(lambda: delivery.problem)
    assert delivery.count_waiting() == 3
    delivery.stop(0.1)
    sink.fails, sink.got = 0, []
    again = delivering(outbox, sink)
    until(lambda: again.delivered == 3)
    assert sink.got == [1, 2, 3]
    again.stop(5)


def test_stopped_it_delivers_what_waits_first(outbox):
    sink = Receiver()
    delivery = delivering(outbox, sink)
    for part in range(1, 30):
        outbox.finish(verdict(part))
    outbox.finish(verdict(30)).result(5)
    delivery.stop(10)
    assert sink.got == [*range(1, 31)]

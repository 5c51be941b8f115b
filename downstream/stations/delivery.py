"""Delivery to one sink: at least once, in order, for as long as it takes; a thread of its own for each."""

import random
import threading
import time

from downstream.service.monitoring import LOG
from downstream.stations.contract import NotDelivered, Refused, Sink
from downstream.stations.outbox import Damaged, Numbered, Outbox
from pretrain.command import UserError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
# So often at least it looks whether it is to stop, and for signals of its own among those of other stations.
LOOK_S = 0.5


class Delivery:
    """Gives `sink`, called `name`, what the outbox has for it of `stations`. `problem` says why it does not get on."""

    def __init__(self, name: str, sink: Sink, stations: tuple[str, ...], outbox: Outbox) -> None:
        self.name, self.sink, self.stations, self.problem = name, sink, stations, None
        self.delivered = self.put_aside = 0
        self._is_closed = False
        self._outbox, self._is_stopping = outbox, threading.Event()
        self.place = outbox.join(name)
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Deliver what waits, for so long at most; the rest goes out after the next start."""
        deadline_s = time.monotonic() + seconds
        while self.problem is None and self.place < self._outbox.newest and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._is_stopping.set()
        self.close_sink()
        self._thread.join(max(1.0, deadline_s - time.monotonic()))

    def close_sink(self) -> None:
        """Once, whoever asks for it."""
        if not self._is_closed:
            self._is_closed = True
            self.sink.close()

    def count_waiting(self) -> int:
        """Of a file that is damaged, those of all stations."""
        try:
            return self._outbox.count_after(self.place, self.stations)
        except Damaged:
            return self._outbox.newest - self.place

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                newest = self._outbox.newest
                waiting = self._outbox.after(self.place, self.stations)
                for numbered in waiting:
                    if not self._deliver(numbered):
                        return
            except Exception as error:  # of the disk; without its state no order would be kept
                self.problem = str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
                self._is_stopping.wait(1.0)
                continue
            if not waiting:  # what is beyond is of other stations
                self._move_to(newest)
                self._outbox.wait_beyond(newest, LOOK_S)

    def _deliver(self, numbered: Numbered) -> bool:
        """Whether the sink has it, or has refused it; else it is time to stop."""
        pause_s = FIRST_PAUSE_S
        while not self._is_stopping.is_set():
            try:
                self.sink.send(numbered.signal)
            except Refused as refused:
                self._outbox.refused(self.name, numbered, str(refused))
                self.put_aside += 1
                LOG.warning("a signal was refused", extra={"metadata": {"sink": self.name, "id": numbered.signal.id}})
            except Exception as error:  # whatever is wrong with a receiver, its signals wait
                reason = str(error) if isinstance(error, NotDelivered | UserError) else type(error).__name__
                if self.problem is None:
                    LOG.warning("a sink does not take signals",
                                extra={"metadata": {"sink": self.name, "reason": reason}})  # fmt: skip
                self.problem = reason
                # Not all at the same moment, where several lines wait for one receiver.
                self._is_stopping.wait(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            else:
                self.delivered += 1
            if self.problem is not None:
                LOG.warning("a sink takes signals again", extra={"metadata": {"sink": self.name}})
            self.problem = None
            self._move_to(numbered.number)
            return True
        return False

    def _move_to(self, number: int) -> None:
        if number > self.place:
            self.place = number
            self._outbox.delivered(self.name, number)

"""One station: its source gives frames, its trigger makes parts of them, its model judges, and each part gets a signal.

Whatever goes wrong with a part is a fault, said by its deadline; a pass is said by nobody but the model. Two threads:
one stands at the source, which may hang, one judges. The source's is replaced when the source is.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image

from downstream.inspection.inspection import Inspection
from downstream.service.monitoring import LOG
from downstream.stations.catalogue import made
from downstream.stations.config import Station as Options
from downstream.stations.contract import Frame, Source, StationState, Surroundings
from downstream.stations.deadlines import Deadlines
from downstream.stations.frames import Opened, Unreadable, opened
from downstream.stations.kept_images import KeptImages
from downstream.stations.model import NotJudged, SharedModel
from downstream.stations.outbox import Damaged, Outbox
from downstream.stations.part import Part
from downstream.stations.signal import Signal, Verdict, id_of
from downstream.stations.tally import Tally
from downstream.stations.verdict import decide, reason_of
from downstream.stations.waiting import Full, Waiting
from pretrain.command import UserError
from pretrain.data.channels import PLAIN

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0


@dataclass(frozen=True)
class Newest:
    """The last signal, and where there was a verdict the frame that decided and what the model says of it."""

    signal: Signal
    opened: Opened | None
    inspection: Inspection | None

    def picture(self, with_overlay: bool) -> Image.Image | None:
        """What was judged, as large as it came where it is still in memory; with heatmap, regions and verdict."""
        if self.opened is None or self.inspection is None:
            return None
        pixels = opened(self.opened.frame, None, self.inspection.channels).decoded.pixels
        shown = replace(self.inspection, given=pixels, channels=PLAIN)
        return shown.overlay() if with_overlay else Image.fromarray(pixels)


class Station:
    """Runs from `start()` to `stop()`. `signaled` is called with each signal that is on disk, from a thread that may
    not wait; `changed` whenever its state does."""

    def __init__(
        self,
        options: Options,
        surroundings: Surroundings,
        outbox: Outbox,
        model: SharedModel,
        deadlines: Deadlines,
        images: KeptImages | None = None,
        signaled: Callable[[Signal], None] = lambda signal: None,
        changed: Callable[[str], None] = lambda station: None,
    ) -> None:
        self.options, self.name, self.model = options, options.name, model
        self._surroundings, self._outbox, self._deadlines = surroundings, outbox, deadlines
        self._late = f"no verdict within {options.budget_ms:g} ms"
        self._images, self._signaled, self._changed = images, signaled, changed
        self.tally, self.is_finished = Tally(), False
        self.newest: Newest | None = None
        self.trigger = made(options.trigger, surroundings)
        self.source: Source = made(options.source, surroundings)
        self.waiting = Waiting(options.queue)
        self._number, self._lock = outbox.last_part(options.name), threading.RLock()
        self._gathering: Part | None = None
        self._called: deque[Part] = deque()  # from outside; their frames are to come
        self._on_the_way: dict[str, Part] = {}
        self._generation, self._frame_s, self._source_problem = 0, time.monotonic(), None
        self._is_stopping = threading.Event()
        self._judging = threading.Thread(target=self._judge_all, name=f"judge {self.name}", daemon=True)

    def start(self) -> None:
        self._judging.start()
        self.trigger.start(self.open_part)
        self._start_source()

    def stop(self) -> None:
        """Take no more frames. What has begun is still judged."""
        self._is_stopping.set()
        self.trigger.stop()
        self.source.stop()

    def drain(self, seconds: float) -> None:
        """After `stop()`: wait for parts that were begun, and call the rest faults."""
        until_s = time.monotonic() + seconds
        self.waiting.close()
        self._judging.join(max(0.0, until_s - time.monotonic()))
        while self._on_the_way and time.monotonic() < until_s:
            time.sleep(0.005)
        left = list(self._on_the_way.values())
        for part in left:
            self._fault(part, "the line was stopped")
        wait([part.signal for part in left], 1.0)

    @property
    def is_idle(self) -> bool:
        """Whether its source has ended, and all of its parts have their signals."""
        return self.is_finished and not self._on_the_way and not len(self.waiting)

    def is_judging(self) -> bool:
        """Whether the thread that judges lives."""
        return self._judging.is_alive()

    def state(self, heartbeat: int) -> StationState:
        reason = self.problem()
        mode = "stopped" if self._is_stopping.is_set() or self.is_finished else "fault" if reason else "running"
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
        counts = self.tally.counts
        return StationState(
            self.name, mode, reason or "", bool(self._on_the_way), heartbeat, now, sum(counts.values()),
            counts["pass"], counts["fail"], counts["fault"], self.dropped,
        )  # fmt: skip

    @property
    def dropped(self) -> int:
        return self.waiting.dropped

    def problem(self) -> str | None:
        """What keeps it from its work, in words."""
        if (disk := self._outbox.problem) is not None:
            return disk
        if not self.is_finished and not self._is_stopping.is_set():
            if (source := self._source_problem or self.source.problem or self.trigger.problem) is not None:
                return source
            if self.is_silent():
                return f"no frame for {self.options.silence_s:g} s"
        return self.model.what_is_wrong()

    def is_silent(self) -> bool:
        silence_s = self.options.silence_s
        return silence_s is not None and self.source.is_live and time.monotonic() - self._frame_s > silence_s

    def heed_silence(self) -> None:
        """A live source that says nothing is left to itself, and another one made; for the supervisor to call now and
        then."""
        if self.is_silent() and not self.is_finished and not self._is_stopping.is_set():
            LOG.warning("a source is silent and made anew", extra={"metadata": {"station": self.name}})
            self._start_source()

    # Frames become parts.

    def open_part(self, name: str) -> str:
        """A part begins by word from outside; on disk when this returns its id."""
        return self.called(name).id

    def called(self, name: str) -> Part:
        """The same, for who waits for its signal."""
        part = Part(self.name, name, time.monotonic(), self.options.budget_ms)
        with self._lock:
            is_full = len(self._called) + len(self.waiting) >= self.options.queue
            written = self._begin(part)
            if not is_full and not self._is_stopping.is_set():
                self._called.append(part)
        if is_full or self._is_stopping.is_set():
            self._fault(part, "too many parts wait" if is_full else "the line stops")
        written.result()
        return part

    def take_in(self, frame: Frame) -> Part | None:
        """A frame becomes a part, or a part gets its frame, which is given. Also for who is asked from outside to."""
        self._frame_s = time.monotonic()
        if self.source.names_parts:
            part = Part(self.name, frame.name, frame.arrived_s, self.options.budget_ms, [frame])
            if (other := self._on_the_way.get(part.id)) is not None:
                return other
            self._enqueue(part)
            return part
        with self._lock:
            part, begins = self._called_for(frame), self.trigger.begins(frame)  # which sees every frame
            if part is None:
                part = self._gathering if self._gathering and not self._gathering.is_over else None
                if part is None and begins:
                    part = Part(self.name, frame.name, frame.arrived_s, self.options.budget_ms)
                    if not self._may_be_dropped:
                        self._begin(part)
                self._gathering = part
                if part is None:
                    return None
            part.frames.append(frame)
            if len(part.frames) < self.options.frames:
                return part
            if part is self._gathering:
                self._gathering = None
            else:
                self._called.remove(part)
        self._enqueue(part)
        return part

    def _called_for(self, frame: Frame) -> Part | None:
        """The first part that was called for and still lacks this frame."""
        while self._called and self._called[0].is_over:
            self._called.popleft()
        for part in self._called:
            if frame.arrived_s >= part.began_s + self.trigger.delay_ms / 1e3:
                return part
        return None

    @property
    def _may_be_dropped(self) -> bool:
        """Whether parts get their number only when the model takes them."""
        samples = self.trigger.is_sampling and self.options.waiting == "newest"
        return not self.source.names_parts and (samples or not self.source.is_live)

    def _enqueue(self, part: Part) -> None:
        try:
            if not self.source.is_live:
                self.waiting.put_when_empty(part)
            elif self._may_be_dropped:
                self.waiting.put_newest(part)
            else:
                if not part.is_begun:
                    self._begin(part)
                self.waiting.put(part)
        except Full:
            self._fault(part, "too many parts wait")

    def _begin(self, part: Part) -> "Future[None]":
        with self._lock:
            self._number += 1
            part.number = self._number
            self._on_the_way[part.id] = part
        written = _done() if self.source.repeats else self._outbox.begin(part.begun())
        self._deadlines.add(part.deadline_s, partial(self._fault, part, self._late))
        self._changed(self.name)
        return written

    # Parts become signals.

    def _judge_all(self) -> None:
        while (part := self.waiting.take()) is not None:
            try:
                self._judge(part)
            except Exception as error:
                LOG.exception("a fault of a station", extra={"metadata": {"station": self.name}})
                self._fault(part, f"a fault of heldout ({type(error).__name__})")

    def _judge(self, part: Part) -> None:
        if not part.is_begun:
            if not self.source.is_live:
                part.began_s = time.monotonic()  # until now it was the model that was waited for
            self._begin(part)
        if not part.is_over:
            self._decide(part)
        if self._images is not None and part.frames:
            with suppress(OSError, Unreadable):
                self._images.keep(part.seen[0].frame if part.seen else part.frames[0], part.id)
        if not self.source.is_live:
            with suppress(CancelledError):  # of an outbox that is damaged; `wait` would never see it
                part.signal.exception()
            for frame in part.frames if not part.signal.cancelled() else ():
                self.source.settled(frame)
        part.frames.clear()  # the watchdog knows the part until its deadline, and pixels are large

    def _decide(self, part: Part) -> None:
        loaded = self.model.loaded
        size_px, channels = loaded.inspector.size_px, loaded.inspector.channels
        part.ends_step()
        try:
            images = [opened(frame, size_px, channels) for frame in part.frames]
            part.ends_step()
            asked = [self.model.judge(image.decoded, part.deadline_s) for image in images]
            judged = [each.result(max(0.0, part.deadline_s - time.monotonic())) for each in asked]
            if self.options.threshold is not None:
                judged = [loaded.inspector.at_threshold(each, self.options.threshold) for each in judged]
            decision = decide(judged, self.options.verdict)
            part.ends_step()
        except NotInTime:
            self._fault(part, self._late)
        except (NotJudged, Unreadable) as error:
            self._fault(part, str(error))
        else:
            image, inspection = part.seen = images[decision.frame], judged[decision.frame]
            self._finish(part, Signal(
                part.id, self.name, part.number, part.name, "fail" if decision.fails else "pass",
                reason_of(inspection, decision.fails), inspection.score, inspection.threshold, loaded.name,
                loaded.fingerprint, part.time, round(1e3 * (time.monotonic() - part.began_s), 3),
                [region.as_json() for region in inspection.regions], image.digest, len(judged),
                inspection.confidence, inspection.width, inspection.height,
            ))  # fmt: skip

    def _fault(self, part: Part, reason: str) -> None:
        """Unless it has a signal already."""
        if not part.is_over:
            self._finish(part, part.fault(reason))

    def _finish(self, part: Part, signal: Signal) -> None:
        if part.claim():
            self._write(part, signal)

    def _write(self, part: Part, signal: Signal) -> None:
        written = self._outbox.finish(signal, part.deadline_s, remembered=self.source.stays)
        written.add_done_callback(partial(self._on_disk, part, signal.verdict))

    def _on_disk(self, part: Part, said: Verdict, written: "Future[Signal]") -> None:
        error = None if written.cancelled() else written.exception()
        is_lost = written.cancelled() or isinstance(error, Damaged)  # the line ends, or its file is gone: it is said
        if error is not None and not is_lost:
            metadata = {"station": self.name, "reason": type(error).__name__}
            LOG.warning("a signal cannot be written", extra={"metadata": metadata})
            if said != "fault":
                self._write(part, part.fault(f"a fault of heldout ({type(error).__name__})"))
                return
        if error is not None or is_lost:
            part.signal.cancel()
            self._on_the_way.pop(part.id, None)
            return
        signal = written.result()
        part.ends_step()
        self.tally.add(signal.verdict, 1e3 * (time.monotonic() - part.began_s), part.steps_ms())
        self.newest = Newest(signal, *(part.seen or (None, None)))
        self._on_the_way.pop(part.id, None)
        part.settle(signal)
        self._signaled(signal)
        self._changed(self.name)

    # The source.

    def _start_source(self) -> None:
        with self._lock:
            self._generation += 1
            self._frame_s = time.monotonic()
            if self._generation > 1:
                self.source.stop()
            source = self.source if self._generation == 1 else None
            threading.Thread(
                target=self._watch_source, args=(source, self._generation), name=f"source {self.name}", daemon=True
            ).start()

    def _watch_source(self, source: Source | None, generation: int) -> None:
        """`source` is one that was made, none for another one: to make it may fail as well, and is tried again."""
        pause_s = FIRST_PAUSE_S
        while not self._is_stopping.is_set():
            try:
                if source is None:
                    if generation != self._generation:
                        return
                    source = made(self.options.source, self._surroundings)
                    with self._lock:
                        if generation != self._generation:
                            source.stop()
                            return
                        self.source = source
                if source.repeats:
                    self._outbox.forget(self.name, {id_of(self.name, key) for key in source.present()})
                for frame in source.frames():
                    if generation != self._generation or self._is_stopping.is_set():
                        return
                    pause_s, self._source_problem = FIRST_PAUSE_S, None
                    if frame.key and source.repeats and self._outbox.is_judged(id_of(self.name, frame.key)):
                        source.settled(frame)
                    else:
                        self.take_in(frame)
                with self._lock:
                    if self._gathering and not self._gathering.is_begun:  # the frames end within a sample
                        self.waiting.dropped += len(self._gathering.frames)
                        self._gathering = None
                self.is_finished = not self._is_stopping.is_set()
                self._changed(self.name)
                return
            except Exception as error:
                if generation != self._generation or self._is_stopping.is_set():
                    return
                is_said = isinstance(error, UserError)
                self._source_problem = str(error) if is_said else f"{type(error).__name__}: {error}"
                LOG.warning(
                    "a source is down",
                    extra={"metadata": {"station": self.name, "reason": self._source_problem}},
                )
                self._changed(self.name)
                self._is_stopping.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                if source is not None:
                    source.stop()
                source = None


def _done() -> "Future[None]":
    future: Future = Future()
    future.set_result(None)
    return future

"""A line that runs: its parts are made, started, watched, and ended in an order in which nothing is lost."""

import signal as signals
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from downstream.service.listening import bracketed
from downstream.service.models import Models
from downstream.service.monitoring import LOG, start_logging
from downstream.service.secret import token_in
from downstream.service.users import users_in
from downstream.stations.catalogue import made
from downstream.stations.checks import check_frames
from downstream.stations.config import Config, Line
from downstream.stations.contract import HEARTBEAT_S, Surroundings, image_beside
from downstream.stations.deadlines import Deadlines
from downstream.stations.delivery import Delivery
from downstream.stations.http import Http
from downstream.stations.kept_images import KeptImages
from downstream.stations.live import Events, status
from downstream.stations.model import SharedModel, model_named, set_threads
from downstream.stations.outbox import Damaged, Outbox
from downstream.stations.signal import Signal
from downstream.stations.station import Station
from pretrain.files import sole_writer

# What a stopped line waits for: parts that were begun, then receivers.
DRAIN_S, DELIVER_S = 10.0, 5.0
HOUSEKEEPING_S = 5.0
# Changes that come together are shown together.
TOGETHER_S = 0.005
# After so long at most it heeds SIGTERM and Ctrl-C.
HEED_S = 0.2


class Supervisor:
    """Makes all of a line; `run()` it once. Raises UserError for what cannot be."""

    def __init__(self, config: Config, line: Line) -> None:
        self._stopping, self._touched = threading.Event(), threading.Event()
        self._changed: set[str] = set()
        self._is_told = False
        self._opened = ExitStack()
        try:
            self._make(config, line)
        except BaseException:
            self._opened.close()
            raise

    def _make(self, config: Config, line: Line) -> None:
        opened = self._opened
        opened.enter_context(sole_writer(config.state, "runs a line in", "another --state"))
        set_threads(config.threads)
        images_folder = config.state / "images"
        names = tuple(station.name for station in line.stations)
        self._outbox = Outbox(config.state)
        opened.callback(self._outbox.close)
        self._images_folder = images_folder
        self._images = KeptImages(images_folder, config.images_mb << 20, self._place_of_images, self._outbox.number_of)
        self._deadlines = Deadlines()
        opened.callback(self._deadlines.stop)
        self._deliveries: list[Delivery] = []
        for sink in line.sinks:
            wanted = tuple(name for name in sink.stations if name in names)
            sink_made = made(sink.options, Surroundings(None, wanted, config.state, images_folder))
            self._deliveries.append(Delivery(sink.name, sink_made, wanted, self._outbox))
            opened.callback(self._deliveries[-1].close_sink)
            sink_made.open()
        if left := self._outbox.recover():
            LOG.warning("parts of an earlier run are faults", extra={"metadata": {"parts": left}})
        models = Models(config.models, config.batch_size, config.device, memory_bytes=1 << 62)
        self._models: dict[str, SharedModel] = {}
        self._events = Events()
        self.stations: list[Station] = []
        for options in line.stations:
            name = model_named(models, options.model)
            if name not in self._models:
                self._models[name] = SharedModel(models, name, config.batch_size)
                opened.callback(self._models[name].stop)
            check_frames(options, self._models[name].loaded)
            keeps = any(each.sink.wants_images and options.name in each.stations for each in self._deliveries)
            around = Surroundings(options.name, names, config.state, images_folder)
            self.stations.append(Station(options, around, self._outbox, self._models[name], self._deadlines,
                                         self._images if keeps else None, self._signaled, self._touch))  # fmt: skip
        self._heartbeats = dict.fromkeys(names, 0)
        self.http = None
        if config.port is not None:
            self.http = Http(config.host, config.port, self.stations, self._outbox, self._events, self.status,
                             self.is_well, self._kept_image, config.allowed_hosts, token_in(config.token_file),
                             users_in(config.users))  # fmt: skip
            opened.callback(self.http.stop)
            print(f"line:     http://{bracketed(config.host)}:{self.http.port}", flush=True)

    def run(self, on_start: Callable[[], None] = lambda: None) -> int:
        """Until SIGTERM, Ctrl-C or `stop()`, or until every source has ended. The exit code: 1 where the disk did not
        take all signals."""
        start_logging("warning")
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {each: signals.signal(each, self._told) for each in (signals.SIGTERM, signals.SIGINT)}
        with self._opened:
            for starting in (*self._deliveries, *self.stations, *([self.http] if self.http else [])):
                starting.start()
            threading.Thread(target=self._keep_house, name="housekeeping", daemon=True).start()
            print(f"stations: {', '.join(station.name for station in self.stations)}", flush=True)
            on_start()
            self._watch()
            self._end()
            are_all_written = self._outbox.problem is None
        for each, handler in before.items():
            signals.signal(each, handler)
        return 0 if are_all_written else 1

    def stop(self) -> None:
        """From any thread."""
        self._stopping.set()
        self._touched.set()

    def _told(self, *_: object) -> None:
        """By a signal, whose handler may take no lock: this thread may hold it just now."""
        self._is_told = True

    def status(self) -> dict:
        found = status(self.stations, self._deliveries, self._heartbeats)
        return {**found, "images_removed": self._images.removed}

    def is_well(self) -> bool:
        """Whether every station can keep its promises."""
        return all(self._keeps_promises(station) and station.problem() is None for station in self.stations)

    def _kept_image(self, signal: Signal) -> Path | None:
        """Where a part's image is now, if anywhere: with those that wait for sinks, or where a sink has put it."""
        put = (each.sink.kept_image(signal) for each in self._deliveries if signal.station in each.stations)
        return image_beside(self._images_folder, signal.id) or next(filter(None, put), None)

    def _watch(self) -> None:
        """Show states: at once where they change, and with each heartbeat."""
        next_s = time.monotonic()
        while not (self._stopping.is_set() or self._is_told or all(station.is_idle for station in self.stations)):
            self._touched.wait(max(0.0, min(HEED_S, next_s - time.monotonic())))
            self._touched.clear()
            names = list(self._changed)
            self._changed.difference_update(names)  # before they are looked at: a later change is another one
            if (now_s := time.monotonic()) >= next_s:
                next_s = now_s + HEARTBEAT_S
                for station in self.stations:
                    station.heed_silence()
                    self._heartbeats[station.name] += self._keeps_promises(station)
                shown = self.stations
            else:
                shown = [station for station in self.stations if station.name in names]
            self._show(shown)
            self._stopping.wait(TOGETHER_S)

    def _show(self, stations: Sequence[Station]) -> None:
        for station in stations:
            state = station.state(self._heartbeats[station.name])
            self._events.tell("state", state.to_dict())
            for delivery in self._deliveries:
                if station.name in delivery.stations:
                    try:
                        delivery.sink.show(state)
                    except Exception as error:  # a sink's fault is not the line's
                        metadata = {"sink": delivery.name, "reason": type(error).__name__}
                        LOG.warning("a sink cannot show a state", extra={"metadata": metadata})

    def _keeps_promises(self, station: Station) -> bool:
        """Whether a part that begins now would get its signal in time. Without it the heartbeat stands still."""
        return self._deadlines.is_awake() and self._outbox.problem is None and station.is_judging()

    def _end(self) -> None:
        self._stopping.set()
        for station in self.stations:
            station.stop()
        longest_s = max(station.options.budget_ms for station in self.stations) / 1e3
        until_s = time.monotonic() + min(DRAIN_S, longest_s + 1)
        for station in self.stations:
            station.drain(max(0.0, until_s - time.monotonic()))
        if self.http:
            self.http.stop()
        self._show(self.stations)
        self._run_together([partial(delivery.stop, DELIVER_S) for delivery in self._deliveries])
        with suppress(OSError, Damaged):
            self._images.remove_delivered()

    def _run_together(self, calls: Sequence[Callable[[], None]]) -> None:
        threads = [threading.Thread(target=call, daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * DELIVER_S)

    def _keep_house(self) -> None:
        """What may take a while, and nobody waits for."""
        while not self._stopping.wait(HOUSEKEEPING_S):
            for model in self._models.values():
                model.refresh()
            try:
                self._images.remove_delivered()
            except Exception as error:
                LOG.warning("kept images cannot be removed", extra={"metadata": {"reason": type(error).__name__}})

    def _place_of_images(self) -> int:
        """How far the last sink has come that wants images."""
        return min((each.place for each in self._deliveries if each.sink.wants_images), default=1 << 62)

    def _touch(self, station: str) -> None:
        self._changed.add(station)
        self._touched.set()

    def _signaled(self, signal: Signal) -> None:
        self._events.tell("signal", asdict(signal))

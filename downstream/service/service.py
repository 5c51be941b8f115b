"""The parts of a running service, and how an image goes through them."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from starlette.datastructures import UploadFile

from downstream.inspection.inspector import Inspection
from downstream.service.access import LOOPBACK_NAMES
from downstream.service.batching import Admission, Batcher
from downstream.service.database import Store
from downstream.service.decoding import Decoders, Refused, kind_of
from downstream.service.models import Loaded, Shelf
from downstream.service.monitoring import LOG, Figures
from downstream.service.schemas import Answer, MapKind, answer_of, result_of, safe_name
from downstream.service.similar import Similar
from pretrain.data.decode import Decoded
from pretrain.data.images import Problem

RESULTS_A_COMMIT = 256


@dataclass(frozen=True)
class Settings:
    """What serve.py makes of its options, plain enough to be handed to other processes."""

    models: str
    model: str | None
    results: str
    images: str
    vectors: str | None
    encoder: str | None
    batch: int
    waiting: int
    most_images: int
    timeout_s: float
    image_bytes: int
    image_pixels: int
    decoders: int
    threads: int
    hosts: Sequence[str] = LOOPBACK_NAMES
    token: str | None = None
    results_password: str | None = None


class Job(NamedTuple):
    """An image on its way to a model."""

    loaded: Loaded
    name: str
    image: Decoded


class Current(NamedTuple):
    """The model in force, and the threshold."""

    loaded: Loaded
    threshold: float


class Service:
    """The parts of a running service. What was set (model, thresholds) is in the store, so all workers agree."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        torch.set_num_threads(settings.threads)
        self.store = Store(settings.results, settings.results_password)
        self.shelf = Shelf(Path(settings.models), settings.batch)
        self.usual_model = self._usual_model()
        self.figures = Figures()
        self.admission = Admission(settings.waiting)
        loaded = self.current().loaded
        self.similar = Similar(
            settings.vectors and Path(settings.vectors), self._encoder_file(), Path(settings.images), self.store
        )
        warm_up(loaded)

    async def start(self) -> None:
        # Twice within the time of a request: an image that was beside a hostile one is decoded once more.
        seconds = self.settings.timeout_s / 3
        self.decoders = Decoders(self.settings.decoders, self.settings.image_pixels, seconds)
        self.forwards = Batcher(self._forward, self.settings.batch, "forward")
        self.commits = Batcher(self.store.add, RESULTS_A_COMMIT, "commit")
        self.forwards.start()
        self.commits.start()

    async def stop(self) -> None:
        """All that was accepted has been answered when this is called; what is left is to end."""
        await self.forwards.stop()
        await self.commits.stop()
        self.decoders.close()
        self.store.close()

    def current(self) -> Current:
        """As it was set last, by this worker or another one."""
        stored = self.store.settings()
        loaded = self.shelf.load(stored.get("model", self.usual_model))
        value, _, fingerprint = stored.get(threshold_name(loaded.name), "").partition(" ")
        # One that was set for a model which was fitted again since is about other scores.
        is_set = fingerprint == loaded.fingerprint
        return Current(loaded, float(value) if is_set else loaded.inspector.decision.value)

    def choose(self, name: str) -> Current:
        """Load a model, and from now on use it."""
        self.shelf.load(name)
        self.store.set("model", name)
        return self.current()

    def set_threshold(self, value: float | None) -> Current:
        loaded = self.current().loaded
        self.store.set(threshold_name(loaded.name), None if value is None else f"{value!r} {loaded.fingerprint}")
        return self.current()

    async def judge(
        self, upload: UploadFile, current: Current, position: int, threshold: float | None, kind: MapKind, keep: bool
    ) -> Answer:
        """One image all the way: checked, decoded, judged, written down. Raises Refused."""
        start_s = time.perf_counter()
        data = await upload.read()
        name, loaded = safe_name(upload.filename), current.loaded
        digest = hashlib.sha256(data).hexdigest()
        try:
            image = await self.decoded(data, loaded.inspector.size_px)
            found = await self.forwards(Job(loaded, name, image))
        except Refused as refused:
            self.figures.refused.labels(refused.status).inc()
            raise
        limit = current.threshold if threshold is None else threshold
        if limit != found.threshold:
            found = loaded.inspector.at_threshold(found, limit)
        if keep:
            await self._keep(data, digest, image)
        milliseconds = 1e3 * (time.perf_counter() - start_s)
        result = result_of(found, loaded, name, digest, milliseconds, keep)
        result = result._replace(id=await self.commits(result))
        self.figures.images.labels(loaded.name, "defective" if found.is_defective else "good").inc()
        return answer_of(result, found, loaded, position, kind)

    async def decoded(self, data: bytes, size_px: int) -> Decoded:
        """A square of `size_px`. Raises Refused."""
        kind_of(data)
        if len(data) > self.settings.image_bytes:
            raise Refused(413, f"an image may have {self.settings.image_bytes / 2**20:g} MiB at most")
        return await self.decoders.decode(data, size_px)

    async def _keep(self, data: bytes, digest: str, image: Decoded) -> None:
        source, pixels = self.similar.source, None
        if source is not None:
            is_fitting = len(image.pixels) == source.size_px
            pixels = image.pixels if is_fitting else (await self.decoded(data, source.size_px)).pixels
        await asyncio.to_thread(self.similar.keep, data, digest, kind_of(data), pixels)

    def _forward(self, jobs: Sequence[Job]) -> Sequence[Inspection | Exception]:
        self.figures.batch.observe(len(jobs))
        outcomes: list[Inspection | Exception] = []
        start = 0
        while start < len(jobs):  # neighbors that ask the same model
            stop = start + 1
            while stop < len(jobs) and jobs[stop].loaded is jobs[start].loaded:
                stop += 1
            outcomes += forward(jobs[start:stop])
            start = stop
        return outcomes

    def _usual_model(self) -> str:
        """What was asked for at the start, else what was chosen last and is still there, else the first."""
        names, stored = self.shelf.names(), self.store.settings().get("model")
        if stored is not None and (self.settings.model is not None or stored not in names):
            LOG.warning("another model than the one that was chosen last: it is gone, or --model names another")
            self.store.set("model", None)
        return self.settings.model or names[0]

    def _encoder_file(self) -> Path | None:
        """The encoder that was given, else the one in the usual model's folder."""
        if self.settings.encoder or self.settings.vectors:
            return self.settings.encoder and Path(self.settings.encoder)
        usual = self.shelf.place_of(self.usual_model) / "encoder.safetensors"
        return usual if usual.is_file() else None


def forward(jobs: Sequence[Job]) -> list[Inspection | Exception]:
    """All in one batch; if that fails, each alone, so that one image's fault is not that of its neighbors."""
    try:
        with torch.inference_mode():
            names = [Path(job.name) for job in jobs]
            found = jobs[0].loaded.inspector.inspect_decoded(names, [job.image for job in jobs])
            return [Refused(422, one.reason.rstrip(".")) if isinstance(one, Problem) else one for one in found]
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        return [outcome for job in jobs for outcome in forward([job])]


def warm_up(loaded: Loaded) -> None:
    """The first image takes longer: let it be none of a client's."""
    size_px = loaded.inspector.size_px
    gray = Decoded(np.full((size_px, size_px, 3), 127, np.uint8), size_px, size_px)
    forward([Job(loaded, "", gray)] * 2)


def threshold_name(model: str) -> str:
    return f"threshold {model}"

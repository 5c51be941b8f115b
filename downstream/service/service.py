"""The parts of a running service, and how an image goes through them: decoded, inspected, kept, answered."""

import asyncio
import hashlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import UploadFile

from downstream.inspection.inspection import Inspection
from downstream.learning.background import Learning
from downstream.learning.versions import HISTORY, said_by
from downstream.service.audit.log import add_change
from downstream.service.batching import Admission, Batcher
from downstream.service.config import Settings
from downstream.service.database import Database, StoredResult, read_setting, write_setting
from downstream.service.decoding import Decoders, RefusedImage, image_type_of
from downstream.service.models import LoadedModel, Models, NoSuchModel
from downstream.service.monitoring import LOG, Metrics
from downstream.service.routing import Product, Router, nearest_product
from downstream.service.schemas import ImageResponse, MapFormat, image_response, safe_name, stored_result
from downstream.service.similar_images import SimilarImages
from downstream.service.watch.camera import CameraProblem, Look
from downstream.service.watch.camera_watch import CameraWatch
from downstream.service.watch.drift import KS_WINDOW
from downstream.service.watch.summary import drifts_of
from downstream.service.watch.webhook import Webhook
from pretrain.command import UserError
from pretrain.data.channels import PLAIN, Channels
from pretrain.data.decode import Decoded
from pretrain.data.images import Problem
from pretrain.data.size import Size, sides
from pretrain.training.device import choose_device

MAX_RESULTS_PER_COMMIT = 256
# Settings that only the audit log asks for: which version of a model it has last told of, and which model in use.
NOTED, IN_USE = "version ", "model in use"
# Among the images that were kept, where all workers can write.
LEARNING_FOLDER = ".learning"


class Job(NamedTuple):
    """An image on its way to a model."""

    loaded: LoadedModel
    name: str
    image: Decoded


class Current(NamedTuple):
    """The model in force, and the threshold."""

    loaded: LoadedModel
    threshold: float


class Service:
    """One worker. What was set (model, thresholds) is in the database, so all workers agree. Which model is in use at
    the start only the first process decides: a worker that takes the place of another one changes nothing. Raises
    UserError for settings that cannot be."""

    def __init__(self, settings: Settings, is_first: bool = True) -> None:
        self.settings = settings
        torch.set_num_threads(settings.threads)
        self.database = Database(settings.results, settings.results_password)
        self._watching = threading.Lock()
        self._accepted: Counter[str] = Counter()
        self.models = Models(Path(settings.models), settings.batch_size, settings.device, settings.model_memory_bytes)
        there = self.models.fingerprints()
        self.router = Router(self.models) if settings.route else None
        if self.router is not None:
            self.router.products()  # that there is none is said now
        self.default_model = settings.model or next(iter(there), self.models.names()[0])
        if is_first:
            self._note_models(there)
        self.metrics = Metrics()
        self.camera = CameraWatch(self.database)
        self.admission = Admission(settings.max_waiting)
        self.learning = Learning(Path(settings.kept_images) / LEARNING_FOLDER, settings.device, settings.threads)
        self.similar_images = SimilarImages(
            settings.vectors and Path(settings.vectors),
            self._encoder_file(),
            Path(settings.kept_images),
            self.database,
            choose_device(settings.device),
        )
        try:
            try_out(self.current().loaded)
        except (NoSuchModel, UserError) as error:  # whoever asks for it is told, and others can be chosen
            LOG.error("the model in use judges nothing", extra={"metadata": {"reason": str(error)}})

    async def start(self) -> None:
        # Twice within the time of a request: an image that was beside a hostile one is decoded once more.
        seconds = self.settings.timeout_s / 3
        self.decoders = Decoders(self.settings.decoders, self.settings.max_image_pixels, seconds)
        self.forwards = Batcher(self._forward, self.settings.batch_size, "forward")
        self.commits = Batcher(self.database.add_results, MAX_RESULTS_PER_COMMIT, "commit")
        self.webhook = Webhook(self.settings.webhook)
        self.forwards.start()
        self.commits.start()

    async def stop(self) -> None:
        """All that was accepted has been answered when this is called; what is left is to end."""
        await self.forwards.stop()
        await self.commits.stop()
        self.decoders.close()
        self.learning.stop()
        self.webhook.stop()
        self.database.close()

    def current(self, name: str | None = None) -> Current:
        """The model that is named, else the one that was set last, by this worker or another one, with its threshold.
        Raises NoSuchModel."""
        stored = self.database.settings()
        loaded = self.models.load(name or self._name_in(stored))
        self._note_version(loaded.name, loaded.fingerprint, stored)
        return Current(loaded, threshold_in(stored.get(threshold_name(loaded.name)), loaded))

    def name_in_use(self) -> str:
        return self._name_in(self.database.settings())

    def _name_in(self, stored: Mapping[str, str]) -> str:
        return stored.get("model", self.default_model)

    def channels_in_use(self) -> Channels:
        """Those that the model in use was fitted to; 8 bits where it is gone."""
        with suppress(NoSuchModel, UserError):
            return self.current().loaded.inspector.channels
        return PLAIN

    def in_memory(self) -> list[Current]:
        """The models that this worker holds, with their thresholds; none is loaded."""
        stored = self.database.settings()
        return [Current(loaded, threshold_in(stored.get(threshold_name(loaded.name)), loaded))
                for loaded in self.models.all_in_memory()]  # fmt: skip

    async def model_of(self, upload: UploadFile, name: str | None = None) -> Current:
        """The model that judges an image: the one that is named, else the one whose product it shows, if this service
        looks for that, else the one in use. Raises NoSuchModel and UserError of one that is named or in use, and
        RefusedImage where this service looks: it may be the trouble of this image alone."""
        if name is not None or self.router is None:
            return await asyncio.to_thread(self.current, name)
        data = await upload.read()
        await upload.seek(0)
        try:
            products = await asyncio.to_thread(self.router.products)
            images = await self._as_products_see_it(data, products)
            return await asyncio.to_thread(self.current, await asyncio.to_thread(nearest_product, products, images))
        except (RefusedImage, NoSuchModel, UserError) as error:
            refused = error if isinstance(error, RefusedImage) else RefusedImage(409, str(error).rstrip("."))
            self.metrics.refused_images.labels(refused.status).inc()
            raise refused from None

    def use_model(self, name: str, by: str) -> Current:
        """Load a model, and use it from now on, in every worker. Raises UserError where it cannot judge an image."""
        loaded = self.models.load(name)
        try_out(loaded)
        self._note_version(name, loaded.fingerprint, self.database.settings())
        with self.database.alone() as connection:
            write_setting(connection, "model", name)
            _note_in_use(connection, by, name)
        return self.current()

    def set_threshold(self, value: float | None, by: str, model: str | None = None) -> Current:
        """Of the model that is named, else of the one in use; None goes back to the model's own."""
        loaded = self.current(model).loaded
        name = threshold_name(loaded.name)
        stored = None if value is None else f"{value!r} {loaded.fingerprint}"
        with self.database.alone() as connection:
            before = threshold_in(read_setting(connection, name), loaded)
            write_setting(connection, name, stored)
            add_change(connection, by, "threshold", loaded.name, before, threshold_in(stored, loaded))
        return self.current(loaded.name)

    def note_change(self, by: str, action: str, subject: str, before: object, after: object) -> None:
        """An entry of the audit log by itself, for what lies elsewhere than in the database."""
        with self.database.alone() as connection:
            add_change(connection, by, action, subject, before, after)

    def _note_models(self, there: Mapping[str, str]) -> None:
        """At the start: what became of the models while no service was there to see it, and which one is in use: the
        one that was asked for, else the one that was chosen last and is still there, else the first."""
        stored = self.database.settings()
        gone = self.models.gone(name.removeprefix(NOTED) for name in stored if name.startswith(NOTED))
        for name, fingerprint in [*there.items(), *dict.fromkeys(gone).items()]:
            self._note_version(name, fingerprint, stored)
        with self.database.alone() as connection:
            chosen = read_setting(connection, "model")
            if chosen is not None and (self.settings.model is not None or self.models.gone([chosen])):
                LOG.warning("another model than the one that was chosen last: it is gone, or --model names another")
                write_setting(connection, "model", chosen := None)
            _note_in_use(connection, "service", chosen or self.default_model)

    def _note_version(self, model: str, fingerprint: str | None, stored: Mapping[str, str]) -> None:
        """A model that was fitted or decided anew beside the service, or taken away, is in the audit log before any
        other judges. `stored` are the settings as they were just now: what another worker told of is among them."""
        if fingerprint == stored.get(NOTED + model):
            return
        by = ""
        with suppress(NoSuchModel):
            by = said_by(self.models.path_of(model))
        with self.database.alone() as connection:
            before = read_setting(connection, NOTED + model)
            write_setting(connection, NOTED + model, fingerprint)
            # No user's name, who would have proved who it is: anybody may write any name into that file.
            by = f"{by} ({HISTORY})" if by else "service"
            add_change(connection, by, "model version", model, before, fingerprint)

    async def inspect(
        self,
        upload: UploadFile,
        current: Current,
        position: int,
        threshold: float | None,
        map_format: MapFormat,
        keep: bool,
    ) -> ImageResponse:
        """One image all the way: checked, decoded, inspected, written down. Raises RefusedImage."""
        start_s = time.perf_counter()
        data = await upload.read()
        name, loaded = safe_name(upload.filename), current.loaded
        digest = hashlib.sha256(data).hexdigest()
        try:
            image = await self.decoded(data, loaded.inspector.size_px, loaded.inspector.channels)
            seen = (loaded.name, loaded.fingerprint, image.pixels, digest)
            look, problems = await asyncio.to_thread(self.camera.check, *seen)
            inspection = await self.forwards(Job(loaded, name, image))
        except RefusedImage as refused:
            self.metrics.refused_images.labels(refused.status).inc()
            raise
        limit = current.threshold if threshold is None else threshold
        if limit != inspection.threshold:
            inspection = loaded.inspector.at_threshold(inspection, limit)
        if keep:
            await self.keep(data, digest, image, loaded.inspector.channels)
        milliseconds = 1e3 * (time.perf_counter() - start_s)
        result = stored_result(inspection, loaded, name, digest, milliseconds, keep, ", ".join(problems))
        # On disk before it is answered: a killed server loses nothing that a client was told.
        result = result._replace(id=await self.commits(result))
        try:
            await asyncio.to_thread(self._watch, result, look, problems, current.threshold)
        except SQLAlchemyError as error:
            LOG.warning("what was seen could not be watched", extra={"metadata": {"reason": type(error).__name__}})
        self.metrics.images.labels(loaded.name, "defective" if inspection.is_defective else "good").inc()
        return image_response(result, inspection, loaded, position, map_format)

    async def inspect_again(self, result: StoredResult) -> Inspection:
        """What the version that judged a result says of its image, as it was decided then; nothing of it is written
        down. Raises UserError or NoSuchModel where that version is not in use any more, or the image was not kept, and
        RefusedImage."""
        loaded = (await asyncio.to_thread(self.current, result.model)).loaded
        if loaded.fingerprint != result.model_version:
            raise UserError(f"another version of {result.model} is in use than the one that judged it.")
        data = await asyncio.to_thread(self.similar_images.kept, result.digest)
        if data is None:
            raise UserError("its image was not kept.")
        image = await self.decoded(data, loaded.inspector.size_px, loaded.inspector.channels)
        inspection = await self.forwards(Job(loaded, result.name, image))
        if result.threshold == inspection.threshold:
            return inspection
        return loaded.inspector.at_threshold(inspection, result.threshold)

    def _watch(self, result: StoredResult, look: Look, problems: Sequence[CameraProblem], threshold: float) -> None:
        """What comes of a result that is kept already: it is answered, whatever becomes of this. `threshold` is the one
        in force, which is not that of a request that brought its own."""
        for problem in problems:
            self.metrics.camera_problems.labels(result.model, problem).inc()
            self.webhook.tell(problem, result.model, f"the camera: {problem}", result.created)
        if problems:
            return
        if result.score > threshold:  # by that of its own request it may have been called good
            return
        if not result.is_defective:
            self.camera.accept(result.model, result.model_version, look)
        with self._watching:
            self._accepted[result.model] += 1
            if self._accepted[result.model] % KS_WINDOW:
                return
            drifts = drifts_of(self.database, result.model, result.model_version, threshold)
        for kind, drift, what in (("drift", drifts.scores, "scores of accepted images"),
                                  ("image drift", drifts.images, "accepted images as a whole")):  # fmt: skip
            if drift.has_drifted:
                self.webhook.tell(kind, result.model, f"{what} have drifted", result.created)

    def has_space(self) -> bool:
        """Whether one more image could be kept: it fits onto the disk, and may be written there."""
        folder = Path(self.settings.kept_images).absolute()
        try:
            while not folder.exists():  # made when the first is kept
                folder = folder.parent
            may_write = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
            return may_write and shutil.disk_usage(folder).free >= self.settings.max_image_bytes
        except OSError:  # one above it is in another user's hands
            return False

    async def decoded(self, data: bytes, size_px: Size, channels: Channels = PLAIN) -> Decoded:
        """At `size_px`. Raises RefusedImage."""
        image_type_of(data)
        if len(data) > self.settings.max_image_bytes:
            raise RefusedImage(413, f"an image may have {self.settings.max_image_bytes / 2**20:g} MiB at most")
        return await self.decoders.decode(data, size_px, channels)

    async def _as_products_see_it(self, data: bytes, products: Iterable[Product]) -> dict[tuple, Decoded]:
        """By size and channels, without those as which it cannot be seen: an image of 8 bits is none of a product with
        more. Raises RefusedImage where that is all."""
        images, refused = {}, None
        for seen in {(one.size_px, one.channels) for one in products}:
            try:
                images[seen] = await self.decoded(data, *seen)
            except RefusedImage as error:
                refused = error
        if refused and not images:
            raise refused
        return images

    async def keep(self, data: bytes, digest: str, image: Decoded, channels: Channels = PLAIN) -> None:
        """Keep an image's file; `image` is it, decoded."""
        source, pixels = self.similar_images.source, None
        if source is not None:
            is_fitting = image.pixels.shape[:2] == sides(source.size_px)
            pixels = image.pixels if is_fitting else (await self.decoded(data, source.size_px, channels)).pixels
        await asyncio.to_thread(self.similar_images.keep, data, digest, image_type_of(data), pixels)

    def _forward(self, jobs: Sequence[Job]) -> Sequence[Inspection | Exception]:
        self.metrics.batch_size.observe(len(jobs))
        outcomes: list[Inspection | Exception] = []
        start = 0
        while start < len(jobs):  # runs of jobs for the same model
            stop = start + 1
            while stop < len(jobs) and jobs[stop].loaded is jobs[start].loaded:
                stop += 1
            outcomes += forward(jobs[start:stop])
            start = stop
        return outcomes

    def _encoder_file(self) -> Path | None:
        """The encoder that was given, else the one in the default model's folder."""
        if self.settings.encoder or self.settings.vectors:
            return self.settings.encoder and Path(self.settings.encoder)
        with suppress(NoSuchModel):
            path = self.models.path_of(self.default_model) / "encoder.safetensors"
            return path if path.is_file() else None
        return None


def forward(jobs: Sequence[Job]) -> list[Inspection | Exception]:
    """All in one batch; if that fails, each alone, so that one image's fault is not that of its neighbors."""
    try:
        with torch.inference_mode():
            names = [Path(job.name) for job in jobs]
            outcomes = jobs[0].loaded.inspector.inspect_decoded(names, [job.image for job in jobs])
            return [RefusedImage(422, o.reason.rstrip(".")) if isinstance(o, Problem) else o for o in outcomes]
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        return [outcome for job in jobs for outcome in forward([job])]


def try_out(loaded: LoadedModel) -> None:
    """The first image takes longer: let it be none of a client's. Raises UserError where it cannot be judged."""
    outcome, _ = forward([Job(loaded, "", loaded.gray())] * 2)
    if isinstance(outcome, Exception):
        raise UserError(f"the model {loaded.name} cannot judge an image ({type(outcome).__name__}): fit it again.")


def _note_in_use(connection: Connection, by: str, name: str) -> None:
    """In the transaction that puts a model into use, or at a start that does."""
    before = read_setting(connection, IN_USE)
    write_setting(connection, IN_USE, name)
    add_change(connection, by, "model", "in use", before, name)


def threshold_name(model: str) -> str:
    return f"threshold {model}"


def threshold_in(stored: str | None, loaded: LoadedModel) -> float:
    """What was set for a model, else its own. One that was set for a model which was fitted again since is about other
    scores."""
    value, _, fingerprint = (stored or "").partition(" ")
    return float(value) if fingerprint == loaded.fingerprint else loaded.inspector.decision.value

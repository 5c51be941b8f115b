"""The line's own HTTP: its status, events, pushed images and calls, by the access rules of the service.

GET  /health                        200 while every station can keep its promises, else 503
GET  /api/status                    all stations and sinks
GET  /api/events                    server-sent events: status first, then signal and state
GET  /api/signals?limit=50          the last signals, &station=NAME of one, each with whether its image is kept
GET  /api/signals/ID/image          the kept image of one
GET  /api/stations/NAME/image       the newest judged image; ?overlay=true with heatmap and regions
POST /api/stations/NAME/parts       an image as body: its signal (source push)
POST /api/stations/NAME/trigger     a part is there: its signal (trigger call)
GET  /                              the page that shows all of it
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from downstream.service.access import LOOPBACK_NAMES, Access
from downstream.service.connections import BACKLOG, BoundedConnection
from downstream.service.decoding import RefusedImage, decode_checked
from downstream.service.limits import AnswerFirst, BodyLimits
from downstream.service.listening import listen
from downstream.service.users import User, refusal
from downstream.stations.contract import Frame
from downstream.stations.frames import MAX_PIXELS, Unreadable, bytes_of
from downstream.stations.live import Events
from downstream.stations.outbox import Outbox
from downstream.stations.part import Part
from downstream.stations.signal import Signal, id_of
from downstream.stations.sources.config import Push
from downstream.stations.station import Station
from downstream.stations.triggers.config import Call
from pretrain.command import UserError, nearest
from pretrain.data.channels import PLAIN
from pretrain.reading import parse_json

BODY_S, MAX_REQUESTS = 30.0, 128
MAX_NAME = 200
# Beyond a part's budget, for the disk.
PATIENCE_S = 5.0
# The page, and what it shares with the service's.
WEB, SERVICE_WEB = Path(__file__).with_name("web"), Path(__file__).parents[1] / "service" / "web"
SHARED = ("style.css", "theme.js", "colors.js", "elements.js", "format.js", "keyboard.js", "api.js", "token.js",
          "icon.svg")  # fmt: skip


class Http:
    """Listens from `start()` on; `port` is the one it has. Raises UserError where it cannot."""

    def __init__(
        self,
        host: str,
        port: int,
        stations: Sequence[Station],
        outbox: Outbox,
        events: Events,
        status: Callable[[], dict],
        is_well: Callable[[], bool],
        kept_image: Callable[[Signal], Path | None],
        allowed_hosts: Sequence[str] = (),
        token: str | None = None,
        users: Sequence[User] = (),
    ) -> None:
        self._stations = {station.name: station for station in stations}
        self._outbox, self._events, self._status, self._is_well = outbox, events, status, is_well
        self._kept_image = kept_image
        self._drawn: dict[tuple[str, bool], tuple[str, bytes]] = {}  # the newest image, for all who watch
        self._listening = listen(host, port)
        self.port = self._listening.getsockname()[1]
        app = Starlette(
            routes=[
                Route("/health", self._health), Route("/api/status", self._get_status),
                Route("/api/events", self._get_events), Route("/api/signals", self._signals),
                Route("/api/signals/{id}/image", self._signal_image),
                Route("/api/stations/{name}/image", self._image),
                Route("/api/stations/{name}/parts", self._push, methods=["POST"]),
                Route("/api/stations/{name}/trigger", self._call, methods=["POST"]),
                *(Route(f"/{name}", partial(_shared, name)) for name in SHARED),
                Mount("/", StaticFiles(directory=WEB, html=True)),
            ],
            exception_handlers={HTTPException: _http_error, UserError: _user_error, ClientDisconnect: _gone},
        )  # fmt: skip
        limits = [each.options.source.max_image_mb for each in stations if isinstance(each.options.source, Push)]
        max_bytes = max([1, *limits]) << 20
        limited = BodyLimits(app, max_bytes, BODY_S, MAX_REQUESTS, max(1 << 28, 2 * max_bytes), _is_pushed)
        hosts = (*LOOPBACK_NAMES, *(name.lower() for name in allowed_hosts), *(("*",) if token or users else ()))
        self._server = uvicorn.Server(uvicorn.Config(
            AnswerFirst(Access(limited, hosts, token, users)), http=BoundedConnection, backlog=BACKLOG, log_config=None,
            access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=1,
        ))  # fmt: skip
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listening]}, name="http", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Answers that wait for a signal are sent first: their stations have been drained."""
        self._events.end()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(5)
        self._listening.close()

    async def _health(self, request: Request) -> JSONResponse:
        is_well = self._is_well()
        return JSONResponse({"status": "ok" if is_well else "unavailable"}, 200 if is_well else 503)

    async def _get_status(self, request: Request) -> JSONResponse:
        return JSONResponse(await asyncio.to_thread(self._status))

    async def _get_events(self, request: Request) -> StreamingResponse:
        async def texts() -> AsyncIterator[str]:
            listened = self._events.listen()
            yield f"event: status\ndata: {json.dumps(await asyncio.to_thread(self._status))}\n\n"
            async for text in listened:
                yield text

        return StreamingResponse(texts(), media_type="text/event-stream")

    async def _signals(self, request: Request) -> JSONResponse:
        limit = request.query_params.get("limit", "50")
        if not limit.isascii() or not limit.isdecimal() or len(limit) > 4 or not 0 < int(limit) <= 1000:
            raise HTTPException(422, "limit has to be a number from 1 to 1000.")
        station = request.query_params.get("station")
        if station is not None:
            self._station_named(station)

        def found() -> list[dict]:
            signals = self._outbox.last_signals(int(limit), station)
            return [{**asdict(signal), "has_image": self._kept_image(signal) is not None} for signal in signals]

        return JSONResponse(await asyncio.to_thread(found))

    async def _signal_image(self, request: Request) -> Response:
        def read() -> bytes | None:
            signal = self._outbox.signal_of(request.path_params["id"])
            path = signal and self._kept_image(signal)
            if path is None:
                return None
            with suppress(Unreadable):  # removed this moment
                station = self._stations.get(signal.station)
                channels = station.model.loaded.inspector.channels if station else PLAIN
                decoded = decode_checked(bytes_of(Frame("", 0.0, path=path)), None, MAX_PIXELS, channels)
                return None if isinstance(decoded, RefusedImage) else _jpeg(Image.fromarray(decoded.pixels))
            return None

        if (data := await asyncio.to_thread(read)) is None:
            raise HTTPException(404, "no image is kept of that part.")
        return Response(data, media_type="image/jpeg")

    async def _image(self, request: Request) -> Response:
        station, with_overlay = self._station(request), request.query_params.get("overlay") == "true"
        newest, key = station.newest, (station.name, with_overlay)

        def drawn() -> bytes | None:
            if newest is None:
                return None
            part_id, data = self._drawn.get(key, ("", b""))
            if part_id != newest.signal.id:
                if (picture := newest.picture(with_overlay)) is None:
                    return None
                data = _jpeg(picture)
                self._drawn[key] = newest.signal.id, data
            return data

        try:
            data = await asyncio.to_thread(drawn)
        except Unreadable:  # a file that was moved away
            data = None
        if data is None:
            raise HTTPException(404, "nothing was judged yet, the newest part is a fault, or its file is gone.")
        return Response(data, media_type="image/jpeg", headers={"X-Part": newest.signal.id})

    async def _push(self, request: Request) -> JSONResponse:
        _demand_right_to_inspect(request)
        station = self._station(request)
        if not isinstance(station.options.source, Push):
            raise HTTPException(409, f"station {station.name} takes no images: its source is another one.")
        name, key = self._name(request), request.headers.get("idempotency-key", "")[:MAX_NAME]
        data = await request.body()
        if len(data) > station.options.source.max_image_mb << 20:
            raise HTTPException(413, f"an image may have {station.options.source.max_image_mb} MiB at most.")
        if key and (known := await asyncio.to_thread(self._outbox.signal_of, id_of(station.name, key))):
            return JSONResponse(asdict(known))
        part = await asyncio.to_thread(station.take_in, Frame(name, time.monotonic(), key, data=data))
        return await _answer(request, part)

    async def _call(self, request: Request) -> JSONResponse:
        _demand_right_to_inspect(request)
        station = self._station(request)
        if not isinstance(station.options.trigger, Call):
            raise HTTPException(409, f"station {station.name} is not called: its trigger is another one.")
        return await _answer(request, await asyncio.to_thread(station.called, await self._called_name(request)))

    async def _called_name(self, request: Request) -> str:
        if not (body := await request.body()):
            return self._name(request)
        try:
            name = parse_json(body, {"name": str})["name"]
        except ValueError:
            name = None
        if name is None or len(name) > MAX_NAME:
            raise HTTPException(422, 'the body has to be {"name": "17"}, or nothing.')
        return name

    def _name(self, request: Request) -> str:
        return request.query_params.get("name", "")[:MAX_NAME]

    def _station(self, request: Request) -> Station:
        return self._station_named(request.path_params["name"])

    def _station_named(self, name: str) -> Station:
        if name not in self._stations:
            raise HTTPException(404, f"there is no station of that name; {nearest(name, self._stations)}")
        return self._stations[name]


def _is_pushed(scope: Scope) -> bool:
    """Whether the body is an image, whatever a client calls it."""
    return scope["path"].endswith("/parts")


def _demand_right_to_inspect(request: Request) -> None:
    if "inspect" not in (user := request.state.user).rights:
        raise HTTPException(403, refusal(user, "inspect"))


def _jpeg(picture: Image.Image) -> bytes:
    written = BytesIO()
    picture.convert("RGB").save(written, "JPEG", quality=85)
    return written.getvalue()


async def _shared(name: str, request: Request) -> FileResponse:
    return FileResponse(SERVICE_WEB / name)


async def _answer(request: Request, part: Part) -> JSONResponse:
    """The part's signal; with ?wait=false its id at once."""
    if request.query_params.get("wait") == "false":
        return JSONResponse({"id": part.id}, 202)
    waited_s = max(0.0, part.deadline_s - time.monotonic()) + PATIENCE_S
    try:
        signal: Signal = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(part.signal)), waited_s)
    except (TimeoutError, asyncio.CancelledError):
        raise HTTPException(503, "the disk does not take the part's signal: take it for a fault.") from None
    return JSONResponse(asdict(signal))


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


async def _user_error(request: Request, error: UserError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 409)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    """Nobody reads it; without it each client that goes away within a body leaves a traceback in the log."""
    return Response(status_code=400)

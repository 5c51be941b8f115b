"""The inspection service: post an image, get as JSON whether and where it is defective; open the page, drop one.

    python downstream/serve.py                              # models/, or a demo model if there is none
    python downstream/serve.py --models models --port 5000
    curl -X POST -F "image=@test.png" http://localhost:5000/api/test_image
    HELDOUT_TOKEN=... python downstream/serve.py --host 0.0.0.0 --hosts inspection.example --workers 2

Results are kept in runs/serve/results.sqlite, or in PostgreSQL: --results postgresql://USER@HOST/NAME. Everybody on
this machine may ask; beyond it, a token is required.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.serve import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import json
import os
import signal
import socket
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.command import Names, UserError, nearest
from pretrain.workers import usable_cores

if TYPE_CHECKING:
    from downstream.service.service import Settings

DEFAULT_MODELS, DEMO_MODELS = Path("models"), Path("runs/serve/demo-models")
DEFAULT_RESULTS = "runs/serve/results.sqlite"
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Config:
    """Judge images over HTTP.

    Attributes:
        models: Folder of models, folders that detect.py fit wrote and files that export.py did, or one of them.
        model: Which of them is used until another is chosen. Default is the first by name.
        host: Address to listen at; one beyond this machine takes a token, from --token-file or HELDOUT_TOKEN.
        port: Port; 0 takes a free one.
        hosts: Host names that the service is asked by, beside those of this machine. Default is any if there is a
            token, else none.
        token_file: File with the token that every request has to bring.
        results: Where results are kept: a file, or postgresql://USER@HOST/NAME. Default is HELDOUT_RESULTS if that is
            set, else runs/serve/results.sqlite.
        results_password_file: File with the password for PostgreSQL.
        images: Where images are kept if a client asks for it.
        vectors: Also search for similar images in this folder, which embeddings/extract.py wrote.
        encoder: Encoder file to search with. Default is that of --vectors, else that of the model.
        batch: At most so many images a forward.
        waiting: So many images may wait in each worker; more are told to come back later.
        most_images: So many images may be in one request.
        timeout_s: After so many seconds an image is given up, and a body that is not there.
        image_mb: An image's file may have so many MiB.
        megapixels: An image may have so many million pixels.
        workers: Processes, each with the model; they share the cores.
        decoders: Processes of each worker that decode.
    """

    models: Path = DEFAULT_MODELS
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    hosts: Names = Names()
    token_file: Path | None = None
    results: str | None = None
    results_password_file: Path | None = None
    images: Path = Path("runs/serve/images")
    vectors: Path | None = None
    encoder: Path | None = None
    batch: int = 16
    waiting: int = 128
    most_images: int = 64
    timeout_s: float = 30.0
    image_mb: int = 16
    megapixels: float = 50.0
    workers: int = 1
    decoders: int = 2


def main(config: Config) -> int:
    """Serve until told to stop; what was accepted is answered first."""
    check(config)
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import sqlalchemy  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as missing:
        raise UserError(f"the service needs {missing.name}: pip install heldout[serve].") from None
    listening = listen(config.host, config.port)
    with listening, tempfile.TemporaryDirectory() if config.workers > 1 else nullcontext() as shared:
        if shared is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared  # before prometheus_client is imported by a worker
            os.environ.setdefault("OMP_NUM_THREADS", str(threads_of(config)))  # for what does not ask torch
        settings = settings_of(config)
        from downstream.service.app import ENVIRONMENT, make_app
        from downstream.service.monitoring import start_logging

        options = {"timeout_graceful_shutdown": int(config.timeout_s) + 5, "log_config": None, "access_log": False,
                   "server_header": False, "lifespan": "on"}  # fmt: skip
        app = make_app(settings)  # mistakes are said here, and tables made, before any worker starts
        start_logging()
        print(f"model:   {settings.model or 'the first'} of {settings.models}", flush=True)
        print(f"results: {app.service.store}", flush=True)
        print(f"serving: http://{shown(config.host)}:{listening.getsockname()[1]}", flush=True)
        if config.workers == 1:
            server = uvicorn.Server(uvicorn.Config(app, **options))
            signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn heeds it, and sends it on once all is answered
            server.run(sockets=[listening])
            return 0 if server.started else 1
        del app
        os.environ[ENVIRONMENT] = json.dumps(asdict(settings))
        from uvicorn.supervisors import Multiprocess

        place = "downstream.service.app:app_from_environment"
        uvicorn_config = uvicorn.Config(place, factory=True, workers=config.workers, **options)
        Multiprocess(uvicorn_config, sockets=[listening]).run()
    return 0


def check(config: Config) -> None:
    """Raises UserError for numbers that make no service."""
    for name in ("batch", "waiting", "most_images", "timeout_s", "image_mb", "megapixels", "workers", "decoders"):
        if getattr(config, name) <= 0:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {getattr(config, name)} makes no service: give a number above 0.")
    if not 0 <= config.port < 65536:
        raise UserError(f"there is no port {config.port}: give 0 to 65535.")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, asyncio lets answers go at once; else each waits 40 ms for the client's acknowledgement of its head.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        reason = f"cannot listen at {shown(host)}:{port} ({error.strerror})"
        raise UserError(f"{reason}: choose another --port or --host.") from None
    listening.set_inheritable(True)
    return listening


def settings_of(config: Config) -> "Settings":
    """What the options come to. Raises UserError where they do not go together."""
    from downstream.service.access import LOOPBACK_NAMES, is_loopback
    from downstream.service.service import Settings

    token = token_of(config)
    if token is None and not is_loopback(config.host):
        raise UserError(
            f"--host {config.host} is reached from other machines: give --token-file FILE or HELDOUT_TOKEN."
        )
    models = config.models
    if models == DEFAULT_MODELS and not models_in(models):
        models = demo_models()
    if config.model is not None and (names := models_in(models)) and config.model not in names:
        raise UserError(f"there is no model {config.model} in {models}; {nearest(config.model, names)}")
    results = config.results or os.environ.get("HELDOUT_RESULTS") or DEFAULT_RESULTS
    password = config.results_password_file and first_line(config.results_password_file)
    # With a token, a page that had its name point here does not get far: it has none.
    named = tuple(name.lower() for name in config.hosts) or (("*",) if token else ())
    hosts = (*LOOPBACK_NAMES, *named, config.host)
    return Settings(
        models=str(models), model=config.model, results=results, images=str(config.images),
        vectors=config.vectors and str(config.vectors), encoder=config.encoder and str(config.encoder),
        batch=config.batch, waiting=config.waiting, most_images=config.most_images, timeout_s=config.timeout_s,
        image_bytes=config.image_mb << 20, image_pixels=int(config.megapixels * 1e6), decoders=config.decoders,
        threads=threads_of(config), hosts=hosts, token=token, results_password=password,
    )  # fmt: skip


def models_in(folder: Path) -> list[str]:
    """Their names; none where there is no model, which is said later."""
    from downstream.service.models import Shelf

    try:
        return Shelf(folder, batch=1).names()
    except UserError:
        return []


def token_of(config: Config) -> str | None:
    """From the file, else from the environment. Raises UserError for one that is easily guessed."""
    token = first_line(config.token_file) if config.token_file else os.environ.get("HELDOUT_TOKEN")
    if token is not None and (len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable())):
        raise UserError(f"a token must have {SHORTEST_TOKEN} plain characters or more: openssl rand -hex 32 makes one.")
    return token


def threads_of(config: Config) -> int:
    """Of each worker."""
    return max(1, usable_cores() // config.workers)


def first_line(path: Path) -> str:
    """Of a file with a secret. Raises UserError where there is none."""
    try:
        return (path.read_text().splitlines() or [""])[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the secret in {path} cannot be read ({type(error).__name__})"
        raise UserError(f"{reason}: name a file of one line.") from None


def demo_models() -> Path:
    """A model of demo images, so that there is something to see; made once, and said."""
    from downstream.inspection.config import Fit
    from downstream.inspection.fitting import fit
    from pretrain.demo import make

    model = DEMO_MODELS / "demo-hazelnut"
    if not (model / "inspector.json").is_file():
        print(f"no model in {DEFAULT_MODELS}: fitting one to generated demo images of hazelnuts", flush=True)
        data = Path("runs/serve/demo")
        make(data, categories=("hazelnut",), train=40, good=6, defective=3)
        fit(Fit(data=data, category="hazelnut", options="dimensions=100", out=model))
        print(f"demo images to try: {data}/hazelnut/test", flush=True)
    return DEMO_MODELS


def shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host

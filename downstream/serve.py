"""The inspection service: post an image, get as JSON whether and where it is defective; open the page, drop one.

    python downstream/serve.py                              # models/, or a demo model if there is none
    python downstream/serve.py --models models --port 5000
    curl -X POST -F "image=@test.png" http://localhost:5000/api/test_image
    HELDOUT_TOKEN=... python downstream/serve.py --host 0.0.0.0 --allowed-hosts inspection.example --workers 2

Results are kept in runs/serve/results.sqlite, or in PostgreSQL: --results postgresql://USER@HOST/NAME. Everybody on
this machine may ask; beyond it, a token is required.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.service.config import Config
    from pretrain.command import start

    start("downstream.serve:main", Config)

import json
import os
import signal
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from downstream.inspection.config import Fit
from downstream.inspection.fitting import fit
from downstream.service.audit.config import DEFAULT_RESULTS
from downstream.service.config import DEFAULT_MODELS, Config, Settings
from downstream.service.listening import bracketed, listen
from pretrain.command import UserError, installed_by, nearest
from pretrain.demo import make
from pretrain.files import scratch_folder
from pretrain.workers import usable_cores, without_script

try:  # the extra `serve`, the only one whose absence is told here and not by the command itself
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from downstream.service.access import LOOPBACK_NAMES, is_loopback
    from downstream.service.app import ENVIRONMENT, make_app
    from downstream.service.connections import BACKLOG, BoundedConnection
    from downstream.service.models import Models
    from downstream.service.monitoring import MULTIPROCESS_FOLDER, start_logging
    from downstream.service.secret import secret_in, token_in
    from downstream.service.service import Service
    from downstream.service.users import users_in
except ModuleNotFoundError as missing:
    if missing.name not in ("alembic", "fastapi", "h11", "prometheus_client", "sqlalchemy", "starlette", "uvicorn"):
        raise
    raise UserError(f"the service needs {missing.name}: {installed_by('serve')}.") from None

DEMO_MODELS = Path("runs/serve/demo-models")

# uvicorn kills a worker that does not answer it for so long. Its own 5 s are less than torch takes to be imported on a
# busy machine, where two workers were killed and started again for ever.
WORKER_TIMEOUT_S = 60


def main(config: Config) -> int:
    """Serve until told to stop; what was accepted is answered first."""
    check(config)
    listening = listen(config.host, config.port)
    with listening, scratch_folder("heldout-serve") if config.workers > 1 else nullcontext() as shared:
        if shared is not None:
            os.environ[MULTIPROCESS_FOLDER] = str(shared)  # workers read it as they import prometheus_client
            os.environ.setdefault("OMP_NUM_THREADS", str(threads_of(config)))  # for what does not ask torch
        settings = settings_of(config)
        service = Service(settings)  # mistakes are said here, and tables made, before any worker starts
        start_logging()
        print(f"model:   {settings.model or 'the first'} of {settings.models}", flush=True)
        print(f"results: {service.database}", flush=True)
        print(f"serving: http://{bracketed(config.host)}:{listening.getsockname()[1]}", flush=True)
        options = {"http": BoundedConnection, "backlog": BACKLOG,
                   "timeout_graceful_shutdown": int(config.timeout_s) + 5, "log_config": None, "access_log": False,
                   "server_header": False, "lifespan": "on"}  # fmt: skip
        if config.workers == 1:
            server = uvicorn.Server(uvicorn.Config(make_app(service), **options))
            signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn heeds it, and sends it on once all is answered
            server.run(sockets=[listening])
            return 0 if server.started else 1
        service.database.close()
        os.environ[ENVIRONMENT] = settings_of_workers(service)
        del service
        app = "downstream.service.app:app_from_environment"
        options |= {"factory": True, "workers": config.workers, "timeout_worker_healthcheck": WORKER_TIMEOUT_S}
        with without_script():  # which imports more than a worker needs
            Multiprocess(uvicorn.Config(app, **options), sockets=[listening]).run()
    return 0


def check(config: Config) -> None:
    """Raises UserError for numbers that make no service."""
    limits = (
        "model_memory_mb",
        "batch_size",
        "max_waiting",
        "max_images",
        "timeout_s",
        "max_image_mb",
        "max_megapixels",
    )
    for name in (*limits, "workers", "decoders"):
        if getattr(config, name) <= 0:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {getattr(config, name)} makes no service: give a number above 0.")
    if config.kept_images.exists() and not config.kept_images.is_dir():
        raise UserError(f"--kept-images {config.kept_images} is a file: name a folder.")
    if not 0 <= config.port < 65536:
        raise UserError(f"there is no port {config.port}: give 0 to 65535.")


def settings_of(config: Config) -> Settings:
    """The options resolved. Raises UserError where they do not go together."""
    token, users = token_in(config.token_file), users_in(config.users)
    if token is None and not users and not is_loopback(config.host):
        raise UserError(
            f"--host {config.host} is reached from other machines: give --token-file FILE or HELDOUT_TOKEN, or --users."
        )
    models = config.models
    if models == DEFAULT_MODELS and not model_names(models):
        models = demo_models(config.device)
    if config.model is not None and (names := model_names(models)) and config.model not in names:
        raise UserError(f"there is no model {config.model} in {models}; {nearest(config.model, names)}")
    results = config.results or os.environ.get("HELDOUT_RESULTS") or DEFAULT_RESULTS
    password = config.results_password_file and secret_in(config.results_password_file)
    # With a token, a page that had its name point here does not get far: it has none.
    named = tuple(name.lower() for name in config.allowed_hosts) or (("*",) if token or users else ())
    return Settings(
        models=str(models), model=config.model, results=results, kept_images=str(config.kept_images),
        vectors=config.vectors and str(config.vectors), encoder=config.encoder and str(config.encoder),
        model_memory_bytes=config.model_memory_mb << 20,
        batch_size=config.batch_size, max_waiting=config.max_waiting, max_images=config.max_images,
        timeout_s=config.timeout_s, max_image_bytes=config.max_image_mb << 20,
        max_image_pixels=int(config.max_megapixels * 1e6), decoders=config.decoders, device=config.device,
        threads=threads_of(config), allowed_hosts=(*LOOPBACK_NAMES, *named, config.host), token=token,
        users=users, webhook=webhook_of(config), results_password=password, route=config.route,
    )  # fmt: skip


def settings_of_workers(service: Service) -> str:
    """As JSON, with the model that this process decided for: another may be fitted beside it before one of them is
    started again."""
    return json.dumps(asdict(service.settings) | {"model": service.default_model})


def model_names(folder: Path) -> list[str]:
    """None where there is no model, which is said later."""
    try:
        return Models(folder, batch_size=1).names()
    except UserError:
        return []


def webhook_of(config: Config) -> str | None:
    """Raises UserError for what is no address to post to."""
    if config.webhook is None:
        return None
    try:
        url = urlsplit(config.webhook)
        is_address = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # of a port that is none
        is_address = False
    if not is_address or not (config.webhook.isascii() and config.webhook.isprintable()) or " " in config.webhook:
        raise UserError("--webhook has to be an http:// or https:// URL with a host, as http://line.example/alarms.")
    return config.webhook


def threads_of(config: Config) -> int:
    """Of each worker."""
    return max(1, usable_cores() // config.workers)


def demo_models(device: str) -> Path:
    """A folder with a model of demo images, so that there is something to see; made once, and said."""
    model = DEMO_MODELS / "demo-hazelnut"
    if not (model / "inspector.json").is_file():
        print(f"no model in {DEFAULT_MODELS}: fitting one to generated demo images of hazelnuts", flush=True)
        data = Path("runs/serve/demo")
        make(data, categories=("hazelnut",), train=40, good=6, defective=3)
        fit(Fit(data=data, category="hazelnut", device=device, out=model))
        print(f"demo images to try: {data}/hazelnut/test", flush=True)
    return DEMO_MODELS

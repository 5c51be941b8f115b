"""What the inspection service costs beside its bare model: images a second, time to an answer, memory.

    python scripts/benchmarks/serve.py            # some six minutes on two cores
    python scripts/benchmarks/serve.py --quick    # fewer rounds and requests
    python scripts/benchmarks/serve.py --check    # exit code 1 where a target is missed

`detect.py`'s default method, as `serve.py` fits it without models, judges generated hazelnuts of 256 px. The server and
32 clients, coroutines of this process, share the machine over loopback; SQLite is written as in use. The bare model
is the same one in this process: batches as large as the service's, of images that are decoded already ("model"), and
of files that it decodes first, one after another, which no answer can do without ("model and decoding").
They take turns, and only one works at a time. Rates depend on what else the cores do; the CPU time of an image hardly
does, so its ratio is given too (`of_model_by_cpu`; the service's has decoding, HTTP and the database in it).

Targets: 0.8 of the model's images a second, no error, and after 10,000 requests no more than 1.05 times the memory
after the first tenth of them.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Serve

    start("scripts.benchmarks.serve:main", Serve)

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
import torch

from downstream.inspection.config import Fit
from downstream.inspection.fitting import fit
from downstream.inspection.inspector import Inspector
from pretrain.command import UserError
from pretrain.data.decode import decode_bytes
from pretrain.data.size import DEFAULT_PX
from pretrain.demo import make
from scripts.benchmarks.config import Serve
from scripts.benchmarks.rounds import finish, in_rounds

REPOSITORY = Path(__file__).resolve().parents[2]
CATEGORY, CLIENTS, IMAGES = "hazelnut", 32, 64
AT_LEAST = {"of_model": 0.8}
AT_MOST = {"errors": 0, "memory_growth": 1.05}


class Round(NamedTuple):
    """Images a second of the three, CPU milliseconds per image of two, the milliseconds of each answer, and how many
    requests were not answered with 200."""

    model: float
    with_decoding: float
    service: float
    model_cpu_ms: float
    service_cpu_ms: float
    milliseconds: list[float]
    errors: int


def main(config: Serve) -> int:
    figures, lines = measured(config)
    return finish(
        "serve",
        config,
        lines,
        figures,
        at_least=AT_LEAST,
        at_most=AT_MOST,
        packages=("torch", "fastapi", "uvicorn", "sqlalchemy"),
    )


def measured(
    config: Serve, clients: int = CLIENTS, images: int = IMAGES, size_px: int = DEFAULT_PX
) -> tuple[dict, list]:
    """Figures, and the table of them; by default those that targets are for."""
    rounds, requests, long = (
        (2, 320, 1000) if config.quick else (config.rounds, config.requests, config.memory_requests)
    )
    with tempfile.TemporaryDirectory() as folder:
        files, inspector = make_material(Path(folder), config, images, size_px)
        with served(Path(folder), config) as (port, process):
            bodies = [request_of(data, port) for data in files]
            ask(port, bodies, 4 * clients, clients)
            turn = partial(one_round, port, process, bodies, files, inspector, requests, clients)
            every = in_rounds(rounds, {"all three": turn})["all three"]
            alone_ms, _ = ask(port, bodies, min(100, requests), 1)
            print(f"memory over {long} requests", file=sys.stderr, flush=True)
            memory, errors = memory_over(port, bodies, long, process, clients)
    figures = figures_of(every, alone_ms, memory, errors)
    return figures, table(figures, rounds, requests, long)


def make_material(folder: Path, config: Serve, images: int, size_px: int) -> tuple[list[bytes], Inspector]:
    """Image files, and a model fitted in `folder`/models."""
    os.environ["HELDOUT_CACHE"] = str(folder / "cache")
    few = max(1, images // 10)
    make(folder / "demo", categories=(CATEGORY,), train=images, good=min(6, few), defective=min(3, few))
    model = folder / "models" / CATEGORY
    fit(Fit(data=folder / "demo", category=CATEGORY, device=config.device, size_px=size_px, out=model))
    inspector = Inspector.load(model, config.device)
    inspector.method.batch_size = config.batch
    paths = sorted((folder / "demo" / CATEGORY).glob("t*/*/*.png"))
    return [path.read_bytes() for path in paths[:images]], inspector


@contextmanager
def served(folder: Path, config: Serve) -> Iterator[tuple[int, int]]:
    """The service on the model in `folder`: its port, and the number of its process."""
    command = [sys.executable, REPOSITORY / "downstream/serve.py", "--port", 0, "--models", folder / "models",
               "--results", folder / "results.sqlite", "--kept-images", folder / "kept", "--batch-size", config.batch,
               "--workers", config.workers, "--decoders", max(1, 2 // config.workers),
               "--device", config.device]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELDOUT_TOKEN")}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    try:
        for line in process.stdout:
            if line.startswith("serving: "):
                yield int(line.rpartition(":")[2]), process.pid
                return
        raise UserError(f"the service did not start: {(folder / 'log').read_text()[-500:]}")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def request_of(image: bytes, port: int) -> bytes:
    """What curl would send, ready to be written to a socket."""
    head = b'--limit\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n\r\n'
    body = head + image + b"\r\n--limit--\r\n"
    lines = (f"POST /api/test_image HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {len(body)}\r\n"
             "Content-Type: multipart/form-data; boundary=limit\r\n\r\n")  # fmt: skip
    return lines.encode() + body


def ask(port: int, bodies: Sequence[bytes], count: int, clients: int) -> tuple[list[float], int]:
    """Send `count` requests, each client one after another over its own connection: milliseconds of each, and how many
    were not answered with 200."""
    milliseconds, errors = [], 0
    waiting = iter(range(count))

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in waiting:
            start_s = time.perf_counter()
            writer.write(bodies[number % len(bodies)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            milliseconds.append(1e3 * (time.perf_counter() - start_s))
            errors += not head.startswith(b"http/1.1 200")
        writer.close()
        await writer.wait_closed()

    async def all_clients() -> None:
        await asyncio.gather(*(client() for _ in range(clients)))

    asyncio.run(all_clients())
    return milliseconds, errors


def one_round(
    port: int,
    process: int,
    bodies: Sequence[bytes],
    files: Sequence[bytes],
    inspector: Inspector,
    requests: int,
    clients: int,
) -> Round:
    """Each of the three once."""
    decoded = [decode_bytes(data, inspector.size_px) for data in files]

    def predict(images: Sequence) -> None:
        inspector.inspect_decoded([Path()] * len(images), images)

    size = inspector.method.batch_size
    starts = [start % len(files) for start in range(0, requests, size)]
    model_cpu_s = time.process_time()
    model_s = seconds_of(lambda: [predict(decoded[start : start + size]) for start in starts])
    model_cpu_s = time.process_time() - model_cpu_s
    decoding_s = seconds_of(
        lambda: [
            predict([decode_bytes(data, inspector.size_px) for data in files[start : start + size]]) for start in starts
        ]
    )
    count = sum(len(files[start : start + size]) for start in starts)
    start_s, service_cpu_s = time.perf_counter(), cpu_seconds(process)
    milliseconds, errors = ask(port, bodies, requests, clients)
    service_s, service_cpu_s = time.perf_counter() - start_s, cpu_seconds(process) - service_cpu_s
    cpu_ms = (1e3 * model_cpu_s / count, 1e3 * service_cpu_s / requests)
    return Round(count / model_s, count / decoding_s, requests / service_s, *cpu_ms, milliseconds, errors)


def seconds_of(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - start_s


def processes(process: int) -> list[psutil.Process]:
    """The server and all that it started."""
    server = psutil.Process(process)
    return [server, *server.children(recursive=True)]


def cpu_seconds(process: int) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes(process))


def memory_over(port: int, bodies: Sequence[bytes], count: int, process: int, clients: int) -> tuple[list[float], int]:
    """MiB of the server and its processes after each tenth of `count` requests."""
    taken, errors = [], 0
    for _ in range(10):
        errors += ask(port, bodies, count // 10, clients)[1]
        taken.append(sum(each.memory_info().rss for each in processes(process)) / 2**20)
    return taken, errors


def figures_of(measured: Sequence[Round], alone_ms: list[float], memory_mib: list[float], errors: int) -> dict:
    """Ratios are medians of each round's own."""
    ordered = sorted(ms for each in measured for ms in each.milliseconds)
    rates = ("model", "with_decoding", "service")
    return {
        **{f"{name}_per_s": median(getattr(each, name) for each in measured) for name in rates},
        "of_model": median(each.service / each.model for each in measured),
        "of_model_by_cpu": median(each.model_cpu_ms / each.service_cpu_ms for each in measured),
        **{f"{name}_cpu_ms": median(getattr(each, f"{name}_cpu_ms") for each in measured) for name in rates[::2]},
        "of_model_and_decoding": median(each.service / each.with_decoding for each in measured),
        "p50_ms": ordered[len(ordered) // 2], "p99_ms": ordered[int(0.99 * len(ordered))],
        "alone_p50_ms": median(alone_ms), "errors": errors + sum(each.errors for each in measured),
        "memory_mib": memory_mib,
        "memory_growth": memory_mib[-1] / memory_mib[0],
    }  # fmt: skip


def table(figures: dict, rounds: int, requests: int, long: int) -> list[str]:
    first, *_, last = figures["memory_mib"]
    return [
        f"generated {CATEGORY}s of 256 px, {Fit.method} on ImageNet's Lite0 at {DEFAULT_PX} px, medians of {rounds}",
        f"interleaved rounds of {requests} images",
        f"  model                {figures['model_per_s']:8.1f} images/s",
        f"  model and decoding   {figures['with_decoding_per_s']:8.1f} images/s",
        f"  service, {CLIENTS} clients  {figures['service_per_s']:8.1f} images/s",
        f"  {CLIENTS} clients: p50 {figures['p50_ms']:.0f} ms, p99 {figures['p99_ms']:.0f} ms; "
        f"one client: p50 {figures['alone_p50_ms']:.0f} ms",
        f"  memory: {first:.0f} MiB after {long // 10} requests, {last:.0f} MiB after {long}",
        f"  of_model_and_decoding {figures['of_model_and_decoding']:8.3g}",
        f"  of_model_by_cpu       {figures['of_model_by_cpu']:8.3g}  ({figures['model_cpu_ms']:.1f} of "
        f"{figures['service_cpu_ms']:.1f} CPU ms per image)",
    ]

"""The service under load."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

from scripts.benchmarks.config import Serve
from scripts.benchmarks.parts.setting import Figures, Setting

NEEDED = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client", "multipart", "psutil")


def service(setting: Setting) -> Iterator[Figures]:
    """Images a second beside the bare model, milliseconds to an answer, errors."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        yield {"left out: the service": f"{', '.join(missing)} is not installed here"}
        return
    from scripts.benchmarks import serve  # it needs what may be missing

    config = Serve(rounds=2, requests=2000, memory_requests=1000, batch=16, device=setting.device)
    if setting.is_tiny:
        tiny = replace(config, rounds=1, requests=4, memory_requests=10)
        figures, lines = serve.measured(tiny, clients=2, images=4, size_px=64)
    else:
        figures, lines = serve.measured(config)
    print("\n".join(lines), flush=True)
    yield figures

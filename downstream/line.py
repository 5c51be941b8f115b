"""The line: cameras in, verdicts out; many stations, their models shared, each part with exactly one final signal.

    python downstream/line.py --config line.yaml --check      # look at the configuration, and start nothing
    python downstream/line.py --config line.yaml
    python downstream/line.py --schema line > line.schema.json

docs/line.md shows the YAML. No verdict in time is a fault, never a pass. Signals that a receiver has not taken wait on
disk, through a kill of the line too.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.stations.config import Config
    from downstream.stations.reading_config import check_words
    from pretrain.command import start

    start("downstream.line:main", Config, check_words)

import json

from downstream.stations.config import Config
from downstream.stations.reading_config import read_line
from downstream.stations.schema import line_schema
from downstream.stations.signal import signal_schema
from pretrain.command import UserError, installed_by

try:
    from downstream.stations.checks import check, check_models, unanswered
    from downstream.stations.supervisor import Supervisor
except ModuleNotFoundError as missing:
    if missing.name not in ("alembic", "fastapi", "h11", "prometheus_client", "sqlalchemy", "starlette", "uvicorn"):
        raise
    raise UserError(f"a line needs {missing.name}: {installed_by('line')}.") from None


def main(config: Config) -> int:
    """Run until told to stop, or until every source has ended."""
    if config.schema is not None:
        print(json.dumps(signal_schema() if config.schema == "signal" else line_schema(), indent=2))
        return 0
    line = read_line(config)
    check(config, line)
    if not config.check:
        return Supervisor(config, line).run()
    check_models(config, line)
    for warning in unanswered(line):
        print(f"warning: {warning}", flush=True)
    stations, sinks = len(line.stations), len(line.sinks)
    print(f"the configuration is right: {stations} station{'s' * (stations != 1)}, {sinks} sink{'s' * (sinks != 1)}")
    return 0

"""Signals as rows of a file; a row is whole, also where the line was killed while it wrote."""

import csv
import io
import os
from dataclasses import asdict, fields

from downstream.stations.contract import Sink, Surroundings
from downstream.stations.signal import Signal
from downstream.stations.sinks.config import Csv
from pretrain.command import UserError
from pretrain.files import append_whole

COLUMNS = [field.name for field in fields(Signal)]
# A spreadsheet takes what begins like this for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class CsvSink(Sink):
    """Fulfills the contract. Regions are a number of them."""

    def __init__(self, options: Csv, surroundings: Surroundings) -> None:
        self.options, self._file = options, None

    def open(self) -> None:
        path = self.options.path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
            head = row_of(COLUMNS)
            self._file.seek(0)
            first = self._file.readline()
            if first and first != head:
                self.close()
                raise UserError(f"{path} has other columns: name another file, or put it aside.")
            self._drop_half_a_row()
            if not first:
                append_whole(self._file, head)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): name another file.") from None

    def send(self, signal: Signal) -> None:
        values = asdict(signal) | {"regions": len(signal.regions)}
        append_whole(self._file, row_of(["" if values[name] is None else values[name] for name in COLUMNS]))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _drop_half_a_row(self) -> None:
        """What a killed line left; its signal comes once more."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - (1 << 16)))
        last = self._file.read()
        if last and not last.endswith(b"\n"):
            self._file.truncate(size - len(last) + last.rfind(b"\n") + 1)


def row_of(values: list) -> bytes:
    """One line."""
    written = io.StringIO()
    safe = [f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value for value in values]
    csv.writer(written, lineterminator="\n").writerow([str(value).replace("\n", " ") for value in safe])
    return written.getvalue().encode()

"""A line of JSON for each signal."""

from line_here import surroundings
from made_signals import verdict

from downstream.stations.signal import Signal
from downstream.stations.sinks.config import Stdout
from downstream.stations.sinks.stdout import StdoutSink


def test_each_line_is_a_signal(tmp_path, capsys):
    sink = StdoutSink(Stdout(), surroundings(tmp_path))
    for part in (1, 2):
        sink.send(verdict(part))
    assert [Signal.from_json(line).part for line in capsys.readouterr().out.splitlines()] == [1, 2]

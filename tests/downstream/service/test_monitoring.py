"""The log of a service grows at a bounded rate, whoever asks and whatever fails."""

import json
import logging
import sys
from io import StringIO

from downstream.service.monitoring import AUDIT_LINE, LINES_PER_SECOND, TRACEBACK_LINES, BoundedLines, JsonLines


def test_a_flood_of_one_message_is_cut_off_and_counted_and_hides_no_other():
    now_s, stream = [5.0], StringIO()
    handler = BoundedLines(stream, clock=lambda: now_s[0])
    handler.setFormatter(JsonLines())

    def say(message: str, count: int = 1, error: bool = False) -> list[str]:
        stream.truncate(stream.seek(0))
        for number in range(count):
            try:
                raise ValueError(number)
            except ValueError:
                said = {
                    "msg": message,
                    "args": (number,) * message.count("%"),
                    "exc_info": sys.exc_info() if error else None,
                }
            handler.handle(logging.makeLogRecord(said | {"levelname": "INFO"}))
        return [json.loads(line)["message"] for line in stream.getvalue().splitlines()]

    assert say("request %s", 10 * LINES_PER_SECOND) == [f"request {number}" for number in range(LINES_PER_SECOND)]
    assert len(say("fault %s", 1000, error=True)) == LINES_PER_SECOND / TRACEBACK_LINES
    assert len(say(AUDIT_LINE, 1000)) == 1000  # none is missing that says what was changed
    now_s[0] = 6.5
    assert say("request %s") == [f"{9 * LINES_PER_SECOND} more lines left out", "request 0"]
    assert json.loads(stream.getvalue().splitlines()[0])["of"] == "request %s"
    assert say("request %s") == ["request 0"]
    stream.truncate(stream.seek(0))
    handler.close()  # as a process does at its end
    assert (
        json.loads(stream.getvalue())["message"] == f"{1000 - LINES_PER_SECOND // TRACEBACK_LINES} more lines left out"
    )

"""Pages of a long answer: they join, without a row lost or twice."""

import asyncio
import json

from downstream.service.streaming import json_lines, pages


def test_pages_join_without_a_gap(monkeypatch):
    monkeypatch.setattr("downstream.service.streaming.ROWS_PER_PAGE", 3)

    async def gathered(rows) -> list[list[int]]:
        return [page async for page in pages(rows)]

    assert asyncio.run(gathered(iter(range(7)))) == [[0, 1, 2], [3, 4, 5], [6]]
    assert asyncio.run(gathered(range(6))) == [[0, 1, 2], [3, 4, 5]]
    assert asyncio.run(gathered([])) == []


def test_lines_are_records_of_a_file():
    async def text() -> str:
        return "".join([part async for part in answer.body_iterator])

    answer = json_lines(({"number": n, "by": "é"} for n in range(501)), "log.jsonl")
    assert [json.loads(line)["number"] for line in asyncio.run(text()).splitlines()] == list(range(501))
    assert answer.headers["Content-Disposition"] == 'attachment; filename="log.jsonl"'

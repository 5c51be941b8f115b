"""Answers that are too long for memory: sent page by page, none of which is read before the one before is sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from starlette.responses import StreamingResponse

ROWS_PER_PAGE = 500
Row = TypeVar("Row")


async def pages(rows: Iterable[Row]) -> AsyncIterator[list[Row]]:
    """All rows, each page of them read in a thread."""
    remaining = iter(rows)
    while page := await asyncio.to_thread(lambda: list(islice(remaining, ROWS_PER_PAGE))):
        yield page


def json_lines(records: Iterator[Mapping], file_name: str) -> StreamingResponse:
    """A record a line, to be kept as a file of that name."""

    async def texts() -> AsyncIterator[str]:
        async for page in pages(records):
            yield "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in page)

    headers = {"Content-Disposition": f'attachment; filename="{file_name}"'}
    return StreamingResponse(texts(), media_type="application/x-ndjson", headers=headers)

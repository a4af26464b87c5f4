"""`/api/export`: all events as one file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from adbc_telemetry.collector.queries.answers import FileFormat
from adbc_telemetry.collector.queries.filters import BadQuestion
from adbc_telemetry.collector.queries.service import QueryService

FORMATS: Final[tuple[FileFormat, ...]] = get_args(FileFormat)
_TYPES: Final[dict[FileFormat, str]] = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
}


async def export(queries: QueryService, request: Request) -> Response:
    """Write the file, then send it.

    Raises:
        BadQuestion: a parameter is wrong.
        QueriesUnavailable: an export is under way, or the file cannot be written.
    """
    parameters = dict(request.query_params)
    wanted = parameters.pop("format", "parquet")
    if parameters:
        raise BadQuestion("The export takes no parameters but format; leave the others out.")
    for file_format in FORMATS:
        if file_format == wanted:
            break
    else:
        raise BadQuestion(f"There is no such format; give one of {', '.join(FORMATS)}.")
    folder = Path(await run_in_threadpool(tempfile.mkdtemp, prefix="adbc-telemetry-export-"))
    target = folder / f"events.{file_format}"
    try:
        await queries.export(target, file_format)
    except BaseException:
        _remove(folder)
        raise
    return _ExportResponse(queries, folder, target, media_type=_TYPES[file_format], filename=target.name)


class _ExportResponse(FileResponse):
    """Sends the file, and removes it with its folder, also when the client has left or the server ends."""

    def __init__(self, queries: QueryService, folder: Path, target: Path, **options: Any) -> None:
        super().__init__(target, **options)
        self._queries = queries
        self._folder = folder
        queries.unsent_exports += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._queries.unsent_exports -= 1
            _remove(self._folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)

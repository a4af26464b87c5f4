"""Panels as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

from starlette.requests import Request

from adbc_telemetry.collector.queries.filters import BadQuestion

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
FORMATS: Final = ("json", "csv")


def wanted_format(request: Request) -> str:
    """`json` or `csv`: what the parameter `format` says, else what `Accept` names first.

    Raises:
        BadQuestion: the parameter names another format.
    """
    named = request.query_params.get("format")
    if named is not None:
        if named not in FORMATS:
            raise BadQuestion("There is no such format; give json or csv.")
        return named
    for each in request.headers.get("accept", "").split(","):
        media_type = each.partition(";")[0].strip().lower()
        if media_type in ("text/csv", "application/json"):
            return "csv" if media_type == "text/csv" else "json"
    return "json"


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV (RFC 4180) that spreadsheets show as it is.

    What a sender calls its driver must not be a formula for them: an apostrophe before it makes it text.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_harmless(value) for value in row])
    return file.getvalue()


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value

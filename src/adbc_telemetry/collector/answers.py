"""Answers in the wire's form, errors included, so that every driver can read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from starlette.responses import Response

from adbc_telemetry.schema import TelemetryResponse


def wire_answer(
    status: int, errors: Sequence[str], headers: Mapping[str, str] | None = None, *, kept: int = 0
) -> Response:
    """An answer to a request with events.

    Args:
        status: of HTTP.
        errors: a sentence each.
        headers: more headers.
        kept: events that are durable.
    """
    return json_answer(status, TelemetryResponse(errors=list(errors), numProtoSuccess=kept), headers)


def json_answer(status: int, content: object, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of JSON."""
    return Response(
        msgspec.json.encode(content),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )

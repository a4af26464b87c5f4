"""What a collector answers that keeps no events itself: where they are instead of the page."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from adbc_telemetry.collector.answers import json_answer
from adbc_telemetry.collector.page.openapi import describe
from adbc_telemetry.collector.queries.answers import PANELS

_ANSWERS: Final = (*PANELS, "event", "report", "export")
_SENTENCE: Final = (
    "This collector keeps no events: it hands them to {place}. Read the table that `adbc-telemetry sink` writes, "
    "with `adbc-telemetry serve`, `report` or `export`."
)
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>adbc-telemetry collector</title></head><body><main><h1>adbc-telemetry collector</h1><p>{sentence}</p>
<p><a href="/healthz">Health</a>, <a href="/metrics">metrics</a>, <a href="/api/status">status</a>,
<a href="/openapi.json">API</a></p></main></body></html>
"""
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes_without_store(place: str, status: Callable[[], dict[str, object]]) -> list[BaseRoute]:
    """The routes in place of `page_routes`. Questions about events are answered 404 with a sentence.

    Args:
        place: where the events go.
        status: what `/api/status` says.
    """
    sentence = _SENTENCE.format(place=place)
    page = _PAGE.format(sentence=html.escape(sentence))

    async def tell(request: Request) -> Response:
        return Response(page, media_type="text/html", headers=_HEADERS)

    async def refuse(request: Request) -> Response:
        return json_answer(404, {"error": sentence})

    async def tell_status(request: Request) -> Response:
        return json_answer(200, status())

    async def openapi(request: Request) -> Response:
        return json_answer(200, describe())

    return [
        Route("/", tell),
        *(Route(f"/api/{name}", refuse) for name in _ANSWERS),
        Route("/api/status", tell_status),
        Route("/openapi.json", openapi),
    ]

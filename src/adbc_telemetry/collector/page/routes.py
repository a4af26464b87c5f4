"""The routes of the page and its API."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from adbc_telemetry.collector.page.export import export
from adbc_telemetry.collector.page.openapi import describe
from adbc_telemetry.collector.page.plotly import plotly_js
from adbc_telemetry.collector.page.tables import to_csv, wanted_format
from adbc_telemetry.collector.queries.answers import PANELS, By
from adbc_telemetry.collector.queries.filters import BadQuestion, parse_filter
from adbc_telemetry.collector.queries.service import QueriesUnavailable, QueryService

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFE: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_STATIC: Final = Path(__file__).parent / "static"
_MAX_EVENT_ID: Final = 1000
_GROUPINGS: Final = get_args(By)
Handler = Callable[[Request], Awaitable[Response]]


def page_routes(queries: QueryService, status: Callable[[], dict[str, object]]) -> list[BaseRoute]:
    """The routes of the page and its API.

    Args:
        queries: answers the panels' questions; stays the caller's to close.
        status: what `/api/status` says: `version`, `started_at` (an ISO time), `store` (`path`, `bytes`,
            `free_bytes`, `journal_bytes`, `events`, `duplicates`, `newest_commit_age_seconds`, `problems`), `refused`
            (events by reason) and `unknown_fields` (events by name). The page copes without any of them.
    """

    def panel(name: str) -> Handler:
        async def answer(request: Request) -> Response:
            found = await queries.panel(name, parse_filter(_parameters(request)))
            if wanted_format(request) == "csv":
                return _csv(name, to_csv(found.columns, found.rows))
            return _json(found)

        return answer

    async def event(request: Request) -> Response:
        parameters = _parameters(request)
        event_id = parameters.pop("id", "")
        if not 0 < len(event_id) <= _MAX_EVENT_ID:
            raise BadQuestion("Give the event's id as the parameter id.")
        found = await queries.event(event_id, parse_filter(parameters))
        if found is None:
            return _json({"error": "There is no such event in this range."}, 404)
        if wanted_format(request) == "csv":
            return _csv("event", to_csv(list(found), [list(found.values())]))
        return _json(found)

    async def report(request: Request) -> Response:
        parameters = _parameters(request)
        by: Any = parameters.pop("by", None)
        if by is not None and by not in _GROUPINGS:
            raise BadQuestion(
                f"A report cannot be grouped by that; give by as one of {', '.join(_GROUPINGS)}."
            )
        found = await queries.report(parse_filter(parameters), by)
        if wanted_format(request) == "csv":
            return _csv("report", to_csv(*_report_table(found)))
        return _json(found)

    async def tell_status(request: Request) -> Response:
        if _parameters(request):
            raise BadQuestion("The status takes no parameters but format; leave the others out.")
        found = status()
        if wanted_format(request) == "csv":
            return _csv("status", to_csv(["name", "value"], _flat(found)))
        return _json(found)

    async def openapi(request: Request) -> Response:
        return _json(describe())

    answers: dict[str, Handler] = {f"/api/{name}": panel(name) for name in PANELS}
    answers |= {
        "/api/event": event,
        "/api/report": report,
        "/api/status": tell_status,
        "/api/export": partial(export, queries),
    }
    return [
        Route("/", _page()),
        Route("/page/plotly.min.js", _plotly),
        Route("/page/{name}", _static()),
        *(Route(path, _explained(answer)) for path, answer in answers.items()),
        Route("/openapi.json", openapi),
    ]


def _explained(answer: Handler) -> Handler:
    """The same, with errors as a sentence."""

    async def explained(request: Request) -> Response:
        try:
            return await answer(request)
        except BadQuestion as error:
            return _json({"error": str(error)}, 400)
        except QueriesUnavailable as error:
            response = _json({"error": str(error)}, 503)
            response.headers["Retry-After"] = str(error.retry_after)
            return response

    return explained


def _parameters(request: Request) -> dict[str, str]:
    """The parameters but for the format.

    Raises:
        BadQuestion: one is given twice.
    """
    pairs = request.query_params.multi_items()
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise BadQuestion("A parameter is given twice; give each once.")
    parameters.pop("format", None)
    return parameters


def _page() -> Handler:
    library = plotly_js()
    # Elements that stand for the styles that the library would add: the policy refuses styles in the document.
    placeholders = "".join(f'<meta id="{html.escape(name)}">' for name in library.style_ids)
    content = (
        _file("index.html")
        .decode()
        .replace("<!-- plotly -->", placeholders)
        .replace("plotly.min.js", f"plotly.min.js?v={library.version}")
        .encode()
    )

    async def page(request: Request) -> Response:
        return Response(content, media_type="text/html", headers={**_SAFE, "Cache-Control": "no-cache"})

    return page


def _static() -> Handler:
    files = {
        entry.name: (entry.read_bytes(), _TYPES[ending])
        for entry in _STATIC.iterdir()
        if (ending := "." + entry.name.rpartition(".")[2]) in _TYPES
    }

    async def static(request: Request) -> Response:
        content, media_type = files.get(request.path_params["name"], (None, ""))
        if content is None:
            return _json({"error": "There is no such file."}, 404)
        return Response(content, headers={**_SAFE, "Content-Type": media_type, "Cache-Control": "no-cache"})

    return static


async def _plotly(request: Request) -> Response:
    library = plotly_js()
    headers = {**_SAFE, "ETag": library.etag, "Cache-Control": "public, max-age=31536000, immutable"}
    if request.headers.get("if-none-match") == library.etag:
        return Response(status_code=304, headers=headers)
    # Each browser of the last ten years takes gzip; what cannot is no browser that shows charts.
    headers |= {"Content-Encoding": "gzip", "Content-Type": _TYPES[".js"]}
    return Response(library.compressed, headers=headers)


def _file(name: str) -> bytes:
    return (_STATIC / name).read_bytes()


def _report_table(report: Any) -> tuple[list[str], list[list[Any]]]:
    """The groups of a report, or its operations if it is not grouped."""
    figures = ["count", "errors", "p50_ms", "p95_ms", "p99_ms"]
    if report.groups is None:
        columns = ["operation_type", "statement_type", *figures]
        return columns, [[getattr(row, name) for name in columns] for row in report.operations]
    rows = [[*row.values, *(getattr(row, name) for name in figures)] for row in report.groups]
    return [*report.columns, *figures], rows


def _flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            rows += [(prefix + name, each) for each in value]
        else:
            rows.append((prefix + name, value))
    return rows


def _json(content: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(content),
        status,
        media_type="application/json",
        headers={**_SAFE, "Cache-Control": "no-store", "Vary": "Accept"},
    )


def _csv(name: str, content: str) -> Response:
    return Response(
        content,
        media_type="text/csv",
        headers={
            **_SAFE,
            "Cache-Control": "no-store",
            "Vary": "Accept",
            "Content-Disposition": f'attachment; filename="{name}.csv"',
        },
    )

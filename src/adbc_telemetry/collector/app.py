"""The collector's HTTP interface, as an ASGI application."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import zlib
from pathlib import Path
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adbc_telemetry.collector.intake import Intake, InvalidRequest, read_request
from adbc_telemetry.collector.store import Store
from adbc_telemetry.schema import TelemetryResponse

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""The largest body of a request, as it comes over the wire."""
MAX_DECOMPRESSED_BYTES: Final = 64 * 1024 * 1024
"""The largest body of a request, decompressed."""

_logger = logging.getLogger(__name__)


def create_app(store: Store, *, unavailable_while: Path | None = None) -> Starlette:
    """The application over a store, which stays the caller's to close.

    Routes: POST /telemetry-ext and /telemetry-unauth, GET /healthz and /report. Senders' headers are neither asked
    for, kept nor logged: a collector of one's own has no accounts. While the file `unavailable_while` exists,
    every request is answered 503.
    """

    async def collect(request: Request) -> Response:
        try:
            body = await _read_body(request)
            intake = await run_in_threadpool(_open, body, request.headers.get("content-encoding", "identity"))
        except _Refused as refusal:
            return _answer(refusal.status, errors=[str(refusal)])
        except ClientDisconnect:
            return _answer(400, errors=["The body did not come to its end."])  # the client is gone
        try:
            await asyncio.wrap_future(store.add(intake.logs))
        except Exception as error:  # noqa: BLE001 - the sender keeps its logs and tries again
            # Only the class: DuckDB's messages quote the values that they complain about.
            _logger.error("cannot store logs: %s", type(error).__name__)
            return _answer(503, errors=["The logs could not be stored."])
        return _answer(200, errors=intake.errors, kept=len(intake.logs))

    async def healthz(request: Request) -> Response:
        return _json(200, {"status": "ok"})

    async def report(request: Request) -> Response:
        return _json(200, await run_in_threadpool(store.report))

    return Starlette(
        routes=[
            Route("/telemetry-ext", collect, methods=["POST"]),
            Route("/telemetry-unauth", collect, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/report", report),
        ],
        middleware=[Middleware(_MaintenanceSwitch, file=unavailable_while)] if unavailable_while else [],
    )


class _MaintenanceSwitch:
    """Answers 503 while a file exists."""

    def __init__(self, app: ASGIApp, file: Path) -> None:
        self._app = app
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._file.exists():
            await _answer(503, errors=["The collector is under maintenance."])(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Refused(Exception):
    """A request that is refused as a whole, with the status of the answer and a sentence for it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _Refused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
    return bytes(body)


def _open(body: bytes, encoding: str) -> Intake:
    if encoding.lower() == "gzip":
        body = _decompress(body)
    elif encoding.lower() != "identity":
        raise _Refused(415, "The body's encoding must be gzip or identity.")
    try:
        return read_request(body)
    except InvalidRequest as error:
        raise _Refused(400, str(error)) from None


def _decompress(body: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            # Never more than the limit and a byte, whatever a few compressed bytes may promise.
            decompressed = stream.read(MAX_DECOMPRESSED_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise _Refused(400, "The body is not gzip.") from None
    if len(decompressed) > MAX_DECOMPRESSED_BYTES:
        raise _Refused(413, f"The body is larger than {MAX_DECOMPRESSED_BYTES} bytes when decompressed.")
    return decompressed


def _answer(status: int, *, errors: list[str], kept: int = 0) -> Response:
    return _json(status, TelemetryResponse(errors=errors, numProtoSuccess=kept))


def _json(status: int, content: object) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")

"""The collector's HTTP interface, as an ASGI application.

From outside to inside: the maintenance switch, access, admission, routes. Events take the way
body -> logs (`intake`) -> durable (`destination`) -> answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from msgspec import to_builtins
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adbc_telemetry.collector.access import AccessControl
from adbc_telemetry.collector.account import IntakeAccount
from adbc_telemetry.collector.answers import json_answer, wire_answer
from adbc_telemetry.collector.bodies import RefusedBody, decompressed, read_body
from adbc_telemetry.collector.destination import Destination, NotDurableError
from adbc_telemetry.collector.flags import FlagsFile
from adbc_telemetry.collector.intake import Intake, InvalidRequest, TooManyLogs, read_request
from adbc_telemetry.collector.metrics import CONTENT_TYPE, render_metrics
from adbc_telemetry.collector.page.absent import routes_without_store
from adbc_telemetry.collector.page.routes import page_routes
from adbc_telemetry.collector.queries.service import QueryService
from adbc_telemetry.collector.serving.admission import AdmissionControl
from adbc_telemetry.core.version import __version__

MAX_REQUESTS: Final = 256
MAX_HELD_BYTES: Final = 32 * 1024 * 1024
_LARGE_BODY: Final = 256 * 1024
"""A body from this size on is read on another thread, one at a time, so that small ones need not wait for it."""
_RETRY_SECONDS: Final = 5
_LAST_SECONDS: Final = 3.0
"""For what a destination does last: a folder's compaction, or events that Kafka has not acknowledged."""

_logger = logging.getLogger(__name__)


class Application:
    """What the routes share.

    Args:
        destination: where events go; started and stopped with the application.
        queries: closed with the application; None if nothing can be asked, as nothing is kept here.
        flags: the feature flags.
        token: what senders and readers must show, if anything.
        hosts: names under which it may be addressed, besides those of loopback; None allows any.
        unavailable_while: while this file exists, every request is answered 503.
        connections: how many connections are open.
    """

    def __init__(
        self,
        destination: Destination,
        queries: QueryService | None,
        flags: FlagsFile,
        *,
        token: str | None = None,
        hosts: frozenset[str] | None = None,
        unavailable_while: Path | None = None,
        connections: Callable[[], int] = lambda: 0,
    ) -> None:
        self._destination = destination
        self._queries = queries
        self._flags = flags
        self._connections = connections
        self._account = IntakeAccount()
        # Always the same thread: the C library keeps freed memory apart for each thread, up to 10 MB here.
        self._large_bodies = ThreadPoolExecutor(1, thread_name_prefix="adbc-telemetry-large-bodies")
        routes = Starlette(
            routes=[
                Route("/telemetry-ext", self._collect, methods=["POST"]),
                Route("/telemetry-unauth", self._collect, methods=["POST"]),
                Route("/healthz", self._healthz),
                Route("/metrics", self._metrics),
                Route(
                    "/api/2.0/connector-service/feature-flags/{client}/{version}",
                    self._feature_flags,
                ),
                *(
                    routes_without_store(destination.place, self.status)
                    if queries is None
                    else page_routes(queries, self.status)
                ),
            ],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _explain_status, Exception: _hide_error},
        )
        self.paths = [route.path for route in routes.routes if isinstance(route, Route)]
        """Those of the routes, with names in braces; the access log may name them."""
        self._admission = AdmissionControl(routes, max_requests=MAX_REQUESTS, max_bytes=MAX_HELD_BYTES)
        self.asgi: ASGIApp = AccessControl(self._admission, token=token, hosts=hosts)
        if unavailable_while is not None:
            self.asgi = _MaintenanceSwitch(self.asgi, unavailable_while)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self._destination.start()
        if self._queries is not None:
            await self._queries.start()
        try:
            yield
        finally:
            self._large_bodies.shutdown(wait=False, cancel_futures=True)
            if self._queries is not None:
                await self._queries.close()
            await self._destination.stop(_LAST_SECONDS)

    # --- events

    async def _collect(self, request: Request) -> Response:
        answer = await self._answer(request)
        self._account.answers[answer.status_code] += 1
        return answer

    async def _answer(self, request: Request) -> Response:
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if not self._admission.hold(size):
                raise RefusedBody(503, "The collector has too much to do; send it again later.")
            held += size

        try:
            body = await read_body(request)
            encoding = request.headers.get("content-encoding", "")
            if len(body) < _LARGE_BODY and not encoding:
                intake = read_request(body)
            else:
                intake = await asyncio.get_running_loop().run_in_executor(
                    self._large_bodies, _open, body, encoding, hold
                )
            del body
            return await self._keep(intake)
        except RefusedBody as refusal:
            busy = {"Retry-After": "1"} if refusal.status == 503 else {}
            return wire_answer(refusal.status, [str(refusal)], busy)
        except InvalidRequest as error:
            return wire_answer(413 if isinstance(error, TooManyLogs) else 400, [str(error)])
        except ClientDisconnect:
            return wire_answer(400, ["The body did not come to its end."])  # the client is gone
        finally:
            self._admission.release(held)

    async def _keep(self, intake: Intake) -> Response:
        if self._destination.largest_log is not None:
            intake = intake.without_larger_than(self._destination.largest_log)
        try:
            await self._destination.add(intake.logs, intake.array)
        except NotDurableError:
            return wire_answer(
                503,
                ["The events could not be stored; send them again later."],
                {"Retry-After": str(_RETRY_SECONDS)},
            )
        self._account.refuse(refusal.reason for refusal in intake.refusals)
        self._account.see_unknown(intake.unknown)
        self._account.private_texts += intake.dropped_private
        return wire_answer(200, intake.errors, kept=len(intake.logs))

    # --- for operators

    async def _healthz(self, request: Request) -> Response:
        health = self._destination.health()
        age = health.newest_commit_age_seconds
        content = {
            "status": "unavailable" if health.problems else "ok",
            "problems": health.problems,
            "newest_commit_age_seconds": None if age is None else round(age, 3),
            **health.details(),
        }
        return json_answer(503 if health.problems else 200, content)

    async def _metrics(self, request: Request) -> Response:
        text = render_metrics(
            self._account, self._destination.health(), self._connections(), self._admission.requests
        )
        return Response(text, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})

    def status(self) -> dict[str, object]:
        """What the page shows of the collector itself."""
        account = self._account
        return {
            "version": __version__,
            "started_at": datetime.fromtimestamp(account.since, timezone.utc).isoformat(),
            "store": {"path": self._destination.place, **to_builtins(self._destination.health())},
            "answers": {str(status): count for status, count in account.answers.items()},
            "refused": dict(account.refused),
            "unknown_fields": dict(account.unknown),
            "private_texts": account.private_texts,
            "flags_problem": self._flags.problem,
        }

    async def _feature_flags(self, request: Request) -> Response:
        return json_answer(200, self._flags.current())


class _MaintenanceSwitch:
    """Answers 503 while a file exists."""

    def __init__(self, app: ASGIApp, file: Path) -> None:
        self._app = app
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._file.exists():
            answer = wire_answer(503, ["The collector is under maintenance."], {"Retry-After": "1"})
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _open(body: bytes, encoding: str, hold: Callable[[int], None]) -> Intake:
    return read_request(decompressed(body, encoding, hold))


async def _explain_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return wire_answer(error.status_code, [f"{error.detail}."], error.headers)


async def _hide_error(request: Request, error: Exception) -> Response:
    # Only the class: an error's text may quote what was sent.
    _logger.error("a request failed: %s", type(error).__name__)
    return wire_answer(500, ["The collector failed; its log says more."])

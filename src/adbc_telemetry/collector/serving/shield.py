"""What stands between the server and the application: errors become answers, and requests are logged on request."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from typing import Final

from adbc_telemetry.collector.rarely import RareLog
from adbc_telemetry.collector.serving.answers import send_answer
from adbc_telemetry.collector.serving.asgi import ASGIApp, Message, Receive, Scope, Send

_OTHER: Final = "(other)"


class Shield:
    """Answers 500 for an exception and 503 for a request that the server's end cuts off, each in the wire's form.

    uvicorn would log the traceback, and an error's text may quote what a client sent.

    Args:
        app: the application.
        log: gets the class of each exception.
    """

    def __init__(self, app: ASGIApp, log: RareLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = gone = False

        async def listening() -> Message:
            nonlocal gone
            message = await receive()
            gone = message["type"] == "http.disconnect"
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, listening, watched)
        except asyncio.CancelledError:
            if not started:
                await send_answer(send, 503, "The collector is stopping.", retry_after=1, close=True)
        except Exception as error:  # noqa: BLE001 - the border: the next request must find a server
            if not gone:  # else the application only complains of that
                name = type(error).__name__
                self._log.warn(f"request {name}", f"A request failed with {name}.")
            if not started:
                await send_answer(send, 500, "The collector could not do this.", close=True)


class AccessLog:
    """Logs each request: method, route, status, milliseconds. Nothing that a client chose freely.

    Args:
        app: the application.
        routes: paths that may be named, `/flags/{client}` included; any other path is logged as `(other)`.
        logger: gets the lines, at INFO.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[str], logger: logging.Logger) -> None:
        self._app = app
        self._logger = logger
        self._routes = [(_pattern(route), route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        began = time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            millis = (time.monotonic() - began) * 1000
            self._logger.info("%s %s %d %.1f ms", scope["method"], self._route(scope["path"]), status, millis)

    def _route(self, path: str) -> str:
        return next((route for pattern, route in self._routes if pattern.fullmatch(path)), _OTHER)


def _pattern(route: str) -> re.Pattern[str]:
    pieces = re.split(r"\{[^}]*\}", route)
    return re.compile("[^/]+".join(re.escape(piece) for piece in pieces))

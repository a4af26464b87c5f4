"""ASGI's lifespan: the application starts before the first request and stops after the last one."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from adbc_telemetry.collector.serving.asgi import ASGIApp, Message

_TO_END: Final = 1.0
"""How long an application that told of its failure may take to raise it, in seconds."""


class StartupFailed(Exception):
    """The application did not start; the message says why, and the cause is what it raised."""


class Lifespan:
    """One life of an application.

    uvicorn has the same, but logs an exception with its traceback and keeps the reason to itself.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        """What the application shares with its requests: `scope["state"]`."""
        self._app = app
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._heard = asyncio.Event()
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Return once the application has started.

        Raises:
            StartupFailed: when it does not, or does not know of lifespans.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.ensure_future(self._app(scope, self._messages.get, self._listen))
        await self._tell("lifespan.startup")
        if self._failure is not None:
            await asyncio.wait([self._task], timeout=_TO_END)  # its exception says more
        if self._task.done() and not self._task.cancelled() and (error := self._task.exception()):
            raise StartupFailed(str(error) or type(error).__name__) from error
        if self._failure is not None:
            raise StartupFailed(self._failure or "the application did not start and did not say why")
        if self._task.done():
            raise StartupFailed("the application ended when it should start")

    async def shutdown(self) -> str | None:
        """Return once the application has stopped: None, or the class of what it raised."""
        assert self._task is not None
        self._failure = None
        await self._tell("lifespan.shutdown")
        await asyncio.wait([self._task], timeout=_TO_END)
        if not self._task.done() or self._task.cancelled():
            return None
        error = self._task.exception()
        return type(error).__name__ if error else None

    async def _tell(self, what: str) -> None:
        assert self._task is not None
        self._heard.clear()
        await self._messages.put({"type": what})
        heard = asyncio.ensure_future(self._heard.wait())
        await asyncio.wait([heard, self._task], return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()

    async def _listen(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            self._failure = message.get("message", "")
        self._heard.set()

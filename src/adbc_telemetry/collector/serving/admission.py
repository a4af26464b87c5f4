"""How many requests are worked on at once, and how many bytes of bodies are held for them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

from adbc_telemetry.collector.serving.answers import send_answer
from adbc_telemetry.collector.serving.asgi import ASGIApp, Message, Receive, Scope, Send

_GONE: Final[Message] = {"type": "http.disconnect"}
_PATIENCE: Final = 1.0
"""Seconds that a body may take while other requests are refused for want of bytes."""


class AdmissionControl:
    """Lets only so many POST requests in, and only so many bytes of bodies. GETs pass.

    A request counts from the end of its body to its answer; a body counts with the bytes that have come, not with those
    that its length promises. So a client that promises much and sends little takes no place from others. A request
    beyond a limit is answered 503 with `Retry-After`. When the bytes are used up, the bodies that have been coming for
    longest give way, once they take more than a second.

    Args:
        app: the application behind it.
        max_requests: requests that are worked on at once.
        max_bytes: bytes of bodies that are held at once.
        retry_after: seconds for `Retry-After`.
    """

    def __init__(
        self, app: ASGIApp, *, max_requests: int = 64, max_bytes: int = 64 * 1024 * 1024, retry_after: int = 1
    ) -> None:
        self._app = app
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._retry_after = retry_after
        self._requests = 0
        self._refused = 0
        self._lock = threading.Lock()  # guards _bytes: hold and release come from other threads as well
        self._bytes = 0
        self._coming: dict[_Arrival, None] = {}  # the oldest first

    @property
    def requests(self) -> int:
        """POST requests whose body has come and whose answer has not gone."""
        return self._requests

    @property
    def bytes(self) -> int:
        """Bytes of bodies that are held, those charged by `hold` included."""
        return self._bytes

    @property
    def refused(self) -> int:
        """Requests answered 503 here, since the start."""
        return self._refused

    def hold(self, count: int) -> bool:
        """Charge further bytes, such as those of a decompressed body. Thread-safe.

        Returns:
            False when they would be too many; then they are not charged, and the request is to be refused.
        """
        with self._lock:
            if self._bytes + count > self._max_bytes:
                return False
            self._bytes += count
            return True

    def release(self, count: int) -> None:
        """Take back a charge of `hold`. Thread-safe."""
        with self._lock:
            self._bytes -= count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        length = _content_length(scope)
        if length > self._max_bytes:
            await send_answer(send, 413, f"The body is larger than {self._max_bytes} bytes.", close=True)
        elif self._requests >= self._max_requests or not self._has_room(length):
            await self._refuse(send)
        else:
            await _Arrival(self, receive, send).run(self._app, scope)

    def _has_room(self, count: int) -> bool:
        while self._bytes + count > self._max_bytes:
            if not self._give_up_the_oldest():
                return False
        return True

    def _give_up_the_oldest(self) -> bool:
        oldest = next((arrival for arrival in self._coming if arrival.waiting), None)
        if oldest is None or time.monotonic() - oldest.began < _PATIENCE:
            return False
        oldest.give_up()
        return True

    async def _refuse(self, send: Send) -> None:
        self._refused += 1
        # Closed: the body was not read to its end, or is not worth reading to its end.
        await send_answer(
            send,
            503,
            "The collector has too much to do; send it again later.",
            retry_after=self._retry_after,
            close=True,
        )


class _Arrival:
    """One request on its way through."""

    def __init__(self, control: AdmissionControl, receive: Receive, send: Send) -> None:
        self.began = time.monotonic()
        self.waiting = False  # for a piece of the body; only then may it be given up
        self._control = control
        self._receive = receive
        self._send = send
        self._held = 0
        self._complete = False
        self._overruled = False  # the answer is a 503, whatever the application says
        self._answering = False
        self._task: asyncio.Task[Any] | None = None  # that waits for a piece of the body

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        control = self._control
        control._coming[self] = None
        try:
            await app(scope, self._next_piece, self._answer)
        except Exception:
            if not self._overruled:  # else it only complains that the client is gone
                raise
        finally:
            control._coming.pop(self, None)
            self._let_go()
            if self._complete:
                control._requests -= 1
        if self._overruled and not self._answering:
            await control._refuse(self._send)

    def give_up(self) -> None:
        """Make room: the request is answered 503, and what it held is free at once."""
        self.waiting = False
        self._overrule()
        if self._task is not None:
            self._task.cancel()

    async def _next_piece(self) -> Message:
        """The next piece of the body. To an application that is overruled the client is gone."""
        if self._complete:
            return await self._receive()
        message = _GONE if self._overruled else await self._wait_for_piece()
        if message["type"] == "http.request" and not self._admit(message):
            self._overrule()
            return _GONE
        return message

    async def _wait_for_piece(self) -> Message:
        self._task = asyncio.current_task()
        self.waiting = True
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self._overruled:
                raise  # the server stops
            if self._task is not None and sys.version_info >= (3, 11):
                self._task.uncancel()
            return _GONE
        finally:
            self.waiting = False

    def _admit(self, piece: Message) -> bool:
        count = len(piece.get("body", b""))
        if not (self._control._has_room(count) and self._control.hold(count)):
            return False
        self._held += count
        return piece.get("more_body", False) or self._begin_work()

    async def _answer(self, message: Message) -> None:
        if not self._overruled:
            self._answering = True
            await self._send(message)

    def _begin_work(self) -> bool:
        if self._control._requests >= self._control._max_requests:
            return False
        self._control._coming.pop(self, None)
        self._control._requests += 1
        self._complete = True
        return True

    def _overrule(self) -> None:
        self._overruled = True
        self._control._coming.pop(self, None)
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, 0
        self._control.release(held)


def _content_length(scope: Scope) -> int:
    """What the body's length is to be, 0 if that is not known."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            with suppress(ValueError):  # the parser lets none through that is no number
                return int(value)
    return 0

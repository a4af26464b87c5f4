"""Accepts connections, up to a number, and goes on when there was no descriptor for one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from adbc_telemetry.collector.rarely import RareLog
from adbc_telemetry.collector.serving.answers import raw_answer

_AT_ONCE: Final = 64
"""Connections accepted in a row before the loop turns to those that are there."""
_PAUSE: Final = 0.5
"""Seconds without accepting after it failed."""
_TO_LEAVE: Final = 1.0
"""Seconds that a refused client has to read its answer."""
_MOST_LEAVING: Final = 32

_FULL: Final = raw_answer(503, "The collector has too many connections.", retry_after=1)


class Acceptor:
    """Takes connections from a listening socket. All of it runs on the loop's thread, except for the counts.

    asyncio's own server logs a traceback for each connection in the backlog when descriptors are used up, has no
    limit, and leaves TCP_NODELAY to luck.

    Args:
        listener: bound and listening.
        make_connection: makes the protocol of a connection; gets what to call when the connection is gone.
        most: connections that are open at once.
        context: for TLS, or None.
        handshake_seconds: how long TLS may take to come up.
        log: gets what goes wrong.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_connection: Callable[[Callable[[], None]], asyncio.Protocol],
        *,
        most: int,
        context: ssl.SSLContext | None,
        handshake_seconds: float,
        log: RareLog,
    ) -> None:
        self.refused = 0
        self._listener = listener
        self._make_connection = make_connection
        self._most = most
        self._context = context
        self._handshake_seconds = handshake_seconds
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._open: set[socket.socket] = set()
        self._leaving: set[socket.socket] = set()
        self._coming: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def open(self) -> int:
        """Connections that are open, TLS handshakes included."""
        return len(self._open)

    def start(self) -> None:
        """Begin to accept."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept no more, and give handshakes up."""
        self._closed = True
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._coming:
            task.cancel()
        for leaving in list(self._leaving):
            self._let_go(leaving)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            client.setblocking(False)
            if len(self._open) >= self._most:
                self._refuse(client)
            else:
                self._take(client)

    def _pause(self, error: OSError) -> None:
        # The listener stays readable: without a pause the loop would spin.
        self._loop.remove_reader(self._listener)
        self._loop.call_later(_PAUSE, self._resume)
        self._log.warn(
            "accept", f"No connection can be accepted (errno {error.errno}); raise the limit of open files."
        )

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _take(self, client: socket.socket) -> None:
        with suppress(OSError):  # the client is gone already
            # Without it, head and body of an answer are 40 ms apart; asyncio sets it for some sockets only.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(client)
        task = self._loop.create_task(self._connect(client))
        self._coming.add(task)
        task.add_done_callback(partial(self._came, client))

    def _came(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._coming.discard(task)
        if task.cancelled():  # before its first step, so that asyncio does not know the socket
            self._open.discard(client)
            client.close()

    async def _connect(self, client: socket.socket) -> None:
        def make() -> asyncio.Protocol:
            return self._make_connection(lambda: self._open.discard(client))

        try:
            if self._context is None:
                await self._loop.connect_accepted_socket(make, client)
            else:
                await self._loop.connect_accepted_socket(
                    make, client, ssl=self._context, ssl_handshake_timeout=self._handshake_seconds
                )
        except (OSError, asyncio.CancelledError):
            # No handshake, or the server stops. asyncio has closed the socket, and tells a protocol of the end only
            # if it told it of the beginning.
            self._open.discard(client)

    def _refuse(self, client: socket.socket) -> None:
        self.refused += 1
        self._log.warn("full", f"Connections are refused: {self._most} are open.")
        if self._context is not None:
            client.close()  # without a handshake there is no way to say it
            return
        with suppress(OSError):  # the client is gone already
            client.send(_FULL)
            client.shutdown(socket.SHUT_WR)
        self._leaving.add(client)
        if len(self._leaving) <= _MOST_LEAVING:
            # To close at once resets the connection under the answer when the client has sent something.
            self._loop.call_later(_TO_LEAVE, self._let_go, client)
        else:
            self._let_go(client)

    def _let_go(self, client: socket.socket) -> None:
        self._leaving.discard(client)
        client.close()

"""A server in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from types import FrameType
from typing import Any, Final

from uvicorn import Config
from uvicorn.server import ServerState

from adbc_telemetry.collector.rarely import RareLog
from adbc_telemetry.collector.serving.acceptor import Acceptor
from adbc_telemetry.collector.serving.asgi import ASGIApp
from adbc_telemetry.collector.serving.connection import Connection
from adbc_telemetry.collector.serving.lifespan import Lifespan, StartupFailed
from adbc_telemetry.collector.serving.limits import ServingLimits, connection_limit
from adbc_telemetry.collector.serving.shield import AccessLog, Shield

_NAME: Final = "adbc-telemetry-collector"
_TO_CANCEL: Final = 0.5
"""Seconds that cancelled requests have to say a last word, and clients to read it."""
_STEP: Final = 0.02
_SIGNAL_SECONDS: Final = 0.2

_logger = logging.getLogger(__name__)
_access_logger = logging.getLogger(f"{__name__}.access")


class BackgroundServer:
    """Serves an ASGI application on an asyncio loop in a thread of its own. It runs once.

    HTTP is uvicorn's, over httptools. Accepting, the deadlines and the end are ours: uvicorn has no deadline for
    headers or bodies, and its end waits for each client.

    Args:
        app: with lifespan, which starts and stops what the application needs on this loop.
        limits: what a client may do.
        tls: files of a certificate with its chain and of its key, or None for plain HTTP.
        access_log: whether each request is logged.
        routes: paths that the access log may name; see `AccessLog`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: ServingLimits | None = None,
        tls: tuple[str, str] | None = None,
        access_log: bool = False,
        routes: Iterable[str] = (),
    ) -> None:
        self._limits = limits if limits is not None else ServingLimits()
        self._tls = tls
        self._log = RareLog(_logger)
        self._lifespan_app = app
        guarded: ASGIApp = Shield(app, self._log)
        self._app = AccessLog(guarded, routes, _access_logger) if access_log else guarded
        self._state = ServerState()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._acceptor: Acceptor | None = None
        self._up_or_failed = threading.Event()
        self._failure: Exception | None = None
        self._end = asyncio.Event()
        self._cut = asyncio.Event()
        self._signals = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the server, for work that belongs beside its requests.

        Raises:
            RuntimeError: before `start`.
        """
        if self._loop is None:
            raise RuntimeError("the server was not started")
        return self._loop

    @property
    def open_connections(self) -> int:
        """Connections that are open now, TLS handshakes included."""
        return self._acceptor.open if self._acceptor else 0

    @property
    def refused_connections(self) -> int:
        """Connections that were refused because of their number, since the start."""
        return self._acceptor.refused if self._acceptor else 0

    def start(self, listener: socket.socket) -> None:
        """Serve on a bound and listening socket, which is the server's to close; return once it serves.

        Raises:
            RuntimeError: when it did not come up; the message says why, and the cause is what the application raised.
        """
        if self._thread is not None:
            raise RuntimeError("a server runs once; make another one")
        # add_reader is not had from Windows' default loop.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, listener), name=_NAME, daemon=True
        )
        self._thread.start()
        try:
            self._up_or_failed.wait()
        except BaseException:  # Ctrl+C, while the application starts
            self._ask(self._end)
            raise
        if self._failure is not None:
            self._thread.join()
            raise RuntimeError(str(self._failure)) from (self._failure.__cause__ or self._failure)

    def stop(self) -> None:
        """End gracefully and wait for the end: `graceful_seconds`, one second, and the application's own shutdown.

        Idempotent, from any thread but the server's own.
        """
        self._ask(self._end)
        self.join()

    def handle_signal(self, signum: int, frame: FrameType | None) -> None:
        """Begin to end gracefully, and return at once. The second call cuts off the requests that are under way.

        Fit for `signal.signal`, with SIGTERM, SIGINT and SIGHUP.
        """
        self._signals += 1
        self._ask(self._end)
        if self._signals > 1:
            self._ask(self._cut)

    def join(self) -> None:
        """Wait for the end. Signals are handled meanwhile."""
        while self._thread is not None and self._thread.is_alive():
            # Not without a timeout: a signal that comes just before the wait is handled only after it.
            self._thread.join(_SIGNAL_SECONDS)

    def _ask(self, event: asyncio.Event) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(event.set)

    # On the server's thread

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(self._note_exception)
        try:
            with listener:
                loop.run_until_complete(self._serve(listener))
        except Exception as error:  # noqa: BLE001 - raised in the thread that starts
            self._failure = error
            if self._up_or_failed.is_set():
                self._log.warn("server", f"The server has ended with {type(error).__name__}.")
        finally:
            if left := _cancel_the_rest(loop):
                self._log.warn("left", f"{left} tasks do not end and are left behind.")
            loop.set_exception_handler(lambda *_: None)  # each would be told once more when it is collected
            asyncio.set_event_loop(None)
            loop.close()
            self._up_or_failed.set()

    async def _serve(self, listener: socket.socket) -> None:
        context = _tls_context(*self._tls) if self._tls else None
        lifespan = Lifespan(self._lifespan_app)
        await lifespan.startup()
        config = Config(
            self._app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._acceptor = Acceptor(
            listener,
            partial(Connection, config, self._state, lifespan.state, self._limits),
            most=connection_limit(self._limits, tls=context is not None),
            context=context,
            handshake_seconds=self._limits.header_seconds,
            log=self._log,
        )
        self._acceptor.start()
        sweeper = asyncio.ensure_future(self._sweep())
        self._up_or_failed.set()
        await self._end.wait()
        self._acceptor.close()
        await self._drain()
        sweeper.cancel()
        if error := await lifespan.shutdown():
            self._log.warn("shutdown", f"The application ended with {error}.")

    async def _sweep(self) -> None:
        limits = self._limits
        shortest = min(limits.header_seconds, limits.idle_seconds, limits.body_seconds, limits.answer_seconds)
        pause = min(1.0, shortest / 4)
        while True:
            self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
            now = self.loop.time()
            for connection in self._connections():
                try:
                    connection.check(now)
                except Exception as error:  # noqa: BLE001 - the others need their deadlines
                    self._log.warn("sweep", f"A deadline failed with {type(error).__name__}.")
            await asyncio.sleep(pause)

    async def _drain(self) -> None:
        for connection in self._connections():
            connection.shutdown()
        await self._until_quiet(self._limits.graceful_seconds, unless=self._cut.is_set)
        for task in list(self._state.tasks):
            task.cancel()
        # A request that is cancelled answers by itself, see Shield; what is left after this has no answer to come.
        await asyncio.sleep(0)
        for connection in self._connections():
            connection.cut_off()
        await self._until_quiet(_TO_CANCEL)
        for connection in self._connections():
            connection.abort()
        await self._until_quiet(_TO_CANCEL)

    async def _until_quiet(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> None:
        deadline = self.loop.time() + seconds
        while (self._state.connections or self._state.tasks) and not unless() and self.loop.time() < deadline:
            await asyncio.sleep(_STEP)

    def _connections(self) -> list[Connection]:
        return [connection for connection in self._state.connections if isinstance(connection, Connection)]

    def _note_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncio would log a traceback each time, and the error's text with it.
        name = type(context.get("exception")).__name__ if context.get("exception") else "no exception"
        self._log.warn(f"loop {name}", f"Something went wrong in the server's loop: {name}.")


def _tls_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password: an encrypted key fails here, where OpenSSL would ask the terminal and wait.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        reason = error.strerror if not isinstance(error, ssl.SSLError) else error.reason
        raise StartupFailed(
            f"The certificate {certificate} and the key {key} cannot be used ({reason}); "
            "give a certificate in PEM form and its own key, not encrypted."
        ) from error
    return context


def _cancel_the_rest(loop: asyncio.AbstractEventLoop) -> int:
    """End what still runs on the loop; returns how many tasks go on all the same."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_TO_CANCEL))
    loop.run_until_complete(loop.shutdown_asyncgens())
    return sum(not task.done() for task in tasks)

"""The collector as a server: embedded in a test or a demo, or in the foreground of a command."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import uvicorn

from adbc_telemetry.collector.app import create_app
from adbc_telemetry.collector.store import Store

_START_TIMEOUT: Final = 30.0
_GRACEFUL_SECONDS: Final = 10
"""How long `stop` waits for requests in flight, before it cuts them off."""
_KEEP_ALIVE_SECONDS: Final = 75
"""Well above a sender's flush interval, or it would meet connections that are just being closed."""
_BACKLOG: Final = 2048


class Collector:
    """A collector in a background thread; start and stop it, or use it as a context manager.

    Args:
        db_path: the DuckDB file, made when there is none.
        host: the address to listen on.
        port: the port, 0 for any free one.
        unavailable_while: a file; while it exists, every request is answered 503.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str],
        host: str = "127.0.0.1",
        port: int = 0,
        unavailable_while: str | os.PathLike[str] | None = None,
    ) -> None:
        self._db_path = db_path
        self._host = host
        self._port = port
        self._unavailable_while = Path(unavailable_while) if unavailable_while is not None else None
        self._running = ExitStack()  # undoes what `start` did, last things first
        self._url: str | None = None
        self._server: _BackgroundServer  # from the first `start` on

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end, such as `http://127.0.0.1:8317`.

        Raises:
            RuntimeError: when the collector is not running.
        """
        if self._url is None:
            raise RuntimeError("the collector is not running")
        return self._url

    def start(self) -> None:
        """Open the file, listen, and return when requests are served.

        Raises:
            StoreError: when the file cannot be used.
            OSError: when the address cannot be listened on.
            RuntimeError: when the collector runs already, or does not come up.
        """
        if self._url is not None:
            raise RuntimeError("the collector runs already")
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with ExitStack() as starting:
            # Listening comes first: a port that is taken must not leave a new file behind.
            listener = starting.enter_context(
                socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG)
            )
            # asyncio does it only for sockets that were made with a protocol number, which this one was not; without
            # it, head and body of an answer are 40 ms apart. Accepted connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            store = starting.enter_context(Store(self._db_path))
            server = _BackgroundServer(
                uvicorn.Config(
                    create_app(store, unavailable_while=self._unavailable_while),
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    ws="none",
                    server_header=False,
                    backlog=_BACKLOG,
                    timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                    timeout_graceful_shutdown=_GRACEFUL_SECONDS,
                )
            )
            starting.callback(server.stop)
            server.start(listener)
            self._server = server
            port = listener.getsockname()[1]
            self._running = starting.pop_all()
        self._url = f"http://[{self._host}]:{port}" if ":" in self._host else f"http://{self._host}:{port}"

    def stop(self) -> None:
        """Finish the requests in flight, write everything, close the file. Idempotent; it may be started again."""
        self._url = None
        self._running.close()

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def serve_until_signalled(collector: Collector, when_serving: Callable[[Collector], None]) -> None:
    """Run a collector until SIGINT or SIGTERM, then stop it gracefully. Only for the main thread of a command.

    uvicorn handles the signals, until the process ends: the first one stops it gracefully, a second SIGINT cuts off
    the requests in flight. It installs no handlers itself, since after its end it would raise the signal again.

    Args:
        collector: one that is not running.
        when_serving: called with the collector once it serves requests.

    Raises:
        StoreError, OSError, RuntimeError: see `Collector.start`.
    """
    with collector:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, collector._server.handle_exit)
        when_serving(collector)
        collector._server.join()


class _BackgroundServer(uvicorn.Server):
    """uvicorn in a thread of its own, where it leaves signal handlers alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._up_or_failed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, listener: socket.socket) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name="adbc-telemetry-collector", daemon=True
        )
        self._thread.start()
        self._up_or_failed.wait(_START_TIMEOUT)
        if not self.started:
            raise RuntimeError("the collector did not come up")

    def stop(self) -> None:
        self.should_exit = True
        self.join()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up_or_failed.set()

    def _run(self, listener: socket.socket) -> None:
        try:
            self.run(sockets=[listener])
        finally:
            self._up_or_failed.set()

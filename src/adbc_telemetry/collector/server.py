"""The collector as a server: embedded in a test or a demo, or in the foreground of a command."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from adbc_telemetry.collector.access import is_loopback
from adbc_telemetry.collector.app import Application
from adbc_telemetry.collector.destination import Destination
from adbc_telemetry.collector.flags import FlagsFile
from adbc_telemetry.collector.queries.service import QueryService
from adbc_telemetry.collector.queries.sources import is_table
from adbc_telemetry.collector.readonly import ReadOnlyStore, ReadOnlyTable
from adbc_telemetry.collector.serving import BackgroundServer, ServingLimits
from adbc_telemetry.collector.store.retention import Retention
from adbc_telemetry.collector.store.writer import Store

_BACKLOG: Final = 2048
_GRACEFUL_SECONDS: Final = 5.0
"""With one second for what is cut off, and the store's last compaction, the end takes less than ten."""


class CollectorError(Exception):
    """The collector cannot start. The message says why, and what to do."""


class Collector:
    """A collector in a background thread; start and stop it, or use it as a context manager.

    Args:
        store: the folder, made when it is new or empty; or what makes another destination of the events. Such a
            collector has no page.
        host: the address to listen on. Without a token only loopback is allowed.
        port: the port, 0 for any free one.
        token: what senders and readers must show as `Authorization: Bearer TOKEN`.
        tls: paths of a certificate chain and its key, both PEM.
        retention: when data is deleted.
        flags: a file of feature flags.
        allowed_hosts: names under which a collector on loopback may be addressed, besides loopback's own.
        access_log: log a line per request.
        unavailable_while: a file; while it exists, every request is answered 503.
        read_only: serve the page over a store or a Delta table, and take no events.
        storage_options: for a table in an object store, as `deltalake` takes them.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Callable[[], Destination],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str | None = None,
        tls: tuple[str, str] | None = None,
        retention: Retention | None = None,
        flags: str | os.PathLike[str] | None = None,
        allowed_hosts: Collection[str] = (),
        access_log: bool = False,
        unavailable_while: str | os.PathLike[str] | None = None,
        read_only: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._store = store
        self._host = host
        self._port = port
        self._token = token
        self._tls = tls
        self._retention = retention or Retention()
        self._flags = flags
        self._allowed_hosts = frozenset(allowed_hosts)
        self._access_log = access_log
        self._unavailable_while = Path(unavailable_while) if unavailable_while is not None else None
        self._read_only = read_only
        self._storage_options = dict(storage_options or {})
        self._running = ExitStack()  # undoes what `start` did, last things first
        self._url: str | None = None
        self._server: BackgroundServer  # from the first `start` on

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
        """Listen, open the store and serve; returns once it serves.

        Raises:
            CollectorError, DestinationError, FlagsError: its settings or its store cannot be used.
            OSError: the address cannot be listened on.
            RuntimeError: it runs already, or did not come up.
        """
        if self._url is not None:
            raise RuntimeError("the collector runs already")
        on_loopback = self._check_access()
        flags = FlagsFile(self._flags)
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with ExitStack() as starting:
            # Listening comes first: a port that is taken must not leave a new folder behind.
            listener = starting.enter_context(
                socket.create_server((self._host, self._port), family=family, backlog=_BACKLOG)
            )
            application = Application(
                *self._destination_and_queries(),
                flags,
                token=self._token,
                hosts=self._allowed_hosts if on_loopback else None,
                unavailable_while=self._unavailable_while,
                connections=lambda: server.open_connections,
            )
            server = BackgroundServer(
                application.asgi,
                limits=ServingLimits(graceful_seconds=_GRACEFUL_SECONDS),
                tls=self._tls,
                access_log=self._access_log,
                routes=application.paths,
            )
            starting.callback(server.stop)
            try:
                server.start(listener)
            except RuntimeError as error:
                raise (error.__cause__ or error) from None
            self._server = server
            port = listener.getsockname()[1]
            self._running = starting.pop_all()
        scheme = "http" if self._tls is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host or "0.0.0.0"
        self._url = f"{scheme}://{host}:{port}"

    def stop(self) -> None:
        """Finish the requests in flight, write everything, close the store. Idempotent; it may be started again."""
        self._url = None
        self._running.close()

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _destination_and_queries(self) -> tuple[Destination, QueryService | None]:
        if callable(self._store):
            return self._store(), None
        queries = QueryService(self._store, storage_options=self._storage_options)
        if self._read_only:
            if is_table(self._store):
                return ReadOnlyTable(self._store, self._storage_options), queries
            return ReadOnlyStore(self._store), queries
        return Store(self._store, self._retention), queries

    def _check_access(self) -> bool:
        on_loopback = is_loopback(self._host)
        if self._token is None and not on_loopback:
            shown = self._host or "the empty host, which means all addresses,"
            raise CollectorError(
                f"without a token a collector serves this machine alone, and {shown} is more than that; "
                "give a token with --token-file, or a loopback address with --host."
            )
        return on_loopback


def serve_until_signalled(collector: Collector, when_serving: Callable[[Collector], None]) -> None:
    """Run a collector until SIGINT, SIGTERM or SIGHUP, then stop it gracefully. Only for a command's main thread.

    Args:
        collector: one that is not running.
        when_serving: called with the collector once it serves requests.

    Raises:
        CollectorError, DestinationError, FlagsError, OSError, RuntimeError: see `Collector.start`.
    """
    with collector:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, collector._server.handle_signal)
        when_serving(collector)
        collector._server.join()

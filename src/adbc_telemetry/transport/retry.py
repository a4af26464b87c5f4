"""PoliteSender: requests to one endpoint, made again where that may help, and never past a deadline."""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from adbc_telemetry.config import TelemetryConfiguration, checked_config
from adbc_telemetry.core.fork import fork_gate, renew_in_child
from adbc_telemetry.core.hosts import base_url, normalize_host
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.reentrant import ReentrantEvent
from adbc_telemetry.core.version import __version__
from adbc_telemetry.transport.auth import Auth, checked_auth, credentials
from adbc_telemetry.transport.errors import (
    ExportError,
    HttpStatusError,
    RequestCancelledError,
    is_terminal_error,
)

if TYPE_CHECKING:
    from adbc_telemetry.transport.http import HttpTransport

_MAX_BACKOFF_SECONDS: Final = 30.0
# Not the module's functions: their sequence belongs to the host program, and a fork would repeat it.
_uniform = SystemRandom().uniform


class PoliteSender:
    """Posts to one endpoint. Thread-safe; survives a fork.

    429, 5xx, timeouts and connection errors are tried again, with exponential back-off and full jitter, not
    before a `Retry-After` is over, and never past the deadline.

    Args:
        host: a host or an http(s) URL.
        path: where on `host` requests with credentials go.
        config: `max_retries`, `retry_delay_ms`, `request_timeout_ms` and `compression`.
        auth: returns the headers that authenticate a request; called for every request, on the sending thread.
        anonymous_path: where requests without credentials go; None for the same `path`.

    Raises:
        ValueError: `host` names none, `config` makes no sense, or `auth` is given and `host` is plain HTTP to
            another machine.
        TypeError: `host` is no string, `config` is no configuration, or `auth` cannot be called.
    """

    def __init__(
        self,
        host: str,
        path: str,
        config: TelemetryConfiguration,
        *,
        auth: Auth | None = None,
        anonymous_path: str | None = None,
    ) -> None:
        self.host = normalize_host(host)
        self._path = path
        self._anonymous_path = path if anonymous_path is None else anonymous_path
        self._config = checked_config(config)
        self._auth = checked_auth(self.host, auth)
        self._transport: HttpTransport | None = None
        self._closed = False
        self._expires: float | None = None
        self._preemptions = 0
        self._long_wait_preemptions = 0
        self._holds_open = True
        self._quiet_until = 0.0  # the end of a Retry-After that was interrupted
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = RLock()  # guards all that changes
        self._changed = ReentrantEvent()  # opened, and made anew, at each change that a back-off is to notice

    @property
    def endpoint_url(self) -> str:
        """Where requests go."""
        return base_url(self.host) + (self._anonymous_path if self._auth is None else self._path)

    def post(self, body: bytes, headers: Mapping[str, str], deadline: float | None) -> bytes | None:
        """Post `body`, again where that may help.

        Args:
            body: what to send; compressed here, if the configuration says so.
            headers: what to say of it, beyond credentials, compression and user agent.
            deadline: the `time.monotonic()` value by which this has returned, or None.

        Returns:
            The answer's body, None where it was too long.

        Raises:
            ExportError: see `HttpTransport.post`, by the last attempt.
        """
        config = self._config
        headers = {**headers, "User-Agent": f"adbc-telemetry/{__version__}"}
        if config.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=6, mtime=0)
        retries = 0
        with self._lock:
            seen = self._preemptions, self._long_wait_preemptions
            quiet_until = self._quiet_until
        if quiet_until and not self._wait(quiet_until, deadline, seen, asked=True):
            raise RequestCancelledError("the deadline would come before a Retry-After is over")
        while True:
            try:
                return self._attempt(body, headers, deadline)
            except ExportError as error:
                terminal = isinstance(error, RequestCancelledError) or is_terminal_error(error)
                if terminal or retries >= config.max_retries:
                    raise
                back_off = _uniform(0, min(_MAX_BACKOFF_SECONDS, config.retry_delay_ms / 1000 * 2**retries))
                retry_after = (error.retry_after if isinstance(error, HttpStatusError) else None) or 0.0
                until = time.monotonic() + max(retry_after, back_off)
                if not self._wait(until, deadline, seen, asked=retry_after > back_off):
                    raise
                retries += 1

    def expire(self, deadline: float) -> None:
        """Have every request, also one under way, be over by `deadline` (`time.monotonic()`)."""
        with self._lock:
            self._expires = deadline
            self._notify()

    def preempt(self, long_waits_only: bool) -> None:
        """End what is under way, as cancelled; or only if it waits since the other side has asked for that.

        A `Retry-After` that was interrupted is obeyed by the next request.
        """
        with self._lock:
            self._long_wait_preemptions += 1
            if not long_waits_only:
                self._preemptions += 1
            transport = None if long_waits_only else self._transport
            self._notify()
        if transport is not None:
            transport.preempt()

    def hold_nothing_open(self) -> None:
        """Keep no connection open between requests from now on."""
        with self._lock:
            self._holds_open = False
            transport = self._transport
        if transport is not None:
            transport.hold_nothing_open()

    def close(self) -> None:
        """End what is under way, as cancelled. Idempotent; later requests are cancelled at once."""
        with self._lock:
            self._closed = True
            transport, self._transport = self._transport, None
            self._notify()
        if transport is not None:
            transport.close()

    def _attempt(self, body: bytes, headers: dict[str, str], deadline: float | None) -> bytes | None:
        authentication = credentials(self.host, self._auth)
        transport = self._transport or self._make_transport()
        with self._lock:
            if self._closed:
                raise RequestCancelledError("the exporter is closed")
            transport = self._transport = self._transport or transport
            holds_open = self._holds_open
            deadline = _earlier(deadline, self._expires)
        if not holds_open:
            transport.hold_nothing_open()
        answer = transport.post(
            self._anonymous_path if authentication is None else self._path,
            body,
            {**headers, **(authentication or {})},
            timeout=self._config.request_timeout_ms / 1000,
            deadline=deadline,
        )
        return answer.body

    def _make_transport(self) -> HttpTransport:
        # The first time this loads urllib3: not with the lock, for which the dispatcher would wait in `preempt`.
        with fork_gate:
            from adbc_telemetry.transport.http import HttpTransport
        return HttpTransport(self.host)

    def _wait(self, until: float, deadline: float | None, seen: tuple[int, int], asked: bool) -> bool:
        """Back off; False, at once, when that would pass the deadline or the sender is closed.

        Args:
            until: a `time.monotonic()` value.
            deadline: another.
            seen: the interruptions that came before this request.
            asked: whether the other side has asked for the wait.

        Raises:
            RequestCancelledError: it was interrupted.
        """
        while True:
            with self._lock:
                limit = _earlier(deadline, self._expires)
                if self._closed or (limit is not None and until >= limit):
                    return False
                left = until - time.monotonic()
                if left <= 0:
                    if asked:
                        self._quiet_until = 0.0
                    return True
                if self._preemptions != seen[0] or (asked and self._long_wait_preemptions != seen[1]):
                    if asked:
                        self._quiet_until = until
                    raise RequestCancelledError("others waited for their turn")
                changed = self._changed
            changed.wait(left)

    def _notify(self) -> None:
        changed, self._changed = self._changed, ReentrantEvent()
        changed.set()


def _earlier(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)

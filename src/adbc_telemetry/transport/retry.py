"""Retries: `wait_before_retry` decides whether and when a failed request is retried.

`RetryingTransport` makes each attempt with an `HttpTransport`, and waits between attempts. A wait ends at once on a
deadline, a close or a preemption; there is no retry after a deadline or a close.

A `Retry-After` holds for the endpoint and not only for the request that got it: later requests wait for its end too.
Each client adds a random part to it, so that clients that were refused together do not come back together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import SystemRandom
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from adbc_telemetry.config import Compression, TelemetryConfiguration, checked_config
from adbc_telemetry.core.fork import fork_gate, renew_in_child
from adbc_telemetry.core.hosts import base_url, normalize_host
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.reentrant import ReentrantEvent
from adbc_telemetry.core.version import __version__
from adbc_telemetry.transport.auth import SYSTEM_TLS, Auth, TlsFiles, checked_auth, credentials
from adbc_telemetry.transport.compression import compressed
from adbc_telemetry.transport.errors import (
    CredentialsChangedError,
    ExportError,
    HttpStatusError,
    RequestCancelledError,
    is_terminal_error,
)

if TYPE_CHECKING:
    from adbc_telemetry.transport.http import HttpTransport

_UNSUPPORTED_MEDIA_TYPE: Final = 415
_MAX_BACKOFF_SECONDS: Final = 30.0
# Not `random.uniform`: its sequence belongs to the host program, and a forked child would repeat the parent's.
_random = SystemRandom()
_uniform = _random.uniform


_SPREAD: Final = 0.25  # the random part of a Retry-After that each client adds, at most


class Wait(Struct, frozen=True):
    """How long to wait before a request is made again.

    Attributes:
        seconds: from now.
        asked: whether the endpoint has asked for so long a wait (`Retry-After`); else it is our back-off.
    """

    seconds: float
    asked: bool


def wait_before_retry(error: ExportError, retries: int, config: TelemetryConfiguration) -> Wait | None:
    """Decide whether a failed request is made again: the wait before that, or None if it is not.

    The back-off has full jitter: it is random between zero and a bound that doubles with each retry, up to 30
    seconds. A longer `Retry-After` is obeyed instead.

    Args:
        error: how the request failed.
        retries: how often it has been made again so far.
        config: its `max_retries` and `retry_delay_ms`.
    """
    if isinstance(error, RequestCancelledError) or is_terminal_error(error) or retries >= config.max_retries:
        return None
    back_off = _uniform(0, min(_MAX_BACKOFF_SECONDS, config.retry_delay_ms / 1000 * 2**retries))
    retry_after = (error.retry_after if isinstance(error, HttpStatusError) else None) or 0.0
    return Wait(max(retry_after, back_off), asked=retry_after > back_off)


class _Preemptions(Struct, frozen=True):
    """How often `preempt` has been called so far, for every request or only for those in a long wait."""

    all: int = 0
    long_waits: int = 0


class RetryingTransport:
    """Posts to one endpoint, and again after a failure that may pass. Thread-safe; survives a fork.

    429, 5xx, timeouts and connection errors are tried again, with exponential back-off and full jitter, not
    before a `Retry-After` is over, and never past the deadline.

    Args:
        host: a host or an http(s) URL.
        path: the path on `host` for requests with credentials.
        config: `max_retries`, `retry_delay_ms`, `request_timeout_ms` and `compression`.
        auth: returns the headers that authenticate a request; called for every request, on the sending thread.
        anonymous_path: the path for requests without credentials; None for the same `path`.
        tls: files for TLS, instead of what the system has.

    Raises:
        ValueError: `host` names no host, `config` makes no sense, or `auth` is given and `host` is plain HTTP to
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
        tls: TlsFiles = SYSTEM_TLS,
    ) -> None:
        self.host = normalize_host(host)
        self._path = path
        self._anonymous_path = path if anonymous_path is None else anonymous_path
        self._config = checked_config(config)
        self._auth = checked_auth(self.host, auth)
        self._tls = tls
        self._compression: Compression = config.compression
        self._transport: HttpTransport | None = None
        self._closed = False
        self._expires: float | None = None
        self._preemptions = _Preemptions()
        self._holds_open = True
        self._quiet_until = 0.0  # the end of a Retry-After that no request has waited for yet; 0 for none
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = RLock()  # guards all fields that change
        self._changed = ReentrantEvent()  # set, and replaced by a new one, at each change that ends a wait

    @property
    def endpoint_url(self) -> str:
        """Where requests go."""
        return base_url(self.host) + (self._anonymous_path if self._auth is None else self._path)

    def post(
        self,
        body: bytes,
        headers: Mapping[str, str],
        deadline: float | None,
        *,
        anonymous: bool | None = None,
    ) -> bytes | None:
        """Post `body`, again after a failure that may pass.

        Args:
            body: what to send; it is compressed here if the configuration says so.
            headers: what to say about it, besides credentials, compression and user agent.
            deadline: the `time.monotonic()` value by which this returns, or None.
            anonymous: whether `body` is meant for requests without credentials; None for any request.

        Returns:
            The answer's body; None if it was too long.

        Raises:
            ExportError: of the last attempt; see `HttpTransport.post`.
            CredentialsChangedError: `anonymous` is not how it is.
        """
        headers = {**headers, "User-Agent": f"adbc-telemetry/{__version__}"}
        compression = self._compression
        if compression == "none":
            return self._post(body, headers, deadline, anonymous)
        encoded = {**headers, "Content-Encoding": compression}
        try:
            return self._post(compressed(body, compression), encoded, deadline, anonymous)
        except HttpStatusError as error:
            if error.status != _UNSUPPORTED_MEDIA_TYPE:
                raise
        self._compression = "none"  # the endpoint has said that it does not take it
        return self._post(body, headers, deadline, anonymous)

    def _post(
        self, body: bytes, headers: dict[str, str], deadline: float | None, anonymous: bool | None
    ) -> bytes | None:
        with self._lock:
            seen = self._preemptions
            quiet_until = self._quiet_until
        if quiet_until and not self._wait(quiet_until, deadline, seen, asked=True):
            raise RequestCancelledError("the deadline would come before a Retry-After is over")
        retries = 0
        while True:
            try:
                return self._attempt(body, headers, deadline, anonymous)
            except ExportError as error:
                wait = wait_before_retry(error, retries, self._config)
                if wait is None:
                    self._remember_quiet(error)
                    raise
                until = time.monotonic() + wait.seconds + (_spread(wait.seconds) if wait.asked else 0.0)
                if not self._wait(until, deadline, seen, wait.asked):
                    raise
                retries += 1

    def _remember_quiet(self, error: ExportError) -> None:
        """No retry is left, but the endpoint has asked for quiet: the next request waits for that."""
        seconds = error.retry_after if isinstance(error, HttpStatusError) else None
        if seconds and not is_terminal_error(error):
            with self._lock:
                self._quiet_until = max(self._quiet_until, time.monotonic() + seconds + _spread(seconds))

    def expire(self, deadline: float) -> None:
        """Have every request, also one under way, be over by `deadline` (`time.monotonic()`)."""
        with self._lock:
            self._expires = deadline
            self._end_waits()

    def preempt(self, long_waits_only: bool) -> None:
        """End requests under way, as cancelled: all, or only those that wait because the endpoint has asked for that.

        The next request first waits for the rest of a `Retry-After` that is cut short.
        """
        with self._lock:
            before = self._preemptions
            self._preemptions = _Preemptions(before.all + (not long_waits_only), before.long_waits + 1)
            transport = None if long_waits_only else self._transport
            self._end_waits()
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
            self._end_waits()
        if transport is not None:
            transport.close()

    def _attempt(
        self, body: bytes, headers: dict[str, str], deadline: float | None, anonymous: bool | None
    ) -> bytes | None:
        authentication = credentials(self.host, self._auth)
        if anonymous is not None and anonymous is not (authentication is None):
            raise CredentialsChangedError(authentication is None)
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
        # The first time this imports urllib3. Don't do it with the lock: the dispatcher takes the lock in `preempt`.
        with fork_gate:
            from adbc_telemetry.transport.http import HttpTransport
        return HttpTransport(self.host, self._tls)

    def _wait(self, until: float, deadline: float | None, seen: _Preemptions, asked: bool) -> bool:
        """Wait until `until`; return False at once if that is past the deadline, or the transport is closed.

        Args:
            until: a `time.monotonic()` value.
            deadline: another, or None.
            seen: the preemptions before this request; later ones end the wait.
            asked: whether the endpoint has asked for the wait.

        Raises:
            RequestCancelledError: it was preempted.
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
                preempted = self._preemptions.all != seen.all
                if preempted or (asked and self._preemptions.long_waits != seen.long_waits):
                    if asked:
                        self._quiet_until = until
                    raise RequestCancelledError("others waited for their turn")
                changed = self._changed
            changed.wait(left)

    def _end_waits(self) -> None:
        """Have every wait look again at what has changed. Called with the lock."""
        changed, self._changed = self._changed, ReentrantEvent()
        changed.set()


def _spread(seconds: float) -> float:
    return _random.uniform(0, _SPREAD * seconds)


def _earlier(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)

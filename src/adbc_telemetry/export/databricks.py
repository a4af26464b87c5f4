"""DatabricksTelemetryExporter: batches as requests to the telemetry service of a Databricks workspace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import Lock
from adbc_telemetry.events.anonymous import AnonymousLogEncoder
from adbc_telemetry.events.encoding import LogEncoder, request_body, split_strings
from adbc_telemetry.export.base import NOT_ENCODABLE, NOTHING_EXPORTED, ExportResult, failed_export
from adbc_telemetry.export.delivery import Delivery, HttpTelemetryExporter, RequestLimit
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.transport.auth import Auth
from adbc_telemetry.transport.errors import CredentialsChangedError
from adbc_telemetry.transport.retry import RetryingTransport

AUTHENTICATED_PATH: Final = "/telemetry-ext"
UNAUTHENTICATED_PATH: Final = "/telemetry-unauth"

_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class _Answer(Struct):
    """The part of a `TelemetryResponse` that matters. A server that leaves the number out has accepted all logs."""

    numProtoSuccess: int | None = None


class DatabricksTelemetryExporter(HttpTelemetryExporter):
    """Sends logs to `https://{host}/telemetry-ext`, or to `/telemetry-unauth` without credentials.

    Without credentials, logs do not say which workspace, account or machine they come from: see `events.anonymous`.
    429, 5xx, timeouts and connection errors are tried again; see `transport.retry`. All other 4xx reject the logs,
    except 413, which splits the batch.

    Since 0.1.

    Args:
        host: a host or an http(s) URL.
        config: `max_retries`, `retry_delay_ms`, `request_timeout_ms`, `max_request_bytes` and `compression`.
        auth: returns the headers that authenticate a request; called for every request, on the exporting thread.

    Raises:
        ValueError: `host` names no host, `config` makes no sense, or `auth` is given and `host` is plain HTTP to
            another machine.
        TypeError: `host` is no string, `config` is no configuration, or `auth` cannot be called.
    """

    def __init__(self, host: str, config: TelemetryConfiguration, *, auth: Auth | None = None) -> None:
        super().__init__(
            RetryingTransport(
                host, AUTHENTICATED_PATH, config, auth=auth, anonymous_path=UNAUTHENTICATED_PATH
            )
        )
        self._limit = RequestLimit(config.max_request_bytes)
        self.anonymous = (
            auth is None
        )  # whether the last request had no credentials, and the next has none either
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._encoding = Lock()  # guards both encoders
        self._encoder = LogEncoder()
        self._anonymous_encoder = AnonymousLogEncoder()

    @property
    def transport(self) -> RetryingTransport:
        """What makes the requests."""
        return self._transport

    def encode(self, logs: Sequence[TelemetryFrontendLog]) -> list[bytes | None]:
        """The `logs` as strings of a request like the last one: with credentials, or without and then without ids."""
        with self._encoding:
            encoder = self._anonymous_encoder if self.anonymous else self._encoder
            return encoder.encode_strings(logs)

    @property
    def host(self) -> str:
        """The host, normalised."""
        return self._transport.host

    @property
    def takes_statements(self) -> bool:
        """True: the encoder writes a statement without building its log first."""
        return True

    @never_raises(failed_export)
    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        """Send `logs` in requests of at most `max_request_bytes`, one after the other. Never raises.

        Args:
            logs: what to send; only those that cannot be encoded are rejected.
            deadline: the `time.monotonic()` value by which this returns.

        Returns:
            How many were delivered and rejected, and what became of the rest.
        """
        if not logs:
            return NOTHING_EXPORTED
        body = _Bodies(self, logs)

        def request(encoded: bytes, count: int) -> int:
            return _accepted(body.post(encoded, deadline), count)

        delivery = Delivery(request, body.encode, self._limit)
        if len(body.logs) < len(logs):
            delivery.reject(len(logs) - len(body.logs), NOT_ENCODABLE)
        start = 0
        for run in split_strings(body.strings, self._limit.bytes()):
            delivery.send(range(start, start + len(run)))
            start += len(run)
        return delivery.result(body.logs)


class _Bodies:
    """The bodies of one export's requests, for requests with credentials or without: without, no ids go along.

    Which kind a request is turns out when it is made, since `auth` is asked for each. So the exporter encodes for the
    kind of its last request, and encodes again when that was wrong.

    Attributes:
        logs: those that can be encoded.
        strings: the logs, encoded.
    """

    def __init__(self, exporter: DatabricksTelemetryExporter, logs: Sequence[TelemetryFrontendLog]) -> None:
        self._exporter = exporter
        self._items: Sequence[int] = ()  # of the request that is made next
        encoded = self._encoded(logs)
        self.strings = [string for string in encoded if string is not None]
        self.logs = logs
        if len(self.strings) < len(encoded):
            self.logs = [log for log, string in zip(logs, encoded, strict=True) if string is not None]

    def encode(self, items: Sequence[int]) -> bytes:
        """The body of a request of some of the logs, by their positions."""
        self._items = items
        return _body([self.strings[item] for item in items])

    def post(self, body: bytes, deadline: float | None) -> bytes | None:
        """Post the body that was encoded last, or the one of the other kind."""
        exporter = self._exporter
        for _ in range(2):
            try:
                return exporter.transport.post(body, _HEADERS, deadline, anonymous=exporter.anonymous)
            except CredentialsChangedError as changed:
                exporter.anonymous = changed.anonymous
                self.strings = [string or b"" for string in self._encoded(self.logs)]
                body = self.encode(self._items)
        # `auth` answers differently each time: without ids, either path will do.
        exporter.anonymous = True
        self.strings = [string or b"" for string in self._encoded(self.logs)]
        return exporter.transport.post(self.encode(self._items), _HEADERS, deadline)

    def _encoded(self, logs: Sequence[TelemetryFrontendLog]) -> list[bytes | None]:
        return self._exporter.encode(logs)


def _body(strings: Sequence[bytes]) -> bytes:
    return request_body(strings, time.time_ns() // 1_000_000)


def _accepted(body: bytes | None, count: int) -> int:
    """How many logs the answer says it has accepted.

    A 2xx without a body accepts all. A body that is no `TelemetryResponse` accepts none: it comes from something in
    between that knows nothing of logs.

    Returns:
        At most `count`.
    """
    if body is not None and not body.strip():
        return count
    try:
        answer = msgspec.json.decode(body or b"", type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    return count if answer.numProtoSuccess is None else max(0, min(count, answer.numProtoSuccess))

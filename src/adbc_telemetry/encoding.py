"""Logs to the bytes of requests.

A request carries each log as JSON inside a JSON string. The parts that all events of a session share (system
configuration, connection parameters) are encoded once and kept; a batch is encoded in one pass; and since JSON
as msgspec writes it holds no raw control characters, its second escape is no more than two replacements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from adbc_telemetry.schema import (
    DriverErrorInfo,
    FrontendLogContext,
    OssSqlDriverTelemetryLog,
    SqlExecutionEvent,
    TelemetryFrontendLog,
    VolumeOperationEvent,
)


class _WireSqlLog(Struct, frozen=True, omit_defaults=True, gc=False):
    """`OssSqlDriverTelemetryLog` with the parts of the session already encoded."""

    session_id: str | None = None
    sql_statement_id: str | None = None
    system_configuration: Raw | None = None
    driver_connection_params: Raw | None = None
    auth_type: str | None = None
    vol_operation: VolumeOperationEvent | None = None
    sql_operation: SqlExecutionEvent | None = None
    error_info: DriverErrorInfo | None = None
    operation_latency_ms: int | None = None


class _WireEntry(Struct, frozen=True, omit_defaults=True, gc=False):
    sql_driver_log: _WireSqlLog | None = None


class _WireLog(Struct, frozen=True, omit_defaults=True, gc=False):
    """`TelemetryFrontendLog` around a `_WireSqlLog`."""

    workspace_id: int | None = None
    frontend_log_event_id: str | None = None
    context: FrontendLogContext | None = None
    entry: _WireEntry | None = None


class EncodedRequest(Struct, frozen=True):
    """A request's body, and how many logs are in it."""

    body: bytes
    count: int


class LogEncoder:
    """Encodes logs, remembering the parts that sessions share. Belongs to one thread at a time."""

    # More sessions than this at once and the oldest parts are simply encoded again.
    _REMEMBERED = 512

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        # By identity, with the struct itself, so that an id cannot be reused while it is a key.
        self._shared: dict[int, tuple[object, Raw]] = {}

    def encode(self, log: TelemetryFrontendLog) -> bytes:
        """One log as JSON.

        Lone surrogates, which no UTF-8 can carry, become U+FFFD.

        Raises:
            TypeError, msgspec.MsgspecError: `log` is no log, or holds what is none of the wire's types.
        """
        try:
            return self._encoder.encode(self._to_wire(log))
        except UnicodeEncodeError:
            return self._encoder.encode(_without_surrogates(msgspec.to_builtins(log)))

    def encode_lines(self, logs: Sequence[TelemetryFrontendLog]) -> list[bytes | None]:
        """Each log as JSON, None where one cannot be encoded: it takes no other with it."""
        try:
            return list(self._encoder.encode_lines([self._to_wire(log) for log in logs]).splitlines())
        except (TypeError, AttributeError, ValueError, OverflowError, msgspec.MsgspecError):
            return [self._encode_or_none(log) for log in logs]

    def _encode_or_none(self, log: TelemetryFrontendLog) -> bytes | None:
        try:
            return self.encode(log)
        except (TypeError, AttributeError, ValueError, OverflowError, msgspec.MsgspecError):
            return None

    def _to_wire(self, log: TelemetryFrontendLog) -> _WireLog:
        if not isinstance(log, TelemetryFrontendLog):
            raise TypeError(f"expected a TelemetryFrontendLog, not {type(log).__name__}")
        entry = log.entry
        sql = None if entry is None else entry.sql_driver_log
        return _WireLog(
            log.workspace_id,
            log.frontend_log_event_id,
            log.context,
            None if entry is None else _WireEntry(None if sql is None else self._to_wire_sql(sql)),
        )

    def _to_wire_sql(self, sql: OssSqlDriverTelemetryLog) -> _WireSqlLog:
        system, params = sql.system_configuration, sql.driver_connection_params
        return _WireSqlLog(
            sql.session_id,
            sql.sql_statement_id,
            None if system is None else self._encode_shared(system),
            None if params is None else self._encode_shared(params),
            sql.auth_type,
            sql.vol_operation,
            sql.sql_operation,
            sql.error_info,
            sql.operation_latency_ms,
        )

    def _encode_shared(self, part: Struct) -> Raw:
        known = self._shared.get(id(part))
        if known is not None:
            return known[1]
        encoded = Raw(self._encoder.encode(part))
        if len(self._shared) >= self._REMEMBERED:
            self._shared.pop(next(iter(self._shared)))
        self._shared[id(part)] = (part, encoded)
        return encoded


def request_body(lines: Sequence[bytes], upload_time_ms: int) -> bytes:
    """The body of a request: `{"uploadTime": ..., "items": [], "protoLogs": [each line as a string]}`.

    Args:
        lines: logs as JSON, as `LogEncoder` writes them.
        upload_time_ms: Unix time in milliseconds.
    """
    head = b'{"uploadTime":%d,"items":[],"protoLogs":[' % upload_time_ms
    if not lines:
        return head + b"]}"
    # Backslashes first. A newline stands only between the lines: inside JSON it is always escaped.
    escaped = b"\n".join(lines).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b'","')
    return b'%b"%b"]}' % (head, escaped)


# Of a request with a time of thirteen digits (until 2286), less the comma that its first line does without.
_FRAME_BYTES = len(request_body([], 10**12)) - 1


def split_lines(lines: Sequence[bytes], max_bytes: int) -> Iterator[Sequence[bytes]]:
    """The lines in runs whose requests have at most `max_bytes` bytes; one that is too large alone is alone."""
    start, size = 0, _FRAME_BYTES
    for index, line in enumerate(lines):
        # Every quote and backslash takes one byte more in the string; two quotes and a comma go around it.
        wire_bytes = len(line) + line.count(b'"') + line.count(b"\\") + 3
        if index > start and size + wire_bytes > max_bytes:
            yield lines[start:index]
            start, size = index, _FRAME_BYTES
        size += wire_bytes
    if start < len(lines):
        yield lines[start:]


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value

"""Events to the bytes of requests.

A request carries each log as JSON inside a JSON string. A batch is encoded in one pass, and since JSON as msgspec
writes it holds no raw control characters, its second escape is no more than two replacements. What all events of a
session share (system configuration, connection parameters) is encoded once: of a log the JSON is kept, and of a
statement, which becomes a request without ever being a log, the escaped end of its string.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from adbc_telemetry.schema import (
    DriverConnectionParameters,
    DriverErrorInfo,
    DriverSystemConfiguration,
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


class StatementSqlLog(Struct, frozen=True, omit_defaults=True, gc=False):
    """What `OssSqlDriverTelemetryLog` says of the statement; never empty, since it has taken some time."""

    sql_statement_id: str
    sql_operation: SqlExecutionEvent
    operation_latency_ms: int
    error_info: DriverErrorInfo | None = None


class StatementEntry(Struct, frozen=True, gc=False):
    """`FrontendLogEntry` around it."""

    sql_driver_log: StatementSqlLog


class StatementLog(Struct, frozen=True, gc=False):
    """`TelemetryFrontendLog` without what its session says. The statement's own facts come last, so that the
    session's can be put behind them."""

    frontend_log_event_id: str
    context: FrontendLogContext
    entry: StatementEntry


class SessionPart(Struct, frozen=True, omit_defaults=True):
    """What `OssSqlDriverTelemetryLog` says of the session."""

    session_id: str | None = None
    system_configuration: DriverSystemConfiguration | None = None
    driver_connection_params: DriverConnectionParameters | None = None
    auth_type: str | None = None


class Session(Protocol):
    """The session of a statement, to be encoded once."""

    @property
    def workspace_id(self) -> int | None:
        """See `TelemetryFrontendLog`."""
        ...

    def wire_part(self) -> SessionPart:
        """What the session says in each log."""
        ...


class Statement(Protocol):
    """A statement that is over, on its way to become a log."""

    @property
    def session(self) -> Session:
        """What it shares with others."""
        ...

    def wire_log(self) -> StatementLog:
        """What it has of its own."""
        ...

    def frontend_log(self) -> TelemetryFrontendLog:
        """All of it, as a log."""
        ...


class LogEncoder:
    """Encodes logs, remembering the parts that sessions share. Belongs to one thread at a time."""

    # More sessions than this at once and the oldest parts are simply encoded again.
    _REMEMBERED = 512

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        # By identity, with the struct itself, so that an id cannot be reused while it is a key.
        self._shared: dict[int, tuple[object, Raw]] = {}
        self._tails: dict[int, tuple[object, bytes]] = {}

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
            return list(_lines(self._encoder.encode_lines([self._to_wire(log) for log in logs])))
        except (TypeError, AttributeError, ValueError, OverflowError, msgspec.MsgspecError):
            return [self._encode_or_none(log) for log in logs]

    def encode_strings(self, events: Sequence[TelemetryFrontendLog | Statement]) -> list[bytes | None]:
        """Each event as what stands between the quotes of a JSON string, None where one cannot be encoded."""
        wires: list[_WireLog | StatementLog] = []
        tails: list[bytes | None] = []
        try:
            for event in events:
                if isinstance(event, TelemetryFrontendLog):
                    wires.append(self._to_wire(event))
                    tails.append(None)
                else:
                    wires.append(event.wire_log())
                    tails.append(self._tail(event.session))
            text = self._encoder.encode_lines(wires)
        except (TypeError, AttributeError, ValueError, OverflowError, msgspec.MsgspecError):
            return [self._encode_string_or_none(event) for event in events]
        strings = _lines(escaped(text))
        # The last three braces close the statement's facts, the entry and the log.
        return [
            string if tail is None else string[:-3] + tail
            for string, tail in zip(strings, tails, strict=True)
        ]

    def _tail(self, session: Session) -> bytes:
        """What the session says, and all that closes after it, escaped."""
        known = self._tails.get(id(session))
        if known is not None:
            return known[1]
        part = self._encoder.encode(session.wire_part())[1:-1]
        workspace_id = session.workspace_id
        workspace = b"" if workspace_id is None else b',"workspace_id":' + self._encoder.encode(workspace_id)
        tail = escaped(b"%b%b}}%b}" % (b"," if part else b"", part, workspace))
        if len(self._tails) >= self._REMEMBERED:
            self._tails.pop(next(iter(self._tails)))
        self._tails[id(session)] = (session, tail)
        return tail

    def _encode_string_or_none(self, event: TelemetryFrontendLog | Statement) -> bytes | None:
        log = event if isinstance(event, TelemetryFrontendLog) else _log_or_none(event)
        line = None if log is None else self._encode_or_none(log)
        return None if line is None else escaped(line)

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


def _lines(text: bytes) -> list[bytes]:
    """Lines that each end. Not by `splitlines`, which looks at every byte for other ends than these."""
    return text.split(b"\n")[:-1]


def escaped(json: bytes) -> bytes:
    """JSON, as msgspec writes it, as what stands between the quotes of a JSON string."""
    if b"\\" in json:
        json = json.replace(b"\\", b"\\\\")  # before the quotes, which bring backslashes of their own
    return json.replace(b'"', b'\\"')


def request_body(strings: Sequence[bytes], upload_time_ms: int) -> bytes:
    """The body of a request: `{"uploadTime": ..., "items": [], "protoLogs": ["...", ...]}`.

    Args:
        strings: logs, as `LogEncoder.encode_strings` returns them.
        upload_time_ms: Unix time in milliseconds.
    """
    head = b'{"uploadTime":%d,"items":[],"protoLogs":[' % upload_time_ms
    if not strings:
        return head + b"]}"
    pieces = list(strings)
    pieces[0] = head + b'"' + pieces[0]
    pieces[-1] += b'"]}'
    return b'","'.join(pieces)  # of which each byte is copied once: it may be megabytes


# Of a request with a time of thirteen digits (until 2286), less the comma that its first string does without.
_FRAME_BYTES = len(request_body([], 10**12)) - 1
_QUOTES_AND_COMMA_BYTES = 3


def split_strings(strings: Sequence[bytes], max_bytes: int) -> Iterator[Sequence[bytes]]:
    """The strings in runs whose requests have at most `max_bytes` bytes; one that is too large alone is alone."""
    start, size = 0, _FRAME_BYTES
    for index, string in enumerate(strings):
        wire_bytes = len(string) + _QUOTES_AND_COMMA_BYTES
        if index > start and size + wire_bytes > max_bytes:
            yield strings[start:index]
            start, size = index, _FRAME_BYTES
        size += wire_bytes
    if start < len(strings):
        yield strings[start:]


def _log_or_none(statement: Statement) -> TelemetryFrontendLog | None:
    try:
        return statement.frontend_log()
    except (
        TypeError,
        AttributeError,
        ValueError,
        OverflowError,
    ):  # it is no statement, or holds what is no fact
        return None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value

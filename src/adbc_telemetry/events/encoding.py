"""Events to the bytes of requests.

A request carries each log as JSON inside a JSON string. Since JSON as msgspec writes it holds no raw control
characters, the second escape is no more than two replacements. What all events of a session share (system
configuration, connection parameters) is encoded once.

A statement becomes such a string without ever being a log. Statements of one shape (the same operation, the same
facts recorded) differ in numbers alone, so the first of a shape is encoded with blanks in the numbers' places, and its
string is the template of the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

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


class SessionPart(Struct, frozen=True, omit_defaults=True):
    """What `OssSqlDriverTelemetryLog` says of the session."""

    session_id: str | None = None
    system_configuration: DriverSystemConfiguration | None = None
    driver_connection_params: DriverConnectionParameters | None = None
    auth_type: str | None = None


FIRST_BLANK: Final = 7_210_533_000_000_000_100
"""Numbers from this one on are blanks: they stand for a statement's numbers while its template is made."""


class Session(Protocol):
    """The session of a statement, to be encoded once."""

    @property
    def workspace_id(self) -> int | None:
        """See `TelemetryFrontendLog`."""
        ...

    @property
    def user_agent(self) -> str | None:
        """See `TelemetryClientContext`."""
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

    def outline(self, agent: bytes, tail: bytes) -> tuple[Hashable, tuple[object, ...]] | None:
        """What decides the template of its string, and what goes into the template's places.

        Args:
            agent: what its session says behind the event's time.
            tail: what its session says at the end of the log.

        Returns:
            Its shape, which statements that differ in numbers alone have in common. And the numbers, with `agent` and
            `tail`, in the order of the string: None or 0 if there is none in the string, text as bytes. None if the
            statement is unusual, and has to become a log first.
        """
        ...

    def blank(self) -> Statement:
        """A statement of the same shape and of an empty session, with a number of its own in each place.

        Raises:
            TypeError: its shape is not safe to use for other statements.
        """
        ...

    def frontend_log(self) -> TelemetryFrontendLog:
        """All of it, as a log."""
        ...


# More sessions, or shapes, than this at once, and the oldest are simply made again.
_REMEMBERED: Final = 2048

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    if len(memory) >= _REMEMBERED:
        memory.pop(next(iter(memory)))
    memory[key] = value


class LogEncoder:
    """Encodes events, remembering what sessions say and what statements look like.

    Belongs to one thread at a time, and to one process: a forked child needs another, since its ids begin otherwise.
    """

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        # By identity, with the struct itself, so that an id cannot be reused while it is a key.
        self._shared: dict[int, tuple[object, Raw]] = {}
        self._sessions: dict[int, tuple[object, tuple[bytes, bytes]]] = {}
        self._templates: dict[Hashable, bytes] = {}

    def encode(self, log: TelemetryFrontendLog) -> bytes:
        """One log as JSON.

        Lone surrogates, which no UTF-8 can carry, become U+FFFD.

        Raises:
            TypeError, msgspec.MsgspecError: `log` is no log, or holds a value that the wire has no type for.
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
        strings: list[bytes | None] = []
        templates = self._templates
        session: object = None
        for event in events:
            try:
                if isinstance(event, TelemetryFrontendLog):
                    strings.append(self._encode_string_or_none(event))
                    continue
                if event.session is not session:
                    session = event.session
                    agent, tail = self._session_texts(event.session)
                outline = event.outline(agent, tail)
                if outline is None:
                    strings.append(self._encode_string_or_none(event.frontend_log()))
                    continue
                shape, values = outline
                template = templates.get(shape) or self._make_template(shape, event)
                strings.append(template % values)
            except (TypeError, AttributeError, ValueError, OverflowError, msgspec.MsgspecError):
                session = None
                # An odd one: the longer way finds out whether there is a log in it.
                strings.append(self._encode_string_or_none(_log_or_none(event)))
        return strings

    def _encode_string_or_none(self, log: TelemetryFrontendLog | None) -> bytes | None:
        line = None if log is None else self._encode_or_none(log)
        return None if line is None else escaped(line)

    def _make_template(self, shape: Hashable, statement: Statement) -> bytes:
        """The string of all statements of a shape, as a format of `bytes`."""
        blank = statement.blank()
        agent, tail = self._session_texts(blank.session)
        outline = blank.outline(agent, tail)
        assert outline is not None  # it has the shape of a statement that has one
        log = msgspec.to_builtins(blank.frontend_log())
        driver_log = log["entry"]["sql_driver_log"]
        if "error_info" in driver_log:  # on the wire it stands behind the latency
            driver_log["error_info"] = driver_log.pop("error_info")
        rest = escaped(self._encoder.encode(log)).removesuffix(tail).replace(b"%", b"%%")
        template = b""
        for value in outline[1][:-1]:
            found = b""
            if isinstance(value, bytes):
                before, found, after = rest.partition(value)
            elif isinstance(value, int) and value >= FIRST_BLANK:
                before, found, after = rest.partition(b"%d" % value)
            if found:
                template += before + (b"%b" if isinstance(value, bytes) else b"%d")
                rest = after
            else:
                template += b"%.0a"  # takes a value and writes nothing
        template += rest + b"%b"
        _remember(self._templates, shape, template)
        return template

    def _session_texts(self, session: Session) -> tuple[bytes, bytes]:
        """What the session says behind the event's time, and what it says at the end, with all that closes there."""
        known = self._sessions.get(id(session))
        if known is not None:
            return known[1]
        agent = session.user_agent
        agent_text = b"" if agent is None else b',"user_agent":' + self._encoder.encode(agent)
        part = self._encoder.encode(session.wire_part())[1:-1]
        workspace_id = session.workspace_id
        workspace = b"" if workspace_id is None else b',"workspace_id":' + self._encoder.encode(workspace_id)
        texts = escaped(agent_text), escaped(b"%b%b}}%b}" % (b"," if part else b"", part, workspace))
        self._remember_session(session, texts)
        return texts

    def _remember_session(self, session: object, texts: tuple[bytes, bytes]) -> None:
        _remember(self._sessions, id(session), (session, texts))

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
        _remember(self._shared, id(part), (part, encoded))
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
    return b'","'.join(pieces)  # one copy of each byte: it may be megabytes


# Of a request with a time of thirteen digits (until 2286), less the comma that its first string does without.
_FRAME_BYTES = len(request_body([], 10**12)) - 1
_QUOTES_AND_COMMA_BYTES = 3


def split_strings(strings: Sequence[bytes], max_bytes: int) -> Iterator[Sequence[bytes]]:
    """The strings in runs whose requests have at most `max_bytes` bytes; one that is too large alone is alone."""
    if _FRAME_BYTES + sum(map(len, strings)) + _QUOTES_AND_COMMA_BYTES * len(strings) <= max_bytes:
        if strings:
            yield strings
        return
    start, size = 0, _FRAME_BYTES
    for index, string in enumerate(strings):
        wire_bytes = len(string) + _QUOTES_AND_COMMA_BYTES
        if index > start and size + wire_bytes > max_bytes:
            yield strings[start:index]
            start, size = index, _FRAME_BYTES
        size += wire_bytes
    if start < len(strings):
        yield strings[start:]


def _log_or_none(event: TelemetryFrontendLog | Statement) -> TelemetryFrontendLog | None:
    try:
        return event if isinstance(event, TelemetryFrontendLog) else event.frontend_log()
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

"""A log as a record of Kafka.

    key      the session's id, so that a session stays in one partition and in order; the event's id if there is none
    value    the log as it came
    headers  received_at: when the collector took it, Unix time in microseconds, in decimal digits
             event_id: the event's id

Both are functions of the log alone. So an event that a client sends again comes into the same partition, whichever
collector takes it, and the sink that reads this partition finds the second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from adbc_telemetry.collector.destination import AcceptedLog

RECEIVED_AT: Final = "received_at"
EVENT_ID: Final = "event_id"
_LONGEST_KEY: Final = 256


Headers = list[tuple[str, str | bytes | None]]


class _DriverLog(msgspec.Struct):
    session_id: str = ""


class _Entry(msgspec.Struct):
    sql_driver_log: _DriverLog = msgspec.field(default_factory=_DriverLog)


class _Keyed(msgspec.Struct):
    entry: _Entry = msgspec.field(default_factory=_Entry)


_decode: Final = msgspec.json.Decoder(_Keyed).decode


def key_of(log: AcceptedLog) -> bytes:
    """The key of a log that the intake has accepted; never empty, since librdkafka spreads those at random."""
    session_id = _decode(log.canonical or log.text).entry.sql_driver_log.session_id
    return session_id.encode()[:_LONGEST_KEY] or log.event_id.encode()


def headers_of(log: AcceptedLog, received_us: int) -> Headers:
    """The headers of a log."""
    return [(RECEIVED_AT, b"%d" % received_us), (EVENT_ID, log.event_id.encode())]


def received_us(headers: Headers | Mapping[str, str | bytes | None] | None) -> int | None:
    """When a record's log was received; None if the record does not say, as one of another program."""
    for name, value in headers.items() if isinstance(headers, Mapping) else headers or ():
        if name == RECEIVED_AT and isinstance(value, bytes) and value.isdigit() and len(value) <= 16:
            return int(value)
    return None

"""The journal's lines, and how DuckDB reads them.

{"received_us": 1764000000000000, "log": "..."}                      a log as it came
{"received_us": 1764000000000000, "log": "...", "canonical": {...}}  a log, and the same in the wire's own form
{"received_us": 1764000000000000, "logs": ["...", "..."]}            all logs of a request, each in the wire's form
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from adbc_telemetry.collector.destination import AcceptedLog
from adbc_telemetry.collector.store.columns import columns_sql, path_list

MAX_LINE_BYTES: Final = 6 * 1024 * 1024
"""More than the longest line: an array of 4 MiB, or a log of 1 MiB that is escaped, and its canonical form.

DuckDB holds a buffer of twice this size for each file that it reads."""
_COLUMNS: Final = "{received_us: 'BIGINT', log: 'VARCHAR', canonical: 'VARCHAR', logs: 'VARCHAR[]'}"


def lines_of_logs(logs: Iterable[AcceptedLog], received_us: int) -> list[bytes]:
    """A line for each log."""
    head = b'{"received_us":%d,"log":' % received_us
    return [
        head
        + _encode(log.text)
        + (b"" if log.canonical is None else b',"canonical":' + log.canonical)
        + b"}\n"
        for log in logs
    ]


def line_of_array(array: bytes, received_us: int) -> bytes:
    """One line for all logs of a request: their JSON array, on one line."""
    return b'{"received_us":%d,"logs":%b}\n' % (received_us, array)


def journal_sql(paths: Iterable[Any], *, skip_damage: bool) -> str:
    """A SELECT of the store's columns over segments of the journal.

    Args:
        paths: the segments; at least one.
        skip_damage: pass over lines that cannot be read. The last line of a segment that is being written may be
            incomplete.
    """
    lines = (
        f"read_json({path_list(paths)}, format = 'newline_delimited', columns = {_COLUMNS}, "
        f"maximum_object_size = {MAX_LINE_BYTES}, ignore_errors = {skip_damage})"
    )
    return columns_sql(
        "SELECT received_us, unnest(coalesce(logs, [log])) AS log, canonical "
        f"FROM {lines} WHERE received_us IS NOT NULL"
    )


def event_ids(line: bytes) -> list[str]:
    """The ids of the logs in a line; empty if it cannot be read. Needs little more memory than the line."""
    try:
        read = _decode_line(line)
        if read.canonical is not None:
            return [read.canonical.frontend_log_event_id]
        texts = read.logs if read.logs is not None else [read.log]
        return [_decode_id(text).frontend_log_event_id for text in texts]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


class _Identified(msgspec.Struct):
    frontend_log_event_id: str


class _Line(msgspec.Struct):
    log: str = ""
    canonical: _Identified | None = None
    logs: list[str] | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode_line: Final = msgspec.json.Decoder(_Line).decode
_decode_id: Final = msgspec.json.Decoder(_Identified).decode

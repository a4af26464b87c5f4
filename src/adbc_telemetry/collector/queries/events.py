"""Single events: the newest, the slowest, and one by its id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from adbc_telemetry.collector.queries.answers import Panel
from adbc_telemetry.collector.queries.buckets import lower_bound
from adbc_telemetry.collector.queries.filters import ANY_ERROR, COLUMN_OF, MAX_VALUE, Filter
from adbc_telemetry.collector.store.columns import NAMES

NEWEST: Final = 50
"""Events of the panel with the newest ones."""
SLOWEST: Final = 20
_TIME: Final = 'coalesce("timestamp", received_at)'
_COLUMNS: Final = (
    "received_at",
    "operation_type",
    "statement_type",
    "driver_name",
    "driver_version",
    "host",
    "operation_latency_ms",
    "error_name",
    "session_id",
    "event_id",
)


# Times leave DuckDB as numbers: it makes Python's times only where a package is installed that we do not need.
# A driver may name things at any length. A table of 50 events must not take 50 MB.
_SHOWN: Final = 1000
_SELECTED: Final = f"epoch_us({_TIME}), epoch_us(received_at), " + ", ".join(
    name if name == "operation_latency_ms" else f"left({name}, {_SHOWN})" for name in _COLUMNS[1:]
)
_MICROSECONDS: Final = ("timestamp", "received_at")


def where(filter: Filter) -> tuple[str, list[Any]]:
    """A filter as a condition of SQL, and its parameters."""
    conditions, parameters = ["true"], list[Any]()
    for moment, comparison in ((filter.since, ">="), (filter.until, "<")):
        if moment is not None:
            conditions.append(f"{_TIME} {comparison} make_timestamptz(?)")
            parameters.append(int(moment * 1_000_000))
    for dimension, value in filter.values().items():
        column = COLUMN_OF[dimension]
        if dimension == "error" and value == ANY_ERROR:
            conditions.append(f"{column} <> ''")
        elif value == "":
            conditions.append(f"coalesce({column}, '') = ''")
        elif len(value) == MAX_VALUE:
            conditions.append(f"left({column}, {MAX_VALUE}) = ?")
            parameters.append(value)
        else:
            conditions.append(f"{column} = ?")
            parameters.append(value)
    return " AND ".join(conditions), parameters


def newest(
    sources: Iterable[tuple[str, int | None]], filter: Filter, connection: duckdb.DuckDBPyConnection
) -> Panel:
    """The events that arrived last.

    Args:
        sources: queries for the store's columns, the newest events first, each with a bound: none of its events, or of
            those that follow, arrived later, in microseconds since 1970. None if all of them arrived before those of
            the sources before. No more of them are read than it takes.
        filter: which events.
        connection: no other thread uses it meanwhile.
    """
    condition, parameters = where(filter)
    rows: list[tuple[Any, ...]] = []
    for source, bound in sources:
        if len(rows) == NEWEST and (bound is None or bound < rows[-1][1]):
            break
        rows += connection.execute(
            f"SELECT {_SELECTED} FROM ({source}) WHERE {condition} ORDER BY received_at DESC LIMIT {NEWEST}",
            parameters,
        ).fetchall()
        rows.sort(key=lambda row: row[1], reverse=True)
        del rows[NEWEST:]
    return _panel(rows)


def slowest(
    sources: Sequence[str], bucket: int, filter: Filter, connection: duckdb.DuckDBPyConnection
) -> Panel:
    """The events with the longest latency.

    Args:
        sources: queries for the store's columns, which together hold these events.
        bucket: no bucket below this one holds any of them.
        filter: which events.
        connection: no other thread uses it meanwhile.
    """
    condition, parameters = where(filter)
    rows: list[tuple[Any, ...]] = []
    for source in sources:
        rows += connection.execute(
            f"SELECT {_SELECTED} FROM ({source}) "
            f"WHERE operation_latency_ms >= {lower_bound(bucket)} AND {condition} "
            f"ORDER BY operation_latency_ms DESC LIMIT {SLOWEST}",
            parameters,
        ).fetchall()
    latency = 1 + _COLUMNS.index("operation_latency_ms")
    rows.sort(key=lambda row: row[latency], reverse=True)
    return _panel(rows[:SLOWEST])


def find(source: str, event_id: str, connection: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """One event with all columns, or None."""
    columns = ", ".join(f'epoch_us("{name}")' if name in _MICROSECONDS else f'"{name}"' for name in NAMES)
    row = connection.execute(
        f"SELECT {columns} FROM ({source}) WHERE event_id = ? LIMIT 1", [event_id]
    ).fetchone()
    if row is None:
        return None
    return {
        name: _time(value) if name in _MICROSECONDS else value for name, value in zip(NAMES, row, strict=True)
    }


def _panel(rows: list[tuple[Any, ...]]) -> Panel:
    return Panel(
        columns=["time", *_COLUMNS],
        rows=[[_time(time), _time(received_at), *rest] for time, received_at, *rest in rows],
    )


def _time(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    moment = datetime(1970, 1, 1) + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="milliseconds") + "Z"

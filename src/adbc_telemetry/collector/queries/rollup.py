"""A rollup: how many events share a minute, the values of their dimensions and a bucket of latency.

It is made of a Parquet file or of a segment of the journal, once, and takes its place in all questions about counts and
percentiles. The values of a dimension are numbered. The combinations of numbers that occur are numbered too, so that an
event needs one number for all of its values.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np

from adbc_telemetry.collector.queries.buckets import bucket_sql
from adbc_telemetry.collector.queries.filters import COLUMN_OF, DIMENSIONS, MAX_VALUE
from adbc_telemetry.collector.store.columns import quoted

OTHER: Final = "(other)"
"""Stands for the values beyond `MAX_VALUES`."""
MAX_VALUES: Final = 1000
"""Values of one dimension that a rollup tells apart: a sender that names a new one with each event costs no memory."""

CODE_BITS: Final = 10
"""Bits of the number of a value."""
_BUCKET_BITS: Final = 10
_WORTH_COUNTING: Final = 3
"""How many events a row must stand for, on average, to be stored with their number."""

Array = np.ndarray[Any, np.dtype[Any]]


class Rollup(NamedTuple):
    """The events of one file, counted. Rows are in order of time."""

    minutes: Array
    """The minutes that occur, since 1970, in order."""
    starts: Array
    """The first row of each minute, and the number of rows at the end."""
    combinations: Array
    """For each row, which combination of values."""
    buckets: Array
    """For each row, the bucket of latency."""
    counts: Array
    """For each row, how many events; empty if each row is one event."""
    values: Array
    """For each combination, the number of its value in each dimension."""
    names: tuple[list[str], ...]
    """For each dimension, its values by number; "" is none."""


def make_rollup(events: str, connection: duckdb.DuckDBPyConnection) -> Rollup:
    """Count events.

    Args:
        events: a SELECT of the store's columns.
        connection: no other thread uses it meanwhile.

    Raises:
        duckdb.Error: the events cannot be read, or need too much memory.
    """
    names = _names(events, connection)
    rows = connection.execute(
        f"SELECT minute, bucket, {', '.join(map(_code, DIMENSIONS))} FROM ("
        f'SELECT CAST(epoch_us(coalesce("timestamp", received_at)) // 60000000 AS UINTEGER) AS minute, '
        f"{bucket_sql('operation_latency_ms')} AS bucket, "
        f"{', '.join(f'{_value(name)} AS {name}' for name in DIMENSIONS)} FROM ({events})) "
        + " ".join(map(_join, DIMENSIONS, names))
    ).fetchnumpy()
    combination_of, values = _number_combinations([rows[name] for name in DIMENSIONS])
    minute_of, combination_of, bucket_of, counts = _count(rows["minute"], combination_of, rows["bucket"])
    if len(counts) * _WORTH_COUNTING > counts.sum():
        # Hardly any events are alike. Rows that are one event each are quicker to add up than counted ones.
        minute_of, combination_of, bucket_of = (
            np.repeat(column, counts) for column in (minute_of, combination_of, bucket_of)
        )
        counts = counts[:0]
    minutes, firsts = np.unique(minute_of, return_index=True)
    return Rollup(
        minutes=minutes.astype(np.uint32),
        starts=np.append(firsts, len(minute_of)).astype(np.uint32),
        combinations=_smallest(combination_of),
        buckets=bucket_of.astype(np.uint16),
        counts=_smallest(counts),
        values=values,
        names=names,
    )


def _names(events: str, connection: duckdb.DuckDBPyConnection) -> tuple[list[str], ...]:
    """The most frequent values of each dimension. All of them, unless there are more than `MAX_VALUES`."""
    found = []
    for name in DIMENSIONS:
        # By hashes: the values themselves, if each event has its own, take more memory than there may be.
        rows = connection.execute(
            f"WITH given AS NOT MATERIALIZED ("
            f"SELECT {_value(name)} AS value FROM ({events}) WHERE {COLUMN_OF[name]} <> ''), "
            f"frequent AS MATERIALIZED (SELECT hash(value) AS number, count(*) AS events FROM given "
            f"GROUP BY number ORDER BY events DESC, number LIMIT {MAX_VALUES}) "
            f"SELECT value FROM (SELECT DISTINCT value, frequent.events FROM given JOIN frequent "
            f"ON hash(value) = number) ORDER BY events DESC, value"
        ).fetchall()
        found.append(["", OTHER, *(value for (value,) in rows if value != OTHER)])
    return tuple(found)


def _value(dimension: str) -> str:
    column = COLUMN_OF[dimension]
    return f"CASE WHEN strlen({column}) <= {MAX_VALUE} THEN {column} ELSE left({column}, {MAX_VALUE}) END"


def _join(dimension: str, names: list[str]) -> str:
    """A join with the numbers of a dimension's values."""
    # Not a cast to an ENUM: one that fails makes a message of all names, for each event.
    listed = f"CAST([{', '.join(quoted(name) for name in names[2:])}] AS VARCHAR[])"
    numbered = f"SELECT unnest({listed}) AS value, generate_subscripts({listed}, 1) + 1 AS number"
    return f"LEFT JOIN ({numbered}) AS known_{dimension} ON {dimension} = known_{dimension}.value"


def _code(dimension: str) -> str:
    """The number of an event's value in SQL: its place in the list of names."""
    number = f"coalesce(known_{dimension}.number, 1)"
    return f"CAST(if(coalesce({dimension}, '') = '', 0, {number}) AS USMALLINT) AS {dimension}"


def _number_combinations(codes: list[Array]) -> tuple[Array, Array]:
    """For each event the number of its combination of values, and the combinations."""
    key = np.zeros(len(codes[0]), dtype=np.uint64)
    for each in codes:  # six numbers below 1024 fit into 64 bits
        key = key << np.uint64(CODE_BITS) | each.astype(np.uint64)
    _, firsts, inverse = np.unique(key, return_index=True, return_inverse=True)
    values = np.stack([each[firsts] for each in codes], axis=1).astype(np.uint16)
    return inverse.reshape(-1), values


def _count(minutes: Array, combinations: Array, buckets: Array) -> tuple[Array, Array, Array, Array]:
    """The different rows of three columns, in order, and how often each occurs."""
    earliest = minutes.min(initial=np.iinfo(np.uint32).max)
    bits = max(int(combinations.max(initial=0)).bit_length(), 1)
    assert bits + _BUCKET_BITS + 32 <= 64, "a rollup is of a file of less than four million events"
    key = (minutes - earliest).astype(np.uint64) << np.uint64(bits + _BUCKET_BITS)
    key |= combinations.astype(np.uint64) << np.uint64(_BUCKET_BITS)
    key |= buckets.astype(np.uint64)
    different, counts = np.unique(key, return_counts=True)
    return (
        (different >> np.uint64(bits + _BUCKET_BITS)) + np.uint64(earliest),
        different >> np.uint64(_BUCKET_BITS) & np.uint64((1 << bits) - 1),
        different & np.uint64((1 << _BUCKET_BITS) - 1),
        counts,
    )


def _smallest(numbers: Array) -> Array:
    """The same numbers in the smallest type that holds them."""
    largest = int(numbers.max(initial=0))
    return numbers.astype(np.min_scalar_type(largest))


def pack(rollup: Rollup) -> bytes:
    """A rollup as the content of a file."""
    file = io.BytesIO()
    arrays = rollup._asdict()
    arrays["names"] = np.frombuffer(json.dumps(rollup.names).encode(), dtype=np.uint8)
    np.savez(file, **arrays)
    return file.getvalue()


def unpack(content: bytes) -> Rollup:
    """The rollup in a file.

    Raises:
        ValueError: there is none.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in Rollup._fields}
        found["names"] = tuple(json.loads(found["names"].tobytes()))
        return Rollup(**found)
    except (KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError("not a rollup") from error

"""The table's columns: those of the store, from their one definition, and `day`."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from adbc_telemetry.collector.store.columns import COLUMNS

DAY: Final = "day"
"""The day, in UTC, when an event was received. The table is partitioned by it."""
_TYPES: Final = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
}

SCHEMA: Final = pa.schema(
    [*((column.name, _TYPES[column.sql_type]) for column in COLUMNS), (DAY, pa.date32())]
)

"""The limits and special fields that both ways of reading a log share."""

from __future__ import annotations

from typing import Final

from adbc_telemetry.driver_facts.error_category import ErrorCategory

MAX_EVENT_ID: Final = 128
"""Characters of an event's id."""
MAX_LOG: Final = 1024 * 1024
"""Bytes of a log, as UTF-8. Several times as many must be a line that the journal's reader takes."""

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1

# Where the wire says int32; all other integers are int64.
INT32_FIELDS: Final = frozenset(
    {
        "port",
        "string_column_length",
        "n_operation_status_calls",
        "total_chunks_present",
        "total_chunks_iterated",
    }
)

# Fields for the text of an error, which may quote SQL, values and paths: never stored, but for these bare words.
PRIVATE_FIELDS: Final = frozenset({"stack_trace"})
PUBLIC_WORDS: Final = tuple(category.value for category in ErrorCategory)

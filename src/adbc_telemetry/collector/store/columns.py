"""The store's columns: their names, their types, and where each value stands in a log.

This is the one definition. The Parquet files, the queries over the journal and other tables of events follow it.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple


class Column(NamedTuple):
    """One column. Columns without a path do not come out of the log."""

    name: str
    sql_type: str
    path: str | None


_LOG: Final = "entry.sql_driver_log."
_SYSTEM: Final = _LOG + "system_configuration."
_PARAMETERS: Final = _LOG + "driver_connection_params."
_OPERATION: Final = _LOG + "sql_operation."
_DETAIL: Final = _OPERATION + "operation_detail."
_LATENCY: Final = _OPERATION + "result_latency."
_CHUNKS: Final = _OPERATION + "chunk_details."

COLUMNS: Final = (
    Column("event_id", "VARCHAR", "frontend_log_event_id"),
    Column("timestamp", "TIMESTAMPTZ", "context.client_context.timestamp_millis"),
    Column("received_at", "TIMESTAMPTZ", None),
    Column("workspace_id", "BIGINT", "workspace_id"),
    Column("user_agent", "VARCHAR", "context.client_context.user_agent"),
    Column("session_id", "VARCHAR", _LOG + "session_id"),
    Column("sql_statement_id", "VARCHAR", _LOG + "sql_statement_id"),
    Column("auth_type", "VARCHAR", _LOG + "auth_type"),
    Column("driver_name", "VARCHAR", _SYSTEM + "driver_name"),
    Column("driver_version", "VARCHAR", _SYSTEM + "driver_version"),
    Column("runtime_name", "VARCHAR", _SYSTEM + "runtime_name"),
    Column("runtime_version", "VARCHAR", _SYSTEM + "runtime_version"),
    Column("os_name", "VARCHAR", _SYSTEM + "os_name"),
    Column("os_version", "VARCHAR", _SYSTEM + "os_version"),
    Column("os_arch", "VARCHAR", _SYSTEM + "os_arch"),
    Column("client_app_name", "VARCHAR", _SYSTEM + "client_app_name"),
    Column("host", "VARCHAR", _PARAMETERS + "host_info.host_url"),
    Column("driver_mode", "VARCHAR", _PARAMETERS + "mode"),
    Column("auth_mech", "VARCHAR", _PARAMETERS + "auth_mech"),
    Column("statement_type", "VARCHAR", _OPERATION + "statement_type"),
    Column("operation_type", "VARCHAR", _DETAIL + "operation_type"),
    Column("execution_result", "VARCHAR", _OPERATION + "execution_result"),
    Column("is_compressed", "BOOLEAN", _OPERATION + "is_compressed"),
    Column("is_internal_call", "BOOLEAN", _DETAIL + "is_internal_call"),
    Column("error_name", "VARCHAR", _LOG + "error_info.error_name"),
    Column("retry_count", "BIGINT", _OPERATION + "retry_count"),
    Column("n_operation_status_calls", "INTEGER", _DETAIL + "n_operation_status_calls"),
    Column("operation_status_latency_ms", "BIGINT", _DETAIL + "operation_status_latency_millis"),
    Column("operation_latency_ms", "BIGINT", _LOG + "operation_latency_ms"),
    Column("result_set_ready_latency_ms", "BIGINT", _LATENCY + "result_set_ready_latency_millis"),
    Column("result_set_consumption_latency_ms", "BIGINT", _LATENCY + "result_set_consumption_latency_millis"),
    Column("total_chunks_present", "INTEGER", _CHUNKS + "total_chunks_present"),
    Column("total_chunks_iterated", "INTEGER", _CHUNKS + "total_chunks_iterated"),
    Column("log", "VARCHAR", None),
)
NAMES: Final = tuple(column.name for column in COLUMNS)

# Unix milliseconds of the years 1970 to 9999. A clock outside of them is broken: the log keeps what it said, and the
# column stays empty, because no calendar takes all that an int64 can say.
_YEAR_10000: Final = 253_402_300_800_000


def quoted(path: object) -> str:
    """A path or text as a string of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def path_list(paths: Any) -> str:
    """Paths as a list of SQL."""
    return "[" + ", ".join(quoted(path) for path in paths) + "]"


def columns_sql(lines: str) -> str:
    """A SELECT of the store's columns.

    Args:
        lines: a SELECT of `received_us`, `log` and `canonical`.
    """
    return (
        f"SELECT {', '.join(_expression(column) for column in COLUMNS)} FROM "
        f"(SELECT received_us, log, json_transform(coalesce(canonical, log), {quoted(_STRUCTURE)}) AS message "
        f"FROM ({lines}))"
    )


def _expression(column: Column) -> str:
    if column.name == "received_at":
        value = "make_timestamptz(received_us)"
    elif column.name == "log":
        value = "log"
    elif column.name == "timestamp":
        millis = f"message.{column.path}"
        value = (
            f"CASE WHEN {millis} BETWEEN 0 AND {_YEAR_10000 - 1} THEN make_timestamptz({millis} * 1000) END"
        )
    else:
        value = f"message.{column.path}"
    return f'{value} AS "{column.name}"'


def _structure() -> dict[str, Any]:
    """The messages that the paths lead through, with the type of each value, as `json_transform` takes them."""
    root: dict[str, Any] = {}
    for column in COLUMNS:
        if column.path is None:
            continue
        *parents, name = column.path.split(".")
        message = root
        for parent in parents:
            message = message.setdefault(parent, {})
        message[name] = "BIGINT" if column.sql_type == "TIMESTAMPTZ" else column.sql_type
    return root


_STRUCTURE: Final = json.dumps(_structure())

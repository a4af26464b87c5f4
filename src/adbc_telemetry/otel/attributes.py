"""The attributes of spans and metrics: the one table, after the database conventions of OpenTelemetry, v1.44.

`docs/opentelemetry.md` shows this table. Tests compare the two, and each attribute of each span with it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from opentelemetry.semconv.attributes.db_attributes import (
    DB_COLLECTION_NAME,
    DB_NAMESPACE,
    DB_OPERATION_BATCH_SIZE,
    DB_OPERATION_NAME,
    DB_QUERY_SUMMARY,
    DB_QUERY_TEXT,
    DB_RESPONSE_STATUS_CODE,
    DB_STORED_PROCEDURE_NAME,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

DB_RESPONSE_RETURNED_ROWS: Final = "db.response.returned_rows"  # in development: not among the stable names
STATEMENT_ID: Final = "adbc.telemetry.statement_id"

FIRST_BATCH: Final = "adbc.first_batch"
LAST_BATCH: Final = "adbc.last_batch"
"""Names of the events of a span."""


class Row(NamedTuple):
    """What is done about an attribute.

    Attributes:
        attribute: its name.
        level: its requirement level, as the conventions have it for a database's client and for SQL.
        source: when it is there, and what it comes from.
        on_metrics: whether the metrics have it, too.
        asked_for: the argument of `instrument` without which it is not there; "" where none is needed.
        at_start: whether a sampler sees it.
    """

    attribute: str
    level: str
    source: str
    on_metrics: bool = False
    asked_for: str = ""
    at_start: bool = True


TABLE: Final = (
    Row(DB_SYSTEM_NAME, "required", "always; from what the driver calls itself, by the table below", True),
    Row(
        DB_NAMESPACE,
        "conditionally required",
        "the database that was connected to: what the driver knows of it without a call, else the database in the URI",
        True,
    ),
    Row(
        DB_OPERATION_NAME,
        "conditionally required",
        "of methods that are one operation, such as `commit`; not of SQL, from which it is not to be extracted",
        True,
    ),
    Row(
        DB_QUERY_SUMMARY,
        "recommended",
        "of SQL: its first word, if it is one of SQL's; when the text is captured, all operations and their tables",
        True,
    ),
    Row(
        DB_COLLECTION_NAME,
        "conditionally required",
        "of `adbc_ingest` and `adbc_get_table_schema`: the table",
        True,
        "capture_query_text",
    ),
    Row(
        DB_STORED_PROCEDURE_NAME,
        "recommended",
        "of `callproc`: the procedure",
        True,
        "capture_query_text",
    ),
    Row(
        DB_QUERY_TEXT,
        "recommended",
        "the text with `?` for its literals; left out where it cannot be parsed",
        False,
        "capture_query_text",
    ),
    Row(
        DB_OPERATION_BATCH_SIZE,
        "recommended",
        "of `executemany` with two sets of parameters or more, or with none, where they can be counted",
    ),
    Row(
        SERVER_ADDRESS,
        "recommended",
        "the host in the URI or the options of the database; of PostgreSQL also the folder of the socket",
        True,
    ),
    Row(
        SERVER_PORT, "conditionally required", "beside `server.address`, if it is not the default port", True
    ),
    Row(
        DB_RESPONSE_STATUS_CODE,
        "conditionally required",
        "of errors: the SQLSTATE, the vendor's code, or both with a `/` between",
        True,
        at_start=False,
    ),
    Row(
        ERROR_TYPE,
        "conditionally required",
        "of errors: `db.response.status_code`, or else the class of the exception",
        True,
        at_start=False,
    ),
    Row(
        DB_RESPONSE_RETURNED_ROWS,
        "opt-in",
        "the rows that were fetched; not of `fetch_arrow`, whose stream is read elsewhere",
        False,
        "capture_returned_rows",
        at_start=False,
    ),
    Row(NETWORK_PEER_ADDRESS, "recommended", "never: ADBC does not tell", True),
    Row(NETWORK_PEER_PORT, "recommended", "never: ADBC does not tell", True),
    Row("db.query.parameter.<key>", "opt-in", "never: parameters are the program's data"),
    Row(
        STATEMENT_ID,
        "our own",
        "where the connection records our own events as well: `sql_statement_id` of the operation's event",
        at_start=False,
    ),
)

NEVER: Final = frozenset(row.attribute for row in TABLE if row.source.startswith("never"))

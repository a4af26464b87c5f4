"""The matrix: whether each database supports each operation, and the event that it records.

`docs/instrumentation.md` shows it. `tests/integration/test_driver_matrix.py` proves it, and
`tests/integration/test_instrumentation_docs.py` checks that the page shows the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adbc_telemetry.testing import Event
from support.databases import ADBC, PLAIN, WAYS, Followed

YES = "yes"
NO = "–"  # the driver has no such method
REFUSED = "NotSupportedError"
BEHIND = "at the cursor's end"  # outside PEP 249: passed to the driver and not watched

QUERY = Event("EXECUTE_STATEMENT", "QUERY")
UPDATE = Event("EXECUTE_STATEMENT", "UPDATE")
SQL = Event("EXECUTE_STATEMENT", "SQL")
METADATA = Event("EXECUTE_STATEMENT", "METADATA")
FACTS = Event("TYPE_UNSPECIFIED", "METADATA")
CANCEL = Event("CANCEL_STATEMENT")
CREATE = Event("CREATE_SESSION")
DELETE = Event("DELETE_SESSION")

SELECT = "SELECT n FROM t ORDER BY n"
"""The three rows of the table that every operation finds."""


@dataclass(frozen=True)
class Row:
    """An operation of the matrix.

    Attributes:
        name: the name in the documentation.
        call: runs the operation on a connection and a new cursor.
        event: the event that it records.
        results: whether there are results, whose format ADBC knows.
        to_the_end: whether the operation reads them to the end.
        on: the support per database; `YES` by default.
    """

    name: str
    call: Callable[[Followed, Any], object]
    event: Event
    results: bool = False
    to_the_end: bool = False
    on: dict[str, str] = field(default_factory=dict)

    def outcome(self, database: str) -> str:
        return self.on.get(database, YES)


def select(fetch: Callable[[Any], object]) -> Callable[[Followed, Any], object]:
    def call(_: Followed, cursor: Any) -> object:
        cursor.execute(SELECT)
        return fetch(cursor)

    return call


def drain(reader: Any) -> None:
    for _ in reader:
        pass


def consume(stream: Any) -> int:
    import pyarrow

    return int(pyarrow.table(stream).num_rows)


def close_after(fetch: Callable[[Any], object]) -> Callable[[Followed, Any], object]:
    def call(_: Followed, cursor: Any) -> None:
        cursor.execute(SELECT)
        fetch(cursor)
        cursor.close()

    return call


def ingest(_: Followed, cursor: Any) -> None:
    import pyarrow

    cursor.adbc_ingest("ingested", pyarrow.table({"n": [1, 2]}))


def execute_on_connection(f: Followed, _: Any) -> None:
    cursor = f.connection.execute(SELECT)
    cursor.fetchall()
    if cursor is not f.connection:  # duckdb returns the connection itself
        cursor.close()


def statistics(f: Followed, _: Any) -> None:
    # PostgreSQL's statistics cover a single schema.
    postgresql = f.database.name == "ADBC PostgreSQL"
    schema = f.connection.adbc_current_db_schema if postgresql else None
    f.connection.adbc_get_statistics(db_schema_filter=schema, table_name_filter="t").read_all()


NOT_PLAIN = dict.fromkeys(PLAIN, NO)
NOT_DUCKDB = {"duckdb": NO}
NO_ADBC = dict.fromkeys(ADBC, NO)

ROWS: tuple[Row, ...] = (
    Row("connection.commit", lambda f, c: f.connection.commit(), SQL),
    Row(
        "connection.rollback",
        lambda f, c: f.connection.rollback(),
        SQL,
        on={"duckdb": "TransactionException"},
    ),
    Row("connection.execute", execute_on_connection, QUERY, True, True),
    Row(
        "connection.executemany",
        lambda f, c: f.connection.executemany(f"INSERT INTO t VALUES ({f.database.mark})", [(4,)]),
        UPDATE,
        on={**NO_ADBC, "psycopg": NO},
    ),
    Row("cursor.execute: a query", lambda f, c: c.execute(SELECT).fetchall(), QUERY, True, True),
    Row("cursor.execute: a change", lambda f, c: c.execute("INSERT INTO t VALUES (4)"), UPDATE),
    Row("cursor.execute: a definition", lambda f, c: c.execute("CREATE TABLE u (n INT)"), SQL),
    Row(
        "cursor.execute: a change that returns rows",
        lambda f, c: c.execute("INSERT INTO t VALUES (4) RETURNING n").fetchall(),
        UPDATE,
        True,
        True,
    ),
    Row(
        "cursor.executemany",
        lambda f, c: c.executemany(f"INSERT INTO t VALUES ({f.database.mark})", [(4,)]),
        UPDATE,
    ),
    Row(
        "cursor.executescript",
        lambda f, c: c.executescript("DELETE FROM t; DELETE FROM t"),
        SQL,
        on={"duckdb": NO, "psycopg": NO},
    ),
    Row("cursor.fetchone", select(lambda c: [c.fetchone() for _ in range(4)]), QUERY, True, True),
    Row("cursor.fetchmany", select(lambda c: [c.fetchmany(2) for _ in range(2)]), QUERY, True, True),
    Row("cursor.fetchall", select(lambda c: c.fetchall()), QUERY, True, True),
    Row("iteration", select(list), QUERY, True, True, on=NOT_DUCKDB),
    Row(
        "cursor.next",
        select(lambda c: [c.next() for _ in range(3)] and c.fetchone()),
        QUERY,
        True,
        True,
        on=NOT_PLAIN,
    ),
    Row("cursor.fetch_arrow_table", select(lambda c: c.fetch_arrow_table()), QUERY, True, True, on=NOT_PLAIN),
    Row("cursor.fetchallarrow", select(lambda c: c.fetchallarrow()), QUERY, True, True, on=NOT_PLAIN),
    Row(
        "cursor.fetch_df",
        select(lambda c: c.fetch_df()),
        QUERY,
        True,
        True,
        on={**NOT_PLAIN, "duckdb": BEHIND},
    ),
    Row("cursor.fetch_polars", select(lambda c: c.fetch_polars()), QUERY, True, True, on=NOT_PLAIN),
    Row(
        "cursor.fetch_record_batch",
        select(lambda c: drain(c.fetch_record_batch())),
        QUERY,
        True,
        True,
        on=NOT_PLAIN,
    ),
    Row("cursor.fetch_arrow", close_after(lambda c: consume(c.fetch_arrow())), QUERY, True, on=NOT_PLAIN),
    Row("cursor.adbc_ingest", ingest, UPDATE, on=NOT_PLAIN),
    Row("cursor.adbc_prepare", lambda f, c: c.adbc_prepare(SELECT), METADATA, on=NOT_PLAIN),
    Row(
        "cursor.adbc_execute_schema",
        lambda f, c: c.adbc_execute_schema(SELECT),
        METADATA,
        on={**NOT_PLAIN, "ADBC SQLite": REFUSED},
    ),
    Row(
        "cursor.adbc_execute_partitions",
        lambda f, c: c.adbc_execute_partitions(SELECT),
        QUERY,
        on={**NOT_PLAIN, **dict.fromkeys(ADBC, REFUSED)},
    ),
    Row(
        "cursor.adbc_read_partition",
        lambda f, c: c.adbc_read_partition(b"none"),
        QUERY,
        on={**NOT_PLAIN, **dict.fromkeys(ADBC, REFUSED)},
    ),
    Row(
        "cursor.adbc_cancel",
        lambda f, c: c.adbc_cancel(),
        CANCEL,
        on={**NOT_PLAIN, "ADBC SQLite": REFUSED},
    ),
    Row(
        "connection.adbc_cancel",
        lambda f, c: f.connection.adbc_cancel(),
        CANCEL,
        on={**NOT_PLAIN, "ADBC SQLite": REFUSED},
    ),
    Row("connection.adbc_get_info", lambda f, c: f.connection.adbc_get_info(), FACTS, True, on=NOT_PLAIN),
    *(
        Row(
            f"connection.adbc_get_objects: {depth}",
            lambda f, c, depth=depth: f.connection.adbc_get_objects(depth=depth).read_all(),  # type: ignore[misc]
            Event(operation, "METADATA"),
            True,
            on=NOT_PLAIN,
        )
        for depth, operation in {
            "catalogs": "LIST_CATALOGS",
            "db_schemas": "LIST_SCHEMAS",
            "tables": "LIST_TABLES",
            "columns": "LIST_COLUMNS",
            "all": "LIST_COLUMNS",
        }.items()
    ),
    Row(
        "connection.adbc_get_table_schema",
        lambda f, c: f.connection.adbc_get_table_schema("t"),
        Event("LIST_COLUMNS", "METADATA"),
        on=NOT_PLAIN,
    ),
    Row(
        "connection.adbc_get_table_types",
        lambda f, c: f.connection.adbc_get_table_types(),
        Event("LIST_TABLE_TYPES", "METADATA"),
        True,
        on=NOT_PLAIN,
    ),
    Row(
        "connection.adbc_get_statistics",
        statistics,
        FACTS,
        True,
        on={**NOT_PLAIN, "ADBC SQLite": REFUSED},
    ),
    Row(
        "connection.adbc_get_statistic_names",
        lambda f, c: f.connection.adbc_get_statistic_names().read_all(),
        FACTS,
        True,
        on={**NOT_PLAIN, "ADBC SQLite": REFUSED},
    ),
)


def as_markdown() -> str:
    """The matrix as the documentation shows it."""
    lines = [
        "| operation | event | " + " | ".join(WAYS) + " |",
        "| --- | --- |" + " --- |" * len(WAYS),
        _line("connect", CREATE, [YES] * len(WAYS)),
        *(_line(row.name, row.event, [row.outcome(name) for name in WAYS]) for row in ROWS),
        _line("connection.close", DELETE, [YES] * len(WAYS)),
        _line("connection.adbc_clone", CREATE, [YES if name in ADBC else NO for name in WAYS]),
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, event: Event, outcomes: list[str]) -> str:
    words = [event.operation_type, event.statement_type]
    told = ", ".join(f"`{word}`" for word in words if word)
    cells = [outcome if outcome in (YES, NO) else f"`{outcome}`" for outcome in outcomes]
    return f"| {name} | {told} | " + " | ".join(cells) + " |"

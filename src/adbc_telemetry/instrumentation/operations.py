"""What an operation counts as: the one table of what is recorded of a connection, and how.

`docs/instrumentation.md` shows this table; a test compares the two. The wire has no operation type for
`adbc_prepare` and `adbc_execute_schema`: they are statements of type METADATA, because nothing is run. It has none for
facts about the driver and for statistics either: these are TYPE_UNSPECIFIED, since LIST_TYPE_INFO is about data types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.schema import OperationType, StatementType


@dataclass(frozen=True, slots=True)
class SqlClass:
    """What is known of a statement before it is run, if only from the first word of its SQL.

    Attributes:
        statement_type: QUERY, UPDATE or SQL, of SQL.
        returns_rows: whether rows follow for certain; else the result has to be asked.
    """

    statement_type: StatementType | None
    returns_rows: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """How a method's calls appear in events.

    Attributes:
        operation_type: the event's; `TYPE_UNSPECIFIED` where the wire has no word for it.
        statement_type: the event's; None where there is no statement, or where its SQL says (`reads_sql`).
        reads_sql: whether the statement type comes from the first word of the SQL; see `classify`. The SQL is the first
            argument of the call, or the one named `operation`.
        opens_results: whether rows may follow, so that the event waits for them.
        commits_first: whether the driver commits on its own before; that commit is part of this operation.
        ends_transaction: whether to skip it where the driver has no transactions.
        by_depth: the operation type for each value of the argument `depth`.
        returns_arrow: whether an ADBC driver answers with Arrow data, as the event's result format then says.
        kind: the statement type, and whether rows follow for certain; None where the SQL says.
        method: the name of the method.
    """

    operation_type: OperationType
    statement_type: StatementType | None = None
    reads_sql: bool = False
    opens_results: bool = False
    commits_first: bool = False
    ends_transaction: bool = False
    by_depth: Mapping[str, OperationType] | None = None
    returns_arrow: bool = False
    method: str = ""
    kind: SqlClass | None = field(init=False)

    def __post_init__(self) -> None:
        returns_rows = self.statement_type is StatementType.QUERY
        object.__setattr__(
            self, "kind", None if self.reads_sql else SqlClass(self.statement_type, returns_rows)
        )


class Fetch(Enum):
    """When a method that fetches has fetched the last row, so that the statement is over."""

    ONE = "when there is no row left"
    MANY = "when there are fewer rows than asked for"
    ALL = "on return"
    READER = "when the reader is at its end, or dropped"
    STREAM = "when the cursor is closed, dropped or used again: the stream is read without the cursor"


_EXECUTE: Final = OperationType.EXECUTE_STATEMENT
_NO_WORD: Final = OperationType.TYPE_UNSPECIFIED
_METADATA: Final = StatementType.METADATA


def _by_method(operations: Mapping[str, Operation]) -> Mapping[str, Operation]:
    return {method: replace(operation, method=method) for method, operation in operations.items()}


CREATE_SESSION: Final = Operation(OperationType.CREATE_SESSION)
DELETE_SESSION: Final = Operation(OperationType.DELETE_SESSION)

# ADBC: `adbc_driver_manager.dbapi`, whichever the driver.

CURSOR_OPERATIONS: Final[Mapping[str, Operation]] = _by_method(
    {
        "execute": Operation(_EXECUTE, reads_sql=True, opens_results=True, returns_arrow=True),
        "executemany": Operation(_EXECUTE, StatementType.UPDATE),
        "executescript": Operation(_EXECUTE, StatementType.SQL, commits_first=True),
        "adbc_ingest": Operation(_EXECUTE, StatementType.UPDATE),
        "adbc_execute_partitions": Operation(_EXECUTE, reads_sql=True),
        "adbc_read_partition": Operation(
            _EXECUTE, StatementType.QUERY, opens_results=True, returns_arrow=True
        ),
        "adbc_execute_schema": Operation(_EXECUTE, _METADATA),
        "adbc_prepare": Operation(_EXECUTE, _METADATA),
    }
)

CURSOR_FETCHES: Final[Mapping[str, Fetch]] = {
    "fetchone": Fetch.ONE,
    "next": Fetch.ONE,
    "__next__": Fetch.ONE,
    "fetchmany": Fetch.MANY,
    "fetchall": Fetch.ALL,
    "fetch_arrow_table": Fetch.ALL,
    "fetchallarrow": Fetch.ALL,
    "fetch_df": Fetch.ALL,
    "fetch_polars": Fetch.ALL,
    "fetch_record_batch": Fetch.READER,
    "fetch_arrow": Fetch.STREAM,
}

CURSOR_CANCEL: Final = Operation(OperationType.CANCEL_STATEMENT, method="adbc_cancel")

CONNECTION_OPERATIONS: Final[Mapping[str, Operation]] = _by_method(
    {
        "commit": Operation(_EXECUTE, StatementType.SQL, ends_transaction=True),
        "rollback": Operation(_EXECUTE, StatementType.SQL, ends_transaction=True),
        "adbc_cancel": CURSOR_CANCEL,
        "adbc_get_info": Operation(_NO_WORD, _METADATA, returns_arrow=True),
        "adbc_get_objects": Operation(
            _NO_WORD,
            _METADATA,
            by_depth={
                "catalogs": OperationType.LIST_CATALOGS,
                "db_schemas": OperationType.LIST_SCHEMAS,
                "tables": OperationType.LIST_TABLES,
                "columns": OperationType.LIST_COLUMNS,
                "all": OperationType.LIST_COLUMNS,
            },
            returns_arrow=True,
        ),
        "adbc_get_table_schema": Operation(OperationType.LIST_COLUMNS, _METADATA),
        "adbc_get_table_types": Operation(OperationType.LIST_TABLE_TYPES, _METADATA, returns_arrow=True),
        "adbc_get_statistics": Operation(_NO_WORD, _METADATA, returns_arrow=True),
        "adbc_get_statistic_names": Operation(_NO_WORD, _METADATA, returns_arrow=True),
    }
)

# PEP 249, and `executescript` besides: of cursors, and of connections where they have it as a short cut.

PEP249_CURSOR_OPERATIONS: Final[Mapping[str, Operation]] = _by_method(
    {
        "execute": Operation(_EXECUTE, reads_sql=True, opens_results=True),
        "executemany": Operation(_EXECUTE, StatementType.UPDATE, opens_results=True),
        "executescript": Operation(_EXECUTE, StatementType.SQL),
        "callproc": Operation(_EXECUTE, StatementType.SQL, opens_results=True),
    }
)

PEP249_CONNECTION_OPERATIONS: Final[Mapping[str, Operation]] = _by_method(
    {
        "commit": Operation(_EXECUTE, StatementType.SQL),
        "rollback": Operation(_EXECUTE, StatementType.SQL),
    }
)


QUERY: Final = SqlClass(StatementType.QUERY, True)
"""A statement that returns rows for certain."""

_QUERY_PERHAPS: Final = SqlClass(StatementType.QUERY, False)  # WITH x AS (...) DELETE; PRAGMA a = b
_UPDATE: Final = SqlClass(StatementType.UPDATE, False)
_OTHER: Final = SqlClass(StatementType.SQL, False)

_FIRST_WORDS: Final[Mapping[str, SqlClass]] = {
    **dict.fromkeys(("SELECT", "VALUES", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "TABLE", "FROM"), QUERY),
    **dict.fromkeys(("WITH", "PRAGMA"), _QUERY_PERHAPS),
    **dict.fromkeys(("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "COPY", "UPSERT"), _UPDATE),
}

GLANCE: Final = 7
AT_A_GLANCE: Final[Mapping[str, SqlClass]] = {
    cased + " ": kind
    for word, kind in _FIRST_WORDS.items()
    if len(word) + 1 == GLANCE
    for cased in (word, word.lower())
}
"""The first characters of most statements, "SELECT " and "select ": one look-up instead of a search."""

# Blanks, opening parentheses, stray semicolons and comments, then a word. Each alternative starts and ends in
# its own way, so that there is one way to match a text: backtracking cannot explode.
_first_word: Final = re.compile(
    r"(?:[\s(;]|--[^\n]*\n|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*([A-Za-z]+)", re.ASCII
).match
_LOOK_AT_MOST: Final = 200


def _no_word(error: Exception, sql: object) -> str | None:
    return None


@never_raises(_no_word)
def first_word(sql: object) -> str | None:
    """The first word of a text, as it is written; None where there is none in its first 200 characters."""
    found = _first_word(sql, 0, _LOOK_AT_MOST) if isinstance(sql, str) else None
    return None if found is None else found[1]


@never_raises(lambda error, sql: _OTHER)
def classify(sql: object) -> SqlClass:
    """What kind of statement this is, by its first word; bytes are a Substrait plan, as ADBC has it.

    Looks at the first 200 characters and keeps none of them.
    """
    if isinstance(sql, str):
        found = _first_word(sql, 0, _LOOK_AT_MOST)
        return _OTHER if found is None else _FIRST_WORDS.get(found[1].upper(), _OTHER)
    return QUERY if isinstance(sql, bytes) else _OTHER

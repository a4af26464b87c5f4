"""What a span says of its operation when it begins: its name and its attributes, which a sampler sees as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.semconv.attributes.db_attributes import (
    DB_COLLECTION_NAME,
    DB_NAMESPACE,
    DB_OPERATION_BATCH_SIZE,
    DB_OPERATION_NAME,
    DB_QUERY_SUMMARY,
    DB_QUERY_TEXT,
    DB_STORED_PROCEDURE_NAME,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT

from adbc_telemetry.instrumentation.operations import GLANCE, Operation, first_word
from adbc_telemetry.otel.query_text import query_text
from adbc_telemetry.otel.systems import Place

OPERATION_NAMES: Final[Mapping[str, str]] = {
    "connect": "CONNECT",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "adbc_ingest": "INGEST",
    "adbc_prepare": "PREPARE",
    "adbc_execute_schema": "EXECUTE_SCHEMA",
    "adbc_read_partition": "READ_PARTITION",
    "adbc_cancel": "CANCEL",
    "adbc_get_info": "GET_INFO",
    "adbc_get_objects": "GET_OBJECTS",
    "adbc_get_table_schema": "GET_TABLE_SCHEMA",
    "adbc_get_table_types": "GET_TABLE_TYPES",
    "adbc_get_statistics": "GET_STATISTICS",
    "adbc_get_statistic_names": "GET_STATISTIC_NAMES",
    "executescript": "EXECUTE_SCRIPT",
    "callproc": "CALL",
}
"""`db.operation.name` of a method that is one operation. The other methods take SQL, and have `db.query.summary`."""

_TAKE_SQL: Final = frozenset(
    {
        "execute",
        "executemany",
        "executescript",
        "adbc_execute_partitions",
        "adbc_prepare",
        "adbc_execute_schema",
    }
)
_TAKE_TABLE: Final = frozenset({"adbc_ingest", "adbc_get_table_schema"})

_WORDS: Final = frozenset(
    (
        *("ALTER", "ANALYZE", "ATTACH", "BEGIN", "CALL", "CHECKPOINT", "CLOSE", "CLUSTER", "COMMENT"),
        *("COMMIT", "COPY", "CREATE", "DEALLOCATE", "DECLARE", "DELETE", "DESC", "DESCRIBE", "DETACH"),
        *("DROP", "END", "EXEC", "EXECUTE", "EXPLAIN", "EXPORT", "FETCH", "FROM", "GET", "GRANT", "IMPORT"),
        *("INSERT", "INSTALL", "LIST", "LOAD", "LOCK", "MERGE", "OPTIMIZE", "PIVOT", "PRAGMA", "PREPARE"),
        *("PUT", "REFRESH", "REINDEX", "RELEASE", "REPLACE", "RESET", "REVOKE", "ROLLBACK", "SAVEPOINT"),
        *("SELECT", "SET", "SHOW", "START", "SUMMARIZE", "TABLE", "TRUNCATE", "UNDROP", "UNLOAD", "UNPIVOT"),
        *("UPDATE", "UPSERT", "USE", "VACUUM", "VALUES", "WITH"),
    )
)
"""First words of SQL that may be told. Another one may be anything."""


class Description(NamedTuple):
    """How a span begins.

    Attributes:
        name: of the span.
        attributes: of the span.
        metric_attributes: those of them that metrics have.
    """

    name: str
    attributes: Mapping[str, Any]
    metric_attributes: Mapping[str, Any]


class Descriptions:
    """Describes the operations of one connection. What most of them have in common is made once.

    Args:
        place: what is connected to, and where.
        capture_query_text: whether texts and the names of tables and procedures may be told.
    """

    __slots__ = ("_by_glance", "_capture_query_text", "_common", "_dialect", "_target")

    def __init__(self, place: Place, capture_query_text: bool) -> None:
        self._capture_query_text = capture_query_text
        self._dialect = place.system.dialect
        common: dict[str, Any] = {DB_SYSTEM_NAME: place.system.name}
        if place.namespace is not None:
            common[DB_NAMESPACE] = place.namespace
        if place.address is not None:
            common[SERVER_ADDRESS] = place.address
            if place.port is not None:
                common[SERVER_PORT] = place.port
        self._common = common
        server = ":".join(str(part) for part in (place.address, place.port) if part is not None)
        self._target = place.namespace or server
        self._by_glance: dict[str | None, Description] = {}  # most texts begin with `SELECT `

    def describe(
        self, operation: Operation, sql: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Description:
        """The description of an operation that is about to begin; the arguments are those of its call."""
        method = operation.method
        if method == "execute" and not self._capture_query_text:
            glance = sql[:GLANCE] if type(sql) is str else None
            found = self._by_glance.get(glance)
            return self._of_text(glance, sql) if found is None else found
        more: dict[str, Any] = {}
        told: dict[str, Any] = {}
        if self._capture_query_text:
            more = self._names(method, sql, args, kwargs, told)
        elif method in _TAKE_SQL and method not in OPERATION_NAMES and (word := _word(sql)) is not None:
            more[DB_QUERY_SUMMARY] = word
        if DB_QUERY_SUMMARY not in more and method in OPERATION_NAMES:
            more[DB_OPERATION_NAME] = OPERATION_NAMES[method]
        if method == "executemany":
            size = _batch_size(args, kwargs)
            if size != 1:
                more[DB_QUERY_SUMMARY] = f"BATCH {more.get(DB_QUERY_SUMMARY, '')}".rstrip()
                if size is not None:
                    told[DB_OPERATION_BATCH_SIZE] = size
        return self._description(more, told)

    def connecting(self) -> Description:
        """The description of a connection in the making."""
        return self._description({DB_OPERATION_NAME: OPERATION_NAMES["connect"]}, {})

    def _of_text(self, glance: str | None, sql: object) -> Description:
        word = _word(sql)
        description = self._description({} if word is None else {DB_QUERY_SUMMARY: word}, {})
        # Only where the glance is the word, so that there are not more of them than words.
        if glance is not None and glance == f"{word} ":
            self._by_glance[glance] = description
        return description

    def _names(
        self,
        method: str,
        sql: object,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        told: dict[str, Any],
    ) -> dict[str, Any]:
        """What the user has asked for; what only spans have is put into `told`."""
        if method in _TAKE_TABLE:
            table = args[0] if args else kwargs.get("table_name")
            return {DB_COLLECTION_NAME: table} if isinstance(table, str) else {}
        if method == "callproc":
            return {DB_STORED_PROCEDURE_NAME: sql} if isinstance(sql, str) else {}
        if method not in _TAKE_SQL:
            return {}
        read = query_text(sql, self._dialect) if isinstance(sql, str) else None
        if read is not None:
            told[DB_QUERY_TEXT] = read.text
        if method in OPERATION_NAMES and method != "executescript":
            return {}
        if read is None and method == "executescript":  # its first word is not all of it
            return {}
        summary = _word(sql) if read is None else read.summary
        return {DB_QUERY_SUMMARY: summary} if summary else {}

    def _description(self, more: Mapping[str, Any], told: Mapping[str, Any]) -> Description:
        shared = {**self._common, **more}
        return Description(self._name(more), {**shared, **told} if told else shared, shared)

    def _name(self, more: Mapping[str, Any]) -> str:
        """The span's name, by the conventions: the summary, else operation and target, else the system."""
        summary: str | None = more.get(DB_QUERY_SUMMARY)
        if summary is not None:
            return summary
        target = more.get(DB_COLLECTION_NAME) or more.get(DB_STORED_PROCEDURE_NAME) or self._target
        name = " ".join(filter(None, (more.get(DB_OPERATION_NAME), target)))
        return name or self._common[DB_SYSTEM_NAME]


def _word(sql: object) -> str | None:
    word = first_word(sql)
    return word if word is not None and word.upper() in _WORDS else None


def _batch_size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """How many sets of parameters a call of `executemany` has; None where that is not known without reading them."""
    named = (value for name, value in kwargs.items() if name not in ("operation", "sql", "query"))
    sets = args[1] if len(args) > 1 else next(named, None)
    if sets is None:  # ADBC executes it once, then
        return 1
    rows = getattr(sets, "num_rows", None)
    if isinstance(rows, int):
        return rows
    return len(sets) if hasattr(sets, "__len__") else None

"""Names and attributes of spans and metrics, row by row of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import db_attributes as incubating

from adbc_telemetry.otel import ADBCInstrumentor
from adbc_telemetry.otel.attributes import DB_RESPONSE_RETURNED_ROWS, TABLE
from adbc_telemetry.otel.errors import status_code
from support.spans import Spans, follows_the_table

pyarrow = pytest.importorskip("pyarrow")

ASKED = frozenset({"capture_query_text", "capture_returned_rows"})
TABLE_OF_ROWS = pyarrow.table({"n": [1, 2]}) if hasattr(pyarrow, "table") else None


def many(connection: Any, sets: object) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (?)", sets)


def ingest(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_ingest("hidden", pyarrow.table({"n": [1]}))


def run(sql: str) -> Callable[[Any], None]:
    def execute(connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            cursor.fetchall()

    return execute


COMMON = {"db.system.name": "sqlite", "db.namespace": "main"}
CASES: list[tuple[Callable[[Any], object], dict[str, Any], dict[str, Any]]] = [
    # the call, what is told by default, and what else or instead where it is asked for
    (
        run("SELECT 'a', n FROM t"),
        {"db.query.summary": "SELECT"},
        {
            "db.query.summary": "SELECT t",
            "db.query.text": "SELECT ?, n FROM t",
            "db.response.returned_rows": 0,
        },
    ),
    (
        run("  /* x */ select 1"),
        {"db.query.summary": "select"},
        {"db.query.text": "select ?", "db.response.returned_rows": 1},
    ),
    (
        run("EXPLAIN QUERY PLAN SELECT 1"),  # which the parser does not know
        {"db.query.summary": "EXPLAIN"},
        {"db.response.returned_rows": 1},
    ),
    (
        lambda connection: many(connection, [(1,), (2,)]),
        {"db.query.summary": "BATCH INSERT", "db.operation.batch.size": 2},
        {"db.query.summary": "BATCH INSERT t", "db.query.text": "INSERT INTO t VALUES (?)"},
    ),
    (
        lambda connection: many(connection, TABLE_OF_ROWS),
        {"db.query.summary": "BATCH INSERT", "db.operation.batch.size": 2},
        {"db.query.summary": "BATCH INSERT t", "db.query.text": "INSERT INTO t VALUES (?)"},
    ),
    (
        lambda connection: many(connection, [(1,)]),  # one operation is no batch
        {"db.query.summary": "INSERT"},
        {"db.query.summary": "INSERT t", "db.query.text": "INSERT INTO t VALUES (?)"},
    ),
    (
        lambda connection: many(connection, []),
        {"db.query.summary": "BATCH INSERT", "db.operation.batch.size": 0},
        {"db.query.summary": "BATCH INSERT t", "db.query.text": "INSERT INTO t VALUES (?)"},
    ),
    (
        lambda connection: many(connection, pyarrow.table({"n": [1, 2]}).to_reader()),
        {"db.query.summary": "BATCH INSERT"},
        {"db.query.summary": "BATCH INSERT t", "db.query.text": "INSERT INTO t VALUES (?)"},
    ),
    (ingest, {"db.operation.name": "INGEST"}, {"db.collection.name": "hidden"}),
    (
        lambda connection: connection.adbc_get_table_schema("t"),
        {"db.operation.name": "GET_TABLE_SCHEMA"},
        {"db.collection.name": "t"},
    ),
    (lambda connection: connection.commit(), {"db.operation.name": "COMMIT"}, {}),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("asked", [False, True])
def test_an_operation_has_the_attributes_of_the_table(
    case: tuple[Callable[[Any], object], dict[str, Any], dict[str, Any]], asked: bool, raw: Any, spans: Spans
) -> None:
    call, by_default, besides = case
    with raw.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT)")
    call(spans.follow(raw, capture_query_text=asked, capture_returned_rows=asked))
    expected = {**COMMON, **by_default, **(besides if asked else {})}
    assert dict(spans.one.attributes) == expected
    follows_the_table(spans.one.name, spans.one.attributes, asked_for=ASKED if asked else frozenset())
    (duration,) = spans.points("db.client.operation.duration")
    on_metrics = {row.attribute for row in TABLE if row.on_metrics}
    assert dict(duration.attributes) == {key: value for key, value in expected.items() if key in on_metrics}
    assert duration.sum == pytest.approx((spans.one.end_time - spans.one.start_time) / 1e9)


def test_an_error_s_message_is_told_where_it_is_asked_for(raw: Any, spans: Spans) -> None:
    with pytest.raises(Exception, match="no such table"):
        run("SELECT * FROM missing")(spans.follow(raw, capture_query_text=True))
    assert "no such table" in spans.one.status.description
    follows_the_table(spans.one.name, spans.one.attributes, failed=True, asked_for=ASKED)
    (duration,) = spans.points("db.client.operation.duration")
    assert duration.attributes["error.type"] == spans.one.attributes["error.type"]


def test_a_first_word_that_is_not_sql_s_is_not_told(raw: Any, spans: Spans) -> None:
    with pytest.raises(Exception, match="syntax error"):
        run("HIDDEN 1")(spans.follow(raw))
    assert spans.one.name == "main"
    assert "HIDDEN" not in spans.one.to_json()


@pytest.mark.parametrize(("word", "asked"), [("true", True), ("1", True), ("no", False), ("", False)])
@pytest.mark.parametrize("argument", [None, False])
def test_the_environment_may_ask_and_an_argument_beats_it(
    word: str, asked: bool, argument: bool | None, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite = pytest.importorskip("adbc_driver_sqlite.dbapi")
    monkeypatch.setenv("OTEL_PYTHON_ADBC_CAPTURE_QUERY_TEXT", word)
    given = {} if argument is None else {"capture_query_text": argument}
    ADBCInstrumentor().instrument(tracer_provider=spans.tracer_provider, **given)
    try:
        with sqlite.connect() as connection:
            run("SELECT 1")(connection)
    finally:
        ADBCInstrumentor().uninstrument()
    told = "db.query.text" in spans.all[-1].attributes
    assert told is (asked and argument is None)


def test_the_buckets_are_those_of_the_conventions(raw: Any, spans: Spans) -> None:
    run("SELECT 1")(spans.follow(raw))
    (duration,) = spans.points("db.client.operation.duration")
    assert duration.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    (rows,) = spans.points("db.client.response.returned_rows")
    assert rows.explicit_bounds == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class Error(Exception):
    def __init__(self, **facts: object) -> None:
        vars(self).update(facts)


@pytest.mark.parametrize(
    ("error", "system", "code"),
    [
        (Error(sqlstate="42P01", vendor_code=7), "postgresql", "42P01"),
        (Error(sqlstate="42S02", vendor_code=1146), "mysql", "1146"),
        (Error(sqlstate="42000", vendor_code=2003), "snowflake", "42000/2003"),
        (Error(sqlstate="42000", vendor_code=None), "other_sql", "42000"),
        (Error(sqlstate=None, vendor_code=1071), "other_sql", "1071"),
        (Error(sqlite_errorcode=19), "sqlite", "19"),
        (Error(sqlstate="00000", vendor_code=0), "other_sql", None),
        (Error(sqlstate="\0\0\0\0\0"), "other_sql", None),
        (Error(), "other_sql", None),
    ],
)
def test_a_status_code_is_the_most_specific_one(error: Error, system: str, code: str | None) -> None:
    assert status_code(error, system) == code


def test_the_names_of_the_table_are_the_conventions_own() -> None:
    assert incubating.DB_RESPONSE_RETURNED_ROWS == DB_RESPONSE_RETURNED_ROWS
    assert len({row.attribute for row in TABLE}) == len(TABLE)


def test_a_procedure_s_name_is_told_where_it_is_asked_for() -> None:
    class Cursor:
        description = None

        def callproc(self, name: str) -> None: ...
        def fetchone(self) -> None: ...
        def close(self) -> None: ...

    class Connection:
        def cursor(self) -> Cursor:
            return Cursor()

        def commit(self) -> None: ...
        def close(self) -> None: ...

    told = []
    for asked in (False, True):
        spans = Spans()
        spans.follow(Connection(), capture_query_text=asked).cursor().callproc("hidden")
        follows_the_table(spans.one.name, spans.one.attributes, asked_for=ASKED if asked else frozenset())
        told.append(spans.one.name)
    assert told == ["CALL", "CALL hidden"]

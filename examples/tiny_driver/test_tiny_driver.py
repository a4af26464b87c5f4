"""The driver, and what its telemetry says of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny_driver
from tiny_server import ROWS_PER_CHUNK, TinyServer

from adbc_telemetry.testing import BrokenExporter, CapturingExporter, Event

TOKEN = "a secret token"
YES = {"adbc.databricks.telemetry.enabled": "true"}
CREATE, DELETE = Event("CREATE_SESSION"), Event("DELETE_SESSION")
QUERY, UPDATE = Event("EXECUTE_STATEMENT", "QUERY"), Event("EXECUTE_STATEMENT", "UPDATE")


@pytest.fixture
def server() -> Iterator[TinyServer]:
    with TinyServer(TOKEN) as running:
        yield running


@pytest.fixture
def captured() -> CapturingExporter:
    return CapturingExporter()


def connect(server: TinyServer, exporter: Any, properties: Any = YES) -> tiny_driver.Connection:
    return tiny_driver.connect(server.url, token=TOKEN, exporter=exporter, properties=properties)


def numbers(count: int) -> str:
    return f"SELECT value FROM json_each('[{','.join(map(str, range(count)))}]')"


def test_rows_come_as_they_went_and_telemetry_says_how(
    server: TinyServer, captured: CapturingExporter
) -> None:
    with connect(server, captured) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE people (name TEXT PRIMARY KEY)")
        cursor.execute("INSERT INTO people VALUES (?), (?)", ("Ada", "Grace"))
        assert cursor.execute("SELECT name FROM people ORDER BY name").fetchall() == [("Ada",), ("Grace",)]
        assert cursor.description is not None
        assert cursor.description[0][0] == "name"
        assert connection.tables() == ["people"]
    assert captured.events == [CREATE, UPDATE, UPDATE, QUERY, Event("LIST_TABLES", "METADATA"), DELETE]
    session = {log.session_id for log in captured.driver_logs}
    assert len(session) == 1
    assert server.sessions == {}


def test_an_event_knows_polls_chunks_and_latencies(server: TinyServer, captured: CapturingExporter) -> None:
    rows = 2 * ROWS_PER_CHUNK + 1
    with connect(server, captured) as connection:
        cursor = connection.cursor().execute(numbers(rows))
        assert len(list(cursor)) == rows
    log = captured.driver_logs[1]
    assert log.sql_statement_id in server.statements
    operation = log.sql_operation
    assert operation is not None
    assert operation.operation_detail is not None
    assert operation.operation_detail.n_operation_status_calls == 2
    assert operation.chunk_details is not None
    assert operation.chunk_details.total_chunks_iterated == 3
    assert operation.result_latency is not None
    assert operation.result_latency.result_set_consumption_latency_millis == log.operation_latency_ms


@pytest.mark.parametrize("ending", ["close the cursor", "close the connection", "another statement"])
def test_rows_that_are_not_read_to_the_end_make_one_event_too(
    server: TinyServer, captured: CapturingExporter, ending: str
) -> None:
    connection = connect(server, captured)
    cursor = connection.cursor().execute(numbers(500))
    assert cursor.fetchmany(3) == [(0,), (1,), (2,)]
    if ending == "close the cursor":
        cursor.close()
        cursor.close()
    elif ending == "another statement":
        cursor.execute("DROP TABLE IF EXISTS nowhere")
    connection.close()
    connection.close()
    more = [UPDATE] if ending == "another statement" else []
    assert captured.events == [CREATE, QUERY, *more, DELETE]


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM secret_table", tiny_driver.ProgrammingError),
        ("INSERT INTO t VALUES (1), (1)", tiny_driver.IntegrityError),
    ],
)
def test_an_error_is_the_programs_and_telemetry_knows_its_class_alone(
    server: TinyServer, captured: CapturingExporter, sql: str, error: type[Exception]
) -> None:
    with connect(server, captured) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
        with pytest.raises(error):
            cursor.execute(sql)
    assert captured.events[2].error_name == error.__name__
    assert "secret" not in str(captured.logs)


def test_a_server_that_is_gone_during_a_fetch_is_an_error_of_the_statement(
    captured: CapturingExporter,
) -> None:
    with TinyServer(TOKEN) as server:
        connection = connect(server, captured)
        cursor = connection.cursor().execute(numbers(300))
        assert cursor.fetchone() == (0,)
        server.statements.clear()
        with pytest.raises(tiny_driver.OperationalError):
            cursor.fetchall()
        connection.close()
    assert captured.events == [CREATE, Event("EXECUTE_STATEMENT", "QUERY", "OperationalError"), DELETE]


@pytest.mark.parametrize("properties", [{"adbc.databricks.telemetry.enabled": "false"}, YES])
def test_the_driver_works_with_telemetry_off_and_with_telemetry_that_fails(
    server: TinyServer, properties: dict[str, str]
) -> None:
    exporter = BrokenExporter()
    with connect(server, exporter, properties) as connection:
        assert connection.cursor().execute("SELECT 1").fetchall() == [(1,)]
    assert bool(exporter.calls) is (properties is YES)


def test_a_wrong_token_is_refused(server: TinyServer) -> None:
    with pytest.raises(tiny_driver.OperationalError, match="401"):
        tiny_driver.connect(server.url, token="wrong")


def test_a_closed_connection_says_so(server: TinyServer, captured: CapturingExporter) -> None:
    connection = connect(server, captured)
    cursor = connection.cursor()
    connection.close()
    for call in (connection.cursor, connection.tables, connection.commit, lambda: cursor.execute("SELECT 1")):
        with pytest.raises(tiny_driver.InterfaceError):
            call()

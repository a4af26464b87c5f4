"""Our own events and OpenTelemetry's spans of the same connection: each without the other, and both in any order."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adbc_telemetry import InMemoryTelemetryExporter, install, instrument, uninstall
from adbc_telemetry.otel import ADBCInstrumentor
from support.adbc import ENDPOINT, Recording, enabled
from support.spans import Spans

sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")


@pytest.fixture
def recording() -> Recording:
    return Recording()


def record(connection: Any, exporter: InMemoryTelemetryExporter) -> Any:
    return instrument(connection, ENDPOINT, config=enabled(), exporter=exporter)


def query(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    cursor.fetchall()
    cursor.close()


def statement_ids(recording: Recording) -> list[str | None]:
    return [
        log.sql_statement_id
        for log in recording.driver_logs()
        if log.sql_operation is not None and log.sql_operation.statement_type is not None
    ]


def ids_of(spans: Spans) -> list[str | None]:
    return [span.attributes.get("adbc.telemetry.statement_id") for span in spans.all]


def open_adbc() -> Any:
    return sqlite_dbapi.connect()


def open_plain() -> Any:
    return sqlite3.connect(":memory:")


EACH = pytest.mark.parametrize("connect", [open_adbc, open_plain])


@EACH
@pytest.mark.parametrize("events_first", [True, False])
def test_both_listeners_of_a_connection_tell_of_the_same_statement(
    connect: Callable[[], Any], events_first: bool, recording: Recording, spans: Spans
) -> None:
    connection = connect()
    if events_first:
        connection = spans.follow(record(connection, recording))
    else:
        connection = record(spans.follow(connection), recording)
    query(connection)
    connection.commit()
    connection.close()
    assert len(spans.all) == 2
    assert ids_of(spans) == statement_ids(recording)
    assert None not in ids_of(spans)


def test_a_fetch_before_any_statement_fails_as_the_driver_has_it(recording: Recording, spans: Spans) -> None:
    with record(spans.follow(open_adbc()), recording) as connection, connection.cursor() as cursor:
        for fetch in (cursor.fetchone, cursor.fetchall):
            with pytest.raises(sqlite_dbapi.ProgrammingError, match="before execute"):
                fetch()
        assert connection._adbc_telemetry.errors == 0
    assert spans.all == []


@EACH
def test_spans_need_no_client(connect: Callable[[], Any], spans: Spans) -> None:
    connection = spans.follow(connect())
    query(connection)
    connection.close()
    assert spans.names == ["SELECT"]
    assert ids_of(spans) == [None]


@EACH
def test_events_go_on_when_spans_are_left(
    connect: Callable[[], Any], recording: Recording, spans: Spans
) -> None:
    connection = spans.follow(record(connect(), recording))
    connection = ADBCInstrumentor.uninstrument_connection(connection)
    query(connection)
    connection.close()
    assert spans.all == []
    assert len(statement_ids(recording)) == 1


@EACH
def test_a_connection_without_listeners_is_as_it_was(connect: Callable[[], Any], spans: Spans) -> None:
    raw = connect()
    kind = type(raw)
    connection = ADBCInstrumentor.uninstrument_connection(spans.follow(raw))
    assert connection is raw
    assert type(raw) is kind
    assert not hasattr(raw, "_adbc_telemetry")
    query(connection)
    assert spans.all == []
    # Once more, and nothing is there to be undone twice.
    assert ADBCInstrumentor.uninstrument_connection(raw) is raw
    query(spans.follow(raw))
    assert spans.names == ["SELECT"]
    raw.close()


@EACH
def test_to_instrument_twice_makes_one_span(connect: Callable[[], Any], spans: Spans) -> None:
    connection = spans.follow(spans.follow(connect()))
    query(connection)
    connection.close()
    assert spans.names == ["SELECT"]


def test_a_connection_that_is_its_own_cursor_is_followed(recording: Recording, spans: Spans) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = spans.follow(record(duckdb.connect(), recording))
    connection.execute("SELECT 1").fetchall()
    assert spans.names == ["SELECT"]
    assert spans.one.attributes["db.system.name"] == "duckdb"
    assert ids_of(spans) == statement_ids(recording)
    connection.close()


def test_a_clone_has_both_listeners(recording: Recording, spans: Spans) -> None:
    with spans.follow(record(open_adbc(), recording)) as connection:
        clone = connection.adbc_clone()
        query(clone)
        clone.close()
    assert spans.names == ["SELECT"]
    assert ids_of(spans) == statement_ids(recording)


def test_what_is_no_connection_is_refused(spans: Spans) -> None:
    with pytest.raises(TypeError, match="only DBAPI connections"):
        spans.follow(object())


def test_a_closed_connection_is_left_alone(spans: Spans) -> None:
    connection = open_adbc()
    connection.close()
    assert spans.follow(connection) is connection
    assert not hasattr(connection, "_adbc_telemetry")


# Every connection of the process.


@pytest.fixture
def unpatched() -> Iterator[None]:
    import adbc_driver_manager
    from adbc_driver_manager import _lib, dbapi

    def patched() -> list[object]:
        database, connection = adbc_driver_manager.AdbcDatabase, adbc_driver_manager.AdbcConnection
        return [dbapi.Connection.__init__, database, connection, _lib.AdbcDatabase, _lib.AdbcConnection]

    before = patched()
    yield
    uninstall()
    if ADBCInstrumentor().is_instrumented_by_opentelemetry:
        ADBCInstrumentor().uninstrument()
    assert patched() == before


@pytest.mark.usefixtures("unpatched")
@pytest.mark.parametrize("events_first", [True, False])
@pytest.mark.parametrize("events_leave_first", [True, False])
def test_both_come_and_go_in_any_order(
    events_first: bool, events_leave_first: bool, recording: Recording, spans: Spans
) -> None:
    def start_events() -> None:
        install(ENDPOINT, config=enabled(), exporter=recording)

    def start_spans() -> None:
        ADBCInstrumentor().instrument(tracer_provider=spans.tracer_provider)

    for start in (start_events, start_spans) if events_first else (start_spans, start_events):
        start()
    with open_adbc() as connection:
        query(connection)
    assert spans.names == ["CONNECT", "SELECT"]
    assert ids_of(spans)[1:] == statement_ids(recording)
    spans.clear()
    recording.clear()
    if events_leave_first:
        uninstall()
    else:
        ADBCInstrumentor().uninstrument()
    with open_adbc() as connection:
        query(connection)
    assert (spans.names == []) is not events_leave_first
    assert (recording.logs == []) is events_leave_first


@pytest.mark.usefixtures("unpatched")
def test_open_connections_make_no_spans_once_instrumentation_is_undone(spans: Spans) -> None:
    ADBCInstrumentor().instrument(tracer_provider=spans.tracer_provider)
    with open_adbc() as connection:
        ADBCInstrumentor().uninstrument()
        spans.clear()
        query(connection)
        assert spans.all == []
        other = Spans()
        query(other.follow(connection))
        assert other.names == ["SELECT"]


@pytest.mark.usefixtures("unpatched")
def test_instrument_connection_on_an_instrumented_process_makes_one_span(spans: Spans) -> None:
    ADBCInstrumentor().instrument(tracer_provider=spans.tracer_provider)
    with open_adbc() as connection:
        query(spans.follow(connection))
    assert spans.names == ["CONNECT", "SELECT"]

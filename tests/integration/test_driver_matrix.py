"""Every operation on every database: supported or not, and its one event, field by field."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
from msgspec import structs

from adbc_telemetry import TelemetryClientManager
from adbc_telemetry.schema import DriverConnectionParameters, ExecutionResultFormat, OssSqlDriverTelemetryLog
from adbc_telemetry.testing import Event, FakeClock, configuration, event_of
from support.databases import ADBC, ENDPOINT, WAYS, Followed, database_of, follow, followed
from support.matrix import BEHIND, CREATE, DELETE, NO, QUERY, ROWS, SELECT, YES, Row
from support.waiting import wait_until


@pytest.fixture(params=WAYS)
def on(request: pytest.FixtureRequest) -> Iterator[Followed]:
    """A connection to a database with the table t(n) of three rows, whose events so far are forgotten."""
    yield from _with_table(request, request.param)


def _with_table(request: pytest.FixtureRequest, name: str) -> Iterator[Followed]:
    for thing in followed(request, name):
        cursor = thing.connection.cursor()
        cursor.execute("CREATE TABLE t (n INT)")
        cursor.execute("INSERT INTO t VALUES (1), (2), (3)")
        cursor.close()
        if name != "duckdb":  # which is not in a transaction
            thing.connection.commit()
        settle(thing)
        thing.captured.clear()
        yield thing


def settle(thing: Followed) -> None:
    """Have everything delivered that has been enqueued."""
    with TelemetryClientManager.get_instance().acquire(ENDPOINT, configuration()) as lease:
        assert lease.client.flush(10)


CELLS = [(row, name) for row in ROWS for name in WAYS]


@pytest.mark.parametrize(("row", "name"), CELLS, ids=[f"{row.name} - {name}" for row, name in CELLS])
def test_an_operation_is_one_event_with_every_field_in_its_place(
    row: Row, name: str, request: pytest.FixtureRequest
) -> None:
    outcome = row.outcome(name)
    for thing in _with_table(request, name):
        cursor = thing.connection.cursor()
        raised: BaseException | None = None
        try:
            row.call(thing, cursor)
        except Exception as error:  # noqa: BLE001 - compared
            raised = error
        settle(thing)
        if outcome == NO:
            on, _, method = row.name.rpartition(".")
            if hasattr({"cursor": cursor, "connection": thing.connection}.get(on), method):
                pytest.skip("this version of the driver has the method")
            assert isinstance(raised, (AttributeError, TypeError)), raised
            assert not thing.captured.events or row.name == "iteration"
            cursor.close()
            continue
        if outcome == BEHIND:
            assert not thing.captured.events
            cursor.close()
            settle(thing)
            [log] = thing.captured.driver_logs
            assert event_of(log) == row.event
            assert latencies(log)[1] is None
            continue
        told = thing.captured.driver_logs
        cursor.close()
        assert len(told) == 1, [event_of(log) for log in told]
        if outcome == YES:
            assert raised is None, raised
            assert event_of(told[0]) == row.event
        else:
            assert type(raised).__name__ == outcome, raised
            assert event_of(told[0]) == row.event._replace(error_name=outcome)
        assert_every_field(told[0], thing, row, raised)


def assert_every_field(
    log: OssSqlDriverTelemetryLog, thing: Followed, row: Row, raised: BaseException | None
) -> None:
    adbc = thing.database.adbc
    assert log.session_id == "the session"
    assert len(log.sql_statement_id or "") == 36
    assert log.auth_type is None
    assert log.vol_operation is None
    assert_facts(log, thing)
    operation = log.sql_operation
    assert operation is not None
    assert operation.is_compressed is None
    assert operation.chunk_id is None
    assert operation.retry_count is None
    assert operation.chunk_details is None
    assert operation.java_uses_patched_arrow is None
    has_results = row.results and raised is None
    assert operation.execution_result is (
        ExecutionResultFormat.INLINE_ARROW if adbc and has_results else None
    )
    detail = operation.operation_detail
    assert detail is not None
    assert detail.n_operation_status_calls is None
    assert detail.operation_status_latency_millis is None
    assert detail.is_internal_call is False
    latency = operation.result_latency
    assert log.operation_latency_ms is not None
    if raised is not None:
        assert latency is None
        assert log.error_info is not None
        assert log.error_info.stack_trace is None
        return
    assert log.error_info is None
    assert latency is not None
    assert latency.result_set_ready_latency_millis is not None
    assert 0 <= latency.result_set_ready_latency_millis <= log.operation_latency_ms
    if row.to_the_end:
        assert latency.result_set_consumption_latency_millis == log.operation_latency_ms
    else:
        assert latency.result_set_consumption_latency_millis is None


PARAMETERS = {
    "ADBC SQLite": DriverConnectionParameters(enable_arrow=True, auto_commit=False),  # and its batch_rows
    "ADBC DuckDB": DriverConnectionParameters(enable_arrow=True, auto_commit=False),
    "ADBC PostgreSQL": DriverConnectionParameters(enable_arrow=True, auto_commit=False),
    "sqlite3": DriverConnectionParameters(enable_arrow=False),
    "duckdb": DriverConnectionParameters(enable_arrow=False),
    "psycopg": DriverConnectionParameters(enable_arrow=False, auto_commit=False),
}


def assert_facts(log: OssSqlDriverTelemetryLog, thing: Followed) -> None:
    """What is told of the driver and of the connection."""
    name = thing.database.name
    system = log.system_configuration
    assert system is not None
    if name in ADBC:
        assert system.driver_name == f"ADBC {name.removeprefix('ADBC ')} Driver"
        assert system.driver_version
    else:
        assert system.driver_name == name
        assert system.driver_version == (None if name == "sqlite3" else metadata.version(name))
    expected = PARAMETERS[name]
    if name == "ADBC SQLite":
        expected = structs.replace(expected, rows_fetched_per_block=_batch_rows())
    assert log.driver_connection_params == expected


@functools.cache
def _batch_rows() -> int | None:
    """What this version of the driver tells."""
    import adbc_driver_sqlite.dbapi

    with adbc_driver_sqlite.dbapi.connect() as connection:
        try:
            return int(connection.adbc_connection.get_option("adbc.sqlite.query.batch_rows"))
        except connection.Error:
            return None


def test_a_session_is_one_event_at_its_beginning_and_one_at_its_end(request: pytest.FixtureRequest) -> None:
    for name in WAYS:
        thing = follow(database_of(request, name))
        created = thing.captured.wait_for(1)
        assert [event_of(log) for log in created] == [CREATE]
        thing.connection.close()
        logs = thing.captured.wait_for(2)
        assert [event_of(log) for log in logs] == [CREATE, DELETE]
        for log in logs:
            assert log.session_id == "the session"
            assert_facts(log, thing)
            assert log.sql_operation is not None
            assert log.sql_operation.execution_result is None
        assert TelemetryClientManager.get_instance().ref_count(ENDPOINT) == 0


@pytest.mark.parametrize("name", ADBC)
def test_a_clone_is_a_session_of_its_own(name: str, request: pytest.FixtureRequest) -> None:
    for thing in followed(request, name):
        clone = thing.connection.adbc_clone()
        assert [event_of(log) for log in thing.captured.wait_for(2)] == [CREATE, CREATE]
        clone.close()
        logs = thing.captured.wait_for(3)
        assert event_of(logs[2]) == DELETE
        assert logs[1].session_id == logs[2].session_id != logs[0].session_id


# What an event says of time is true. The clock is turned by hand.


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with FakeClock() as fake:
        yield fake


def latencies(log: OssSqlDriverTelemetryLog) -> tuple[int | None, int | None, int | None]:
    """To the first rows, to the last, and in all."""
    assert log.sql_operation is not None
    latency = log.sql_operation.result_latency
    if latency is None:
        return None, None, log.operation_latency_ms
    return (
        latency.result_set_ready_latency_millis,
        latency.result_set_consumption_latency_millis,
        log.operation_latency_ms,
    )


def test_latency_is_told_to_the_first_rows_and_to_the_last(clock: FakeClock, on: Followed) -> None:
    cursor = on.connection.cursor()
    cursor.execute(SELECT)
    clock.advance_ms(30)
    assert cursor.fetchone() == (1,)
    clock.advance_ms(20)
    assert cursor.fetchall() == [(2,), (3,)]
    clock.advance_ms(1000)
    [log] = on.captured.wait_for(1)
    cursor.close()
    assert latencies(log) == (30, 50, 50)


@pytest.mark.parametrize("end", ["close", "execute again", "connection", "drop"])
def test_an_abandoned_statement_lasts_until_the_last_thing_that_happened(
    end: str, clock: FakeClock, on: Followed
) -> None:
    cursor = on.connection.cursor()
    cursor.execute(SELECT)
    clock.advance_ms(30)
    cursor.fetchone()
    clock.advance_ms(15)
    cursor.fetchone()
    clock.advance_ms(600_000)
    if end == "close":
        cursor.close()
    elif end == "execute again":
        cursor.execute(SELECT)
    elif end == "connection":
        on.connection.close()
    else:
        with pytest.warns(ResourceWarning) if on.database.adbc else contextlib.nullcontext():
            del cursor
    log = on.captured.wait_for(1)[0]
    assert event_of(log) == QUERY
    assert latencies(log) == (30, None, 45)
    if end == "execute again":
        cursor.close()


def test_a_statement_without_a_fetch_lasts_until_it_was_executed(clock: FakeClock, on: Followed) -> None:
    cursor = on.connection.cursor()
    cursor.execute(SELECT)
    clock.advance_ms(600_000)
    cursor.close()
    [log] = on.captured.wait_for(1)
    assert latencies(log) == (0, None, 0)


def _sleep(cursor: Any, errors: list[BaseException]) -> None:
    try:
        cursor.execute("SELECT pg_sleep(60)")
        cursor.fetchall()
    except Exception as error:  # noqa: BLE001 - looked at by the test
        errors.append(error)


@pytest.mark.parametrize("name", ["ADBC PostgreSQL", "psycopg"])
def test_a_cancelled_statement_is_one_event_with_the_error(name: str, request: pytest.FixtureRequest) -> None:
    psycopg = pytest.importorskip("psycopg")
    server = request.getfixturevalue("postgres")
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'"
    for thing in followed(request, name):
        cursor = thing.connection.cursor()
        errors: list[BaseException] = []

        thread = threading.Thread(target=_sleep, args=(cursor, errors))
        thread.start()
        with psycopg.connect(server.uri(), autocommit=True) as watching:
            wait_until(lambda: watching.execute(running).fetchone() == (1,))
        cancel = cursor.adbc_cancel if thing.database.adbc else thing.connection.cancel
        cancel()
        thread.join(30)
        cursor.close()
        settle(thing)
        [error] = errors
        failed = QUERY._replace(error_name=type(error).__name__)
        cancelled = [Event("CANCEL_STATEMENT", "QUERY")] if thing.database.adbc else []
        told = thing.captured.events[1:]
        assert sorted(told, key=repr) == sorted([failed, *cancelled], key=repr)
        ids = {log.sql_statement_id for log in thing.captured.driver_logs[1:]}
        assert len(ids) == 1
        thing.connection.rollback()

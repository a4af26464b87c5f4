"""A session on an ADBC connection begins and ends once, and lets go of its client."""

from __future__ import annotations

import sys
import time
import weakref
from typing import Any

import pytest

from adbc_telemetry import (
    TelemetryClientLease,
    TelemetryClientManager,
    instrument,
)
from support.adbc import (
    CREATE,
    DELETE,
    ENDPOINT,
    QUERY,
    THREE_ROWS,
    Recording,
    connect_sqlite,
    enabled,
    event_of,
    wait_for_no_clients,
)
from support.server import TelemetryServer, black_hole, raw_endpoint

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

# Sessions and leases.


def test_a_session_begins_and_ends_once(connect: Any, recording: Recording) -> None:
    connection = connect()
    assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
    assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
    manager = TelemetryClientManager.get_instance()
    assert manager.ref_count(ENDPOINT) == 1
    assert recording.events() == [CREATE]
    connection.close()
    connection.close()
    assert recording.events() == [CREATE, DELETE]
    assert manager.ref_count(ENDPOINT) == 0


def test_a_dropped_connection_ends_its_session_too(connect: Any, recording: Recording) -> None:
    holder = [instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)]
    alive = weakref.ref(holder[0])
    with pytest.warns(ResourceWarning, match=r"adbc_driver_manager\.dbapi\.Connection was not explicitly"):
        holder.clear()
    assert alive() is None  # at once, without the help of the garbage collector: we have made no cycle
    wait_for_no_clients()
    assert recording.events() == [CREATE, DELETE]


def test_dropping_a_connection_does_not_wait_for_delivery() -> None:
    with raw_endpoint(black_hole) as url:
        config = enabled(close_timeout_ms=1500, request_timeout_ms=30_000)
        holder = [instrument(connect_sqlite(), url, config=config)]
        start = time.perf_counter()
        with pytest.warns(ResourceWarning):
            holder.clear()
        assert time.perf_counter() - start < 0.5
        wait_for_no_clients()


def test_closing_a_connection_delivers(server: TelemetryServer) -> None:
    with instrument(connect_sqlite(), server.url, config=enabled()) as connection:
        connection.execute("SELECT 1").close()
    sent = [
        log["entry"]["sql_driver_log"]["sql_operation"] for request in server.requests for log in request.logs
    ]
    operations = [operation["operation_detail"]["operation_type"] for operation in sent]
    assert operations == ["CREATE_SESSION", "EXECUTE_STATEMENT", "DELETE_SESSION"]


def test_a_clone_is_a_session_of_its_own(recording: Recording, sqlite: Any) -> None:
    clone = sqlite.adbc_clone()
    clone.execute("SELECT 1").close()
    clone.close()
    logs = recording.driver_logs()
    assert [event_of(log) for log in logs] == [CREATE, CREATE, QUERY, DELETE]
    assert [log.session_id == logs[0].session_id for log in logs] == [True, False, False, False]


def test_a_connection_that_will_not_close_stays_open_and_is_told_once(
    sqlite: Any, recording: Recording
) -> None:
    statement = sqlite.adbc_connection
    lost = adbc_statement(statement)
    with pytest.raises(RuntimeError, match="open AdbcStatement"):
        sqlite.close()
    assert recording.events() == [CREATE]
    lost.close()
    sqlite.close()
    assert recording.events() == [CREATE, ("DELETE_SESSION", None, "RuntimeError")]


def test_a_dropped_connection_that_will_not_close_ends_its_session(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[type[BaseException] | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    holder = [instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording)]
    lost = adbc_statement(holder[0].adbc_connection)
    holder.clear()
    assert unraisable == [RuntimeError]
    wait_for_no_clients()
    assert recording.events() == [CREATE, ("DELETE_SESSION", None, "RuntimeError")]
    lost.close()


def test_a_closed_connection_has_nothing_left_to_do_when_it_dies(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording)
    connection.close()
    released: list[object] = []
    monkeypatch.setattr(TelemetryClientLease, "release_soon", lambda lease: released.append(lease))
    del connection
    assert released == []


def adbc_statement(connection: Any) -> Any:
    import adbc_driver_manager

    return adbc_driver_manager.AdbcStatement(connection)


def test_events_after_the_client_has_gone_are_harmless(sqlite: Any) -> None:
    cursor = sqlite.cursor()
    cursor.execute(THREE_ROWS)
    TelemetryClientManager.get_instance().close_all()
    assert cursor.fetchall() == [(1,), (2,), (3,)]
    cursor.execute("SELECT 4")
    assert cursor.fetchall() == [(4,)]
    cursor.close()

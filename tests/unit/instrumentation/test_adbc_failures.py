"""What fails in telemetry, races with another thread or interrupts it stays out of the program."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from adbc_telemetry import (
    TelemetryClient,
    TelemetryClientManager,
    instrument,
)
from adbc_telemetry.context import StatementTelemetryContext
from adbc_telemetry.instrumentation import driver_info
from adbc_telemetry.instrumentation import statement_recorder as recorder_module
from adbc_telemetry.instrumentation.operations import classify
from adbc_telemetry.schema import (
    StatementType,
    TelemetryFrontendLog,
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
    run,
    wait_for_no_clients,
)

dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
_lib = pytest.importorskip("adbc_driver_manager._lib")
pyarrow = pytest.importorskip("pyarrow")
sqlite_dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")


def _broken(*args: object, **kwargs: object) -> None:
    raise ZeroDivisionError("telemetry is broken")


@pytest.mark.parametrize("name", ["__init__", "record_execute_complete", "record_error", "emit"])
def test_errors_of_telemetry_itself_do_not_reach_the_program(
    name: str, connect: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = run(connect())
    connection = instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)
    monkeypatch.setattr(StatementTelemetryContext, name, _broken)
    assert run(connection) == without
    wait_for_no_clients()


def test_errors_of_a_client_do_not_reach_the_program_and_are_counted(
    connect: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = run(connect())
    monkeypatch.setattr(TelemetryClient, "enqueue", _broken)
    connection = instrument(connect(), ENDPOINT, config=enabled(), exporter=recording)
    recorder = connection._adbc_telemetry
    assert run(connection) == without
    assert recorder.errors > 10
    wait_for_no_clients()


@pytest.mark.parametrize("owner", ["client", "class"])
def test_a_spy_on_the_client_sees_logs(owner: str, sqlite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    client = sqlite._adbc_telemetry.session.client
    if owner == "client":
        monkeypatch.setattr(client, "enqueue", seen.append)
    else:
        monkeypatch.setattr(TelemetryClient, "enqueue", lambda self, log: seen.append(log))
    sqlite.execute("SELECT 1").close()
    monkeypatch.undo()
    assert [type(log) for log in seen] == [TelemetryFrontendLog]


def test_a_description_that_fails_is_counted_and_costs_nothing_else(
    sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    @property  # type: ignore[misc]
    def broken(cursor: object) -> None:
        raise ZeroDivisionError("the driver is broken")

    with sqlite.cursor() as cursor:
        with monkeypatch.context() as patch:
            patch.setattr(dbapi.Cursor, "description", broken)
            cursor.execute("WITH x AS (SELECT 1) SELECT * FROM x")
        assert cursor.fetchall() == [(1,)]
        assert cursor._adbc_telemetry.connection.errors == 1
    assert recording.statements() == [QUERY]


def test_sql_that_cannot_even_be_looked_at_is_the_drivers_to_judge(sqlite: Any, recording: Recording) -> None:
    class Odd:
        @property  # type: ignore[misc]
        def __class__(self) -> type[Any]:
            raise OverflowError("not to be looked at")

    assert classify(Odd()).statement_type is StatementType.SQL
    with sqlite.cursor() as cursor:
        with pytest.raises(OverflowError):
            cursor.execute(Odd())
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    assert recording.statements() == [("EXECUTE_STATEMENT", "SQL", "OverflowError"), QUERY]


@pytest.mark.parametrize("name", ["acquire", "get_instance"])
def test_a_connection_that_cannot_be_followed_is_left_as_it_is(
    name: str, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("telemetry is broken")

    with connect_sqlite() as connection, monkeypatch.context() as patch:
        patch.setattr(TelemetryClientManager, name, broken)
        cls, state = type(connection), dict(vars(connection))
        assert instrument(connection, ENDPOINT, config=enabled(), exporter=recording) is connection
        assert type(connection) is cls
        assert vars(connection) == state


def test_a_driver_that_does_not_tell_its_name_is_followed_all_the_same(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert driver_info.driver_name_and_version(None) == (None, None)
    monkeypatch.setattr(driver_info, "driver_name_and_version", lambda connection: (None, None))
    instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording).close()
    assert recording.events() == [CREATE, DELETE]
    assert recording.driver_logs()[0].system_configuration.driver_name == "adbc-telemetry"  # type: ignore[union-attr]


def test_of_two_threads_that_end_a_statement_one_emits_it(sqlite: Any, recording: Recording) -> None:
    with sqlite.cursor() as cursor:
        cursor.execute("SELECT 1")
        recorder = cursor._adbc_telemetry
        recorder.fetched(True)
        recorder._end(None, None, 0)  # by a thread that had looked before
    assert recording.statements() == [QUERY]
    assert sqlite._adbc_telemetry.errors == 0


@pytest.mark.parametrize("first", [False, True])
def test_a_statement_may_be_ended_as_soon_as_it_has_begun(
    first: bool, sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closing(self: Any, *args: Any) -> None:
        self.close()

    cursor = sqlite.cursor()
    if not first:
        cursor.execute("SELECT 1").fetchall()
    with monkeypatch.context() as patch:
        patch.setattr(dbapi.Cursor, "execute", closing)
        cursor.execute("SELECT 1")
    with pytest.raises(dbapi.ProgrammingError):
        cursor.fetchall()
    assert recording.statements() == [QUERY] * (1 if first else 2)
    assert sqlite._adbc_telemetry.errors == 0
    latency = recording.driver_logs()[-1].operation_latency_ms
    assert latency is not None
    assert 0 <= latency < 60_000


def test_a_fetch_in_the_middle_of_an_execution_is_no_error_of_ours(
    sqlite: Any, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetching(self: Any, *args: Any) -> None:
        self.fetchone()

    with sqlite.cursor() as cursor, monkeypatch.context() as patch:
        patch.setattr(dbapi.Cursor, "execute", fetching)
        patch.setattr(dbapi.Cursor, "fetchone", lambda self: (1,))
        cursor.execute("SELECT 1")
    assert recording.statements() == [QUERY]
    assert sqlite._adbc_telemetry.errors == 0


def test_an_exception_out_of_the_blue_is_not_replaced_by_one_of_ours(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a signal handler, at every single instruction's end that is a call in `begin`."""
    for name in ("monotonic_ns", "next_number", "classify"):
        original = getattr(recorder_module, name)

        def interrupt(*args: object, name: str = name, original: Any = original) -> None:
            monkeypatch.setattr(recorder_module, name, original)
            raise TimeoutError

        monkeypatch.setattr(recorder_module, name, interrupt)
        with pytest.raises(TimeoutError), sqlite.cursor() as cursor:
            cursor.execute("WITH x AS (SELECT 1) SELECT * FROM x")
        with sqlite.cursor() as cursor:
            cursor.execute("SELECT 1").fetchall()
    assert sqlite._adbc_telemetry.errors == 0


def test_the_driver_meets_the_limit_of_recursion_or_no_code_does(
    sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(*args: object) -> None:
        raise RecursionError

    with sqlite.cursor() as cursor:
        monkeypatch.setattr(recorder_module, "StatementRecord", too_deep)
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
        cursor.execute("SELECT 1")
    assert sqlite._adbc_telemetry.errors == 2


def test_rows_may_be_fetched_while_another_thread_closes(recording: Recording) -> None:
    for _ in range(20):
        connection = instrument(connect_sqlite(), ENDPOINT, config=enabled(), exporter=recording)
        cursor = connection.cursor()
        cursor.execute(THREE_ROWS)
        closer = threading.Thread(target=cursor._adbc_telemetry.end)
        closer.start()
        cursor.fetchall()
        closer.join()
        cursor.close()
        connection.close()
    assert Counter(recording.events()) == {CREATE: 20, QUERY: 20, DELETE: 20}

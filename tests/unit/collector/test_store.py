"""The store and the report on it, in real DuckDB files."""

from __future__ import annotations

import os
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from rich.console import Console  # noqa: E402

from adbc_telemetry import schema  # noqa: E402
from adbc_telemetry.collector import (  # noqa: E402
    Store,
    StoreError,
    build_report,
    intake,
    open_database,
    render_report,
)
from support.collecting import (  # noqa: E402
    TIMEOUT,
    Gate,
    a_log,
    encoded,
    kept,
    request_body,
    rows,
)


def test_requests_that_queue_up_share_a_transaction(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with Store(database) as store:
        first = store.add(kept(1))
        assert gate.entered.wait(TIMEOUT)
        others = [store.add(kept(2)) for _ in range(10)]
        assert not any(write.done() for write in (first, *others)), "answered before it is committed"
        gate.opened.set()
        for write in (first, *others):
            write.result(TIMEOUT)
        assert gate.groups == [1, 10]
        assert store.report().events == 21


def test_a_request_that_cannot_be_stored_takes_no_other_with_it(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Store(database) as store:
        store.add(kept(1))
        assert gate.entered.wait(TIMEOUT)
        gate.poison = kept(1)
        before, poisoned, after = store.add(kept(1)), store.add(gate.poison), store.add(kept(1))
        gate.opened.set()
        before.result(TIMEOUT)
        after.result(TIMEOUT)
        with pytest.raises(duckdb.ConversionException):
            poisoned.result(TIMEOUT)
        assert store.report().events == 3


def test_a_request_that_was_given_up_does_not_stop_the_writer(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with Store(database) as store:
        store.add(kept(1))
        assert gate.entered.wait(TIMEOUT)
        assert store.add(kept(1)).cancel()
        last = store.add(kept(1))
        gate.opened.set()
        last.result(TIMEOUT)


def test_closing_the_store_commits_what_is_queued(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    store = Store(database)
    writes = [store.add(kept(3)) for _ in range(4)]
    closing = [threading.Thread(target=store.close) for _ in range(2)]
    for thread in closing:
        thread.start()
    gate.opened.set()
    for thread in closing:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert all(write.done() and write.exception() is None for write in writes)
    with pytest.raises(StoreError):
        store.add(kept(1))
    assert rows(database, "SELECT count(*) FROM logs") == [(12,)]
    assert not Path(f"{database}.wal").exists()


def test_no_logs_at_all_are_stored_too(database: Path) -> None:
    with Store(database) as store:
        store.add([]).result(TIMEOUT)
        assert store.report().events == 0


def test_a_file_can_be_opened_again_and_grows(database: Path) -> None:
    for expected in (2, 4):
        with Store(database) as store:
            store.add(kept(2)).result(TIMEOUT)
            assert store.report().events == expected


def test_a_file_that_is_not_a_database_is_named(database: Path) -> None:
    database.write_bytes(b"hello" * 1000)
    with pytest.raises(StoreError, match=r"telemetry\.duckdb is not a DuckDB file; give another one"):
        Store(database)


def test_a_database_of_another_program_is_left_alone(database: Path) -> None:
    connection = duckdb.connect(str(database))
    connection.execute("CREATE TABLE logs (line VARCHAR)")
    connection.close()
    with pytest.raises(StoreError, match="not of this collector"):
        Store(database)
    with pytest.raises(StoreError, match="not of this collector"):
        open_database(database, read_only=True)


def test_a_file_that_is_not_there_cannot_be_reported_on(database: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_database(database, read_only=True)
    assert not database.exists()


# The report


def test_the_report_counts_and_ranks(database: Path) -> None:
    def operation(statement: str, detail: str) -> schema.SqlExecutionEvent:
        return schema.SqlExecutionEvent(
            statement_type=schema.StatementType[statement],
            operation_detail=schema.OperationDetail(operation_type=schema.OperationType[detail]),
        )

    logs = [
        *(
            a_log(
                sql_operation=operation("QUERY", "EXECUTE_STATEMENT"),
                operation_latency_ms=latency,
                sql_statement_id=f"statement-{latency}",
            )
            for latency in range(101)
        ),
        a_log(
            sql_operation=operation("METADATA", "LIST_TABLES"),
            session_id="session-2",
            error_info=schema.DriverErrorInfo(error_name="ProgrammingError"),
            system_configuration=schema.DriverSystemConfiguration(driver_name="a driver", driver_version="2"),
        ),
        a_log(
            sql_operation=None,
            operation_latency_ms=None,
            error_info=schema.DriverErrorInfo(error_name="InterfaceError"),
        ),
        a_log(
            sql_operation=operation("METADATA", "LIST_TABLES"),
            error_info=schema.DriverErrorInfo(error_name="ProgrammingError"),
        ),
    ]
    with Store(database) as store:
        store.add(intake.read_request(request_body(*map(encoded, logs))).logs).result(TIMEOUT)
        while_collecting = store.report()
    connection = open_database(database, read_only=True)
    report = build_report(connection)
    assert build_report(connection) == report, "it must leave no transaction open"
    connection.close()
    assert report == while_collecting
    assert (report.events, report.errors, report.sessions, report.statements, report.drivers) == (
        104,
        3,
        2,
        101,
        2,
    )
    assert report.first == report.last == datetime(2025, 11, 24, 16, 0, 0, 123_000, timezone.utc)
    table = [
        (row.operation_type, row.statement_type, row.count, row.errors, row.p50_ms, row.p95_ms, row.p99_ms)
        for row in report.operations
    ]
    assert table == [
        ("EXECUTE_STATEMENT", "QUERY", 101, 0, 50.0, 95.0, 99.0),
        ("LIST_TABLES", "METADATA", 2, 2, 12.0, 12.0, 12.0),
        (None, None, 1, 1, None, None, None),
    ]
    assert [(row.error_name, row.count) for row in report.top_errors] == [
        ("ProgrammingError", 2),
        ("InterfaceError", 1),
    ]


def test_a_senders_words_are_printed_as_text(database: Path) -> None:
    with Store(database) as store:
        log = a_log(error_info=schema.DriverErrorInfo(error_name="[bold]Error\x1b[2J"))
        store.add(intake.read_request(request_body(encoded(log))).logs).result(TIMEOUT)
        report = store.report()
    console = Console(width=100, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    render_report(report, console)
    console.file.close()
    printed = console.export_text()
    assert "[bold]Error\N{REPLACEMENT CHARACTER}[2J" in printed
    assert "EXECUTE_STATEMENT" in printed

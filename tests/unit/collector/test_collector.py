"""The collector over real sockets, into real DuckDB files."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

import msgspec  # noqa: E402
import urllib3  # noqa: E402
from rich.console import Console  # noqa: E402

from adbc_telemetry import schema  # noqa: E402
from adbc_telemetry.collector import (  # noqa: E402
    Collector,
    Report,
    Store,
    StoreError,
    app,
    build_report,
    intake,
    open_database,
    render_report,
)

TIMEOUT = 20.0


def a_log(**fields: Any) -> schema.TelemetryFrontendLog:
    """A complete log; fields of the driver's log may be given."""
    driver_log: dict[str, Any] = {
        "session_id": "session-1",
        "sql_statement_id": "statement-1",
        "auth_type": "pat",
        "operation_latency_ms": 12,
        "system_configuration": schema.DriverSystemConfiguration(
            driver_name="a driver", driver_version="1.2", runtime_version="3.11", os_name="Linux"
        ),
        "sql_operation": schema.SqlExecutionEvent(
            statement_type=schema.StatementType.QUERY,
            execution_result=schema.ExecutionResultFormat.INLINE_ARROW,
            is_compressed=True,
            retry_count=2,
            result_latency=schema.ResultLatency(
                result_set_ready_latency_millis=7, result_set_consumption_latency_millis=30
            ),
            operation_detail=schema.OperationDetail(
                operation_type=schema.OperationType.EXECUTE_STATEMENT, is_internal_call=False
            ),
        ),
        **fields,
    }
    return schema.TelemetryFrontendLog(
        workspace_id=2**63 - 1,
        frontend_log_event_id=str(uuid.uuid4()),
        context=schema.FrontendLogContext(
            client_context=schema.TelemetryClientContext(
                timestamp_millis=1_764_000_000_123, user_agent="test/1"
            )
        ),
        entry=schema.FrontendLogEntry(sql_driver_log=schema.OssSqlDriverTelemetryLog(**driver_log)),
    )


def encoded(log: schema.TelemetryFrontendLog) -> str:
    return msgspec.json.encode(log).decode()


def altered(path: str, value: object) -> str:
    """A good log's JSON with one value put where `path` says, or taken out for `...`."""
    log: dict[str, Any] = json.loads(encoded(a_log()))
    *parents, name = path.split(".")
    inner = log
    for parent in parents:
        inner = inner.setdefault(parent, {})
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return json.dumps(log)


def request_body(*logs: str) -> bytes:
    return json.dumps({"uploadTime": 1_764_000_000_000, "items": [], "protoLogs": logs}).encode()


class Sender:
    """One connection to a collector, kept alive; requests are never repeated."""

    def __init__(self, url: str) -> None:
        parsed = urllib3.util.parse_url(url)
        self.pool = urllib3.HTTPConnectionPool(
            parsed.hostname or "", parsed.port, maxsize=1, timeout=TIMEOUT, retries=False
        )

    def post(
        self, body: bytes, path: str = "/telemetry-ext", **headers: str
    ) -> tuple[int, schema.TelemetryResponse]:
        answer = self.pool.request(
            "POST",
            path,
            body=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        return answer.status, msgspec.json.decode(answer.data, type=schema.TelemetryResponse)

    def send(self, *logs: str) -> schema.TelemetryResponse:
        status, response = self.post(request_body(*logs))
        assert status == 200
        return response

    def get(self, path: str) -> tuple[int, bytes]:
        answer = self.pool.request("GET", path)
        return answer.status, answer.data


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.duckdb"


@pytest.fixture
def collector(database: Path) -> Iterator[Collector]:
    with Collector(database) as collector:
        yield collector


@pytest.fixture
def sender(collector: Collector) -> Iterator[Sender]:
    sender = Sender(collector.url)
    yield sender
    sender.pool.close()


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What a file holds, once its collector has stopped."""
    connection = duckdb.connect(str(database), read_only=True)
    try:
        found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        return found
    finally:
        connection.close()


def report_of(sender: Sender) -> Report:
    status, content = sender.get("/report")
    assert status == 200
    return msgspec.json.decode(content, type=Report)


# What is kept


def test_a_log_is_kept_whole_and_in_columns(collector: Collector, sender: Sender, database: Path) -> None:
    log = a_log(error_info=schema.DriverErrorInfo(error_name="OperationalError"))
    before = datetime.now(timezone.utc).replace(tzinfo=None)
    assert sender.send(encoded(log)).numProtoSuccess == 1
    collector.stop()
    ((text, received_at, *columns),) = rows(
        database,
        """SELECT log, received_at, event_id, workspace_id, session_id, sql_statement_id, "timestamp", user_agent,
        driver_name, driver_version, runtime_version, os_name, statement_type, operation_type, execution_result,
        is_compressed, error_name, operation_latency_ms, result_set_ready_latency_ms,
        result_set_consumption_latency_ms, retry_count, is_internal_call FROM logs""",
    )
    assert text == encoded(log)
    assert before <= received_at <= datetime.now(timezone.utc).replace(tzinfo=None)
    assert log.frontend_log_event_id is not None
    assert columns == [
        uuid.UUID(log.frontend_log_event_id),
        2**63 - 1,
        "session-1",
        "statement-1",
        datetime(2025, 11, 24, 16, 0, 0, 123_000),
        "test/1",
        "a driver",
        "1.2",
        "3.11",
        "Linux",
        "QUERY",
        "EXECUTE_STATEMENT",
        "INLINE_ARROW",
        True,
        "OperationalError",
        12,
        7,
        30,
        2,
        False,
    ]


def test_the_least_log_is_kept(collector: Collector, sender: Sender, database: Path) -> None:
    least = schema.TelemetryFrontendLog(
        frontend_log_event_id=str(uuid.uuid4()),
        entry=schema.FrontendLogEntry(sql_driver_log=schema.OssSqlDriverTelemetryLog()),
    )
    text = json.dumps({"frontend_log_event_id": least.frontend_log_event_id, "entry": {"sql_driver_log": {}}})
    assert sender.send(text).numProtoSuccess == 1
    collector.stop()
    assert rows(database, "SELECT log, operation_type, workspace_id FROM logs") == [(text, None, None)]


@pytest.mark.parametrize("path", ["/telemetry-ext", "/telemetry-unauth"])
def test_both_endpoints_take_logs_with_any_headers(sender: Sender, path: str) -> None:
    assert sender.post(request_body(encoded(a_log())), path, Authorization="Bearer token")[0] == 200
    assert report_of(sender).events == 1


def test_a_gzipped_body_is_read(sender: Sender) -> None:
    status, response = sender.post(gzip.compress(request_body(encoded(a_log()))), Content_Encoding="gzip")
    assert (status, response.numProtoSuccess) == (200, 1)


def test_an_event_that_comes_twice_is_kept_once_and_counts_as_kept(sender: Sender) -> None:
    text = encoded(a_log())
    assert sender.send(text, text).numProtoSuccess == 2
    assert sender.send(text).numProtoSuccess == 1
    assert report_of(sender).events == 1


def test_logs_from_many_senders_are_each_kept_once(collector: Collector, sender: Sender) -> None:
    def send(_: int) -> int:
        one = Sender(collector.url)
        kept = sum(one.send(*(encoded(a_log()) for _ in range(10))).numProtoSuccess for _ in range(10))
        one.pool.close()
        return kept

    with ThreadPoolExecutor(8) as senders:
        assert sum(senders.map(send, range(8))) == 800
    assert report_of(sender).events == 800


def test_a_clock_that_no_calendar_knows_costs_the_column_not_the_log(
    collector: Collector, sender: Sender, database: Path
) -> None:
    path = "context.client_context.timestamp_millis"
    assert sender.send(altered(path, 2**63 - 1), altered(path, -1), encoded(a_log())).numProtoSuccess == 3
    assert report_of(sender).events == 3
    collector.stop()
    assert rows(database, 'SELECT count(*), count("timestamp") FROM logs') == [(3, 1)]


# What is refused

BAD_LOGS = {
    "not JSON": "SECRET",
    "not an object": '["SECRET"]',
    "an unknown field": altered("entry.sql_driver_log.SECRET", 1),
    # msgspec puts the closing quote itself, and then the name ends like one of its paths.
    "an unknown field that looks like a path": altered("x - at `$SECRET", 1),
    "a wrong type": altered("entry.sql_driver_log.session_id", 5),
    "null": altered("entry.sql_driver_log.session_id", None),
    "an unknown enum name": altered("entry.sql_driver_log.sql_operation.statement_type", "SECRET"),
    "an enum number": altered("entry.sql_driver_log.sql_operation.statement_type", 1),
    "no event id": altered("frontend_log_event_id", ...),
    "an event id that is no UUID": altered("frontend_log_event_id", "SECRET"),
    "no entry": altered("entry", ...),
    "no driver's log": altered("entry.sql_driver_log", ...),
    "a workspace beyond int64": altered("workspace_id", 2**63),
    "a latency below int64": altered("entry.sql_driver_log.operation_latency_ms", -(2**63) - 1),
    "a boolean for a number": altered("entry.sql_driver_log.operation_latency_ms", True),
} | {
    f"{path} beyond int32": altered(f"entry.sql_driver_log.{path}", 2**31)
    for path in (
        "driver_connection_params.host_info.port",
        "driver_connection_params.string_column_length",
        "sql_operation.operation_detail.n_operation_status_calls",
        "sql_operation.chunk_details.total_chunks_present",
        "sql_operation.chunk_details.total_chunks_iterated",
    )
}


@pytest.mark.parametrize("bad", BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_a_bad_log_is_answered_and_the_good_ones_are_kept(sender: Sender, bad: str) -> None:
    response = sender.send(encoded(a_log()), bad, encoded(a_log()))
    assert response.numProtoSuccess == 2
    (error,) = response.errors
    assert error.startswith("protoLogs[1] was refused: ")
    assert error.endswith(".")
    assert len(error) < 200
    assert "SECRET" not in error
    assert report_of(sender).events == 2


def test_numbers_at_the_ends_of_their_range_are_taken(sender: Sender) -> None:
    response = sender.send(
        altered("entry.sql_driver_log.driver_connection_params.host_info.port", -(2**31)),
        altered("entry.sql_driver_log.driver_connection_params.rows_fetched_per_block", 2**63 - 1),
        altered("entry.sql_driver_log.operation_latency_ms", -(2**63)),
    )
    assert (response.numProtoSuccess, response.errors) == (3, [])


def test_an_error_says_where_it_is() -> None:
    (error,) = intake.read_request(
        request_body(altered("entry.sql_driver_log.sql_operation.retry_count", "two"))
    ).errors
    assert error == (
        "protoLogs[0] was refused: Expected `int`, got `str` at entry.sql_driver_log.sql_operation.retry_count."
    )


def test_errors_are_bounded(sender: Sender) -> None:
    response = sender.send(*["bad"] * 1000, encoded(a_log()))
    assert response.numProtoSuccess == 1
    assert len(response.errors) == intake.MAX_ERRORS + 1
    assert response.errors[-1] == f"{1000 - intake.MAX_ERRORS} more were refused."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"SECRET",
        b"\xff\xfe",
        b'{"uploadTime": 1, "items": [], "protoLogs": ["\xff\xfe"]}',
        b"[]",
        b"{}",
        b'{"uploadTime": 1, "items": []}',
        b'{"items": [], "protoLogs": []}',
        b'{"uploadTime": 1, "items": [], "protoLogs": [{}]}',
        b'{"uploadTime": 1, "items": ["SECRET"], "protoLogs": []}',
        b'{"uploadTime": "SECRET", "items": [], "protoLogs": []}',
        b'{"uploadTime": 1, "items": [], "protoLogs": [], "SECRET": 1}',
        b'{"uploadTime": 1, "items": [], "protoLogs": ["\\ud800"]}',
    ],
)
def test_a_body_of_another_shape_is_a_bad_request(sender: Sender, body: bytes) -> None:
    status, response = sender.post(body)
    assert (status, response.numProtoSuccess) == (400, 0)
    (error,) = response.errors
    assert "SECRET" not in error


def test_a_body_that_is_not_gzip_or_torn_is_a_bad_request(sender: Sender) -> None:
    whole = gzip.compress(request_body(encoded(a_log())))
    for body in (b"not gzip", whole[:-1], whole[:20], whole[:-8] + bytes(8)):
        assert sender.post(body, Content_Encoding="gzip")[0] == 400


def test_an_unknown_encoding_is_refused(sender: Sender) -> None:
    assert sender.post(request_body(), Content_Encoding="br")[0] == 415


def test_a_body_that_is_too_large_is_refused(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_BODY_BYTES", 10_000)
    assert sender.post(b" " * 10_001)[0] == 413
    assert sender.post(b" " * (10_000 - len(request_body())) + request_body())[0] == 200


def test_a_body_that_unpacks_to_too_much_is_refused(sender: Sender) -> None:
    bomb = gzip.compress(bytes(app.MAX_DECOMPRESSED_BYTES + 1))
    assert len(bomb) < app.MAX_BODY_BYTES
    assert sender.post(bomb, Content_Encoding="gzip")[0] == 413


def test_logs_that_cannot_be_stored_are_answered_503_and_nothing_leaks(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise duckdb.Error("SECRET")

    with monkeypatch.context() as broken, caplog.at_level(logging.DEBUG):
        broken.setattr(Store, "_insert", fail)
        status, response = sender.post(request_body(encoded(a_log())))
    assert (status, response.numProtoSuccess) == (503, 0)
    assert "SECRET" not in caplog.text + "".join(response.errors)
    assert sender.send(encoded(a_log())).numProtoSuccess == 1, "the writer must live on"


# The store


def kept(count: int) -> list[intake.ReceivedLog]:
    return intake.read_request(request_body(*(encoded(a_log()) for _ in range(count)))).logs


class Gate:
    """Holds the store's writer before it inserts, and notes how many requests each transaction takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.groups: list[int] = []
        self.poison: list[intake.ReceivedLog] = []
        insert = Store._insert

        def gated(store: Store, group: Any) -> None:
            self.entered.set()
            assert self.opened.wait(TIMEOUT)
            self.groups.append(len(group))
            if any(write.logs is self.poison for write in group):
                raise duckdb.ConversionException("poison")
            insert(store, group)

        monkeypatch.setattr(Store, "_insert", gated)


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


def test_a_request_that_cannot_be_stored_does_not_cost_the_others_theirs(
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


def test_a_database_of_somebody_else_is_left_alone(database: Path) -> None:
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


# The server


def test_one_connection_serves_many_requests_without_delay(sender: Sender) -> None:
    began = time.monotonic()
    for _ in range(100):
        assert sender.get("/healthz") == (200, b'{"status":"ok"}')
    assert sender.pool.num_connections == 1
    # Without TCP_NODELAY each answer waits 40 ms for the acknowledgement of its head.
    assert time.monotonic() - began < 100 * 0.040


def test_a_connection_is_of_use_after_every_kind_of_answer(sender: Sender) -> None:
    for body, status in ((b"bad", 400), (b" " * (app.MAX_BODY_BYTES + 1), 413), (request_body(), 200)):
        assert sender.post(body)[0] == status
    assert sender.pool.num_connections == 1


def test_the_maintenance_switch_is_looked_at_for_every_request(tmp_path: Path, database: Path) -> None:
    switch = tmp_path / "down"
    switch.touch()
    with Collector(database, unavailable_while=switch) as collector:
        sender = Sender(collector.url)
        for expected in (503, 200, 503, 200):
            status, response = sender.post(request_body(encoded(a_log())))
            assert (status, response.numProtoSuccess) == (expected, int(expected == 200))
            switch.unlink() if switch.exists() else switch.touch()
        switch.unlink()
        assert report_of(sender).events == 2
        sender.pool.close()


def test_stopping_finishes_the_request_in_flight(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    collector = Collector(database)
    collector.start()
    sender = Sender(collector.url)
    with ThreadPoolExecutor(2) as pool:
        response = pool.submit(sender.send, encoded(a_log()))
        assert gate.entered.wait(TIMEOUT)
        stopped = pool.submit(collector.stop)
        deadline = time.monotonic() + TIMEOUT
        while _accepts(sender.pool.port or 0):
            assert time.monotonic() < deadline, "it goes on listening"
        assert not stopped.done()
        gate.opened.set()
        assert response.result(TIMEOUT).numProtoSuccess == 1
        stopped.result(TIMEOUT)
    sender.pool.close()
    assert rows(database, "SELECT count(*) FROM logs") == [(1,)]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
    except OSError:
        return False
    return True


def test_stopping_twice_is_stopping_once_and_it_starts_again(database: Path) -> None:
    collector = Collector(database)
    for expected in (1, 2):
        with collector:
            with pytest.raises(RuntimeError, match="runs already"):
                collector.start()
            sender = Sender(collector.url)
            sender.send(encoded(a_log()))
            assert report_of(sender).events == expected
            sender.pool.close()
        collector.stop()
        with pytest.raises(RuntimeError, match="not running"):
            _ = collector.url


def test_an_embedded_collector_leaves_signals_and_logging_alone(database: Path) -> None:
    def state() -> tuple[object, ...]:
        handlers = [logging.getLogger(name).handlers[:] for name in ("", "uvicorn", "uvicorn.error")]
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), handlers

    before = state()
    with Collector(database):
        assert state() == before
    assert state() == before


def test_a_port_that_is_taken_is_an_error_and_leaves_no_file(collector: Collector, tmp_path: Path) -> None:
    port = urllib3.util.parse_url(collector.url).port
    assert port is not None
    other = tmp_path / "other.duckdb"
    with pytest.raises(OSError):
        Collector(other, port=port).start()
    assert not other.exists()


def test_a_sender_that_goes_away_is_no_news(
    collector: Collector, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    port = urllib3.util.parse_url(collector.url).port
    with socket.create_connection(("127.0.0.1", port or 0), TIMEOUT) as connection:
        connection.sendall(b"POST /telemetry-ext HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert sender.send(encoded(a_log())).numProtoSuccess == 1
    collector.stop()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


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

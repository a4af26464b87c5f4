"""A statement's context: what it records, that it records it once, and that it never raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from typing import Any
from unittest import mock

import msgspec
import pytest

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    StatementTelemetryContext,
    TelemetryClient,
    TelemetryConfiguration,
    TelemetrySessionContext,
)
from adbc_telemetry import context as context_module
from adbc_telemetry.core.ids import new_id
from adbc_telemetry.events import statement as statement_module
from adbc_telemetry.schema import (
    ChunkDetails,
    DriverConnectionParameters,
    DriverSystemConfiguration,
    ExecutionResultFormat,
    HostDetails,
    OperationType,
    StatementType,
    TelemetryFrontendLog,
)
from adbc_telemetry.system import detect_system_configuration
from support.server import TelemetryServer
from support.waiting import run_in_threads


class Capture:
    """As much of a client as a context needs."""

    host = "host"

    def __init__(self) -> None:
        self.logs: list[TelemetryFrontendLog] = []

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        self.logs.append(log)


class Clock:
    def __init__(self) -> None:
        self.ms = 0.0

    def monotonic_ns(self) -> int:
        return int(self.ms * 1_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (context_module, statement_module):
        monkeypatch.setattr(module, "monotonic_ns", clock.monotonic_ns)
    return clock


def session(**fields: Any) -> TelemetrySessionContext:
    return TelemetrySessionContext(**{"session_id": "s", "client": Capture(), **fields})


def logs_of(session: TelemetrySessionContext) -> list[TelemetryFrontendLog]:
    client: Any = session.client
    logs: list[TelemetryFrontendLog] = client.logs
    return logs


def test_all_that_was_recorded_is_in_the_one_event(clock: Clock) -> None:
    system = DriverSystemConfiguration(driver_name="driver")
    params = DriverConnectionParameters(auto_commit=True)
    shared = session(
        workspace_id=42,
        auth_type="token",
        system_configuration=system,
        driver_connection_params=params,
        default_result_format=ExecutionResultFormat.INLINE_ARROW,
        default_compression_enabled=True,
        user_agent="agent/1",
    )
    statement = StatementTelemetryContext(
        shared, statement_type=StatementType.QUERY, operation_type=OperationType.EXECUTE_STATEMENT
    )
    statement.retry_count = 2
    clock.ms = 10.9
    statement.record_poll(3.5)
    statement.record_poll(4)
    clock.ms = 20
    statement.record_execute_complete()
    clock.ms = 30
    statement.record_first_batch_ready()
    for latency in (5, 9, 2):
        statement.record_chunk(latency)
    clock.ms = 55.5
    statement.record_results_consumed()
    clock.ms = 99
    before = time.time() * 1000
    assert statement.emit() is True
    (log,) = logs_of(shared)
    assert log.workspace_id == 42
    uuid.UUID(log.frontend_log_event_id)
    assert log.context is not None
    assert log.context.client_context is not None
    assert log.context.client_context.user_agent == "agent/1"
    assert abs((log.context.client_context.timestamp_millis or 0) - before) < 60_000
    assert log.entry is not None
    assert log.entry.sql_driver_log is not None
    assert msgspec.to_builtins(log.entry.sql_driver_log) == {
        "session_id": "s",
        "sql_statement_id": statement.statement_id,
        "system_configuration": {"driver_name": "driver"},
        "driver_connection_params": {"auto_commit": True},
        "auth_type": "token",
        "sql_operation": {
            "statement_type": "QUERY",
            "is_compressed": True,
            "execution_result": "INLINE_ARROW",
            "retry_count": 2,
            "chunk_details": {
                "initial_chunk_latency_millis": 5,
                "slowest_chunk_latency_millis": 9,
                "total_chunks_iterated": 3,
                "sum_chunks_download_time_millis": 16,
            },
            "result_latency": {
                "result_set_ready_latency_millis": 30,
                "result_set_consumption_latency_millis": 55,
            },
            "operation_detail": {
                "n_operation_status_calls": 2,
                "operation_status_latency_millis": 7,
                "operation_type": "EXECUTE_STATEMENT",
                "is_internal_call": False,
            },
        },
        "operation_latency_ms": 55,
    }
    assert log.entry.sql_driver_log.system_configuration is system
    assert log.entry.sql_driver_log.driver_connection_params is params


def test_what_was_not_recorded_is_left_out(clock: Clock) -> None:
    shared = session()
    statement = StatementTelemetryContext(shared, is_internal_call=True)
    clock.ms = 7
    assert msgspec.to_builtins(statement.build_telemetry_log()) == {
        "session_id": "s",
        "sql_statement_id": statement.statement_id,
        "sql_operation": {"operation_detail": {"is_internal_call": True}},
        "operation_latency_ms": 7,
    }


def test_the_driver_s_own_count_of_chunks_beats_ours() -> None:
    statement = StatementTelemetryContext(session())
    statement.record_chunk(5)
    statement.set_chunk_details(
        total_chunks_present=12, total_chunks_iterated=4, slowest_chunk_latency_ms=8.9
    )
    sql = statement.build_telemetry_log().sql_operation
    assert sql is not None
    assert sql.chunk_details == ChunkDetails(
        initial_chunk_latency_millis=5,
        slowest_chunk_latency_millis=8,
        total_chunks_present=12,
        total_chunks_iterated=4,
        sum_chunks_download_time_millis=5,
    )


def test_of_an_error_only_the_class_s_name_is_kept_and_the_first_counts() -> None:
    statement = StatementTelemetryContext(session())
    statement.record_error(ValueError("sentinel: SELECT secret FROM t"))
    statement.record_error(KeyError("later"))
    log = statement.build_telemetry_log()
    assert log.error_info is not None
    assert log.error_info.error_name == "ValueError"
    assert "sentinel" not in json.dumps(msgspec.to_builtins(log))


def test_it_is_emitted_once_however_often_and_from_wherever() -> None:
    shared = session()
    statement = StatementTelemetryContext(shared)
    results: list[bool] = []
    run_in_threads(16, lambda _: results.append(statement.emit()))
    assert sorted(results) == [False] * 15 + [True]
    assert len(logs_of(shared)) == 1


def test_as_a_context_manager_it_records_the_error_and_emits() -> None:
    shared = session()
    with StatementTelemetryContext(shared):
        pass
    with pytest.raises(ZeroDivisionError), StatementTelemetryContext(shared):
        raise ZeroDivisionError
    good, bad = [log.entry.sql_driver_log for log in logs_of(shared) if log.entry]
    assert good is not None
    assert good.error_info is None
    assert bad is not None
    assert bad.error_info is not None
    assert bad.error_info.error_name == "ZeroDivisionError"


def test_without_a_client_nothing_happens() -> None:
    assert StatementTelemetryContext(session(client=None)).emit() is False


def test_no_method_raises_whatever_it_is_given_and_what_it_could_not_use_is_counted() -> None:
    class Broken(Capture):
        def enqueue(self, log: TelemetryFrontendLog) -> None:
            raise RuntimeError("broken client")

    rubbish: Any = object()
    statement = StatementTelemetryContext(session(client=Broken()))
    statement.record_poll(rubbish)
    statement.record_chunk(rubbish)
    statement.set_chunk_details(total_chunks_present=rubbish)
    for odd in (float("nan"), float("inf")):
        statement.record_poll(odd)
        statement.record_chunk(odd)
    assert statement.errors == 7
    assert statement.build_telemetry_log().operation_latency_ms is not None
    statement.record_error(rubbish)
    assert statement.emit() is False
    assert statement.errors == 8


@pytest.mark.parametrize("wrong", [None, "session", object(), StatementTelemetryContext, mock.Mock()])
def test_a_session_that_is_none_is_told_when_the_context_is_made(wrong: Any) -> None:
    with pytest.raises(TypeError, match="session"):
        StatementTelemetryContext(wrong)


@pytest.mark.parametrize("wrong", [5, b"id", object(), ["id"]])
def test_an_id_that_is_no_text_is_counted_and_the_one_before_stays(wrong: Any) -> None:
    statement = StatementTelemetryContext(session())
    before = statement.statement_id
    statement.statement_id = wrong
    assert (statement.statement_id, statement.errors) == (before, 1)
    fresh = StatementTelemetryContext(session())
    fresh.statement_id = wrong
    uuid.UUID(fresh.build_telemetry_log().sql_statement_id)


def test_an_id_of_none_says_that_there_is_no_statement() -> None:
    statement = StatementTelemetryContext(session())
    statement.statement_id = None
    assert statement.build_telemetry_log().sql_statement_id is None
    assert statement.errors == 0


def test_a_wrong_fact_that_is_put_right_is_no_error() -> None:
    statement = StatementTelemetryContext(session())
    statement.retry_count = "two"  # type: ignore[assignment]
    assert statement.errors == 1
    statement.retry_count = 2
    assert statement.errors == 0


@pytest.mark.parametrize("way", ["a client of ours", "another client", "a foreign exporter"])
def test_an_event_with_wrong_facts_arrives_without_them(way: str, server: TelemetryServer) -> None:
    exporter = InMemoryTelemetryExporter()
    config = TelemetryConfiguration(enabled=True)
    ours = TelemetryClient(server.url, config, exporter=None if way == "a client of ours" else exporter)
    client = Capture() if way == "another client" else ours
    with ours:
        statement = StatementTelemetryContext(
            session(client=client),
            statement_type="SELECT secret FROM t",  # type: ignore[arg-type]
            operation_type=OperationType.EXECUTE_STATEMENT,
        )
        statement.retry_count = "two"  # type: ignore[assignment]
        statement.chunk_id = 3
        assert statement.emit() is True
        assert statement.errors == 2
    if way == "a client of ours":
        [log] = [
            msgspec.convert(log, TelemetryFrontendLog) for request in server.requests for log in request.logs
        ]
    else:
        [log] = client.logs if isinstance(client, Capture) else exporter.logs
    assert log.entry is not None
    assert log.entry.sql_driver_log is not None
    sql = log.entry.sql_driver_log.sql_operation
    assert sql is not None
    assert sql.operation_detail is not None
    assert (sql.statement_type, sql.retry_count, sql.chunk_id) == (None, None, 3)
    assert sql.operation_detail.operation_type is OperationType.EXECUTE_STATEMENT


def test_a_chunk_s_wrong_number_takes_no_other_with_it() -> None:
    statement = StatementTelemetryContext(session())
    rubbish: Any = "many"
    statement.set_chunk_details(
        total_chunks_present=2**31, total_chunks_iterated=rubbish, slowest_chunk_latency_ms=8.9
    )
    sql = statement.build_telemetry_log().sql_operation
    assert sql is not None
    assert sql.chunk_details == ChunkDetails(slowest_chunk_latency_millis=8)
    assert statement.errors == 2


def test_what_a_session_has_of_the_wrong_type_is_left_out_of_its_events() -> None:
    wrong: dict[str, Any] = {
        "session_id": 5,
        "workspace_id": "42",
        "auth_type": b"token",
        "default_result_format": "free text",
        "default_compression_enabled": "yes",
        "user_agent": object(),
        "system_configuration": DriverSystemConfiguration(driver_name=["d"], driver_version="1"),  # type: ignore[arg-type]
        "driver_connection_params": DriverConnectionParameters(
            host_info=HostDetails(host_url=object(), port=443),  # type: ignore[arg-type]
            mode="no mode",  # type: ignore[arg-type]
            non_proxy_hosts=["a", 1],  # type: ignore[list-item]
            auto_commit=True,
        ),
    }
    shared = session(**wrong)
    assert shared.errors == len(wrong)
    statement = StatementTelemetryContext(shared)
    assert statement.emit() is True
    [log] = logs_of(shared)
    told = msgspec.to_builtins(log)
    assert statement.errors == 0
    assert set(told) == {"frontend_log_event_id", "context", "entry"}
    assert set(told["context"]["client_context"]) == {"timestamp_millis"}
    sql = told["entry"]["sql_driver_log"]
    assert set(sql) == {
        "sql_statement_id",
        "system_configuration",
        "driver_connection_params",
        "sql_operation",
        "operation_latency_ms",
    }
    assert sql["system_configuration"] == {"driver_version": "1"}
    assert sql["driver_connection_params"] == {"host_info": {"port": 443}, "auto_commit": True}
    assert sql["sql_operation"] == {"operation_detail": {"is_internal_call": False}}


def test_recorded_statements_reach_the_exporter() -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", TelemetryConfiguration(enabled=True), exporter=exporter) as client:
        shared = session(client=client)
        for _ in range(3):
            with StatementTelemetryContext(shared) as statement:
                statement.record_execute_complete()
    assert len(exporter.logs) == 3


def test_what_becomes_of_a_context_after_its_event_is_no_concern_of_the_event_s() -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", TelemetryConfiguration(enabled=True), exporter=exporter) as client:
        statement = StatementTelemetryContext(session(client=client), statement_type=StatementType.QUERY)
        assert statement.emit() is True
        statement.retry_count = 9
        statement.statement_type = StatementType.UPDATE
        statement.record_chunk(5)
        statement.record_error(ValueError())
    (log,) = exporter.logs
    assert log.entry is not None
    sql = log.entry.sql_driver_log
    assert sql is not None
    assert sql.sql_operation is not None
    assert (sql.sql_statement_id, sql.error_info) == (statement.statement_id, None)
    assert sql.sql_operation.statement_type is StatementType.QUERY
    assert sql.sql_operation.retry_count is None
    assert sql.sql_operation.chunk_details is None


def test_an_event_is_as_old_as_its_emission_however_late_it_is_sent(clock: Clock) -> None:
    exporter = InMemoryTelemetryExporter()
    with TelemetryClient("host", TelemetryConfiguration(enabled=True), exporter=exporter) as client:
        statement = StatementTelemetryContext(session(client=client))
        clock.ms = 12
        statement.emit()
        clock.ms = 5000
    (log,) = exporter.logs
    assert log.entry is not None
    assert log.entry.sql_driver_log is not None
    assert log.entry.sql_driver_log.operation_latency_ms == 12


class Overriding(TelemetryClient):
    """A client of the program's own, which sees the logs."""

    seen: list[TelemetryFrontendLog]

    def enqueue(self, log: TelemetryFrontendLog) -> None:
        self.seen.append(log)


@pytest.mark.parametrize("way", ["subclass", "instance", "class", "mock", "instance later", "class later"])
def test_an_object_in_place_of_a_client_gets_a_log(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    config = TelemetryConfiguration(enabled=True)
    client: Any = mock.Mock(spec=TelemetryClient)
    client.enqueue.side_effect = seen.append
    if way != "mock":
        client = (Overriding if way == "subclass" else TelemetryClient)(
            "host", config, exporter=InMemoryTelemetryExporter()
        )
        client.seen = seen
    early = session(client=client)
    if way.startswith("instance"):
        monkeypatch.setattr(client, "enqueue", seen.append)
    if way.startswith("class"):
        monkeypatch.setattr(TelemetryClient, "enqueue", lambda self, log: seen.append(log))
    shared = early if way.endswith("later") else session(client=client)
    assert StatementTelemetryContext(shared).emit() is True
    client.close()
    (log,) = seen
    assert type(log) is TelemetryFrontendLog
    assert log.entry is not None
    assert log.entry.sql_driver_log is not None


# Ids.


def test_ids_are_valid_and_never_come_twice() -> None:
    ids: set[str] = set()
    lock = threading.Lock()

    def make(_: int) -> None:
        mine = [new_id() for _ in range(5000)]
        with lock:
            ids.update(mine)

    run_in_threads(8, make)
    assert len(ids) == 40_000
    for text in list(ids)[:100]:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, text)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "\n".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        of_child = set(pipe.read().split())
    assert len(of_child) == 100
    assert of_child.isdisjoint(new_id() for _ in range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_s_events_have_ids_of_its_own(server: TelemetryServer) -> None:
    with TelemetryClient(server.url, TelemetryConfiguration(enabled=True)) as client:
        shared = session(client=client)
        assert StatementTelemetryContext(shared).emit()
        assert client.flush(10)
        child = os.fork()
        if child == 0:
            StatementTelemetryContext(shared).emit()
            os._exit(not client.close(10))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    first, second = (log for request in server.requests for log in request.logs)
    for one, other in zip(ids_in(first), ids_in(second), strict=True):
        assert one.split("-")[:4] != other.split("-")[:4]


def ids_in(log: Any) -> list[str]:
    return [log["frontend_log_event_id"], log["entry"]["sql_driver_log"]["sql_statement_id"]]


def test_ids_take_nothing_from_the_program_s_random_numbers() -> None:
    import random

    random.seed(1)
    expected = random.random()
    random.seed(1)
    new_id()
    assert random.random() == expected


# The truth about this process.


def test_the_system_configuration_tells_the_truth() -> None:
    code = (
        "import json, msgspec; from adbc_telemetry.system import detect_system_configuration as d;"
        "print(json.dumps(msgspec.to_builtins(d(driver_name='drv', driver_version='9', client_app_name='app'))))"
    )
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    told = json.loads(out.stdout)
    uname = os.uname()
    assert told["driver_name"] == "drv"
    assert told["driver_version"] == "9"
    assert told["client_app_name"] == "app"
    assert told["runtime_version"] == sys.version.split()[0]
    assert sys.implementation.name.lower() in told["runtime_name"].lower()
    assert told["os_name"] == uname.sysname
    assert told["os_arch"] == uname.machine
    assert told["char_set_encoding"] == "UTF-8"
    assert told["process_name"] == os.path.basename(sys.executable)
    if os.path.exists("/etc/os-release"):
        with open("/etc/os-release") as release:
            pretty = next(line for line in release if line.startswith("PRETTY_NAME="))
        assert told["os_version"] == pretty.split("=", 1)[1].strip().strip("\"'")


def test_a_field_that_cannot_be_read_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    def broken() -> str:
        raise OSError("sentinel")

    whole = detect_system_configuration()
    monkeypatch.setattr(platform, "machine", broken)
    monkeypatch.setattr(sys, "argv", None)
    partial = detect_system_configuration()
    assert whole.os_arch is not None
    assert whole.process_name is not None
    for name in whole.__struct_fields__:
        expected = None if name in ("os_arch", "process_name") else getattr(whole, name)
        assert getattr(partial, name) == expected, name


@pytest.mark.parametrize(
    ("program", "name"),
    [("/home/someone/secret/tool.py", "tool.py"), ("/home/someone/package/__main__.py", "package")],
)
def test_the_program_s_name_holds_no_path(monkeypatch: pytest.MonkeyPatch, program: str, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [program, "--password=sentinel"])
    assert detect_system_configuration().process_name == name

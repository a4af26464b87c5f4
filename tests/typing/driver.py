"""A driver's telemetry by the public names alone. Type checkers read this file, in `make lint`; nothing runs it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from typing_extensions import assert_type

from adbc_telemetry import (
    CircuitBreaker,
    CircuitBreakerManager,
    CircuitBreakerState,
    CircuitBreakerTelemetryExporter,
    ClientStats,
    ConnectionTelemetry,
    DatabricksTelemetryExporter,
    Decision,
    ExportOutcome,
    ExportResult,
    Failure,
    InMemoryTelemetryExporter,
    JsonLinesTelemetryExporter,
    NoopTelemetryClient,
    OtlpTelemetryExporter,
    StatementTelemetryContext,
    TelemetryClient,
    TelemetryClientLease,
    TelemetryClientManager,
    TelemetryClientProtocol,
    TelemetryConfiguration,
    TelemetryExporter,
    TelemetrySessionContext,
    __version__,
    explain,
    install,
    instrument,
    is_terminal_error,
    normalize_host,
    uninstall,
)
from adbc_telemetry.schema import (
    ExecutionResultFormat,
    OperationType,
    OssSqlDriverTelemetryLog,
    StatementType,
    TelemetryFrontendLog,
)
from adbc_telemetry.system import detect_system_configuration
from adbc_telemetry.testing import CapturedClient, CapturingExporter, Event, FakeClock


def token() -> Mapping[str, str]:
    return {"Authorization": "Bearer a-token"}


def anonymous() -> None:
    return None


class Printing:
    """An exporter of the driver's own: what `TelemetryExporter` asks for, and no base class."""

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        for log in logs:
            print(log.frontend_log_event_id)
        return ExportResult(ExportOutcome.DELIVERED, delivered=len(logs))

    def close(self) -> None:
        print("closed")


def configurations() -> None:
    config = TelemetryConfiguration.from_properties({"adbc.databricks.telemetry.enabled": "true"})
    assert_type(config, TelemetryConfiguration)
    assert_type(config.enabled, bool)
    assert_type(config.batch_size, int)
    assert_type(config.validate(), list[str])
    TelemetryConfiguration(
        enabled=True, compression="gzip", circuit_open="retain", spool_dir="/var/spool/driver"
    )


def clients(config: TelemetryConfiguration) -> None:
    with TelemetryClient("host", config, auth=token) as client:
        assert_type(client, TelemetryClient)
        assert_type(client.host, str)
        assert_type(client.flush(), bool)
        assert_type(client.close(timeout=2.5), bool)
        stats = client.stats()
    assert_type(stats, ClientStats)
    assert_type(stats.delivered, int)
    assert_type(stats.closes, bool)
    assert_type(stats.last_failure, Failure | None)
    TelemetryClient("host", config, exporter=Printing(), auth=anonymous)


async def asynchronous(config: TelemetryConfiguration) -> None:
    async with TelemetryClient("host", config) as client:
        assert_type(await client.aflush(timeout=1), bool)
        assert_type(await client.aclose(), bool)


def any_client_will_do() -> list[TelemetryClientProtocol]:
    return [NoopTelemetryClient(), CapturedClient(), TelemetryClient("host", TelemetryConfiguration())]


def any_exporter_will_do(config: TelemetryConfiguration) -> list[TelemetryExporter]:
    return [
        CapturingExporter(),
        CircuitBreakerTelemetryExporter(Printing(), "host", config),
        DatabricksTelemetryExporter("host", config, auth=token),
        InMemoryTelemetryExporter(),
        JsonLinesTelemetryExporter("events.jsonl"),
        OtlpTelemetryExporter("http://127.0.0.1:4318"),
        Printing(),
    ]


def leases(config: TelemetryConfiguration) -> None:
    manager = TelemetryClientManager.get_instance()
    assert_type(manager.hosts(), list[str])
    assert_type(manager.ref_count("host"), int)
    with manager.acquire("host", config, auth=token, exporter=Printing()) as lease:
        assert_type(lease, TelemetryClientLease)
        assert_type(lease.client, TelemetryClient)
        assert_type(lease.release(timeout=1), bool)
    assert_type(manager.close_all(), bool)


def circuits(config: TelemetryConfiguration) -> None:
    breakers = CircuitBreakerManager.get_instance()
    breaker = breakers.get_circuit_breaker("host", config)
    assert_type(breaker, CircuitBreaker)
    assert_type(breaker.state, CircuitBreakerState)
    breakers.remove_circuit_breaker("host")


def statements(client: TelemetryClientProtocol) -> None:
    session = TelemetrySessionContext(
        session_id="a session",
        workspace_id=1,
        system_configuration=detect_system_configuration(driver_name="driver", driver_version="1.2"),
        default_result_format=ExecutionResultFormat.INLINE_ARROW,
        client=client,
    )
    with StatementTelemetryContext(
        session, statement_type=StatementType.QUERY, operation_type=OperationType.EXECUTE_STATEMENT
    ) as statement:
        assert_type(statement, StatementTelemetryContext)
        statement.record_poll(latency_ms=12)
        statement.record_chunk(3.5)
        statement.set_chunk_details(total_chunks_present=4)
        statement.record_execute_complete()
        statement.record_first_batch_ready()
        statement.record_results_consumed()
        statement.record_error(ValueError())
        assert_type(statement.build_telemetry_log(), OssSqlDriverTelemetryLog)
        assert_type(statement.emit(), bool)


def results(result: ExportResult) -> str:
    if result:
        return "delivered"
    assert_type(result.outcome, ExportOutcome)
    assert_type(result.delivered, int)
    return result.reason or "no reason given"


def a_connection_keeps_its_type() -> sqlite3.Connection:
    connection = instrument(sqlite3.connect(":memory:"), "https://host", auth=token, exporter=Printing())
    assert_type(connection, sqlite3.Connection)
    install("127.0.0.1:8317", config=TelemetryConfiguration(enabled=True))
    uninstall()
    return connection


def a_driver_tests_its_telemetry() -> None:
    client = CapturedClient()
    with FakeClock() as clock:
        clock.advance_ms(250)
    assert_type(client.events, list[Event])
    assert_type(client.wait_for(1), list[OssSqlDriverTelemetryLog])


version: str = __version__
assert_type(normalize_host("HOST.example"), str)
assert_type(is_terminal_error(ValueError()), bool)


async def a_connection(exporter: TelemetryExporter) -> None:
    telemetry = ConnectionTelemetry.create(
        {"adbc.databricks.telemetry.enabled": "true"},
        driver_name="tiny",
        driver_version="1.0",
        host="host.example",
        auth=token,
        exporter=exporter,
        session_id=None,
        opened_in_ms=12.5,
    )
    assert_type(telemetry, ConnectionTelemetry)
    assert_type(telemetry.enabled, bool)
    assert_type(telemetry.session, TelemetrySessionContext)
    assert_type(telemetry.client, TelemetryClientProtocol)
    assert_type(telemetry.explain(), Decision)
    assert_type(explain({}, {}, enabled=True, host="host.example").reason, str)

    with telemetry, telemetry.statement(statement_type=StatementType.QUERY) as statement:
        assert_type(statement, StatementTelemetryContext)
    async with telemetry.statement(operation_type=OperationType.LIST_TABLES) as statement:
        assert_type(statement, StatementTelemetryContext)

    @telemetry.statement(statement_type=StatementType.QUERY)
    def count(sql: str) -> int:
        return len(sql)

    @telemetry.statement()
    async def wait(seconds: float) -> str:
        return str(seconds)

    assert_type(count("SELECT 1"), int)
    assert_type(await wait(1.0), str)
    telemetry.record_operation(OperationType.CANCEL_STATEMENT, 3, error=TimeoutError())
    assert_type(telemetry.close(), bool)
    assert_type(await telemetry.aclose(1.0), bool)

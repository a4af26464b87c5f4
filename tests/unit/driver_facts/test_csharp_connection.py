"""What the C# driver tells of a connection, from its opening to its close, told here by `ConnectionTelemetry`."""

from __future__ import annotations

from typing import Any

import pytest

from adbc_telemetry import ConnectionTelemetry
from adbc_telemetry.driver_facts.connection_parameters import DATABRICKS_DEFAULTS
from adbc_telemetry.schema import (
    DriverAuthFlow,
    DriverAuthMech,
    DriverErrorInfo,
    DriverMode,
    HostDetails,
    OperationType,
    OssSqlDriverTelemetryLog,
    StatementType,
)
from adbc_telemetry.testing import CapturingExporter, event_of

PROPERTIES = {
    **DATABRICKS_DEFAULTS,
    "adbc.databricks.telemetry.enabled": "true",
    "adbc.spark.host": "workspace.example",
    "adbc.spark.path": "/sql/1.0/warehouses/abc123",
    "adbc.spark.auth_type": "oauth",
    "adbc.databricks.oauth.grant_type": "client_credentials",
    "adbc.databricks.oauth.client_secret": "secret",
}


def create(exporter: CapturingExporter, **arguments: Any) -> ConnectionTelemetry:
    told = {
        "driver_name": "ADBC Databricks Driver",
        "driver_version": "1.2.3",
        "session_id": "01ef",
        **arguments,
    }
    return ConnectionTelemetry.create(PROPERTIES, host="workspace.example", exporter=exporter, **told)


def events_of(**arguments: Any) -> list[OssSqlDriverTelemetryLog]:
    exporter = CapturingExporter()
    with create(exporter, **arguments) as telemetry, telemetry.statement(statement_type=StatementType.QUERY):
        pass
    return exporter.wait_for(3)


def test_every_event_of_a_connection_tells_all_that_is_known_of_it() -> None:
    for log in events_of(allowed=["host_info", "http_path"]):
        parameters, system = log.driver_connection_params, log.system_configuration
        assert parameters is not None
        assert system is not None
        assert (log.session_id, log.auth_type) == ("01ef", "oauth-client_credentials")
        assert (parameters.auth_mech, parameters.auth_flow) == (
            DriverAuthMech.OAUTH,
            DriverAuthFlow.CLIENT_CREDENTIALS,
        )
        assert parameters.mode is DriverMode.THRIFT
        assert parameters.host_info == HostDetails("workspace.example", 443)
        assert parameters.http_path == "/sql/1.0/warehouses/abc123"
        assert (parameters.enable_arrow, parameters.enable_direct_results, parameters.auto_commit) == (
            True,
        ) * 3
        assert (system.driver_name, system.driver_version) == ("ADBC Databricks Driver", "1.2.3")
        assert system.runtime_vendor
        assert system.os_arch


def test_what_the_author_does_not_allow_by_name_is_not_told() -> None:
    for log in events_of():
        assert log.driver_connection_params is not None
        assert (log.driver_connection_params.host_info, log.driver_connection_params.http_path) == (
            None,
            None,
        )
        assert "secret" not in repr(log)


def test_the_author_s_own_auth_type_beats_ours() -> None:
    assert {log.auth_type for log in events_of(auth_type="mine")} == {"mine"}


def test_properties_that_tell_nothing_leave_no_trace() -> None:
    exporter = CapturingExporter()
    telemetry = ConnectionTelemetry.create(
        {"adbc.databricks.telemetry.enabled": "true"},
        driver_name="d",
        driver_version="1",
        host="workspace.example",
        exporter=exporter,
    )
    telemetry.close()
    for log in exporter.wait_for(2):
        assert (log.driver_connection_params, log.auth_type) == (None, None)


def test_a_session_is_opened_and_closed_once_with_the_time_that_each_took() -> None:
    exporter = CapturingExporter()
    telemetry = create(exporter, opened_in_ms=120.5)
    telemetry.close(closed_in_ms=30)
    telemetry.close(closed_in_ms=30)
    opened, closed = exporter.wait_for(2)
    assert [event_of(log).operation_type for log in (opened, closed)] == ["CREATE_SESSION", "DELETE_SESSION"]
    assert (opened.operation_latency_ms, closed.operation_latency_ms) == (120, 30)
    assert (opened.sql_statement_id, closed.sql_statement_id) == (None, None)


@pytest.mark.parametrize(
    "operation", [OperationType.CLOSE_STATEMENT, OperationType.CANCEL_STATEMENT, OperationType.LIST_TABLES]
)
def test_an_operation_is_told_with_its_time_and_its_error(operation: OperationType) -> None:
    exporter = CapturingExporter()
    with create(exporter) as telemetry:
        telemetry.record_operation(
            operation, 42, statement_type=StatementType.METADATA, error=TimeoutError("private")
        )
    _, log, _ = exporter.wait_for(3)
    assert event_of(log) == (operation.name, "METADATA", "TimeoutError")
    assert log.operation_latency_ms == 42
    assert log.error_info == DriverErrorInfo("TimeoutError", "timeout")

"""What the C# ADBC driver for Databricks does, point by point, done here: connection, statement, configuration, errors.

Written from the behaviour of its telemetry as of August 2026. `docs/fields.md` says where this package differs on
purpose; the tests named `differs` hold those points.
"""

from __future__ import annotations

import platform
import ssl
from collections.abc import Mapping
from typing import Any

import pytest

from adbc_telemetry import (
    StatementTelemetryContext,
    TelemetryConfiguration,
    TelemetrySessionContext,
    is_terminal_error,
)
from adbc_telemetry.driver_facts.authentication import authentication
from adbc_telemetry.driver_facts.connection_parameters import DATABRICKS_DEFAULTS, connection_parameters
from adbc_telemetry.schema import (
    ChunkDetails,
    DriverAuthFlow,
    DriverAuthMech,
    DriverConnectionParameters,
    DriverErrorInfo,
    DriverMode,
    DriverSystemConfiguration,
    ExecutionResultFormat,
    HostDetails,
    OperationDetail,
    OperationType,
    OssSqlDriverTelemetryLog,
    ResultLatency,
    StatementType,
)
from adbc_telemetry.system import detect_system_configuration
from adbc_telemetry.testing import CapturedClient, FakeClock

PATH = {"adbc.spark.path": "/sql/1.0/warehouses/abc123"}
OAUTH = {"adbc.spark.auth_type": "oauth"}
GRANT = "adbc.databricks.oauth.grant_type"
ALLOWED: Any = ("http_path", "host_info", "proxy_host_info", "non_proxy_hosts", "query_tags", "auth_scope")


def parameters(**more: Any) -> DriverConnectionParameters:
    properties = {**DATABRICKS_DEFAULTS, **PATH, **{name.replace("__", "."): more[name] for name in more}}
    return connection_parameters(properties, allowed=ALLOWED)


# Connection


def test_a_connection_with_its_path_alone_tells_all_that_the_driver_does_anyway() -> None:
    told = parameters()
    assert told.http_path == "/sql/1.0/warehouses/abc123"
    assert told.mode is DriverMode.THRIFT
    assert told.host_info == HostDetails(port=443)
    assert (told.enable_arrow, told.enable_direct_results, told.auto_commit) == (True, True, True)
    assert told.enable_complex_datatype_support is False
    assert (told.rows_fetched_per_block, told.async_poll_interval_millis) == (2_000_000, 100)


def test_the_timeout_is_told_in_seconds() -> None:
    assert parameters(adbc__spark__connect_timeout_ms="30000").socket_timeout == 30


def test_the_poll_interval_and_the_batch_size_follow_their_properties() -> None:
    told = parameters(adbc__apache__statement__polltime_ms="250", adbc__apache__statement__batch_size="50000")
    assert (told.async_poll_interval_millis, told.rows_fetched_per_block) == (250, 50_000)


@pytest.mark.parametrize("bad", ["0", "-5", "soon"])
def test_a_poll_interval_that_is_none_is_not_told(bad: str) -> None:
    assert parameters(adbc__apache__statement__polltime_ms=bad).async_poll_interval_millis is None


def test_the_host_is_bare_and_the_port_beside_it() -> None:
    told = parameters(adbc__spark__host="https://test.example.com", adbc__spark__port="8443")
    assert told.host_info == HostDetails("test.example.com", 8443)


def test_tags_scope_proxy_and_self_signed_certificates_are_told_where_they_are_given() -> None:
    told = parameters(
        adbc__databricks__query_tags="team:peco,env:test",
        adbc__databricks__oauth__scope="all-apis",
        adbc__proxy_options__use_proxy="true",
        adbc__proxy_options__proxy_host="proxy.internal",
        adbc__proxy_options__proxy_port="8080",
        adbc__proxy_options__proxy_ignore_list="localhost, .corp.example.com",
        adbc__http_options__tls__allow_self_signed="true",
    )
    assert (told.query_tags, told.auth_scope) == ("team:peco,env:test", "all-apis")
    assert (told.use_proxy, told.proxy_host_info) == (True, HostDetails("proxy.internal", 8080))
    assert told.non_proxy_hosts == ["localhost", ".corp.example.com"]
    assert told.allow_self_signed_support is True


def test_they_are_left_out_where_they_are_not() -> None:
    told = parameters()
    left_out = ("query_tags", "auth_scope", "use_proxy", "proxy_host_info", "non_proxy_hosts")
    assert [getattr(told, name) for name in (*left_out, "allow_self_signed_support")] == [None] * 6


def test_complex_types_follow_their_own_property_and_not_that_of_extended_descriptions() -> None:
    assert (
        parameters(adbc__databricks__use_desc_table_extended="true").enable_complex_datatype_support is False
    )
    assert parameters(
        adbc__databricks__enable_complex_datatype_support="true"
    ).enable_complex_datatype_support


@pytest.mark.parametrize("auth", [{"adbc.spark.token": "t"}, {**OAUTH, GRANT: "client_credentials"}])
def test_discovery_and_the_token_cache_are_told_as_off_and_no_address_with_them(
    auth: Mapping[str, str],
) -> None:
    told = connection_parameters({**DATABRICKS_DEFAULTS, **auth})
    assert (told.discovery_mode_enabled, told.enable_token_cache) == (False, False)
    assert told.discovery_url is None


@pytest.mark.parametrize(
    ("properties", "mechanism", "flow", "auth_type"),
    [
        ({"adbc.spark.auth_type": "token", "adbc.spark.token": "t"}, "PAT", "TOKEN_PASSTHROUGH", "pat"),
        ({**OAUTH, GRANT: "client_credentials"}, "OAUTH", "CLIENT_CREDENTIALS", "oauth-client_credentials"),
        ({**OAUTH, GRANT: "access_token"}, "OAUTH", "TOKEN_PASSTHROUGH", "oauth-access_token"),
        ({**OAUTH, "adbc.spark.access_token": "t"}, "OAUTH", "TOKEN_PASSTHROUGH", "oauth-access_token"),
    ],
)
def test_the_way_of_authentication_agrees_with_itself(
    properties: Mapping[str, str], mechanism: str, flow: str, auth_type: str
) -> None:
    told = connection_parameters(properties)
    assert (told.auth_mech, told.auth_flow) == (DriverAuthMech[mechanism], DriverAuthFlow[flow])
    assert authentication(properties).auth_type == auth_type


def test_differs_without_any_authentication_no_token_is_claimed() -> None:
    """There, `auth_type` is `other` and the mechanism PAT all the same."""
    assert authentication(PATH) == (DriverAuthMech.OTHER, None, "other")


def test_differs_no_word_of_the_user_s_gets_into_auth_type() -> None:
    """There, any grant type is appended as it is."""
    assert authentication({**OAUTH, GRANT: "secret"}).auth_type == "oauth-other"


def test_the_system_is_told_with_name_and_version_of_the_driver() -> None:
    system = detect_system_configuration(driver_name="A Driver", driver_version="1.2.3")
    assert (system.driver_name, system.driver_version) == ("A Driver", "1.2.3")
    assert system.runtime_vendor == platform.python_implementation()
    assert system.char_set_encoding == "UTF-8"
    told = [system.os_name, system.os_version, system.os_arch, system.runtime_version, system.process_name]
    assert all(told)


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux has distributions")
def test_the_system_s_version_is_not_the_kernel_s_where_the_distribution_has_a_name() -> None:
    try:
        pretty = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        pretty = platform.version()
    assert detect_system_configuration().os_version == pretty


# Statement

SESSION = TelemetrySessionContext(
    session_id="test-session-123",
    auth_type="pat",
    system_configuration=DriverSystemConfiguration(driver_name="d"),
    driver_connection_params=DriverConnectionParameters(mode=DriverMode.THRIFT),
)


def told_of(statement: StatementTelemetryContext) -> OssSqlDriverTelemetryLog:
    log = statement.build_telemetry_log()
    assert log.sql_operation is not None
    assert log.sql_operation.operation_detail is not None
    return log


def test_a_statement_is_of_a_session() -> None:
    with pytest.raises(TypeError, match="TelemetrySessionContext"):
        StatementTelemetryContext(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [DriverMode.THRIFT, DriverMode.SEA])
def test_the_session_s_facts_stand_in_each_statement_whatever_the_protocol(mode: DriverMode) -> None:
    session = TelemetrySessionContext(
        session_id="s", auth_type="pat", driver_connection_params=DriverConnectionParameters(mode=mode)
    )
    log = told_of(StatementTelemetryContext(session))
    assert (log.session_id, log.auth_type) == ("s", "pat")
    assert log.driver_connection_params is session.driver_connection_params


def test_all_times_are_of_one_clock_that_starts_with_the_statement() -> None:
    with FakeClock() as clock:
        statement = StatementTelemetryContext(SESSION)
        clock.advance_ms(5)
        statement.record_first_batch_ready()
        clock.advance_ms(5)
        statement.record_first_batch_ready()
        statement.record_results_consumed()
        log = told_of(statement)
    assert log.operation_latency_ms == 10
    assert log.sql_operation is not None
    assert log.sql_operation.result_latency == ResultLatency(5, 10)


def test_the_statement_s_own_facts_are_told() -> None:
    statement = StatementTelemetryContext(
        SESSION,
        statement_type=StatementType.QUERY,
        operation_type=OperationType.EXECUTE_STATEMENT,
        result_format=ExecutionResultFormat.EXTERNAL_LINKS,
    )
    statement.statement_id = "stmt-123"
    statement.record_reader(is_compressed=True)
    log = told_of(statement)
    operation = log.sql_operation
    assert operation is not None
    assert log.sql_statement_id == "stmt-123"
    assert (operation.statement_type, operation.execution_result) == (
        StatementType.QUERY,
        ExecutionResultFormat.EXTERNAL_LINKS,
    )
    assert operation.is_compressed is True
    assert operation.operation_detail == OperationDetail(
        operation_type=OperationType.EXECUTE_STATEMENT, is_internal_call=False
    )


def test_chunks_are_told_as_the_driver_counts_them() -> None:
    statement = StatementTelemetryContext(SESSION)
    statement.set_chunk_details(
        total_chunks_present=10,
        total_chunks_iterated=8,
        initial_chunk_latency_ms=50,
        slowest_chunk_latency_ms=150,
        sum_chunks_download_time_ms=800,
    )
    operation = told_of(statement).sql_operation
    assert operation is not None
    assert operation.chunk_details == ChunkDetails(50, 150, 10, 8, 800)


def test_without_chunks_polls_and_results_nothing_is_told_of_them() -> None:
    operation = told_of(StatementTelemetryContext(SESSION)).sql_operation
    assert operation is not None
    assert (operation.chunk_details, operation.result_latency) == (None, None)
    assert operation.operation_detail == OperationDetail(is_internal_call=False)


@pytest.mark.parametrize("internal", [False, True])
def test_polls_are_told_with_their_sum_beside_the_mark_of_internal_calls(internal: bool) -> None:
    statement = StatementTelemetryContext(
        SESSION, operation_type=OperationType.EXECUTE_STATEMENT, is_internal_call=internal
    )
    for latency in (100, 150, 200):
        statement.record_poll(latency)
    operation = told_of(statement).sql_operation
    assert operation is not None
    assert operation.operation_detail == OperationDetail(3, 450, OperationType.EXECUTE_STATEMENT, internal)


def test_small_results_of_a_connection_that_may_get_links_are_told_as_inline() -> None:
    session = TelemetrySessionContext(default_result_format=ExecutionResultFormat.EXTERNAL_LINKS)
    statement = StatementTelemetryContext(session)
    statement.record_reader(result_format=ExecutionResultFormat.INLINE_ARROW, is_compressed=False)
    operation = told_of(statement).sql_operation
    assert operation is not None
    assert operation.execution_result is ExecutionResultFormat.INLINE_ARROW


def test_of_an_error_the_class_is_told_and_neither_message_nor_stack() -> None:
    statement = StatementTelemetryContext(SESSION)
    statement.record_error(TimeoutError("Query execution timed out"))
    assert told_of(statement).error_info == DriverErrorInfo("TimeoutError")
    assert told_of(StatementTelemetryContext(SESSION)).error_info is None


def test_a_failed_statement_is_told_at_once_and_once() -> None:
    client = CapturedClient()
    session = TelemetrySessionContext(session_id="s", client=client)
    statement = StatementTelemetryContext(session)
    statement.record_error(ValueError())
    assert [statement.emit(), statement.emit()] == [True, False]
    assert len(client.wait_for(1)) == 1


def test_retries_of_statements_are_counted_apart() -> None:
    first, second = StatementTelemetryContext(SESSION), StatementTelemetryContext(SESSION)
    first.record_retry(2)
    counts = [getattr(told_of(each).sql_operation, "retry_count", 0) for each in (first, second)]
    assert counts == [2, None]


def test_statements_of_a_session_have_its_id_and_ids_of_their_own() -> None:
    logs = [told_of(StatementTelemetryContext(SESSION)) for _ in range(3)]
    assert {log.session_id for log in logs} == {"test-session-123"}
    assert len({log.sql_statement_id for log in logs}) == 3


@pytest.mark.parametrize(
    ("operation", "of_a_statement"),
    [
        ("CREATE_SESSION", False),
        ("DELETE_SESSION", False),
        ("CANCEL_STATEMENT", True),
        ("CLOSE_STATEMENT", True),
    ],
)
@pytest.mark.parametrize("error", [None, ConnectionResetError("private")])
def test_an_operation_that_was_timed_elsewhere_is_told_with_its_time_and_its_error(
    operation: str, of_a_statement: bool, error: Exception | None
) -> None:
    statement = StatementTelemetryContext(SESSION, operation_type=OperationType[operation])
    statement.statement_id = "stmt-42"
    if error is not None:
        statement.record_error(error)
    with FakeClock():
        statement.began_before(1_234)
        log = told_of(statement)
    assert (log.session_id, log.operation_latency_ms) == ("test-session-123", 1_234)
    assert log.sql_statement_id == ("stmt-42" if of_a_statement else None)
    assert log.error_info == (None if error is None else DriverErrorInfo("ConnectionResetError"))


# Configuration

KEY = "adbc.databricks.telemetry."


def test_the_defaults_and_the_names_of_properties_are_the_driver_s() -> None:
    config = TelemetryConfiguration.from_properties({}, environ={})
    assert (config.enabled, config.batch_size, config.flush_interval_ms) == (False, 100, 5_000)
    assert (config.max_retries, config.retry_delay_ms) == (3, 100)
    breaker = (config.circuit_breaker_enabled, config.circuit_breaker_threshold)
    assert (*breaker, config.circuit_breaker_timeout_ms) == (True, 5, 60_000)
    told = {
        "enabled": "TRUE",
        "batch_size": "50",
        "flush_interval_ms": "3000",
        "max_retries": "0",
        "retry_delay_ms": "0",
        "circuit_breaker_enabled": "False",
        "circuit_breaker_threshold": "10",
        "circuit_breaker_timeout_ms": "120000",
    }
    config = TelemetryConfiguration.from_properties({KEY + name: told[name] for name in told}, environ={})
    assert [getattr(config, name) for name in told] == [True, 50, 3_000, 0, 0, False, 10, 120_000]


@pytest.mark.parametrize("properties", [None, {}])
def test_the_environment_speaks_where_the_properties_do_not(properties: dict[str, str] | None) -> None:
    environ = {
        "DATABRICKS_TELEMETRY_ENABLED": "true",
        "DATABRICKS_TELEMETRY_BATCH_SIZE": "200",
        "DATABRICKS_TELEMETRY_FLUSH_INTERVAL_MS": "10000",
    }
    config = TelemetryConfiguration.from_properties(properties, environ=environ)
    assert (config.enabled, config.batch_size, config.flush_interval_ms) == (True, 200, 10_000)


def test_a_property_beats_the_environment_and_a_bad_one_does_not() -> None:
    environ = {"DATABRICKS_TELEMETRY_BATCH_SIZE": "200"}
    for value, size in (("50", 50), ("many", 200), ("0", 200), ("-10", 200)):
        config = TelemetryConfiguration.from_properties({KEY + "batch_size": value}, environ=environ)
        assert config.batch_size == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enabled", "not_a_boolean"),
        ("batch_size", "0"),
        ("flush_interval_ms", "-100"),
        ("max_retries", "-1"),
        ("circuit_breaker_timeout_ms", "-1"),
        ("circuit_breaker_timeout_ms", "later"),
    ],
)
def test_a_bad_value_is_the_default_and_takes_no_other_with_it(name: str, value: str) -> None:
    config = TelemetryConfiguration.from_properties(
        {KEY + name: value, KEY + "retry_delay_ms": "7"}, environ={}
    )
    default = TelemetryConfiguration.from_properties({}, environ={})
    assert getattr(config, name) == getattr(default, name)
    assert config.retry_delay_ms == 7


def test_validate_tells_each_problem() -> None:
    assert TelemetryConfiguration().validate() == []
    bad = {
        "batch_size": 0,
        "flush_interval_ms": 0,
        "max_retries": -1,
        "retry_delay_ms": -1,
        "circuit_breaker_threshold": 0,
        "circuit_breaker_timeout_ms": 0,
    }
    told = TelemetryConfiguration(**bad).validate()  # type: ignore[arg-type]
    assert len(told) == len(bad)


# Classification


def failure(status: int, *, depth: int) -> Exception:
    error: Exception = type("HttpStatusError", (Exception,), {"status_code": status})()
    for _ in range(depth):
        wrapper = RuntimeError("wrapped")
        wrapper.__cause__ = error
        error = wrapper
    return error


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_for_good_however_deep_it_lies(status: int, depth: int) -> None:
    assert is_terminal_error(failure(status, depth=depth)) is True


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_failure_of_the_server_is_worth_another_try(status: int, depth: int) -> None:
    assert is_terminal_error(failure(status, depth=depth)) is False


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionRefusedError(), OSError(), RuntimeError(), ValueError(), Exception()]
)
def test_what_may_pass_or_is_not_known_is_worth_another_try(error: Exception) -> None:
    assert is_terminal_error(error) is False


def test_a_server_that_is_not_trusted_is_for_good() -> None:
    """.NET's AuthenticationException, of a handshake."""
    assert is_terminal_error(ssl.SSLCertVerificationError())


def test_differs_a_lack_of_permission_in_the_system_is_worth_another_try() -> None:
    """There, UnauthorizedAccessException is for good. Python's PermissionError is also what a firewall gives."""
    assert is_terminal_error(PermissionError()) is False

"""Without credentials, events do not say which workspace, account or machine they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from adbc_telemetry import (
    DatabricksTelemetryExporter,
    StatementTelemetryContext,
    TelemetryClient,
    TelemetryConfiguration,
    TelemetrySessionContext,
)
from adbc_telemetry.events.anonymous import IDENTIFYING_PARAMETERS, without_ids
from adbc_telemetry.schema import (
    DriverConnectionParameters,
    FrontendLogEntry,
    HostDetails,
    OssSqlDriverTelemetryLog,
    TelemetryFrontendLog,
)
from support.server import Request, TelemetryServer

MARK = "identifies-me"
WORKSPACE = 4242


def identifying_parameters() -> DriverConnectionParameters:
    """Parameters with something in each field that identifies, and in some that do not."""
    values: dict[str, Any] = dict.fromkeys(IDENTIFYING_PARAMETERS, MARK)
    for name in ("host_info", "proxy_host_info", "cf_proxy_host_info"):
        values[name] = HostDetails(host_url=MARK, port=443)
    values["non_proxy_hosts"] = [MARK]
    return DriverConnectionParameters(**values, enable_arrow=True, rows_fetched_per_block=5)


def log_with_ids() -> TelemetryFrontendLog:
    sql = OssSqlDriverTelemetryLog(session_id="s", driver_connection_params=identifying_parameters())
    return TelemetryFrontendLog(
        workspace_id=WORKSPACE, frontend_log_event_id="e", entry=FrontendLogEntry(sql_driver_log=sql)
    )


def send_statements(url: str, auth: Any) -> None:
    with TelemetryClient(url, TelemetryConfiguration(enabled=True), auth=auth) as client:
        session = TelemetrySessionContext(
            session_id="s",
            workspace_id=WORKSPACE,
            driver_connection_params=identifying_parameters(),
            user_agent="agent",
            client=client,
        )
        for _ in range(3):
            with StatementTelemetryContext(session):
                pass
        client.enqueue(log_with_ids())


def check(request: Request, *, with_ids: bool) -> None:
    text = request.body.decode()
    assert (MARK in text, str(WORKSPACE) in text) == (with_ids, with_ids)
    assert request.path == ("/telemetry-ext" if with_ids else "/telemetry-unauth")
    for log in request.logs:
        assert log["entry"]["sql_driver_log"]["session_id"] == "s"
        parameters = log["entry"]["sql_driver_log"]["driver_connection_params"]
        assert parameters["enable_arrow"] is True
        assert parameters["rows_fetched_per_block"] == 5


@pytest.mark.parametrize("auth", [None, lambda: None], ids=["no auth", "an auth without headers"])
def test_without_credentials_no_ids_go_along(server: TelemetryServer, auth: Any) -> None:
    send_statements(server.url, auth)
    assert len(server.accepted) == 4
    for request in server.requests:
        check(request, with_ids=False)


def test_with_credentials_they_do(server: TelemetryServer) -> None:
    send_statements(server.url, lambda: {"Authorization": "Bearer token"})
    assert len(server.accepted) == 4
    for request in server.requests:
        check(request, with_ids=True)


def answers(*headers: Mapping[str, str] | None) -> Any:
    following: Iterator[Mapping[str, str] | None] = iter(headers)
    return lambda: next(following)


TOKEN = {"Authorization": "Bearer token"}


def test_each_request_is_what_its_credentials_allow(server: TelemetryServer) -> None:
    """`auth` is asked again where the body turns out to be of the other kind."""
    auth = answers(TOKEN, None, None, None, TOKEN, TOKEN)
    exporter = DatabricksTelemetryExporter(server.url, TelemetryConfiguration(), auth=auth)
    for _ in range(4):
        assert exporter.export([log_with_ids()])
    exporter.close()
    for request, with_ids in zip(server.requests, [True, False, False, True], strict=True):
        check(request, with_ids=with_ids)


def test_an_auth_that_changes_its_mind_each_time_gets_no_ids(server: TelemetryServer) -> None:
    auth = answers(None, TOKEN, None)
    exporter = DatabricksTelemetryExporter(server.url, TelemetryConfiguration(), auth=auth)
    assert exporter.export([log_with_ids()])
    exporter.close()
    [request] = server.requests
    assert MARK not in request.body.decode()


def test_a_batch_of_several_requests_keeps_its_events_apart(server: TelemetryServer) -> None:
    config = TelemetryConfiguration(max_request_bytes=3_000)
    auth = answers(*20 * [None])
    exporter = DatabricksTelemetryExporter(server.url, config, auth=auth)
    logs = [
        msgspec.structs.replace(log_with_ids(), frontend_log_event_id=f"event {number}")
        for number in range(9)
    ]
    assert exporter.export(logs).delivered == 9
    exporter.close()
    assert server.accepted == [f"event {number}" for number in range(9)]
    assert len(server.requests) > 1
    for request in server.requests:
        check(request, with_ids=False)


def test_every_parameter_that_is_text_is_either_left_out_or_known_to_be_harmless() -> None:
    """A new field of the wire has to be looked at."""
    harmless = {"auth_scope", "ssl_trust_store_type", "jwt_algorithm"}
    for field in msgspec.structs.fields(DriverConnectionParameters):
        kind = str(field.type)
        if "str" in kind or "HostDetails" in kind:
            assert (field.name in IDENTIFYING_PARAMETERS) is not (field.name in harmless), field.name


def test_a_log_without_ids_stays_as_it_is() -> None:
    for log in (TelemetryFrontendLog(), TelemetryFrontendLog(entry=FrontendLogEntry())):
        assert without_ids(log) == log

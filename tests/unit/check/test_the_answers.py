"""Endpoints that answer in the wrong way, each diagnosed by name; and one that is in order."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from adbc_telemetry.check import CheckupReport
from adbc_telemetry.feature_flags import TELEMETRY_FLAG
from support.endpoints import garbage, no_answer, read_request, write_answer
from support.server import Reply, Request, TelemetryServer, black_hole, raw_endpoint
from unit.check.conftest import NAME, Check

SECRET = "s3cret-token"


def answers(flags: Reply, event: Reply | None = None) -> Callable[[Request], Reply]:
    """The endpoint's answers to the question for flags and to events."""
    return lambda request: (event or Reply()) if request.raw else flags


def flags(value: str) -> Reply:
    return Reply(body=json.dumps({"flags": [{"name": TELEMETRY_FLAG, "value": value}]}).encode())


def test_an_endpoint_in_order_gets_one_event_that_says_what_it_is(
    checked: Callable[..., CheckupReport], server: TelemetryServer
) -> None:
    server.always = answers(flags("true"))
    report = checked(server.url, token=SECRET)
    assert report.arrives
    assert [step.finding.diagnosis for step in report.steps] == [None] * len(report.steps)
    [event] = [request for request in server.requests if request.raw]
    assert event.path == "/telemetry-ext"
    assert event.headers["Authorization"] == f"Bearer {SECRET}"
    [log] = event.logs
    system = log["entry"]["sql_driver_log"]["system_configuration"]
    assert system["client_app_name"] == "adbc-telemetry check"
    assert SECRET not in repr(report)
    assert SECRET not in json.dumps(report.as_json())


def test_a_token_that_would_travel_unencrypted_is_not_sent(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)  # the way to another machine
    assert diagnosed(f"http://{NAME}", token=SECRET) == {"authentication": "token-would-be-read"}
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "step", "name"),
    [
        (401, "authentication", "unauthorized"),
        (403, "authentication", "forbidden"),
        (302, "authentication", "redirected"),
        (404, "test event", "no-such-route"),
        (418, "test event", "refuses-the-request"),
        (429, "test event", "rate-limited"),
        (500, "test event", "server-fails"),
        (503, "test event", "unavailable"),
    ],
)
def test_an_endpoint_that_answers_with_a_status(
    diagnosed: Check, server: TelemetryServer, status: int, step: str, name: str
) -> None:
    headers = {"Location": "https://elsewhere.example/"} if status == 302 else {}
    server.always = lambda request: Reply(status, headers)
    assert diagnosed(server.url) == {step: name}


def test_an_endpoint_that_wants_a_token_for_events_alone(diagnosed: Check, server: TelemetryServer) -> None:
    server.always = answers(Reply(404), Reply(401))
    assert diagnosed(server.url) == {"test event": "unauthorized"}


def test_an_endpoint_that_hangs(diagnosed: Check) -> None:
    with raw_endpoint(black_hole) as url:
        assert diagnosed(url, timeout=0.5) == {"authentication": "does-not-answer"}


@pytest.mark.parametrize("serve", [garbage, no_answer], ids=["garbage", "no answer"])
def test_an_endpoint_that_breaks_off(diagnosed: Check, serve: Callable[..., None]) -> None:
    with raw_endpoint(serve) as url:
        assert diagnosed(url) == {"authentication": "breaks-off"}


def test_a_login_page_that_answers_everything(diagnosed: Check, server: TelemetryServer) -> None:
    server.always = lambda request: Reply(body=b"<html>Welcome to the airport's network</html>")
    assert diagnosed(server.url) == {"answer": "answer-is-no-telemetry"}


def test_an_endpoint_that_refuses_the_event(diagnosed: Check, server: TelemetryServer) -> None:
    server.always = answers(Reply(404), Reply(body=b'{"errors": ["no"], "numProtoSuccess": 0}'))
    assert diagnosed(server.url) == {"answer": "event-refused"}


def test_flags_that_turn_telemetry_off_for_users_who_have_not_decided(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TELEMETRY_ENABLED")
    server.always = answers(flags("false"))
    assert diagnosed(server.url) == {"configuration": "undecided", "flags": "flags-say-no"}


def test_an_endpoint_without_flags_for_users_who_have_not_decided(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_TELEMETRY_ENABLED")
    server.always = answers(Reply(404))
    assert diagnosed(server.url) == {"configuration": "undecided", "flags": "flags-not-readable"}


def test_a_clock_that_is_wrong_is_seen_without_tls(diagnosed: Check) -> None:
    def serve(connection: socket.socket) -> None:
        while True:
            request = read_request(connection)
            body = json.dumps({"errors": [], "numProtoSuccess": 1}).encode() if request.raw else b"{}"
            write_answer(connection, "200 OK", body, "Date: Mon, 02 Feb 2015 10:00:00 GMT")

    with raw_endpoint(serve) as url:
        assert diagnosed(url) == {"authentication": "clock-is-wrong"}


def test_a_breaker_that_opens_at_the_first_failure_is_told(
    checked: Callable[..., CheckupReport], server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_CIRCUIT_BREAKER_THRESHOLD", "1")
    server.always = lambda request: Reply(503)
    found = {step.name: step.finding for step in checked(server.url).steps}
    assert found["breaker"].diagnosis is not None
    assert found["breaker"].diagnosis.label == "circuit-open"


def test_a_file_takes_the_event_without_a_network(diagnosed: Check, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    assert diagnosed(f"file://{file}") == {}
    [line] = file.read_text().splitlines()
    assert json.loads(line)["entry"]["sql_driver_log"]["system_configuration"]["client_app_name"]


def test_a_file_in_a_folder_that_is_not_there(diagnosed: Check, tmp_path: Path) -> None:
    assert diagnosed(f"file://{tmp_path}/missing/events.jsonl") == {"test event": "file-not-writable"}


def test_an_opentelemetry_collector_takes_the_event(diagnosed: Check, server: TelemetryServer) -> None:
    server.always = lambda request: Reply(body=b"")
    assert diagnosed(f"otlp+{server.url}") == {}
    assert [request.path for request in server.requests] == ["/v1/logs"]


def test_an_opentelemetry_collector_that_wants_credentials(diagnosed: Check, server: TelemetryServer) -> None:
    server.always = lambda request: Reply(401)
    assert diagnosed(f"otlp+{server.url}") == {"test event": "unauthorized"}

"""The exporter on real sockets: the request byte by byte, polite retries, deadlines, tokens."""

from __future__ import annotations

import gzip
import json
import logging
import re
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from adbc_telemetry import (
    DatabricksTelemetryExporter,
    ExportOutcome,
    TelemetryClient,
    TelemetryConfiguration,
    TelemetryExporter,
)
from support.logs import make_log, make_logs
from support.server import (
    Reply,
    Request,
    TelemetryServer,
    black_hole,
    close_in_mid_response,
    raw_endpoint,
    refused_url,
    trickle,
    trickle_body,
)
from support.waiting import wait_until


def exporter_to(
    url: str, *, auth: Callable[[], Any] | None = None, **settings: Any
) -> DatabricksTelemetryExporter:
    settings = {"retry_delay_ms": 1, **settings}
    return DatabricksTelemetryExporter(url, TelemetryConfiguration(**settings), auth=auth)


# The request.


def test_the_request_with_credentials_is_this_byte_by_byte() -> None:
    received = bytearray()
    answered = threading.Event()

    def serve(connection: Any) -> None:
        while b"protoLogs" not in received or not received.endswith(b"]}"):
            received.extend(connection.recv(65536))
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"numProtoSuccess":1}')
        answered.set()

    log = make_log("id-1", session_id='quote " backslash \\ newline \n é')
    with raw_endpoint(serve) as url:
        exporter = exporter_to(url, auth=lambda: {"Authorization": "Bearer token"})
        assert exporter.export([log]).delivered == 1
        exporter.close()
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /telemetry-ext HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers.pop("User-Agent").startswith("adbc-telemetry/")
    assert headers == {
        "Host": url.removeprefix("http://"),
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Authorization": "Bearer token",
        "Content-Length": str(len(body)),
    }
    upload_time = int(re.match(rb'\{"uploadTime":(\d{13}),', body).group(1))  # type: ignore[union-attr]
    assert abs(upload_time - time.time() * 1000) < 60_000
    assert (
        body
        == (
            b'{"uploadTime":%d,"items":[],"protoLogs":["{'
            b'\\"workspace_id\\":1,\\"frontend_log_event_id\\":\\"id-1\\",'
            b'\\"context\\":{\\"client_context\\":{\\"timestamp_millis\\":1764000000000,\\"user_agent\\":\\"test\\"}},'
            b'\\"entry\\":{\\"sql_driver_log\\":{'
            b'\\"session_id\\":\\"quote \\\\\\" backslash \\\\\\\\ newline \\\\n \xc3\xa9\\"}}}"]}'
        )
        % upload_time
    )


def test_without_credentials_it_goes_to_telemetry_unauth(server: TelemetryServer) -> None:
    exporter = exporter_to(server.url)
    assert exporter.export([make_log()])
    assert server.requests[0].path == "/telemetry-unauth"
    assert "Authorization" not in server.requests[0].headers
    assert exporter.endpoint_url == f"{server.url}/telemetry-unauth"
    exporter.close()


def test_the_endpoint_url_is_https_unless_told_otherwise() -> None:
    config = TelemetryConfiguration()
    assert DatabricksTelemetryExporter("Host.example:443", config).endpoint_url == (
        "https://host.example/telemetry-unauth"
    )
    assert DatabricksTelemetryExporter("host.example", config, auth=dict).endpoint_url == (
        "https://host.example/telemetry-ext"
    )
    assert isinstance(DatabricksTelemetryExporter("h", config), TelemetryExporter)


def test_auth_is_called_for_every_request_so_that_tokens_are_renewed(server: TelemetryServer) -> None:
    tokens = iter(["first", "second", "third"])
    server.replies.append(Reply(503))
    exporter = exporter_to(server.url, auth=lambda: {"Authorization": next(tokens)})
    assert exporter.export([make_log()])
    assert exporter.export([make_log()])
    assert [request.headers["Authorization"] for request in server.requests] == ["first", "second", "third"]
    exporter.close()


def test_connections_are_kept_alive(server: TelemetryServer) -> None:
    exporter = exporter_to(server.url)
    for _ in range(5):
        assert exporter.export([make_log()])
    assert len({request.connection for request in server.requests}) == 1
    exporter.close()


def test_gzip_compresses_the_same_body(server: TelemetryServer) -> None:
    exporter = exporter_to(server.url, compression="gzip")
    assert exporter.export(make_logs(50)).delivered == 50
    request = server.requests[0]
    assert request.headers["Content-Encoding"] == "gzip"
    assert len(request.raw) < len(gzip.decompress(request.raw)) / 5
    assert len(request.json["protoLogs"]) == 50
    exporter.close()


def test_requests_are_at_most_max_request_bytes(server: TelemetryServer) -> None:
    exporter = exporter_to(server.url, max_request_bytes=2000)
    logs = make_logs(30)
    assert exporter.export(logs).delivered == 30
    assert len(server.requests) > 1
    assert max(len(request.body) for request in server.requests) <= 2000
    assert server.accepted == [log.frontend_log_event_id for log in logs]
    exporter.close()


def test_an_event_that_is_too_large_alone_is_rejected_alone(server: TelemetryServer) -> None:
    exporter = exporter_to(server.url, max_request_bytes=1000)
    result = exporter.export([make_log("a"), make_log("b", session_id="x" * 2000), make_log("c")])
    assert (result.delivered, result.rejected, result.outcome) == (2, 1, ExportOutcome.DELIVERED)
    assert server.accepted == ["a", "c"]
    exporter.close()


# The answer.


def test_events_beyond_num_proto_success_count_as_rejected(server: TelemetryServer) -> None:
    answer = {"errors": ["two were bad"], "numSuccess": 0, "numProtoSuccess": 3, "numRealtimeSuccess": 0}
    server.replies.append(Reply(200, body=json.dumps(answer).encode()))
    exporter = exporter_to(server.url)
    result = exporter.export(make_logs(5))
    assert (result.delivered, result.rejected) == (3, 2)
    assert bool(result)
    exporter.close()


@pytest.mark.parametrize(
    ("body", "delivered"),
    [
        (b"", 2),
        (b"{}", 2),
        (b'{"numProtoSuccess": 99}', 2),
        (b'{"numProtoSuccess": -1}', 0),
        (b"<html>", 0),
        (b'{"errors":' + b"[" * 100_000, 0),
    ],
)
def test_a_2xx_that_is_odd_is_read_with_care(server: TelemetryServer, body: bytes, delivered: int) -> None:
    server.replies.append(Reply(200, body=body))
    exporter = exporter_to(server.url)
    result = exporter.export(make_logs(2))
    assert (result.delivered, result.rejected) == (delivered, 2 - delivered)
    assert bool(result) is (delivered > 0)
    assert len(server.requests) == 1
    exporter.close()


# Promise 10: retries are polite.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_error_is_tried_again(server: TelemetryServer, status: int) -> None:
    server.replies.extend([Reply(status), Reply(status)])
    exporter = exporter_to(server.url)
    assert exporter.export([make_log("it")])
    assert len(server.requests) == 3
    assert server.accepted == ["it"]
    exporter.close()


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_there_are_at_most_max_retries(server: TelemetryServer, retries: int) -> None:
    server.always = lambda _: Reply(503)
    exporter = exporter_to(server.url, max_retries=retries)
    result = exporter.export([make_log()])
    assert (result.outcome, result.reason) == (ExportOutcome.FAILED, "HTTP 503")
    assert len(server.requests) == 1 + retries
    exporter.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 422, 301, 307])
def test_an_error_for_good_is_not_tried_again(server: TelemetryServer, status: int) -> None:
    server.always = lambda _: Reply(status, {"Location": "/elsewhere"} if status < 400 else {})
    exporter = exporter_to(server.url)
    result = exporter.export(make_logs(3))
    assert (result.outcome, result.reason) == (ExportOutcome.REJECTED, f"HTTP {status}")
    assert len(server.requests) == 1
    exporter.close()


@pytest.mark.slow
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_obeyed(server: TelemetryServer, as_date: bool) -> None:
    wait = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    server.replies.append(Reply(429, {"Retry-After": wait}))
    exporter = exporter_to(server.url)
    assert exporter.export([make_log()])
    first, second = server.requests
    assert second.at - first.at >= 0.9
    exporter.close()


def test_back_off_grows_and_has_full_jitter(monkeypatch: pytest.MonkeyPatch, server: TelemetryServer) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return 0.0

    monkeypatch.setattr("adbc_telemetry.transport.retry._uniform", uniform)
    server.always = lambda _: Reply(503)
    exporter = exporter_to(server.url, retry_delay_ms=100, max_retries=4)
    exporter.export([make_log()])
    assert bounds == [0.1, 0.2, 0.4, 0.8]
    exporter.close()


def test_413_splits_the_batch_until_it_fits(server: TelemetryServer) -> None:
    def at_most_three(request: Request) -> Reply:
        return Reply(413) if len(request.ids) > 3 else Reply()

    server.always = at_most_three
    exporter = exporter_to(server.url)
    logs = make_logs(10)
    result = exporter.export(logs)
    assert (result.outcome, result.delivered) == (ExportOutcome.DELIVERED, 10)
    assert server.accepted == [log.frontend_log_event_id for log in logs]
    exporter.close()


def test_413_for_a_single_event_rejects_that_one_alone(server: TelemetryServer) -> None:
    server.always = lambda request: Reply(413) if "big" in request.ids else Reply()
    exporter = exporter_to(server.url)
    result = exporter.export([make_log("a"), make_log("big"), make_log("b")])
    assert (result.delivered, result.rejected) == (2, 1)
    assert server.accepted == ["a", "b"]
    exporter.close()


def test_connection_refused_is_tried_again_and_fails() -> None:
    exporter = exporter_to(refused_url(), max_retries=2)
    result = exporter.export([make_log()])
    assert result.outcome is ExportOutcome.FAILED
    exporter.close()


def test_a_connection_that_died_idle_does_not_lose_the_next_batch() -> None:
    served: list[int] = []

    def serve_once(connection: Any) -> None:
        data = b""
        while not data.endswith(b"]}"):
            data += connection.recv(65536)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"numProtoSuccess":1}')
        connection.close()
        served.append(1)

    with raw_endpoint(serve_once) as url:
        exporter = exporter_to(url)
        for count in range(1, 4):
            assert exporter.export([make_log()])
            wait_until(lambda count=count: len(served) == count)  # type: ignore[misc]
        exporter.close()


# Faulty servers, and deadlines.


@pytest.mark.parametrize("fault", [black_hole, trickle, trickle_body, close_in_mid_response])
def test_a_faulty_server_fails_the_export_within_the_request_timeout(fault: Callable[[Any], None]) -> None:
    with raw_endpoint(fault) as url:
        exporter = exporter_to(url, request_timeout_ms=300, max_retries=0)
        started = time.monotonic()
        result = exporter.export([make_log()])
        assert time.monotonic() - started < 0.3 + 0.25
        assert result.outcome is ExportOutcome.FAILED
        exporter.close()


@pytest.mark.parametrize("fault", [black_hole, trickle, trickle_body])
def test_export_returns_by_its_deadline(fault: Callable[[Any], None]) -> None:
    with raw_endpoint(fault) as url:
        exporter = exporter_to(url, request_timeout_ms=30_000)
        started = time.monotonic()
        result = exporter.export([make_log()], deadline=started + 0.2)
        assert time.monotonic() - started < 0.2 + 0.25
        assert result.outcome is ExportOutcome.CANCELLED
        exporter.close()


@pytest.mark.parametrize("fault", [black_hole, trickle, trickle_body])
def test_close_ends_a_request_under_way_at_once(fault: Callable[[Any], None]) -> None:
    reached = threading.Event()

    def serve(connection: Any) -> None:
        reached.set()
        fault(connection)

    with raw_endpoint(serve) as url:
        exporter = exporter_to(url, request_timeout_ms=30_000)
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(exporter.export([make_log()])))
        thread.start()
        assert reached.wait(10)
        started = time.monotonic()
        exporter.close()
        thread.join(10)
        assert time.monotonic() - started < 0.25
        assert results[0].outcome is ExportOutcome.CANCELLED


def test_a_full_backlog_is_a_black_hole_too() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):  # more than the backlog takes: further connects get no answer at all
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        exporter = exporter_to(f"http://127.0.0.1:{port}", request_timeout_ms=200, max_retries=0)
        started = time.monotonic()
        assert exporter.export([make_log()]).outcome is ExportOutcome.FAILED
        assert time.monotonic() - started < 0.2 + 0.25
        exporter.close()
        for filler in fillers:
            filler.close()


def test_a_back_off_that_would_pass_the_deadline_is_not_begun(server: TelemetryServer) -> None:
    server.always = lambda _: Reply(503, {"Retry-After": "20"})
    exporter = exporter_to(server.url)
    started = time.monotonic()
    assert exporter.export([make_log()], deadline=started + 10).outcome is ExportOutcome.FAILED
    assert time.monotonic() - started < 5
    exporter.close()


# Promise 12: tokens.


def test_tokens_go_over_tls_or_nowhere() -> None:
    config = TelemetryConfiguration()
    with pytest.raises(ValueError, match="https"):
        DatabricksTelemetryExporter("http://collector.example", config, auth=lambda: {"Authorization": "t"})
    DatabricksTelemetryExporter("http://collector.example", config)
    for loopback in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        DatabricksTelemetryExporter(loopback, config, auth=lambda: {"Authorization": "t"})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(server: TelemetryServer, status: int) -> None:
    with TelemetryServer() as other:
        server.replies.append(Reply(status, {"Location": f"{other.url}/telemetry-ext"}))
        exporter = exporter_to(server.url, auth=lambda: {"Authorization": "secret"})
        assert exporter.export([make_log()]).outcome is ExportOutcome.REJECTED
        assert other.requests == []
        exporter.close()


def test_a_token_shows_in_no_log_line_and_no_repr(
    server: TelemetryServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.replies.extend([Reply(503), Reply(401)])
    exporter = exporter_to(server.url, auth=lambda: {"Authorization": "Bearer sentinel-token"})
    results = [exporter.export([make_log()]), exporter.export([make_log()])]
    exporter.close()
    broken = exporter_to(server.url, max_retries=0, auth=lambda: {"Authorization": "sentinel-token\nX: y"})
    results.append(broken.export([make_log()]))
    broken.close()
    assert [bool(result) for result in results] == [False, True, False]
    text = caplog.text + repr(results) + repr(exporter) + repr(vars(exporter))
    assert "sentinel-token" not in text


# auth that misbehaves.


def _raise() -> dict[str, str]:
    raise RuntimeError("sentinel-secret")


@pytest.mark.parametrize("auth", [_raise, lambda: "text", lambda: {"Authorization": 1}, lambda: [1]])
def test_auth_that_raises_or_returns_rubbish_fails_the_export_and_sends_nothing(
    server: TelemetryServer, auth: Callable[[], Any]
) -> None:
    exporter = exporter_to(server.url, auth=auth)
    result = exporter.export([make_log()])
    assert result.outcome is ExportOutcome.FAILED
    assert "sentinel" not in (result.reason or "")
    assert server.requests == []
    exporter.close()


def test_auth_that_returns_none_sends_without_credentials(server: TelemetryServer) -> None:
    exporter = exporter_to(server.url, auth=lambda: None)
    assert exporter.export([make_log()])
    assert server.requests[0].path == "/telemetry-unauth"
    exporter.close()


# Promise 1: nothing above DEBUG.


def test_nothing_is_logged_above_debug_and_no_warning_shown(
    server: TelemetryServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.replies.extend([Reply(503), Reply(500), Reply(400), Reply(200, body=b"x" * 2_000_000)])
    config = TelemetryConfiguration(enabled=True, retry_delay_ms=1, batch_size=1)
    with TelemetryClient(server.url, config) as client:
        for _ in range(6):
            client.enqueue(make_log())
            client.flush(10)
    with raw_endpoint(close_in_mid_response) as url, TelemetryClient(url, config) as client:
        client.enqueue(make_log())
        client.flush(10)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_more_exports_at_once_than_connections_are_all_made_without_a_warning(
    server: TelemetryServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    all_there = threading.Event()
    server.always = lambda _: Reply(release=all_there)
    exporter = exporter_to(server.url)
    threads = [threading.Thread(target=exporter.export, args=([make_log()],)) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(server.requests) >= 8)
    all_there.set()
    for thread in threads:
        thread.join(10)
    exporter.close()
    assert len(server.accepted) == 20
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []

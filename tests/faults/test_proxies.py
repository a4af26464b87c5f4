"""Proxies."""

from __future__ import annotations

import socket
import time

import pytest
import trustme

from adbc_telemetry import (
    TelemetryClient,
)
from faults.network import GRACE, NAME, TOKEN, close_in_the_middle, config, faulty_endpoint, send, with_token
from faults.scenario import Scenario
from support.endpoints import (
    ConnectProxy,
    Serve,
    TlsTelemetryServer,
    https,
    over_tls,
    read_head,
    server_context,
    write_answer,
)
from support.server import (
    TelemetryServer,
    black_hole,
    raw_endpoint,
    refused_url,
)


def proxied(monkeypatch: pytest.MonkeyPatch, url: str, scheme: str = "HTTPS") -> None:
    monkeypatch.setenv(f"{scheme}_PROXY", url)


def test_https_through_a_proxy(
    fault: Scenario,
    tls_server: TlsTelemetryServer,
    looked_up: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTTPS_PROXY names a proxy; only that proxy can resolve the endpoint's name."""
    proxy = ConnectProxy(tls_server.port)
    with raw_endpoint(proxy.serve) as url:
        proxied(monkeypatch, url)
        with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
            send(client, 10)
            send(client, 10)
    fault.settled(client.stats(), sent=20, arrived=tls_server.accepted)
    assert fault.delivered == 20
    assert len(proxy.asked) == 1
    assert proxy.asked[0].startswith(f"CONNECT {NAME}:443 ")
    assert NAME not in looked_up
    assert tls_server.requests[0].headers["Host"] == NAME
    assert tls_server.requests[0].headers["Authorization"] == TOKEN
    assert "Authorization" not in proxy.heads[0]
    assert TOKEN.encode() not in proxy.carried


def test_no_proxy_excludes_the_endpoint(
    fault: Scenario,
    tls_server: TlsTelemetryServer,
    looked_up: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTTPS_PROXY names a proxy, and NO_PROXY names the endpoint."""
    proxy = ConnectProxy(tls_server.port)
    with raw_endpoint(proxy.serve) as url:
        proxied(monkeypatch, url)
        monkeypatch.setenv("NO_PROXY", f"other.example,{NAME}")
        with TelemetryClient(f"https://{NAME}:{tls_server.port}", config(), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=tls_server.accepted)
    assert fault.delivered == 10
    assert proxy.asked == []
    assert NAME in looked_up


def test_a_proxy_for_plain_http(
    fault: Scenario, server: TelemetryServer, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY names a proxy; the endpoint is plain HTTP without credentials."""
    proxied(monkeypatch, server.url, "HTTP")
    with TelemetryClient(f"http://{NAME}", config()) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.delivered == 10
    assert server.requests[0].path == f"http://{NAME}/telemetry-unauth"
    assert NAME not in looked_up


def test_a_proxy_that_wants_the_password_in_its_url(
    fault: Scenario, tls_server: TlsTelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy answers 407 unless the request has the user and password in HTTPS_PROXY."""
    proxy = ConnectProxy(tls_server.port, authorization="Basic dXNlcjpwYXNzIHdvcmQ=")
    with raw_endpoint(proxy.serve) as url:
        proxied(monkeypatch, url.replace("http://", "http://user:pass%20word@"))
        with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=tls_server.accepted)
    assert fault.delivered == 10
    assert "Proxy-Authorization" not in tls_server.requests[0].headers


def test_a_proxy_behind_tls(
    fault: Scenario, tls_server: TlsTelemetryServer, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY is an https URL: TLS to the endpoint runs inside TLS to the proxy."""
    proxy = ConnectProxy(tls_server.port)
    context = server_context(trusted.issue_cert("127.0.0.1"))
    with raw_endpoint(over_tls(context, proxy.serve)) as url:
        proxied(monkeypatch, https(url))
        with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=tls_server.accepted)
    assert fault.delivered == 10
    assert TOKEN.encode() not in proxy.carried


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
def test_a_proxy_that_refuses(fault: Scenario, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """The proxy answers with the status in brackets and does not connect."""
    asked: list[str] = []

    def refuse(connection: socket.socket) -> None:
        asked.append(read_head(connection)[0])
        write_answer(connection, status, b"<html>no</html>")
        connection.close()

    with raw_endpoint(refuse) as url:
        proxied(monkeypatch, url)
        with TelemetryClient(f"https://{NAME}", config(max_retries=1), auth=with_token) as client:
            send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}
    assert len(asked) == 2


def test_a_proxy_that_is_down(fault: Scenario, monkeypatch: pytest.MonkeyPatch, looked_up: list[str]) -> None:
    """HTTPS_PROXY names a port that refuses connections."""
    proxied(monkeypatch, refused_url())
    with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}
    assert NAME not in looked_up  # the client does not bypass the proxy


def test_a_proxy_that_connects_to_an_impostor(
    fault: Scenario, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy connects to a server with a self-signed certificate."""
    with TlsTelemetryServer(server_context(trustme.CA().issue_cert(NAME))) as server:
        proxy = ConnectProxy(server.port)
        with raw_endpoint(proxy.serve) as url:
            proxied(monkeypatch, url)
            with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
                send(client, 10)
        assert server.requests == []
        assert len(proxy.asked) == 1
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.lost == {"rejected": 10}


def _trickling_proxy(connection: socket.socket) -> None:
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("faulty", [black_hole, _trickling_proxy], ids=["says nothing", "trickles"])
def test_a_proxy_that_hangs(fault: Scenario, monkeypatch: pytest.MonkeyPatch, faulty: Serve) -> None:
    """The proxy takes the request and never finishes its answer."""
    with raw_endpoint(faulty) as url:
        proxied(monkeypatch, url)
        client = TelemetryClient(f"https://{NAME}", config(request_timeout_ms=200, max_retries=0))
        started = time.monotonic()
        send(client, 5)
        assert time.monotonic() - started < 0.2 + GRACE
        client.close()
    fault.settled(client.stats(), sent=5, arrived=[])
    assert fault.lost == {"failed": 5}


@pytest.mark.parametrize("faulty", [black_hole, _trickling_proxy], ids=["says nothing", "trickles"])
def test_a_close_while_a_proxy_hangs(fault: Scenario, monkeypatch: pytest.MonkeyPatch, faulty: Serve) -> None:
    """The proxy never finishes its answer, and no request timeout helps; the program closes the client."""
    with faulty_endpoint(faulty) as (url, reached):
        proxied(monkeypatch, url)
        settings = config(request_timeout_ms=60_000, max_request_bytes=16_000_000)
        client = TelemetryClient(f"https://{NAME}", settings)
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])


@pytest.mark.parametrize("faulty", [black_hole, _trickling_proxy], ids=["says nothing", "trickles"])
def test_a_close_while_a_proxy_behind_tls_hangs(
    fault: Scenario, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch, faulty: Serve
) -> None:
    """The proxy, reached by TLS, never finishes its answer; the program closes the client."""
    context = server_context(trusted.issue_cert("127.0.0.1"))
    with faulty_endpoint(over_tls(context, faulty)) as (url, reached):
        proxied(monkeypatch, https(url))
        settings = config(request_timeout_ms=60_000, max_request_bytes=16_000_000)
        client = TelemetryClient(f"https://{NAME}", settings)
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])

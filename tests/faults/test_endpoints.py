"""Endpoints that listen, and endpoints that do not."""

from __future__ import annotations

import socket

import pytest

from adbc_telemetry import (
    TelemetryClient,
)
from faults.network import NAME, config, send, with_token
from faults.scenario import Scenario
from support.logs import make_logs
from support.server import (
    TelemetryServer,
    refused_url,
)


def test_nothing_listens(fault: Scenario) -> None:
    """The port refuses connections."""
    with TelemetryClient(refused_url(), config(max_retries=1)) as client:
        send(client, 50)
    fault.settled(client.stats(), sent=50, arrived=[])
    assert fault.lost == {"failed": 50}


def test_the_endpoint_is_healthy(fault: Scenario, server: TelemetryServer) -> None:
    """Nothing: the healthy case for comparison."""
    with TelemetryClient(server.url, config()) as client:
        for log in make_logs(250):
            client.enqueue(log)
    fault.settled(client.stats(), sent=250, arrived=server.accepted)
    assert fault.delivered == 250


def test_the_endpoint_is_an_ipv6_address(fault: Scenario) -> None:
    """The endpoint's URL is an IPv6 literal with a port."""
    try:
        server = TelemetryServer("::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server, TelemetryClient(server.url, config(), auth=with_token) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.delivered == 5
    assert server.requests[0].headers["Host"] == f"[::1]:{server.port}"


def test_the_first_address_of_a_name_is_dead(
    fault: Scenario, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint's name has two addresses; nothing listens at the first."""
    dead = int(refused_url().rpartition(":")[2])
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", dead)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with TelemetryClient(f"http://{NAME}:{server.port}", config(max_retries=0)) as client:
        send(client, 5)
    fault.settled(client.stats(), sent=5, arrived=server.accepted)
    assert fault.delivered == 5

"""Credentials: redirects, refused tokens, and `auth`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from adbc_telemetry import (
    CircuitBreakerState,
    TelemetryClient,
)
from faults.network import GRACE, TOKEN, circuit_of, config, send, senders, with_token
from faults.scenario import Scenario
from support.logs import make_logs
from support.server import (
    Reply,
    TelemetryServer,
)
from support.waiting import wait_until


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host(fault: Scenario, server: TelemetryServer, status: int) -> None:
    """The endpoint says that the service has moved to another host."""
    with TelemetryServer() as other:
        server.always = lambda _: Reply(status, {"Location": f"{other.url}/telemetry-ext"})
        with TelemetryClient(server.url, config(), auth=with_token) as client:
            send(client, 10)
        assert other.connections == []  # and no token either
    fault.settled(client.stats(), sent=10, arrived=[*server.accepted, *other.accepted])
    assert fault.lost == {"rejected": 10}
    assert len(server.requests) == 1


def test_a_token_expires_and_is_renewed(fault: Scenario, server: TelemetryServer) -> None:
    """The endpoint answers 401 to the old token; `auth` returns a new one for the next request."""
    tokens = iter(["old", "new", "new"])
    server.always = lambda request: Reply(401 if request.headers["Authorization"] == "old" else 200)
    with TelemetryClient(server.url, config(), auth=lambda: {"Authorization": next(tokens)}) as client:
        send(client, 10)
        later = send(client, 10) + send(client, 10)
        assert circuit_of(client) is CircuitBreakerState.CLOSED
    fault.settled(client.stats(), sent=30, arrived=server.accepted)
    assert fault.lost == {"rejected": 10}
    assert server.accepted == later
    assert len(server.requests) == 3


def test_a_token_that_is_always_refused(fault: Scenario, server: TelemetryServer) -> None:
    """The endpoint always answers 403."""
    server.always = lambda _: Reply(403)
    settings = config(circuit_breaker_threshold=3)
    with TelemetryClient(server.url, settings, auth=with_token) as client:
        for _ in range(5):
            send(client, 2)
        assert circuit_of(client) is CircuitBreakerState.OPEN
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.lost == {"rejected": 6, "dropped_circuit_open": 4}
    assert len(server.requests) == 3


# What `auth` returns.


class Unreadable(Mapping[str, str]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> str:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1


def _raise(error: BaseException) -> None:
    raise error


RUBBISH: dict[str, Callable[[], Any]] = {
    "raises": lambda: _raise(RuntimeError("sentinel")),
    "exits": lambda: _raise(SystemExit(3)),
    "returns a string": lambda: TOKEN,
    "returns bytes": lambda: {"Authorization": TOKEN.encode()},
    "returns pairs": lambda: [("Authorization", TOKEN)],
    "returns None as a value": lambda: {"Authorization": None},
    "returns a mapping that cannot be read": Unreadable,
    "returns a line break in a value": lambda: {"Authorization": "a\r\nX-Injected: b"},
    "returns a lone line feed in a value": lambda: {"Authorization": "a\nX-Injected: b"},
    "returns a line break in a name": lambda: {"Authorization: a\r\nX-Injected": "b"},
    "returns a colon in a name": lambda: {"Authorization: a": "b"},
    "returns an empty name": lambda: {"": "b"},
    "returns text beyond latin-1": lambda: {"Authorization": "Bearer 鍵"},
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
def test_auth_that(fault: Scenario, server: TelemetryServer, rubbish: Callable[[], Any]) -> None:
    """`auth` fails as the brackets say; later it returns valid headers."""
    faulty = True

    def auth() -> Any:
        return rubbish() if faulty else with_token()

    with TelemetryClient(server.url, config(), auth=auth) as client:
        send(client, 10)
        assert server.requests == []
        faulty = False
        healthy = send(client, 5)
    fault.settled(client.stats(), sent=15, arrived=server.accepted)
    assert fault.lost == {"failed": 10}
    assert server.accepted == healthy


def test_auth_that_returns_none(fault: Scenario, server: TelemetryServer) -> None:
    """`auth` returns None."""
    with TelemetryClient(server.url, config(), auth=lambda: None) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=server.accepted)
    assert fault.delivered == 10
    assert [request.path for request in server.requests] == ["/telemetry-unauth"]


def test_auth_that_hangs(fault: Scenario, server: TelemetryServer) -> None:
    """`auth` does not return, and the program closes the client."""
    begun, over = threading.Event(), threading.Event()

    def auth() -> dict[str, str]:
        begun.set()
        over.wait(20)
        return with_token()

    client = TelemetryClient(server.url, config(), auth=auth)
    for log in make_logs(101):
        client.enqueue(log)
    assert begun.wait(10)
    started = time.monotonic()
    client.close(0.3)
    assert time.monotonic() - started < 0.3 + GRACE
    fault.settled(client.stats(), sent=101, arrived=[])
    over.set()
    wait_until(lambda: senders() == [])
    assert server.requests == []  # an event counted as lost is never sent later

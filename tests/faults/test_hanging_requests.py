"""Requests that would never end."""

from __future__ import annotations

import time

import pytest

from adbc_telemetry import (
    TelemetryClient,
)
from faults.network import GRACE, close_in_the_middle, config, faulty_endpoint, send
from faults.scenario import Scenario
from support.endpoints import (
    Serve,
    endless_continue,
    reads_nothing,
)
from support.server import (
    black_hole,
    trickle,
    trickle_body,
)

TIMELESS: dict[str, Serve | None] = {
    "a black hole": black_hole,
    "a header that trickles": trickle,
    "a body that trickles": trickle_body,
    "endless 100 Continue": endless_continue,
    "a server that does not read": reads_nothing,
    "a full backlog": None,
}


@pytest.mark.parametrize("faulty", TIMELESS.values(), ids=TIMELESS)
def test_a_request_that_never_ends(fault: Scenario, faulty: Serve | None) -> None:
    """The server keeps the connection busy or waiting for ever, as the brackets say."""
    with faulty_endpoint(faulty) as (url, _):
        settings = config(request_timeout_ms=200, max_retries=0, max_request_bytes=16_000_000)
        client = TelemetryClient(url, settings)
        started = time.monotonic()
        send(client, 100, session_id="x" * 100_000)
        assert 0.2 <= time.monotonic() - started < 0.2 + GRACE + 0.25  # and the time to encode 10 MB
        client.close()
    fault.settled(client.stats(), sent=100, arrived=[])
    assert fault.lost == {"failed": 100}


@pytest.mark.parametrize("faulty", TIMELESS.values(), ids=TIMELESS)
def test_a_close_while_a_request_never_ends(fault: Scenario, faulty: Serve | None) -> None:
    """The same servers, and a request timeout too long to help; the program closes the client."""
    with faulty_endpoint(faulty) as (url, reached):
        client = TelemetryClient(url, config(request_timeout_ms=60_000, max_request_bytes=16_000_000))
        close_in_the_middle(client, reached)
    fault.settled(client.stats(), sent=101, arrived=[])
    assert set(fault.lost) <= {"failed", "dropped_closed"}

"""Host names and their look-up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from adbc_telemetry import (
    DatabricksTelemetryExporter,
    ExportOutcome,
    ExportResult,
    TelemetryClient,
)
from faults.network import GRACE, NAME, config, send, with_token
from faults.scenario import Scenario
from support.logs import make_logs


def test_a_name_that_does_not_exist(fault: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up of the endpoint's name fails."""
    asked: list[str] = []

    def getaddrinfo(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with TelemetryClient(f"https://{NAME}", config(max_retries=1), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}
    assert asked == [NAME, NAME]


def test_a_name_without_an_address(fault: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up of the endpoint's name succeeds and finds nothing."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with TelemetryClient(f"https://{NAME}", config(), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}


@pytest.mark.parametrize("name", ["x" * 70 + ".example", "a..example"])
def test_a_name_that_cannot_exist(fault: Scenario, name: str) -> None:
    """The endpoint's name is not a valid host name, and the look-up raises another class of error."""
    with TelemetryClient(f"https://{name}", config(max_retries=1), auth=with_token) as client:
        send(client, 10)
    fault.settled(client.stats(), sent=10, arrived=[])
    assert fault.lost == {"failed": 10}


@pytest.fixture
def hanging_lookup(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Look-ups hang until the test ends; the event is set once one has begun."""
    begun, over = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> None:
        begun.set()
        over.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield begun
    over.set()


def test_a_close_while_the_look_up_hangs(fault: Scenario, hanging_lookup: threading.Event) -> None:
    """The look-up of the endpoint's name hangs, and the program closes the client."""
    client = TelemetryClient(f"https://{NAME}", config(), auth=with_token)
    for log in make_logs(101):
        client.enqueue(log)
    assert hanging_lookup.wait(10)
    started = time.monotonic()
    client.close(0.3)
    assert time.monotonic() - started < 0.3 + GRACE
    fault.settled(client.stats(), sent=101, arrived=[])
    assert set(fault.lost) <= {"failed", "dropped_closed"}


def test_an_export_with_a_deadline_while_the_look_up_hangs(
    fault: Scenario, hanging_lookup: threading.Event
) -> None:
    """The look-up of the endpoint's name hangs, and the export has a deadline."""
    exporter = DatabricksTelemetryExporter(f"https://{NAME}", config())
    results: list[ExportResult] = []
    deadline = time.monotonic() + 0.2
    thread = threading.Thread(
        target=lambda: results.append(exporter.export(make_logs(5), deadline=deadline)), daemon=True
    )
    thread.start()
    thread.join(0.2 + GRACE)
    assert [result.outcome for result in results] == [ExportOutcome.CANCELLED]
    exporter.close()
    fault.seen(sent=5, delivered=0, lost={"failed": 5})

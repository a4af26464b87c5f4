"""Some of many hosts are dead, and the others still get their events in time."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from adbc_telemetry import InMemoryTelemetryExporter, TelemetryClient, TelemetryConfiguration
from adbc_telemetry.export.base import ExportResult
from adbc_telemetry.pipeline.scheduler import MAX_DEGRADED_WORKERS
from adbc_telemetry.pipeline.shutdown import close_together
from adbc_telemetry.protocols import ClientStats
from adbc_telemetry.schema import TelemetryFrontendLog
from faults.scenario import Scenario
from support.logs import make_logs
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint
from support.waiting import wait_until

LOSSES = ("rejected", "failed", "dropped_queue_full", "dropped_circuit_open", "dropped_closed")


def sender_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("adbc-telemetry")]


def lost_of(stats: Sequence[ClientStats]) -> Counter[str]:
    return Counter({name: sum(getattr(one, name) for one in stats) for name in LOSSES})


def enqueue(client: TelemetryClient, count: int) -> None:
    for log in make_logs(count):
        client.enqueue(log)


@pytest.mark.parametrize("dead_first", [False, True], ids=["mixed", "dead hosts first"])
def test_fifty_of_five_hundred_hosts_are_black_holes(fault: Scenario, dead_first: bool) -> None:
    """50 of 500 hosts take requests and never answer; the others must get their events within two flush intervals."""
    interval = 5.0
    config = TelemetryConfiguration(
        enabled=True, flush_interval_ms=int(interval * 1000), close_timeout_ms=1000, request_timeout_ms=30_000
    )
    # Every address in 127.0.0.0/8 is this machine, so one server acts as many hosts.
    with TelemetryServer("0.0.0.0") as server, socket.create_server(("0.0.0.0", 0), backlog=512) as hole:
        port, hole_port = server.url.rpartition(":")[2], hole.getsockname()[1]
        hosts = [(f"127.0.{1 + n // 250}.{1 + n % 250}", n % 10 == 3) for n in range(500)]
        if dead_first:
            hosts.sort(key=lambda host: not host[1])
        clients = [
            (TelemetryClient(f"http://{address}:{hole_port if dead else port}", config), dead)
            for address, dead in hosts
        ]
        began = time.monotonic()
        for client, _ in clients:
            enqueue(client, 3)
        wait_until(lambda: len(server.accepted) >= 450 * 3, timeout=3 * interval)
        seconds = time.monotonic() - began
        assert len(sender_threads()) <= 8
        assert seconds < 2 * interval
        # The last answers may be on their way.
        wait_until(lambda: sum(client.stats().delivered for client, _ in clients) == 450 * 3)
        close_together([client for client, _ in clients])
        assert sorted(server.accepted) == sorted(set(server.accepted))
        wait_until(lambda: sender_threads() == [])
    stats = [client.stats() for client, _ in clients]
    assert all(one.closes for one in stats)
    assert all(client.stats().delivered == (0 if dead else 3) for client, dead in clients)
    fault.seen(
        sent=sum(one.enqueued for one in stats),
        delivered=len(server.accepted),
        lost=lost_of(stats),
        seconds=seconds,
    )


def test_seven_black_holes_at_first_contact(fault: Scenario) -> None:
    """Every worker first meets a black hole; then an event for a healthy host arrives."""
    config = TelemetryConfiguration(enabled=True, batch_size=1, close_timeout_ms=100)
    with socket.create_server(("0.0.0.0", 0), backlog=64) as hole, TelemetryServer() as server:
        dead = [TelemetryClient(f"http://127.0.1.{n}:{hole.getsockname()[1]}", config) for n in range(1, 8)]
        for client in dead:
            enqueue(client, 1)
        wait_until(lambda: all(client.stats().in_flight for client in dead))
        began = time.monotonic()
        with TelemetryClient(server.url, config) as healthy:
            enqueue(healthy, 1)
            assert healthy.flush(5)
            seconds = time.monotonic() - began
        # Two of them hold the workers for degraded hosts again.
        wait_until(lambda: sum(client._delivery.is_degraded for client in dead) >= 1)
        close_together(dead)
    stats = [healthy.stats(), *(client.stats() for client in dead)]
    fault.seen(sent=8, delivered=len(server.accepted), lost=lost_of(stats), seconds=seconds)
    assert fault.delivered == 1


def test_a_preempted_export_is_sent_later(fault: Scenario) -> None:
    """Seven hosts answer only after other hosts have waited for their workers; no event is lost or counted twice."""
    release = threading.Event()
    config = TelemetryConfiguration(enabled=True, batch_size=10, close_timeout_ms=10_000)
    with TelemetryServer("0.0.0.0") as server, TelemetryServer() as prompt:
        server.always = lambda request: Reply(release=release)
        slow = [
            TelemetryClient(f"http://127.0.1.{n}:{server.url.rpartition(':')[2]}", config)
            for n in range(1, 8)
        ]
        for client in slow:
            enqueue(client, 10)
        wait_until(lambda: len(server.requests) == 7)
        with TelemetryClient(prompt.url, config) as healthy:
            enqueue(healthy, 10)
            assert healthy.flush(10)
        interrupted = [client for client in slow if client._delivery.is_degraded]
        assert interrupted
        release.set()
        assert all(client.flush(10) for client in slow)
        close_together(slow)
        arrived = {*server.accepted, *prompt.accepted}
    stats = [healthy.stats(), *(client.stats() for client in slow)]
    assert all(one.delivered == 10 for one in stats)
    fault.seen(sent=80, delivered=len(arrived), lost=lost_of(stats))


class Hanging(InMemoryTelemetryExporter):
    """An exporter that cannot be preempted."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.gate = gate

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        self.gate.wait(60)
        return super().export(logs, deadline=deadline)


def test_foreign_exporters_that_hang_in_every_worker(fault: Scenario) -> None:
    """Seven exporters hang and cannot be preempted; the dispatcher abandons their workers and starts others."""
    gate = threading.Event()
    config = TelemetryConfiguration(enabled=True, batch_size=1)
    hanging = [TelemetryClient(f"hangs-{n}", config, exporter=Hanging(gate)) for n in range(7)]
    for client in hanging:
        enqueue(client, 1)
    wait_until(lambda: all(client.stats().in_flight for client in hanging))
    began = time.monotonic()
    with TelemetryClient("healthy", config, exporter=InMemoryTelemetryExporter()) as healthy:
        enqueue(healthy, 1)
        assert healthy.flush(10)
        seconds = time.monotonic() - began
        assert len(sender_threads()) <= 15
        gate.set()
        assert all(client.flush(10) for client in hanging)
        # Abandoned workers end once their exporter returns.
        wait_until(lambda: len(sender_threads()) <= 8)
    close_together(hanging)
    stats = [healthy.stats(), *(client.stats() for client in hanging)]
    fault.seen(sent=8, delivered=sum(one.delivered for one in stats), lost=lost_of(stats), seconds=seconds)
    assert fault.delivered == 8


def test_hosts_that_ask_for_hours_of_quiet(fault: Scenario) -> None:
    """More degraded hosts than workers for them answer 503 with a Retry-After of an hour; then other hosts fail."""
    config = TelemetryConfiguration(
        enabled=True, batch_size=1, max_retries=1, retry_delay_ms=1, close_timeout_ms=300
    )
    with TelemetryServer("0.0.0.0") as quiet, TelemetryServer("0.0.0.0") as failing:
        quiet.replies.extend(Reply(500) for _ in range(2 * (MAX_DEGRADED_WORKERS + 3)))
        quiet.always = lambda request: Reply(503, {"Retry-After": "3600"})
        failing.replies.extend(Reply(500) for _ in range(4))
        port = quiet.url.rpartition(":")[2]
        asleep = [
            TelemetryClient(f"http://127.0.1.{n}:{port}", config) for n in range(1, MAX_DEGRADED_WORKERS + 4)
        ]
        recovering = [
            TelemetryClient(f"http://127.0.2.{n}:{failing.url.rpartition(':')[2]}", config) for n in (1, 2)
        ]
        for client in (*asleep, *recovering):  # degraded from now on
            enqueue(client, 1)
            assert client.flush(10)
            assert client._delivery.is_degraded
        for client in asleep:
            enqueue(client, 1)
        wait_until(lambda: len(quiet.requests) == 3 * len(asleep))
        began = time.monotonic()
        for client in recovering:
            enqueue(client, 1)
        assert all(client.flush(15) for client in recovering)
        seconds = time.monotonic() - began
        assert len(quiet.requests) == 3 * len(asleep), "the client ignored the Retry-After"
        close_together([*asleep, *recovering])
    stats = [client.stats() for client in (*asleep, *recovering)]
    fault.seen(sent=2 * len(stats), delivered=len(failing.accepted), lost=lost_of(stats), seconds=seconds)
    assert fault.delivered == 2


@pytest.mark.parametrize("faulty", [black_hole], ids=lambda faulty: faulty.__name__)
def test_a_black_hole_beside_a_busy_host(
    fault: Scenario, server: TelemetryServer, faulty: Callable[[socket.socket], None]
) -> None:
    """One host never answers while another one takes two thousand events."""
    config = TelemetryConfiguration(enabled=True, batch_size=50, close_timeout_ms=100)
    with raw_endpoint(faulty) as url:
        dead, healthy = TelemetryClient(url, config), TelemetryClient(server.url, config)
        enqueue(dead, 50)
        wait_until(lambda: dead.stats().in_flight == 50)
        enqueue(healthy, 2000)
        assert healthy.flush(10)
        close_together([dead, healthy])
    stats = [dead.stats(), healthy.stats()]
    fault.seen(sent=2050, delivered=len(server.accepted), lost=lost_of(stats))
    assert fault.delivered == 2000


def test_names_whose_look_up_hangs(fault: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up of ten hosts' names hangs; another host is given by its address."""
    release = threading.Event()
    real = socket.getaddrinfo

    def hanging(host: str, *arguments: Any) -> Any:
        if host.endswith(".example"):
            release.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "in the end")
        return real(host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    config = TelemetryConfiguration(enabled=True, batch_size=1, max_retries=0, close_timeout_ms=200)
    with TelemetryServer() as server:
        lost = [TelemetryClient(f"https://telemetry-{n}.example", config) for n in range(10)]
        for client in lost:
            enqueue(client, 1)
        wait_until(lambda: sum("lookup" in name for name in sender_threads()) == 4)
        began = time.monotonic()
        with TelemetryClient(server.url, config) as healthy:
            enqueue(healthy, 10)
            assert healthy.flush(10)
            seconds = time.monotonic() - began
            assert sum("lookup" in name for name in sender_threads()) == 4
            assert sum("lookup" not in name for name in sender_threads()) <= 8
        close_together(lost)
        release.set()
        wait_until(lambda: sender_threads() == [])
    stats = [healthy.stats(), *(client.stats() for client in lost)]
    assert all(one.closes for one in stats)
    fault.seen(sent=20, delivered=len(server.accepted), lost=lost_of(stats), seconds=seconds)
    assert fault.delivered == 10

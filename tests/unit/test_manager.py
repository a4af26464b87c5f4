"""One client a host, however acquire and release race; the newest live lease's auth; no breaker left."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from adbc_telemetry import (
    CircuitBreakerManager,
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClientManager,
    TelemetryConfiguration,
    normalize_host,
)
from adbc_telemetry.schema import TelemetryFrontendLog
from models.held import Call
from support.logs import make_log, make_logs
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint
from support.waiting import run_in_threads, wait_until

MANAGER = TelemetryClientManager.get_instance()
CONFIG = TelemetryConfiguration(enabled=True, flush_interval_ms=60_000)


def test_there_is_one_manager_a_process() -> None:
    assert TelemetryClientManager.get_instance() is MANAGER


def test_all_spellings_of_a_host_share_one_client() -> None:
    spellings = ["https://Host.example:443/", "HOST.example", "host.example", "host.example.:443"]
    leases = [MANAGER.acquire(host, CONFIG, exporter=InMemoryTelemetryExporter()) for host in spellings]
    assert len({id(lease.client) for lease in leases}) == 1
    assert MANAGER.ref_count("host.example") == 4
    assert MANAGER.hosts() == ["host.example"]
    for lease in leases:
        assert lease.release()


@pytest.mark.parametrize("name", ["127.0.0.1:{}", "localhost:{}", "LocalHost.:{}/", "[::1]:{}"])
def test_a_loopback_address_without_a_scheme_is_the_client_of_its_plain_http_url(name: str) -> None:
    spelling = name.format(8317)
    url = f"http://{spelling}"
    with (
        MANAGER.acquire(url, CONFIG, exporter=InMemoryTelemetryExporter()) as one,
        MANAGER.acquire(spelling, CONFIG, auth=dict) as other,  # credentials may go there
    ):
        assert one.client is other.client
        assert MANAGER.hosts() == CircuitBreakerManager.get_instance().hosts() == [normalize_host(url)]
        with MANAGER.acquire(f"https://{spelling}", CONFIG, exporter=InMemoryTelemetryExporter()) as tls:
            assert tls.client is not one.client


def test_the_client_lives_until_the_last_lease_is_released() -> None:
    exporter = InMemoryTelemetryExporter()
    one = MANAGER.acquire("host", CONFIG, exporter=exporter)
    two = MANAGER.acquire("host", CONFIG)
    one.client.enqueue(make_log())
    assert one.release()
    assert two.client.is_open
    closed_before = exporter.closed
    assert two.release()
    assert (closed_before, exporter.closed) == (False, True)
    assert len(exporter.logs) == 1
    assert MANAGER.hosts() == []
    assert MANAGER.ref_count("host") == 0


def test_a_lease_releases_once_however_often_it_is_called() -> None:
    one = MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter())
    with MANAGER.acquire("host", CONFIG) as two:
        for _ in range(5):
            assert one.release()
        assert MANAGER.ref_count("host") == 1
        client = two.client
        open_before = client.is_open
    assert (open_before, client.is_open) == (True, False)
    assert two.release()


def test_after_the_last_release_a_new_client_is_made() -> None:
    first = MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter())
    first.release()
    second = MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter())
    assert second.client is not first.client
    assert second.client.is_open
    second.release()


def test_a_client_that_the_program_closed_is_not_handed_out() -> None:
    first = MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter())
    first.client.close()
    second = MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter())
    assert second.client.is_open
    first.release()
    assert second.client.is_open
    assert MANAGER.ref_count("host") == 1
    second.release()


def test_the_breaker_of_a_host_lives_while_a_lease_does() -> None:
    breakers = CircuitBreakerManager.get_instance()
    one = MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter())
    two = MANAGER.acquire("host", CONFIG)
    breaker = breakers.get_circuit_breaker("host")
    one.release()
    assert breakers.get_circuit_breaker("host") is breaker
    two.release()
    assert breakers.hosts() == []


class LiveCount:
    """Exporters of one host, which live from their first use to their close."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.live = 0
        self.most = 0


class Counted(InMemoryTelemetryExporter):
    def __init__(self, count: LiveCount) -> None:
        super().__init__()
        self.count = count
        self.used = False

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        with self.count.lock:
            if not self.used:
                self.used = True
                self.count.live += 1
                self.count.most = max(self.count.most, self.count.live)
        return super().export(logs, deadline=deadline)

    def close(self) -> None:
        with self.count.lock:
            if self.used and not self.closed:
                self.count.live -= 1
            self.closed = True


def test_a_thousand_acquires_and_releases_race_from_32_threads_over_8_hosts() -> None:
    hosts = [f"host-{index}.example" for index in range(8)]
    counts = {host: LiveCount() for host in hosts}
    sent: list[tuple[int, Any]] = []

    def race(index: int) -> None:
        rng = random.Random(index)
        for _ in range(32):
            host = rng.choice(hosts)
            lease = MANAGER.acquire(host, CONFIG, exporter=Counted(counts[host]))
            assert lease.client.is_open, "a closed client was handed out"
            lease.client.enqueue(make_log())
            sent.append((1, lease.client))
            if rng.random() < 0.5:
                lease.client.flush(5)
            assert MANAGER.ref_count(host) >= 1
            assert lease.release()

    run_in_threads(32, race)
    assert len(sent) == 1024
    assert MANAGER.hosts() == []
    assert CircuitBreakerManager.get_instance().hosts() == []
    assert all(count.live == 0 and count.most == 1 for count in counts.values())
    clients = {id(client): client for _, client in sent}
    assert sum(client.stats().delivered for client in clients.values()) == 1024
    # conftest checks that no thread is left


def test_acquire_during_the_last_release_takes_over_the_client_without_waiting() -> None:
    with raw_endpoint(black_hole) as url:
        config = TelemetryConfiguration(enabled=True, batch_size=1, close_timeout_ms=10_000)
        first = MANAGER.acquire(url, config)
        first.client.enqueue(make_log())
        wait_until(lambda: first.client.stats().in_flight == 1)
        releasing = threading.Thread(target=first.release, args=(0.5,))
        releasing.start()
        wait_until(lambda: MANAGER.ref_count(url) == 0)
        started = time.monotonic()
        second = MANAGER.acquire(url, config)
        assert time.monotonic() - started < 0.25
        assert second.client is first.client
        releasing.join(10)
        assert second.client.is_open
        second.release(timeout=0)


def test_the_newest_live_lease_s_auth_is_used_and_never_a_released_one_s(server: TelemetryServer) -> None:
    def auth(name: str) -> Any:
        return lambda: {"Authorization": name}

    def used() -> str | None:
        lease.client.enqueue(make_log())
        assert lease.client.flush(10)
        return server.requests[-1].headers.get("Authorization")

    lease = MANAGER.acquire(server.url, CONFIG)
    assert used() is None
    one = MANAGER.acquire(server.url, CONFIG, auth=auth("one"))
    assert used() == "one"
    two = MANAGER.acquire(server.url, CONFIG, auth=auth("two"))
    three = MANAGER.acquire(server.url, CONFIG, auth=auth("three"))
    assert used() == "three"
    two.release()
    assert used() == "three"
    three.release()
    assert used() == "one"
    one.release()
    assert used() is None
    lease.release()
    paths = [request.path for request in server.requests]
    assert paths == ["/telemetry-unauth", *["/telemetry-ext"] * 4, "/telemetry-unauth"]


def test_what_the_last_lease_leaves_behind_is_sent_with_its_auth(server: TelemetryServer) -> None:
    lease = MANAGER.acquire(server.url, CONFIG, auth=lambda: {"Authorization": "last"})
    lease.client.enqueue(make_log())
    assert lease.release()
    assert [request.headers.get("Authorization") for request in server.requests] == ["last"]


def test_auth_for_plain_http_to_another_machine_is_refused_at_acquire() -> None:
    with MANAGER.acquire("http://collector.example", CONFIG, exporter=InMemoryTelemetryExporter()):
        with pytest.raises(ValueError, match="https"):
            MANAGER.acquire("http://collector.example", CONFIG, auth=dict)
        assert MANAGER.ref_count("http://collector.example") == 1


def test_release_soon_returns_at_once_and_delivers_all_the_same(server: TelemetryServer) -> None:
    lease = MANAGER.acquire(server.url, CONFIG)
    for log in make_logs(5):
        lease.client.enqueue(log)
    with MANAGER._lock:  # a destructor must not wait for it
        lease.release_soon()
    wait_until(lambda: MANAGER.hosts() == [])
    wait_until(lambda: len(server.accepted) == 5)


def test_release_soon_of_a_client_that_is_off_is_done_at_once() -> None:
    lease = MANAGER.acquire("host", TelemetryConfiguration())
    lease.release_soon()
    assert MANAGER.ref_count("host") == 0
    assert MANAGER.hosts() == []


def test_close_all_closes_all_hosts_within_one_timeout() -> None:
    with ExitStack() as stack:
        config = TelemetryConfiguration(enabled=True, batch_size=1)
        hosts = [stack.enter_context(raw_endpoint(black_hole)) for _ in range(5)]
        leases = [MANAGER.acquire(host, config) for host in hosts]
        for lease in leases:
            lease.client.enqueue(make_log())
        started = time.monotonic()
        assert MANAGER.close_all(0.3) is False
        assert time.monotonic() - started < 1.2, "in turn they would take 1.5 seconds"
        assert MANAGER.hosts() == []
        for lease in leases:
            assert not lease.client.is_open
            assert lease.client.stats().closes
            lease.release()


def test_close_all_without_clients_is_true() -> None:
    assert MANAGER.close_all() is True


def test_a_released_client_is_collected() -> None:
    import weakref

    lease = MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter())
    client = weakref.ref(lease.client)
    lease.client.enqueue(make_log())
    lease.release()
    del lease

    def collected() -> bool:
        gc.collect()
        return client() is None

    wait_until(collected)


@pytest.mark.parametrize("way", ["release", "close_all"])
def test_acquire_while_the_client_closes_waits_for_that_and_makes_a_new_one(way: str) -> None:
    closing, gate = threading.Event(), threading.Event()

    class SlowToClose(InMemoryTelemetryExporter):
        def close(self) -> None:
            closing.set()
            gate.wait(10)
            super().close()

    exporter = SlowToClose()
    first = MANAGER.acquire("host", CONFIG, exporter=exporter)
    ending = threading.Thread(target=first.release if way == "release" else MANAGER.close_all)
    ending.start()
    assert closing.wait(10)
    acquired: list[Any] = []
    acquiring = threading.Thread(
        target=lambda: acquired.append(MANAGER.acquire("host", CONFIG, exporter=InMemoryTelemetryExporter()))
    )
    acquiring.start()
    acquiring.join(0.05)
    assert acquired == [], "two live clients for one host"
    gate.set()
    acquiring.join(10)
    ending.join(10)
    (second,) = acquired
    assert exporter.closed
    assert second.client is not first.client
    assert second.client.is_open
    second.release()
    first.release()


def test_a_released_lease_s_auth_is_not_used_for_those_who_came_after_it(server: TelemetryServer) -> None:
    release = threading.Event()
    server.replies.append(Reply(release=release))
    config = TelemetryConfiguration(enabled=True, batch_size=1)
    first = MANAGER.acquire(server.url, config, auth=lambda: {"Authorization": "released"})
    first.client.enqueue(make_log())
    wait_until(lambda: server.requests)
    first.client.enqueue(make_log())  # is sent while the release still waits for it
    releasing = threading.Thread(target=first.release)
    releasing.start()
    wait_until(lambda: MANAGER.ref_count(server.url) == 0)
    second = MANAGER.acquire(server.url, config)
    release.set()
    assert second.client.flush(10)
    releasing.join(10)
    assert [request.headers.get("Authorization") for request in server.requests] == ["released", None]
    second.release()


def test_plain_http_to_another_machine_is_fine_without_auth() -> None:
    lease = MANAGER.acquire("http://collector.example:4318", CONFIG)
    assert lease.client.host == "http://collector.example:4318"
    assert lease.release()


def test_acquire_waits_while_the_program_closes_the_client_by_hand() -> None:
    gate = threading.Event()

    class Held(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            gate.wait(30)
            return super().export(logs, deadline=deadline)

    first = MANAGER.acquire("host", CONFIG, exporter=Held())
    first.client.enqueue(make_log())
    closing = threading.Thread(target=first.client.close)
    closing.start()
    wait_until(lambda: not first.client.is_open)
    acquiring = Call(lambda: MANAGER.acquire("host", CONFIG))
    assert not acquiring.over
    gate.set()
    wait_until(lambda: acquiring.over)
    closing.join(10)
    second = acquiring.result
    assert first.client.stats().delivered == 1
    assert second.client is not first.client
    assert second.release()
    first.release()

"""The manager against a model of the leases: step by step, and from several threads at once."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from adbc_telemetry import (
    CircuitBreakerManager,
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryClientLease,
    TelemetryClientManager,
    TelemetryConfiguration,
)
from adbc_telemetry.export.breaker import CircuitBreaker
from adbc_telemetry.schema import TelemetryFrontendLog
from models.scale import scaled
from support.logs import ids_of, make_log
from support.server import TelemetryServer
from support.waiting import run_in_threads

MANAGER = TelemetryClientManager.get_instance()
BREAKERS = CircuitBreakerManager.get_instance()
CONFIG = TelemetryConfiguration(enabled=True, batch_size=3, flush_interval_ms=3_600_000)
SPELLINGS = {
    "one.example": ["one.example", "ONE.example.", "https://One.Example:443/path"],
    "two.example:8443": ["two.example:8443", "https://TWO.example:8443/", "Two.Example.:8443"],
}


@dataclass
class Share:
    """The model of one client: its leases in the order of acquisition, each with the name of its `auth`."""

    client: TelemetryClient
    breaker: CircuitBreaker
    exporter: InMemoryTelemetryExporter | None
    leases: dict[TelemetryClientLease, str | None] = field(default_factory=dict)
    ended: bool = False
    sent: list[str] = field(default_factory=list)
    too_late: int = 0

    def auth(self) -> str | None:
        return next((name for name in reversed(self.leases.values()) if name is not None), None)


class ManagerMachine(RuleBasedStateMachine):
    """Two hosts with exporters, and a real server, which shows which `auth` the client uses."""

    server: TelemetryServer

    def __init__(self) -> None:
        super().__init__()
        url = self.server.url
        self.spellings = {**SPELLINGS, url: [url, url.upper() + "/", f"  {url}/some/path"]}
        self.names = itertools.count()
        self.shares: dict[str, Share] = {}  # hosts with leases
        self.leases: list[tuple[TelemetryClientLease, Share]] = []  # every lease so far
        self.requests = len(self.server.requests)
        self.steps = 0

    @initialize(first_close_at=st.sampled_from([15, 100, 5]))
    def make(self, first_close_at: int) -> None:
        self.first_close_at = first_close_at  # otherwise there would rarely be many leases

    @rule(data=st.data(), with_auth=st.booleans(), server=st.booleans())
    def acquire(self, data: st.DataObject, with_auth: bool, server: bool) -> None:
        """Acquire in any spelling; the client uses the first lease's exporter and the newest lease's auth."""
        host = self.server.url if server else data.draw(st.sampled_from(sorted(SPELLINGS)))
        spelling = data.draw(st.sampled_from(self.spellings[host]))
        exporter = None if server else InMemoryTelemetryExporter()
        name = f"auth-{next(self.names)}" if with_auth else None
        auth = None if name is None else lambda: {"Authorization": name or ""}
        lease = MANAGER.acquire(spelling, CONFIG, exporter=exporter, auth=auth)
        share = self.shares.get(host)
        if share is None or share.ended:
            share = Share(lease.client, BREAKERS.get_circuit_breaker(host), exporter)
            assert all(share.client is not other.client for _, other in self.leases)
            self.shares[host] = share
        assert lease.client is share.client, "two clients for one host"
        assert lease.client.is_open, "a closed client was handed out"
        share.leases[lease] = name
        self.leases.append((lease, share))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), times=st.sampled_from([1, 1, 2, 3]))
    def release(self, data: st.DataObject, times: int) -> None:
        """Release any lease, even one that was released long ago and whose host has newer leases."""
        lease, share = data.draw(st.sampled_from(self.leases), label="lease")
        auth = share.auth()  # the remaining events still go out with the last lease's auth
        for _ in range(times):
            assert lease.release() is True
        share.leases.pop(lease, None)
        if not share.leases:
            self.end(share, auth)

    @precondition(lambda self: self.leases and self.steps >= self.first_close_at)
    @rule(data=st.data())
    def a_client_is_closed_directly(self, data: st.DataObject) -> None:
        lease, share = data.draw(st.sampled_from(self.leases), label="lease")
        assert lease.client.close() is True
        share.ended = True
        self.check_auth(share, share.auth())

    @precondition(lambda self: self.steps >= self.first_close_at)
    @rule()
    def close_all(self) -> None:
        auth = {host: share.auth() for host, share in self.shares.items()}
        assert MANAGER.close_all() is True
        for host, share in list(self.shares.items()):
            self.end(share, auth[host])

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), count=st.integers(1, 4), flush=st.booleans())
    def enqueue(self, data: st.DataObject, count: int, flush: bool) -> None:
        """Enqueue through any lease; a released lease does not affect the others."""
        live = [(lease, share) for lease, share in self.leases if lease in share.leases]
        lease, share = data.draw(st.sampled_from(live * 3 + self.leases), label="lease")
        for _ in range(count):
            log = make_log()
            lease.client.enqueue(log)
            if share.ended:
                share.too_late += 1
            else:
                share.sent += ids_of([log])
        # A full batch leaves by itself at an unknown moment: flush now, while the expected auth is known.
        if flush or len(share.sent) >= CONFIG.batch_size:
            assert lease.client.flush(10) is True
            self.check_auth(share, share.auth())

    def end(self, share: Share, auth: str | None) -> None:
        share.ended = True
        share.leases.clear()
        for host in [host for host, other in self.shares.items() if other is share]:
            del self.shares[host]
        self.check_auth(share, auth)

    def check_auth(self, share: Share, name: str | None) -> None:
        if share.exporter is not None:
            return  # the server's latest request belongs to another client
        requests = self.server.requests[self.requests :]
        self.requests += len(requests)
        assert {request.headers.get("Authorization") for request in requests} <= {name}

    @invariant()
    def leases_match_the_model(self) -> None:
        self.steps += 1
        live = {host: len(share.leases) for host, share in self.shares.items() if share.leases}
        assert MANAGER.hosts() == sorted(live)
        for host, spellings in self.spellings.items():
            assert {MANAGER.ref_count(spelling) for spelling in spellings} == {live.get(host, 0)}

    @invariant()
    def a_breaker_lives_as_long_as_its_host_has_leases(self) -> None:
        assert BREAKERS.hosts() == sorted(self.shares)
        for host, share in self.shares.items():
            assert BREAKERS.get_circuit_breaker(host) is share.breaker

    @invariant()
    def a_client_lives_as_long_as_its_leases(self) -> None:
        accepted = set(self.server.accepted)
        for _, share in self.leases:
            assert share.client.is_open is not share.ended
            stats = share.client.stats()
            assert stats.closes
            assert (stats.enqueued, stats.dropped_closed) == (
                len(share.sent) + share.too_late,
                share.too_late,
            )
            if share.exporter is not None:
                assert share.exporter.closed is share.ended
            if share.ended:
                assert stats.delivered == len(share.sent)
                arrived = accepted if share.exporter is None else set(ids_of(share.exporter.logs))
                assert set(share.sent) <= arrived

    def teardown(self) -> None:
        MANAGER.close_all()
        assert MANAGER.hosts() == BREAKERS.hosts() == []


def test_hosts_clients_breakers_and_auths_match_the_model(server: TelemetryServer) -> None:
    machine = type("Machine", (ManagerMachine,), {"server": server})
    run(machine, settings=scaled(100, 30))


# From several threads at once.


class Living:
    """The open exporters of one host, now and at the peak."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.exporters: set[int] = set()
        self.most = 0
        self.arrived: list[str] = []


class LivingExporter:
    def __init__(self, living: Living) -> None:
        self.living = living
        self.closed = False

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        with self.living.lock:
            assert not self.closed, "used after its close"
            self.living.exporters.add(id(self))
            self.living.most = max(self.living.most, len(self.living.exporters))
            self.living.arrived += ids_of(list(logs))
        return InMemoryTelemetryExporter().export(logs)

    def close(self) -> None:
        with self.living.lock:
            self.closed = True
            self.living.exporters.discard(id(self))


HOSTS = sorted(SPELLINGS)
STEPS = st.sampled_from(
    [("acquire", host) for host in HOSTS] * 3
    + [("release", ""), ("release again", ""), ("enqueue", ""), ("flush", "")] * 2
    + [("enqueue and release", "")] * 3
)
PROGRAMS = st.lists(st.lists(STEPS, min_size=1, max_size=12), min_size=3, max_size=4)


@contextmanager
def threads_that_change_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


class Race:
    """Runs one program per thread and collects what is known about all their clients."""

    def __init__(self, programs: list[list[tuple[str, str]]], rounds: int = 3) -> None:
        self.programs = programs
        self.rounds = rounds
        self.living = {host: Living() for host in HOSTS}
        self.clients: dict[TelemetryClient, None] = {}
        self.enqueued: list[str] = []
        self.close_all = False

    def run(self, index: int) -> None:
        held: list[TelemetryClientLease] = []
        for _ in range(self.rounds):
            for step, host in self.programs[index]:
                if step == "acquire":
                    held.append(self.acquire(host))
                elif step == "close all":
                    MANAGER.close_all()
                elif held:
                    self.use(held, step)
            while held:
                assert held.pop().release() is True

    def use(self, held: list[TelemetryClientLease], step: str) -> None:
        if step == "release":
            held.pop(0).release()
        elif step == "release again":
            held[-1].release()
            held.pop().release()
        elif step == "enqueue":
            self.enqueue(held[-1])
        elif step == "enqueue and release":
            self.enqueue(held[-1])
            held.pop().release()
        else:
            assert step == "flush"
            held[-1].client.flush(10)

    def acquire(self, host: str) -> TelemetryClientLease:
        lease = MANAGER.acquire(host.upper(), CONFIG, exporter=LivingExporter(self.living[host]))
        self.clients[lease.client] = None
        if not self.close_all:
            assert lease.client.is_open, "a closed client was handed out"
            assert MANAGER.ref_count(host) >= 1
        return lease

    def enqueue(self, lease: TelemetryClientLease) -> None:
        log = make_log()
        self.enqueued += ids_of([log])
        lease.client.enqueue(log)

    def check(self) -> None:
        assert MANAGER.hosts() == []
        assert BREAKERS.hosts() == []
        assert [MANAGER.ref_count(host) for host in HOSTS] == [0, 0]
        for living in self.living.values():
            assert living.exporters == set(), "a client was not closed"
            assert living.most <= 1, "two live clients for one host"
        stats = [client.stats() for client in self.clients]
        assert all(s.closes and not s.queued and not s.in_flight for s in stats)
        assert all(not client.is_open for client in self.clients)
        arrived = [event for living in self.living.values() for event in living.arrived]
        assert len(arrived) == len(set(arrived)), "sent twice"
        assert sum(s.enqueued for s in stats) == len(self.enqueued)
        assert sum(s.delivered for s in stats) == len(arrived)
        too_late = sum(s.dropped_closed for s in stats)
        assert len(arrived) + too_late == len(self.enqueued)
        assert self.close_all or not too_late, "lost although a lease was held"


@scaled(150)
@given(programs=PROGRAMS)
def test_racing_acquires_and_releases_have_one_live_client_per_host(
    programs: list[list[tuple[str, str]]],
) -> None:
    race = Race(programs)
    with threads_that_change_often():
        run_in_threads(len(programs), race.run)
    race.check()


@scaled(100)
@given(programs=PROGRAMS, at=st.integers(0, 12))
def test_close_all_during_such_a_race_keeps_every_event_in_the_account(
    programs: list[list[tuple[str, str]]], at: int
) -> None:
    programs[0].insert(at, ("close all", ""))
    race = Race(programs)
    race.close_all = True
    with threads_that_change_often():
        run_in_threads(len(programs), race.run)
    race.check()

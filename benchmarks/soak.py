"""The soak: many connections, several hosts that fail at random, and checks of every account and of the costs.

    python benchmarks/soak.py [--seed N] [--seconds S] [--json FILE]

The seed decides the actions and their order, not how the threads interleave. During the run and at its end, it checks:

    accounts      each client accounts for every event that the soak enqueued
    delivery      each event counted as delivered was accepted once, and each certainly accepted event is counted
    memory        the last third of the run takes no more than the first
    threads       the library never has more than eight, and none at the end
    descriptors   as many at the end as at the start

It exits with 1 and names the checks that failed.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import select
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgspec
from soak_checks import ENDS, Life, Lives, Samples, Servers, Violations
from soak_server import FAULTS

from adbc_telemetry import (
    CircuitBreakerManager,
    ClientStats,
    TelemetryClient,
    TelemetryClientManager,
    TelemetryConfiguration,
)

CHECK_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Options:
    seed: int
    seconds: float
    hosts: int
    producers: int
    rate: float  # events per second and producer


def configuration(host: int, options: Options) -> TelemetryConfiguration:
    """Much shorter times than the defaults, and different settings per host."""
    settings: dict[str, Any] = {
        "enabled": True,
        "batch_size": 20,
        "flush_interval_ms": 50,
        "max_retries": 2,
        "retry_delay_ms": 20,
        "request_timeout_ms": 400,
        "close_timeout_ms": 600,
        "circuit_breaker_threshold": 3,
        "circuit_breaker_timeout_ms": 300,
        "circuit_open": "retain" if host % 2 else "drop",
        "compression": "gzip" if host % 3 == 1 else "none",
        "max_queue_size": 120,
        "max_request_bytes": 10_000 if host % 3 == 2 else 1_000_000,
    }
    return TelemetryConfiguration(**settings)


class LongLived:
    """A host's long-lived client, which `reopen` closes and replaces."""

    def __init__(self, host: int, servers: Servers, lives: Lives, options: Options) -> None:
        self.host = host
        self._lives = lives
        self._config = configuration(host, options)
        self._url = servers.urls[host]
        self._lock = threading.Lock()  # guards _life
        self._life = self._open()

    def _open(self) -> Life:
        """Make a client and count this object as a user, so that its account is checked only after its close."""
        return self._lives.begin(TelemetryClient(self._url, self._config), self.host)

    @contextmanager
    def using(self) -> Iterator[Life]:
        with self._lock:
            life = self._lives.begin(self._life.client, self.host)
        try:
            yield life
        finally:
            self._lives.end(life)

    def reopen(self, timeout: float | None) -> None:
        """Make the new client before closing the old one, as a program does that reloads its settings."""
        with self._lock:
            old, self._life = self._life, self._open()
        old.client.close(timeout)
        self._lives.end(old)

    def close(self) -> None:
        self._life.client.close()
        self._lives.end(self._life)


class Gate:
    """Stops the producers between two calls, so that accounts can be read while no producer calls."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._closed = False
        self._inside = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        with self._condition:
            self._closed = True
            self._condition.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()


@dataclass
class Soak:
    """The state that the threads of this script share."""

    options: Options
    servers: Servers
    violations: Violations
    lives: Lives
    long_lived: list[LongLived]
    gate: Gate = field(default_factory=Gate)
    stop: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)


# The observed program.


def produce(soak: Soak, index: int) -> None:
    rng = random.Random(f"{soak.options.seed} producer {index}")
    while not soak.stop.is_set():
        try:
            with soak.gate.inside():
                count = use_lease(soak, rng) if rng.random() < 0.6 else use_long_lived(soak, rng)
        except Exception as error:  # noqa: BLE001 - promise 1: none of this may raise
            soak.violations.expect(False, f"a producer got {type(error).__name__}: {error}")
            return
        soak.stop.wait(rng.uniform(0.5, 1.5) * count / soak.options.rate)


def use_lease(soak: Soak, rng: random.Random) -> int:
    """Acquire a lease, send some statements, perhaps use another lease meanwhile, and release it."""
    host = rng.randrange(soak.options.hosts // 2)
    url = rng.choice([str.lower, str.upper, str.title])(soak.servers.urls[host])
    lease = TelemetryClientManager.get_instance().acquire(
        url, configuration(host, soak.options), auth=random_auth(rng)
    )
    soak.done["leases"] += 1
    with soak.lives.using(lease.client, host) as life:
        soak.violations.expect(lease.client.is_open, "a closed client was handed out")
        count = rng.randint(1, 60)
        for _ in range(count):
            life.enqueue()
        if rng.random() < 0.2:
            lease.client.flush(rng.uniform(0, 0.2))
        if rng.random() < 0.2:
            count += use_lease(soak, rng)
        lease.release(rng.choice([None, None, 0, 0.05]))
        lease.release()
    return count


def random_auth(rng: random.Random) -> Callable[[], Mapping[str, str]] | None:
    def broken() -> Mapping[str, str]:
        raise RuntimeError("no token")

    return rng.choice([None, dict, lambda: {"Authorization": "Bearer token"}, broken])


def use_long_lived(soak: Soak, rng: random.Random) -> int:
    count = rng.randint(1, 60)
    with rng.choice(soak.long_lived).using() as life:
        for _ in range(count):
            life.enqueue()
        if rng.random() < 0.1:
            life.client.flush(rng.uniform(0, 0.2))
    return count


# Faults and other disturbances.


def disturb(soak: Soak, samples: Samples) -> None:
    """Change faults, flush and reopen clients, fork and check the accounts, until the time is over."""
    rng = random.Random(f"{soak.options.seed} disturb")
    ends = time.monotonic() + soak.options.seconds
    next_check = time.monotonic() + CHECK_SECONDS
    events: list[tuple[int, Callable[[Soak, random.Random], None]]] = [
        (12, change_a_fault),
        (3, flush_one),
        (2, reopen_one),
        (1, fork_one),
    ]
    weights, actions = zip(*events, strict=True)
    samples.take()
    while (left := ends - time.monotonic()) > 0 and not soak.violations.found:
        soak.stop.wait(min(left, rng.uniform(0.05, 0.25)))
        rng.choices(actions, weights)[0](soak, rng)
        samples.take()
        if time.monotonic() >= next_check:
            with soak.gate.closed():
                soak.lives.check()
            soak.done["checks"] += 1
            next_check = time.monotonic() + CHECK_SECONDS


def change_a_fault(soak: Soak, rng: random.Random) -> None:
    fault = "healthy" if rng.random() < 0.5 else rng.choice(FAULTS)
    soak.servers.order("fault", host=rng.randrange(soak.options.hosts), fault=fault)
    soak.done["changes of fault"] += 1


def flush_one(soak: Soak, rng: random.Random) -> None:
    with rng.choice(soak.long_lived).using() as life:
        life.client.flush(rng.uniform(0, 0.5))
    soak.done["flushes"] += 1


def reopen_one(soak: Soak, rng: random.Random) -> None:
    rng.choice(soak.long_lived).reopen(rng.choice([None, None, 0, 0.1]))
    soak.done["reopened"] += 1


def fork_one(soak: Soak, rng: random.Random) -> None:
    """Fork a child that sends events by a new client and by an inherited one, and exits."""
    soak.done["children"] += 1
    name, by_itself = f"child-{soak.done['children']}", rng.random() < 0.5
    with rng.choice(soak.long_lived).using() as inherited:
        url = soak.servers.urls[inherited.host]
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            run_child(writing, name, inherited, url, by_itself, soak.options)
        os.close(writing)
        report = read_report(reading, 20)
        os.close(reading)
        if report is None:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if report is None or "error" in report:
        soak.violations.expect(False, f"{name} failed: {report and report['error']}")
        return
    for key, account in report.items():
        soak.lives.compare(key, inherited.host, account["sent"], ClientStats(**account["stats"]))


def run_child(told: int, name: str, inherited: Life, url: str, by_itself: bool, options: Options) -> None:
    """Send, write a report to `told`, and end the process. Takes no lock that another thread held at the fork."""
    report: dict[str, Any] = {}
    try:
        clients = {
            f"{name}-own": TelemetryClient(url, configuration(inherited.host, options)),
            f"{name}-inherited": inherited.client,
        }
        lives = [Life(key, inherited.host, client) for key, client in clients.items()]
        for life in lives:
            for _ in range(5):
                life.enqueue()
        if by_itself:
            atexit._run_exitfuncs()  # as an exit does; the real exit of this process would run the soak's handlers, too
        else:
            for life in lives:
                life.client.flush(0.5)
                life.client.close()
        for life in lives:
            stats = life.client.stats()
            report[life.key] = {"sent": life.sent, "stats": msgspec.to_builtins(stats)}
    except BaseException as error:  # noqa: BLE001 - the parent reports it
        report = {"error": f"{type(error).__name__}: {error}"}
    finally:
        os.write(told, json.dumps(report).encode() + b"\n")
        os._exit(0)


def read_report(descriptor: int, seconds: float) -> dict[str, Any] | None:
    """A child's report, or None when it does not arrive in time."""
    text, ends = b"", time.monotonic() + seconds
    while not text.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))[0]:
            return None
        piece = os.read(descriptor, 65536)
        if not piece:
            return None
        text += piece
    report: dict[str, Any] = json.loads(text)
    return report


# The run and its report.


def run(options: Options) -> dict[str, Any]:
    """Run the soak; returns the figures, including the violations."""
    violations = Violations()
    servers = Servers(options.hosts, options.seed)
    samples = Samples()
    lives = Lives(servers, violations)
    hosts = range(options.hosts // 2, options.hosts)
    soak = Soak(
        options, servers, violations, lives, [LongLived(host, servers, lives, options) for host in hosts]
    )
    producers = [
        threading.Thread(target=produce, args=(soak, index), name=f"soak-producer-{index}")
        for index in range(options.producers)
    ]
    for thread in producers:
        thread.start()
    try:
        disturb(soak, samples)
    finally:
        soak.stop.set()
        for thread in producers:
            thread.join(30)
        for client in soak.long_lived:
            client.close()
    expect = violations.expect
    expect(not any(thread.is_alive() for thread in producers), "a producer hangs")
    expect(not TelemetryClientManager.get_instance().hosts(), "the manager has hosts left")
    expect(not lives.left(), f"clients that were never closed: {lives.left()}")
    del client
    soak.long_lived.clear()
    for url in servers.urls:  # the breakers of clients without a manager stay until then
        CircuitBreakerManager.get_instance().remove_circuit_breaker(url)
    costs = samples.check(violations)
    book = servers.order("book")
    servers.close()
    expect(not book["unknown"], f"accepted from unknown clients: {book['unknown']}")
    violations.found += book["violations"]
    return {
        "options": asdict(options),
        "events": dict(lives.totals),
        "requests": dict(sorted(book["requests"].items())),
        "done": dict(soak.done),
        "costs": costs,
        "violations": violations.found,
    }


def print_report(figures: dict[str, Any]) -> None:
    options, events, costs = figures["options"], Counter(figures["events"]), figures["costs"]
    print(f"soak: seed {options['seed']}, {options['seconds']:g} s, {options['hosts']} hosts")
    counts = [f"{events[name]:,} {name}" for name in ENDS if events[name]]
    print(f"  events       {events['enqueued']:,} enqueued = {' + '.join(counts)}")
    print(f"  accepted     {events['sure']:,} certainly, {events['accepted']:,} possibly")
    print(f"  requests     {', '.join(f'{count:,} {name}' for name, count in figures['requests'].items())}")
    done = [f"{count:,} {name}" for name, count in sorted(figures["done"].items())]
    print(f"  done         {events['clients']:,} clients, {', '.join(done)}")
    print(
        f"  memory       {costs['memory_first_mib']} MiB in the first third, "
        f"{costs['memory_last_mib']} MiB in the last"
    )
    print(
        f"  threads      {costs['our_threads_most']} of the library at the peak, {costs['our_threads_end']} at the end"
    )
    print(
        f"  descriptors  {costs['descriptors_start']} at the start, {costs['descriptors_most']} at the peak, "
        f"{costs['descriptors_end']} at the end"
    )
    for violation in figures["violations"]:
        print(f"  VIOLATED     {violation}")
    print("verdict: " + ("FAILED" if figures["violations"] else "all holds"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--hosts", type=int, default=6)
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=300, help="events per second and producer")
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    options = Options(arguments.seed, arguments.seconds, arguments.hosts, arguments.producers, arguments.rate)
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    figures = run(options)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
    print_report(figures)
    return 1 if figures["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""The soak's checks: the clients' accounts against the servers' books, and the process's costs."""

from __future__ import annotations

import gc
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from adbc_telemetry import ClientStats, TelemetryClient
from adbc_telemetry.schema import (
    FrontendLogEntry,
    OssSqlDriverTelemetryLog,
    TelemetryFrontendLog,
)

MAX_THREADS: Final = 8
# RSS varies by itself: the allocator keeps arenas, and the queues' lengths differ.
MEMORY_ALLOWANCE_MIB: Final = 3.0
# Connections open and close with the current faults.
DESCRIPTORS_ALLOWANCE: Final = 8
ENDS: Final = (
    "delivered",
    "rejected",
    "failed",
    "dropped_queue_full",
    "dropped_circuit_open",
    "dropped_closed",
    "spooled",
)


class Violations:
    """The failed checks; keeps the first 20."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def expect(self, holds: object, text: str) -> None:
        if not holds and len(self.found) < 20:
            self.found.append(text)


class Servers:
    """The process of `soak_server.py`. Any thread may give orders; a lock serialises them."""

    def __init__(self, hosts: int, seed: int) -> None:
        script = Path(__file__).with_name("soak_server.py")
        command = [sys.executable, str(script), "--hosts", str(hosts), "--seed", str(seed)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lock = threading.Lock()
        self.urls = [f"http://127.0.0.1:{port}" for port in self._read()]

    def order(self, do: str, **what: Any) -> Any:
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Life:
    """One client's life: the events that it got and the number of its users."""

    def __init__(self, key: str, host: int, client: TelemetryClient) -> None:
        self.key = key
        self.host = host
        self.client = client
        self.users = 0
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.sent = 0

    def enqueue(self) -> None:
        with self._lock:  # keeps `sent` exact while no producer calls
            number = next(self._numbers)
            self.sent += 1
        # Each event has its own kilobyte, so that kept events show in the memory.
        sql = OssSqlDriverTelemetryLog(sql_statement_id=f"{number}".ljust(1000), operation_latency_ms=number)
        log = TelemetryFrontendLog(
            frontend_log_event_id=f"{self.key}:{number}", entry=FrontendLogEntry(sql_driver_log=sql)
        )
        self.client.enqueue(log)


class Lives:
    """The open clients, and the totals of the closed ones."""

    def __init__(self, servers: Servers, violations: Violations) -> None:
        self._servers = servers
        self._violations = violations
        self._lock = threading.Lock()  # guards the rest
        self._lives: dict[TelemetryClient, Life] = {}
        self._keys = itertools.count()
        self.totals: Counter[str] = Counter()

    def begin(self, client: TelemetryClient, host: int) -> Life:
        """Add a user of `client`."""
        with self._lock:
            life = self._lives.get(client)
            if life is None:
                life = self._lives[client] = Life(f"client-{next(self._keys)}", host, client)
            life.users += 1
            return life

    def end(self, life: Life) -> None:
        """Remove a user; after a closed client's last user, check its account."""
        with self._lock:
            life.users -= 1
            over = life.users == 0 and not life.client.is_open
            if over:
                del self._lives[life.client]
        if over:
            self.compare(life.key, life.host, life.sent, life.client.stats())

    @contextmanager
    def using(self, client: TelemetryClient, host: int) -> Iterator[Life]:
        """Use `client` during the block; yields its life."""
        life = self.begin(client, host)
        try:
            yield life
        finally:
            self.end(life)

    def compare(self, key: str, host: int, sent: int, stats: ClientStats) -> None:
        """Check a closed client's account, and compare it with the servers' book."""
        expect = self._violations.expect
        expect(stats.closes, f"the account of {key} does not close: {stats}")
        expect(stats.enqueued == sent, f"{key} counts {stats.enqueued} enqueued events, the soak {sent}")
        expect(not stats.queued and not stats.in_flight, f"{key} is closed and still has events: {stats}")
        sure, perhaps = self._servers.order(
            "compare", key=key, host=host, sent=sent, delivered=stats.delivered
        )
        with self._lock:
            self.totals.update({name: getattr(stats, name) for name in ("enqueued", *ENDS)})
            self.totals.update(sent=sent, sure=sure, accepted=perhaps, clients=1)

    def check(self) -> None:
        """Check while no producer calls that every account closes, even when senders work."""
        with self._lock:
            lives = list(self._lives.values())
        for life in lives:
            stats = life.client.stats()
            self._violations.expect(stats.closes, f"the account of {life.key} does not close: {stats}")
            self._violations.expect(
                stats.enqueued == life.sent,
                f"{life.key} counts {stats.enqueued} enqueued events, the soak {life.sent}",
            )

    def left(self) -> list[str]:
        with self._lock:
            return sorted(life.key for life in self._lives.values())


# The costs.


def our_threads() -> int:
    return sum(thread.name.startswith("adbc-telemetry") for thread in threading.enumerate())


class Samples:
    """Memory, threads and descriptors of this process over time."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.start = self.now()
        self.at, self.memory = array("d"), array("d")
        self.descriptors, self.threads = array("i"), array("i")

    def now(self) -> tuple[int, int]:
        """The current numbers of threads and descriptors."""
        return threading.active_count(), self._process.num_fds()

    def take(self) -> None:
        self.at.append(time.monotonic())
        self.memory.append(self._process.memory_info().rss / 2**20)
        self.descriptors.append(self._process.num_fds())
        self.threads.append(our_threads())

    def thirds(self, values: array[Any]) -> tuple[float, float]:
        """The medians of the first and the last third, after a warm-up of a sixth of the time."""
        began, ended = self.at[0], self.at[-1]
        warm = [value for at, value in zip(self.at, values, strict=True) if at >= began + (ended - began) / 6]
        third = max(1, len(warm) // 3)
        return statistics.median(warm[:third]), statistics.median(warm[-third:])

    def wait_for_start_values(self, seconds: float) -> tuple[int, int]:
        """Wait until threads and descriptors are back at their start values, at most `seconds`; returns them."""
        ends = time.monotonic() + seconds
        while (now := self.now()) != self.start and time.monotonic() < ends:
            time.sleep(0.02)
            gc.collect()
        return now

    def check(self, violations: Violations) -> dict[str, Any]:
        end = self.wait_for_start_values(5)
        figures = {
            "memory_first_mib": round(self.thirds(self.memory)[0], 2),
            "memory_last_mib": round(self.thirds(self.memory)[1], 2),
            "descriptors_first": self.thirds(self.descriptors)[0],
            "descriptors_last": self.thirds(self.descriptors)[1],
            "descriptors_start": self.start[1],
            "descriptors_most": max(self.descriptors),
            "descriptors_end": end[1],
            "our_threads_most": max(self.threads),
            "our_threads_end": our_threads(),
            "threads_start": self.start[0],
            "threads_end": end[0],
        }
        growth = figures["memory_last_mib"] - figures["memory_first_mib"]
        expect = violations.expect
        more = figures["descriptors_last"] - figures["descriptors_first"]
        expect(growth <= MEMORY_ALLOWANCE_MIB, f"memory grew by {growth:.1f} MiB")
        expect(
            figures["our_threads_most"] <= MAX_THREADS,
            f"the library had {figures['our_threads_most']} threads at once",
        )
        expect(more <= DESCRIPTORS_ALLOWANCE, f"the last third had {more:g} more descriptors than the first")
        expect(end[0] == self.start[0], f"{end[0]} threads at the end, {self.start[0]} at the start")
        expect(end[1] == self.start[1], f"{end[1]} descriptors at the end, {self.start[1]} at the start")
        return figures

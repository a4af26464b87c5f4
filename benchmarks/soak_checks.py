"""What the soak checks: the clients' accounts against the servers' books, and what the process costs."""

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

import psutil  # type: ignore[import-untyped]

from adbc_telemetry import ClientStats, TelemetryClient
from adbc_telemetry.schema import (
    FrontendLogEntry,
    OssSqlDriverTelemetryLog,
    TelemetryFrontendLog,
)

MAX_THREADS: Final = 8
# What RSS moves by itself: the allocator's arenas, and queues that are fuller now than then.
MEMORY_ALLOWANCE_MIB: Final = 3.0
# Connections come and go with the faults of the moment.
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
    """What does not hold; the first ones are enough."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def expect(self, holds: object, text: str) -> None:
        if not holds and len(self.found) < 20:
            self.found.append(text)


class Servers:
    """The process of `soak_server.py`. Orders are given by any thread, one at a time."""

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
    """One client's life: what we have given to it, and who of us still uses it."""

    def __init__(self, key: str, host: int, client: TelemetryClient) -> None:
        self.key = key
        self.host = host
        self.client = client
        self.users = 0
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.sent = 0

    def enqueue(self) -> None:
        with self._lock:  # so that `sent` is exact while no producer is calling
            number = next(self._numbers)
            self.sent += 1
        # A kilobyte of its own each, so that it shows when they are kept.
        sql = OssSqlDriverTelemetryLog(sql_statement_id=f"{number}".ljust(1000), operation_latency_ms=number)
        log = TelemetryFrontendLog(
            frontend_log_event_id=f"{self.key}:{number}", entry=FrontendLogEntry(sql_driver_log=sql)
        )
        self.client.enqueue(log)


class Lives:
    """The clients that are there, and the totals of those that are over."""

    def __init__(self, servers: Servers, violations: Violations) -> None:
        self._servers = servers
        self._violations = violations
        self._lock = threading.Lock()  # guards the rest
        self._lives: dict[TelemetryClient, Life] = {}
        self._keys = itertools.count()
        self.totals: Counter[str] = Counter()

    def begin(self, client: TelemetryClient, host: int) -> Life:
        """One user more of `client`."""
        with self._lock:
            life = self._lives.get(client)
            if life is None:
                life = self._lives[client] = Life(f"client-{next(self._keys)}", host, client)
            life.users += 1
            return life

    def end(self, life: Life) -> None:
        """One user less; after the last, if the client is closed, its account is settled."""
        with self._lock:
            life.users -= 1
            over = life.users == 0 and not life.client.is_open
            if over:
                del self._lives[life.client]
        if over:
            self.batch_outcome(life.key, life.host, life.sent, life.client.stats())

    @contextmanager
    def using(self, client: TelemetryClient, host: int) -> Iterator[Life]:
        """The life of `client`, while it is used."""
        life = self.begin(client, host)
        try:
            yield life
        finally:
            self.end(life)

    def batch_outcome(self, key: str, host: int, sent: int, stats: ClientStats) -> None:
        expect = self._violations.expect
        expect(stats.closes, f"the account of {key} does not close: {stats}")
        expect(stats.enqueued == sent, f"{key} counts {stats.enqueued} enqueued, we {sent}")
        expect(not stats.queued and not stats.in_flight, f"{key} is closed and has events left: {stats}")
        sure, perhaps = self._servers.order(
            "settle", key=key, host=host, sent=sent, delivered=stats.delivered
        )
        with self._lock:
            self.totals.update({name: getattr(stats, name) for name in ("enqueued", *ENDS)})
            self.totals.update(sent=sent, sure=sure, accepted=perhaps, clients=1)

    def check(self) -> None:
        """While no producer calls: every account closes, the senders at work or not."""
        with self._lock:
            lives = list(self._lives.values())
        for life in lives:
            stats = life.client.stats()
            self._violations.expect(stats.closes, f"the account of {life.key} does not close: {stats}")
            self._violations.expect(
                stats.enqueued == life.sent, f"{life.key} counts {stats.enqueued} enqueued, we {life.sent}"
            )

    def left(self) -> list[str]:
        with self._lock:
            return sorted(life.key for life in self._lives.values())


# What it costs.


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
        """Threads and descriptors at this moment."""
        return threading.active_count(), self._process.num_fds()

    def take(self) -> None:
        self.at.append(time.monotonic())
        self.memory.append(self._process.memory_info().rss / 2**20)
        self.descriptors.append(self._process.num_fds())
        self.threads.append(our_threads())

    def thirds(self, values: array[Any]) -> tuple[float, float]:
        """The medians of the first and of the last third, after the first sixth of the time to warm up."""
        began, ended = self.at[0], self.at[-1]
        warm = [value for at, value in zip(self.at, values, strict=True) if at >= began + (ended - began) / 6]
        third = max(1, len(warm) // 3)
        return statistics.median(warm[:third]), statistics.median(warm[-third:])

    def wait_for_start_values(self, seconds: float) -> tuple[int, int]:
        """Threads and descriptors once they are what they were, or at the latest after `seconds`."""
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
        expect(growth <= MEMORY_ALLOWANCE_MIB, f"memory has grown by {growth:.1f} MiB")
        expect(
            figures["our_threads_most"] <= MAX_THREADS,
            f"{figures['our_threads_most']} threads of ours at once",
        )
        expect(
            more <= DESCRIPTORS_ALLOWANCE, f"{more:g} descriptors more in the last third than in the first"
        )
        expect(end[0] == self.start[0], f"{end[0]} threads at the end, {self.start[0]} at the start")
        expect(end[1] == self.start[1], f"{end[1]} descriptors at the end, {self.start[1]} at the start")
        return figures

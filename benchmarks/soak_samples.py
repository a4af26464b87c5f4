"""What a soak measures of its own process while it runs."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from array import array
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

MAX_THREADS: Final = 8
# What RSS moves by itself: the allocator's arenas, and queues that are fuller now than then.
MEMORY_ALLOWANCE_MIB: Final = 3.0
# Connections come and go with the faults of the moment.
DESCRIPTORS_ALLOWANCE: Final = 8


class Violations:
    """What does not hold; the first ones are enough."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def expect(self, holds: object, text: str) -> None:
        if not holds and len(self.found) < 20:
            self.found.append(text)


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


# The whole of it.

"""How long the page's questions take: the median of each panel, warm, and the memory of the process that answers.

    python benchmarks/page_queries.py [EVENTS ...]        1000000 and 10000000 if none are named

A question is new each time, as it is when events have arrived: answers that are kept are passed over by a filter that
changes nothing. Rollups are there, as the collector makes them ahead of the questions.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from adbc_telemetry.collector.queries.answers import SINGLE
from adbc_telemetry.collector.queries.filters import Filter
from adbc_telemetry.collector.queries.service import QueryService
from adbc_telemetry.collector.store.compaction import Compactor
from adbc_telemetry.collector.store.layout import StoreFolder, create_store

RUNS: Final = 7
SEGMENT: Final = 20_000
SEGMENTS_OF_A_FILE: Final = 20
DAY: Final = 86_400.0
OPERATIONS: Final = ["EXECUTE_STATEMENT"] * 6 + [
    "CREATE_SESSION",
    "DELETE_SESSION",
    "LIST_TABLES",
    "LIST_COLUMNS",
]
DRIVERS: Final = [
    ("one", "1.8.0"),
    ("two", "1.3.2"),
    ("three", "1.8.0"),
    ("three", "1.7.0"),
    ("four", "4.0.1"),
]
ERRORS: Final = [None] * 19 + ["OperationalError", "ProgrammingError", "TimeoutError"]
FILTERS: Final = {
    "everything": Filter(),
    "two values": Filter(driver="three", error="*"),
    "the last hour": Filter(since=time.time() - 3600),
}


def main(sizes: list[int]) -> None:
    for events in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store = create_store(Path(folder) / "store")
            fill(store, events)
            asyncio.run(measure(store, events))


def fill(store: StoreFolder, events: int) -> None:
    """Spread events over the last day, in files as large as the collector's."""
    compactor, rng = Compactor(str(store.path)), random.Random(1)
    start = time.time() - DAY
    waiting: list[tuple[int, str]] = []
    last = -(-events // SEGMENT)
    for number in range(1, last + 1):
        segment = store.segment(number, "2026-03-01")
        size = min(SEGMENT, events - (number - 1) * SEGMENT)
        first = (number - 1) * SEGMENT
        with segment.path.open("w") as file:
            file.writelines(
                lines(rng, size, lambda place, first=first: start + DAY * (first + place) / events)
            )
        waiting.append((number, str(segment.path)))
        if len(waiting) == SEGMENTS_OF_A_FILE or number == last:
            target = store.data_file(waiting[0][0], "2026-03-01").path
            compactor.compact(waiting, str(target))
            for _, path in waiting:
                Path(path).unlink()
            waiting = []


def lines(rng: random.Random, number: int, time_of: Any) -> Iterator[str]:
    for place in range(number):
        at = time_of(place)
        driver, version = rng.choice(DRIVERS)
        log = {
            "session_id": f"session-{rng.randrange(5000)}",
            "sql_statement_id": str(uuid.UUID(int=rng.getrandbits(128))),
            "operation_latency_ms": int(rng.lognormvariate(3.5, 1.2)),
            "system_configuration": {"driver_name": driver, "driver_version": version},
            "driver_connection_params": {"host_info": {"host_url": f"{rng.randrange(6)}.example"}},
            "sql_operation": {
                "statement_type": "QUERY",
                "operation_detail": {"operation_type": rng.choice(OPERATIONS)},
            },
            "error_info": {"error_name": rng.choice(ERRORS)},
        }
        event = {
            "frontend_log_event_id": str(uuid.UUID(int=rng.getrandbits(128))),
            "context": {"client_context": {"timestamp_millis": int(at * 1000)}},
            "entry": {"sql_driver_log": log},
        }
        yield json.dumps({"received_us": int(at * 1_000_000), "log": json.dumps(event)}) + "\n"


async def measure(store: StoreFolder, events: int) -> None:
    service = QueryService(store.path, prepare=False)
    try:
        begun = time.perf_counter()
        await service.panel("summary", Filter())
        print(f"{events:,} events; all rollups made anew in {time.perf_counter() - begun:.1f} s")
        for label, filter in FILTERS.items():
            # The panels that count are filled together: the first one that is asked for takes the time of all.
            for name in ("summary", *SINGLE):
                print(f"  {label:15} {name:9} {await median(service, name, filter) * 1000:6.0f} ms")
        assert service.pid is not None
        peak = peak_bytes(service.pid)
        print(f"  the process that answers took {peak / 1e6:.0f} MB at most")
    finally:
        await service.close()


async def median(service: QueryService, name: str, filter: Filter) -> float:
    taken = []
    for run in range(RUNS + 1):
        # Another end in the future: another question, of the same events.
        until = (time.time() // 60 + 10 + run) * 60
        begun = time.perf_counter()
        await service.panel(name, Filter(**{**as_dict(filter), "until": until}))
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def as_dict(filter: Filter) -> dict[str, Any]:
    return {name: getattr(filter, name) for name in filter.__struct_fields__}


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process(pid).memory_info().rss)


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [1_000_000, 10_000_000])

"""One measurement of one system in its own process; `run.py` and the tests run it.

    python benchmarks/measure.py MEASUREMENT SYSTEM [JSON OF ARGUMENTS]

In a fresh process, the imports, threads and garbage of one system cannot slow down another. Garbage collection stays
on, as in real programs. It prints the figures as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Final

from systems import Settings, System, load, some_facts

# Nothing listens here; for measurements that send nothing.
NOWHERE: Final = "http://127.0.0.1:9"

Figures = dict[str, float]


def _nanoseconds_each(
    call: Callable[[], object], count: int, clock: Callable[[], int] = time.perf_counter_ns
) -> float:
    started = clock()
    for _ in repeat(None, count):
        call()
    return (clock() - started) / count


def _best_nanoseconds_each(call: Callable[[], object], count: int, repeats: int = 5) -> float:
    return min(_nanoseconds_each(call, count) for _ in range(repeats))


def _set_up(name: str, url: str, settings: Settings | None, **options: Any) -> System:
    system = load(name)
    options = {"idle": False, "gzip": False, **options}
    return system(url, system.BEST if settings is None else settings, **options)


def _warm_up(name: str, url: str) -> None:
    """Deliver one event, so that the imports and look-ups of the first request are not measured."""
    system = _set_up(name, url, None, events=1)
    system.emit()
    system.finish()
    system.close()


def caller(name: str, *, url: str, events: int, settings: Settings | None = None) -> Figures:
    """Nanoseconds of the calling thread per event, while nothing is sent.

    `caller` includes the work that the system defers but leaves to the calling thread (`pay`); `caller at once` does
    not.
    """
    system = _set_up(name, url, settings, events=2 * events, idle=True)
    _nanoseconds_each(system.emit, events // 20)
    system.pay()
    started = time.perf_counter_ns()
    at_once = _nanoseconds_each(system.emit, events)
    system.pay()
    whole = (time.perf_counter_ns() - started) / events
    _expect(system.finish(), events + events // 20)
    system.close()
    return {"caller": whole, "caller at once": at_once}


def enqueue(name: str, *, url: str, events: int) -> Figures:
    """Nanoseconds of `enqueue` with a ready log, and of a bare `deque.append` of the same log."""
    from systems.ours import EXAMPLE, Ours, make_log

    system = Ours(url, Ours.BEST, events=8 * events, idle=True, gzip=False)
    log = make_log(system.session, EXAMPLE)
    bare: deque[object] = deque()
    figures: dict[str, list[float]] = {"enqueue": [], "append": []}
    for _ in range(5):  # alternately, so that a slow machine slows down both
        for key, put in (("append", bare.append), ("enqueue", system.client.enqueue)):
            started = time.perf_counter_ns()
            for _ in repeat(None, events):
                put(log)
            figures[key].append((time.perf_counter_ns() - started) / events)
    system.finish()
    system.close()
    return {key: sorted(values)[2] for key, values in figures.items()}


def delivery(
    name: str,
    *,
    url: str,
    events: int,
    settings: Settings | None = None,
    gzip: bool = False,
    ready: bool = False,
) -> Figures:
    """Events per second from the first event to the last response, and the process's CPU time per event.

    With `ready` (only for ours), the logs are built beforehand. Fails unless every event is accepted.
    """
    _warm_up(name, url)
    system = _set_up(name, url, settings, events=events, gzip=gzip)
    cpu, started = time.process_time(), time.perf_counter()
    if ready:
        system.emit_ready(events)  # type: ignore[attr-defined] # only ours has it
    else:
        for _ in repeat(None, events):
            system.emit()
    accepted = system.finish()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    system.close()
    _expect(accepted, events)
    return {"events_per_s": events / seconds, "cpu_us": cpu / events * 1e6}


def wire(
    name: str, *, url: str, events: int, settings: Settings | None = None, gzip: bool = False
) -> Figures:
    """Send events that all differ; the null server counts their bytes."""
    system = _set_up(name, url, settings, events=events, gzip=gzip)
    for facts in some_facts(events):
        system.emit_facts(facts)
    accepted = system.finish()
    system.close()
    _expect(accepted, events)
    return {"accepted": accepted}


def memory(name: str, *, events: int) -> Figures:
    """Bytes per queued event, by tracemalloc."""
    system = _set_up(name, NOWHERE, None, events=events, idle=True)
    system.emit()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in repeat(None, events):
        system.emit()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    return {"memory": (after - before) / events}


def connections(name: str, *, url: str, events: int, counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """Time per event and threads with many connections to one host, each with its own lease and session."""
    from systems.ours import Ours, make_config, make_session, whole_statement

    from adbc_telemetry import TelemetryClientManager

    manager = TelemetryClientManager.get_instance()
    config = make_config(Ours.BEST, events=2 * events, idle=True)
    times: dict[str, list[float]] = {str(count): [] for count in counts}
    threads: dict[str, float] = {}
    _warm_up(name, url)
    for count in (*counts, *reversed(counts), *counts):
        leases = [manager.acquire(url, config) for _ in range(count)]
        sessions = [make_session(lease.client) for lease in leases]
        turns = (sessions * (events // count + 1))[:events]
        for session in turns[: events // 20]:
            whole_statement(session)
        started = time.perf_counter_ns()
        for session in turns:
            whole_statement(session)
        times[str(count)].append((time.perf_counter_ns() - started) / events)
        alive = threading.active_count() - 1
        threads[str(count)] = max(alive, threads.get(str(count), 0))
        for lease in leases:
            lease.release(60)
    return {"caller": {count: statistics.median(each) for count, each in times.items()}, "threads": threads}


def threads(
    name: str, *, url: str, events: int, counts: Sequence[int], settings: Settings | None = None
) -> dict[str, dict[str, float]]:
    """Events per second of several producing threads, to the last enqueue and to the last response."""
    figures: dict[str, dict[str, float]] = {"enqueued": {}, "delivered": {}}
    _warm_up(name, url)
    for count in counts:
        system = _set_up(name, url, settings, events=events)
        share = events // count
        start = threading.Barrier(count + 1)

        def produce(system: System = system, share: int = share, start: threading.Barrier = start) -> None:
            start.wait()
            for _ in repeat(None, share):
                system.emit()

        producers = [threading.Thread(target=produce) for _ in range(count)]
        for producer in producers:
            producer.start()
        start.wait()
        started = time.perf_counter()
        for producer in producers:
            producer.join()
        figures["enqueued"][str(count)] = share * count / (time.perf_counter() - started)
        accepted = system.finish()
        figures["delivered"][str(count)] = share * count / (time.perf_counter() - started)
        system.close()
        _expect(accepted, share * count)
    return figures


def stages(name: str, *, url: str, events: int) -> Figures:
    """Nanoseconds per event in each stage of ours: the caller's thread, then the sender's CPU."""
    from systems.ours import EXAMPLE, Ours, make_config, make_log, make_session, make_statement, record_facts

    from adbc_telemetry import (
        DatabricksTelemetryExporter,
        ExportOutcome,
        ExportResult,
        NoopTelemetryClient,
        TelemetryClient,
    )

    class Taker:
        def export(self, logs: Any, *, deadline: float | None = None) -> ExportResult:
            return ExportResult(outcome=ExportOutcome.DELIVERED, delivered=len(logs))

        def close(self) -> None: ...

    session = make_session(NoopTelemetryClient("host"))

    def made() -> Any:
        return make_statement(session)

    def recorded() -> Any:
        statement = make_statement(session)
        record_facts(statement)
        return statement

    figures = {"context made": _best_nanoseconds_each(made, events)}
    figures["six facts recorded"] = _best_nanoseconds_each(recorded, events) - figures["context made"]
    done = sum(figures.values())
    figures["emit, without a client"] = (
        _best_nanoseconds_each(lambda: recorded().emit(), events) - done - _overhead(events)
    )
    log = make_log(session, EXAMPLE)
    idle = make_config(Ours.BEST, events=8 * events, idle=True)
    with TelemetryClient("host", idle, exporter=Taker()) as client:
        figures["enqueue"] = _best_nanoseconds_each(lambda: client.enqueue(log), events) - _overhead(events)
    logs = [make_log(session, facts) for facts in some_facts(min(events, 20_000))]
    busy = make_config(Ours.BEST, events=len(logs), idle=False)
    with TelemetryClient("host", busy, exporter=Taker()) as client:
        cpu = time.process_time_ns()
        for log in logs:
            client.enqueue(log)
        client.flush()
        figures["queue and batches (CPU, with enqueue)"] = (time.process_time_ns() - cpu) / len(logs)
    for gzip in (False, True):
        exporter = DatabricksTelemetryExporter(
            url, make_config(Ours.BEST, events=len(logs), idle=False, gzip=gzip)
        )
        size = Ours.BEST["batch_size"]
        exporter.export(logs[:size])  # makes the imports and the connection
        best = float("inf")
        for _ in range(3):
            cpu = time.process_time_ns()
            for start in range(0, len(logs), size):
                exporter.export(logs[start : start + size])
            best = min(best, (time.process_time_ns() - cpu) / len(logs))
        figures["encode and send (CPU, gzip)" if gzip else "encode and send (CPU)"] = best
        exporter.close()
    return figures


def yardsticks(name: str, *, url: str, events: int) -> Figures:
    """For the tests: our costs beside those of plain Python, so that the ratios hold on any machine."""
    import uuid

    import msgspec
    from systems.ours import EXAMPLE, Ours, make_log

    system = Ours(url, Ours.BEST, events=20 * events, idle=True, gzip=False)
    log = make_log(system.session, EXAMPLE)
    as_dict = msgspec.to_builtins(log)
    bare: deque[object] = deque()
    timed: dict[str, tuple[Callable[[], object], list[float]]] = {
        "json.dumps": (partial(json.dumps, as_dict), []),
        "uuid4": (uuid.uuid4, []),
        "append": (partial(bare.append, log), []),
        "enqueue": (partial(system.client.enqueue, log), []),
        "statement": (system.emit, []),
    }
    for _ in range(7):  # alternately, and the least of each: the machine's other work only adds time
        for call, times in timed.values():
            # CPU time, as for the delivery below: on a busy machine, wall time would inflate the yardstick alone.
            times.append(_nanoseconds_each(call, events, time.thread_time_ns))
    figures = {key: min(times) for key, (_, times) in timed.items()}
    system.finish()
    system.close()
    figures["delivery"] = 1e3 * min(
        delivery(name, url=url, events=4 * events, ready=True)["cpu_us"] for _ in range(4)
    )
    figures["memory"] = memory(name, events=events)["memory"]
    tracemalloc.clear_traces()
    before = tracemalloc.get_traced_memory()[0]
    copies = [json.loads(json.dumps(as_dict)) for _ in repeat(None, events)]
    figures["memory of dicts"] = (tracemalloc.get_traced_memory()[0] - before) / len(copies)
    tracemalloc.stop()
    return figures


def _overhead(count: int) -> float:
    return _best_nanoseconds_each(lambda: None, count)


def _expect(accepted: int, events: int) -> None:
    if accepted != events:
        raise SystemExit(f"{accepted} events were accepted, of {events}")


MEASUREMENTS: Final[dict[str, Callable[..., Any]]] = {
    call.__name__: call
    for call in (caller, enqueue, delivery, wire, memory, connections, threads, stages, yardsticks)
}


def main() -> None:
    measurement, name, *rest = sys.argv[1:]
    figures = MEASUREMENTS[measurement](name, **(json.loads(rest[0]) if rest else {}))
    print(json.dumps(figures), flush=True)
    # Skip the exit handlers: they would send the events that are still queued.
    os._exit(0)


if __name__ == "__main__":
    main()

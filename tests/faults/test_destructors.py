"""Destructors interrupt the library (promise 2)."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from adbc_telemetry import (
    InMemoryTelemetryExporter,
    TelemetryClient,
)
from faults.reentrancy import Garbage, Producer, collect, configuration, nothing_old_to_collect
from faults.scenario import Scenario
from support.interrupting import at_every_line, interrupted_at_line
from support.logs import make_log
from support.server import TelemetryServer


def test_collections_at_every_line_of_the_library(fault: Scenario, server: TelemetryServer) -> None:
    """A garbage collection at each of the first 2,000 lines that the library runs; a destructor enqueues."""
    with nothing_old_to_collect():
        client: TelemetryClient | None = None
        produce: Producer | None = None

        def interrupt() -> None:
            if produce is not None:
                collect(produce)

        with at_every_line(interrupt, 2_000):
            client = TelemetryClient(server.url, configuration(batch_size=50))
            produce = Producer(client)
            while len(produce.made) < 1_500:
                produce()
                client.stats()
                assert client.flush(20)
        gc.collect()
        assert client.close()
    fault.settled(client.stats(), sent=len(produce.made), arrived=server.accepted)
    assert len(server.accepted) == len(set(server.accepted))
    assert fault.lost == {}


def test_collections_at_every_allocation(fault: Scenario) -> None:
    """The collector's threshold is 1; each of 3,000 destructors enqueues and makes the next cycle."""
    exporter = InMemoryTelemetryExporter()
    with (
        nothing_old_to_collect(),
        TelemetryClient("host", configuration(batch_size=20), exporter=exporter) as client,
    ):
        produce = Producer(client)

        def enqueue_and_go_on() -> None:
            if len(produce.made) < 3_000:
                produce()
                Garbage(enqueue_and_go_on)

        gc.set_threshold(1)
        Garbage(enqueue_and_go_on)
        while len(produce.made) < 3_000:
            client.flush(20)
            client.stats()
        assert client.flush(20)
    fault.settled(
        client.stats(), sent=len(produce.made), arrived=[log.frontend_log_event_id for log in exporter.logs]
    )
    assert fault.lost == {}


@pytest.mark.parametrize(
    "moment", ["take_batch", "batch_returned", "open_reached_barriers", "flush_all", "raise_barrier", "end"]
)
def test_a_collection_inside_the_clients_critical_section(
    fault: Scenario, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A garbage collection while the method in brackets holds the client's lock; its destructor enqueues, and so does a
    destructor in another thread, which must not wait for the lock."""
    exporter = InMemoryTelemetryExporter()
    with nothing_old_to_collect():
        client = TelemetryClient("host", configuration(batch_size=10), exporter=exporter)
        produce = Producer(client)
        flow = client._flow
        original = getattr(flow, moment)
        left = iter(range(5))

        def collecting(*arguments: object, **named: object) -> object:
            if next(left, None) is not None:
                with flow.lock:
                    collect(produce)
                    other = threading.Thread(target=collect, args=(produce,))
                    other.start()
                    other.join(10)
                    assert not other.is_alive(), "a destructor waits for the lock"
            return original(*arguments, **named)

        monkeypatch.setattr(flow, moment, collecting)
        for _ in range(5):
            produce()
            assert client.flush(20)
        client.close()
        client.enqueue(make_log())
        stats = client.stats()
    fault.settled(
        stats, sent=len(produce.made) + 1, arrived=[log.frontend_log_event_id for log in exporter.logs]
    )
    assert stats.delivered + stats.dropped_closed == stats.enqueued


def test_weak_references_call_back(fault: Scenario) -> None:
    """A garbage collection at each line of a flush; `weakref.ref` callbacks and `weakref.finalize` enqueue."""
    exporter = InMemoryTelemetryExporter()
    with nothing_old_to_collect(), TelemetryClient("host", configuration(), exporter=exporter) as client:
        produce = Producer(client)
        references: list[object] = []

        def interrupt() -> None:
            thing = Garbage(lambda: None)
            references.append(weakref.ref(thing, produce))
            weakref.finalize(thing, produce)
            del thing
            gc.collect(0)

        number = 0
        where = "somewhere"
        while where:
            number += 1
            produce()
            where = interrupted_at_line(number, lambda: client.flush(20), interrupt)
        gc.collect()
    assert number > 10
    fault.settled(
        client.stats(), sent=len(produce.made), arrived=[log.frontend_log_event_id for log in exporter.logs]
    )
    assert len(produce.made) == number + 2 * (number - 1)
    assert fault.lost == {}

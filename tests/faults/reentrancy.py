"""Helpers of the reentrancy scenarios."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adbc_telemetry import (
    TelemetryClient,
    TelemetryClientManager,
    TelemetryConfiguration,
)
from support.logs import make_log

MANAGER = TelemetryClientManager.get_instance()


def configuration(**settings: object) -> TelemetryConfiguration:
    return TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})  # type: ignore[arg-type]


class Producer:
    """Enqueues an event at each call, and counts its calls without a lock."""

    def __init__(self, client: TelemetryClient) -> None:
        self.client = client
        self.made: list[str | None] = []

    def __call__(self, *_: object) -> None:
        log = make_log()
        self.made.append(log.frontend_log_event_id)  # atomic: a destructor may interrupt another call
        self.client.enqueue(log)


class Garbage:
    """A reference cycle, freed only by the garbage collector; its destructor calls `hook`."""

    def __init__(self, hook: Callable[[], object]) -> None:
        self.cycle = self
        self.hook = hook

    def __del__(self) -> None:
        self.hook()


def collect(hook: Callable[[], object]) -> None:
    """Run a garbage collection in which a destructor calls `hook`."""
    Garbage(hook)
    gc.collect(0)


@contextmanager
def nothing_old_to_collect() -> Iterator[None]:
    """Freeze existing objects, so that a collection only visits what was made inside the block."""
    gc.collect()
    gc.freeze()
    threshold = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()

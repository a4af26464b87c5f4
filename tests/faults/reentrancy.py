"""What the scenarios of interruptions share."""

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
    """Enqueues from wherever it is called, and counts its calls without a lock."""

    def __init__(self, client: TelemetryClient) -> None:
        self.client = client
        self.made: list[str | None] = []

    def __call__(self, *_: object) -> None:
        log = make_log()
        self.made.append(log.frontend_log_event_id)  # one step, like all that a destructor may do
        self.client.enqueue(log)


class Garbage:
    """A reference cycle, which only a collection frees; its destructor calls `hook`."""

    def __init__(self, hook: Callable[[], object]) -> None:
        self.cycle = self
        self.hook = hook

    def __del__(self) -> None:
        self.hook()


def collect(hook: Callable[[], object]) -> None:
    """Have `hook` called by a destructor, in a collection here and now."""
    Garbage(hook)
    gc.collect(0)


@contextmanager
def nothing_old_to_collect() -> Iterator[None]:
    """A collection goes through what was made in here, not through all that the test run has loaded."""
    gc.collect()
    gc.freeze()
    threshold = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()

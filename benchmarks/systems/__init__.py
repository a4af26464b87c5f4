"""The measured systems behind one small interface.

Each delivers the same events: system configuration, session id, statement id, statement type, operation type, result
format, compression, retries, polls, chunks, three latencies, user agent and time.
"""

from __future__ import annotations

import importlib
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

OURS: Final = "adbc-telemetry"
CONNECTOR: Final = "databricks-sql-connector"
OPENTELEMETRY: Final = "opentelemetry-sdk"

Settings = Mapping[str, int]

USER_AGENT: Final = "adbc-driver/1.2.3 (benchmark)"


@dataclass(frozen=True)
class Facts:
    """The facts of one finished statement, for the comparison of sizes; no two statements are alike."""

    statement_id: str
    timestamp_millis: int
    retry_count: int
    polls: int
    polls_ms: int
    chunks: int
    first_chunk_ms: int
    slowest_chunk_ms: int
    chunks_ms: int
    ready_ms: int
    consumed_ms: int
    total_ms: int


class System(Protocol):
    """A system under test, set up to deliver to the null server.

    Attributes:
        CANDIDATES: the settings among which the sweep finds the system's best.
        BEST: the settings without a sweep.
    """

    CANDIDATES: tuple[Settings, ...]
    BEST: Settings

    def __init__(self, url: str, settings: Settings, *, events: int, idle: bool, gzip: bool) -> None:
        """Make room for `events` events; with `idle`, send none of them before `pay` or `finish`."""

    def emit(self) -> None:
        """Report one statement, as a driver's author would."""

    def emit_facts(self, facts: Facts) -> None:
        """Report one statement with exactly these facts."""

    def pay(self) -> None:
        """Do the work that the system defers but leaves to the calling thread, if any."""

    def finish(self) -> int:
        """Send everything and wait for the last response; returns the number of accepted events."""

    def close(self) -> None:
        """End all threads and connections."""


_MODULES: Final = {
    OURS: "systems.ours",
    CONNECTOR: "systems.connector",
    OPENTELEMETRY: "systems.otel",
}
ALL: Final = tuple(_MODULES)


def load(name: str) -> type[System]:
    """The class of a system; imports no other system."""
    system: type[System] = importlib.import_module(_MODULES[name]).SYSTEM
    return system


def statement_ids() -> Iterator[str]:
    """Ids as a server would send them; they cost almost nothing, so that no system pays for making them."""
    return map("01ef-%028x".__mod__, itertools.count(1))


def some_facts(count: int) -> Iterator[Facts]:
    """The same facts for every system, from a seed and without a clock."""
    dice = random.Random(1)
    now = 1_764_000_000_000
    for _ in range(count):
        now += dice.randrange(2_000)
        polls, chunks = dice.randint(1, 6), dice.randint(1, 9)
        first, rest = dice.randint(5, 200), dice.randint(0, 900)
        ready = int(dice.lognormvariate(5, 1.2))
        consumed = ready + first + rest
        yield Facts(
            statement_id=f"{dice.getrandbits(128):032x}",
            timestamp_millis=now,
            retry_count=0 if dice.random() < 0.97 else dice.randint(1, 3),
            polls=polls,
            polls_ms=polls * dice.randint(4, 40),
            chunks=chunks,
            first_chunk_ms=first,
            slowest_chunk_ms=max(first, rest // chunks),
            chunks_ms=first + rest,
            ready_ms=ready,
            consumed_ms=consumed,
            total_ms=consumed + dice.randint(0, 20),
        )

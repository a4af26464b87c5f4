"""A scenario's account, and the table of all scenarios."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adbc_telemetry.protocols import ClientStats

_LOSSES = ("rejected", "failed", "dropped_queue_full", "dropped_circuit_open", "dropped_closed")

_HEAD = """\
# The fault suite

Each row is a test in `tests/faults/`. It says which fault was injected, on real sockets and in real processes, and what
became of each event. In every row, sent = delivered + spooled + lost. One run wrote this table:

```sh
make faults
```

"""


@dataclass
class Scenario:
    """What a scenario sent and what became of it: no event may be unaccounted for."""

    area: str
    name: str
    injected: str
    sent: int = 0
    delivered: int = 0
    spooled: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    noted: str = ""
    told: bool = False
    _began: float = field(default_factory=time.monotonic)

    def settled(
        self,
        stats: ClientStats,
        *,
        sent: int,
        arrived: Iterable[str | None] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Record the account of one client at its end.

        Args:
            stats: the client's.
            sent: how many times the scenario called `enqueue`.
            arrived: ids of the events that the endpoint accepted; every delivered event must be among them.
            seconds: the duration to report; None means the whole scenario's.
        """
        assert stats.closes, stats
        assert (stats.enqueued, stats.queued, stats.in_flight) == (sent, 0, 0), stats
        if arrived is not None:
            assert len(set(arrived)) == stats.delivered, (len(set(arrived)), stats)
        lost = {name: count for name in _LOSSES if (count := getattr(stats, name))}
        self.seen(sent=sent, delivered=stats.delivered, lost=lost, spooled=stats.spooled, seconds=seconds)

    def seen(
        self,
        *,
        sent: int,
        delivered: int,
        lost: Mapping[str, int] | None = None,
        spooled: int = 0,
        seconds: float | None = None,
    ) -> None:
        """Record the account of several clients or processes, as the scenario adds it up."""
        assert not self.told, "an account is recorded once"
        lost = {reason: count for reason, count in (lost or {}).items() if count}
        assert sent == delivered + spooled + sum(lost.values()), (sent, delivered, spooled, lost)
        self.sent, self.delivered, self.spooled, self.lost = sent, delivered, spooled, dict(lost)
        self.seconds = time.monotonic() - self._began if seconds is None else seconds
        self.told = True

    def row(self) -> str:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in self.lost.items()) or "0"
        injected = " ".join(self.injected.split()).replace("|", "\\|")
        counts = f"{self.sent:,} | {self.delivered:,} | {self.spooled:,} | {lost} | {self.seconds:.2f} | {self.noted}"
        return f"| {self.name} | {injected} | {counts} |"


def write_table(path: Path, scenarios: list[Scenario]) -> None:
    """Write the table of `scenarios`, one section per test file."""
    parts = [_HEAD + f"{len(scenarios)} scenarios.\n"]
    for area in sorted({scenario.area for scenario in scenarios}):
        parts.append(f"\n## {area.replace('_', ' ').capitalize()}\n\n")
        parts.append("| scenario | injected | sent | delivered | spooled | lost | seconds | noted |\n")
        parts.append("| --- | --- | ---: | ---: | ---: | --- | ---: | --- |\n")
        parts.extend(scenario.row() + "\n" for scenario in scenarios if scenario.area == area)
    path.write_text("".join(parts), encoding="utf-8")

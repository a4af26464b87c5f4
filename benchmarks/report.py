"""The claims and the tables of a run, for the console and for `docs/performance.md`.

Everything here is computed from a run's JSON only.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from systems import CONNECTOR, OPENTELEMETRY, OURS

Run = Mapping[str, Any]
Samples = Mapping[str, Mapping[str, Sequence[float]]]

GZIP: Final = ", gzip"
READY: Final = ", logs ready built"
IN_USE: Final = ", client and exporter too"


@dataclass(frozen=True)
class Figure:
    """A row of absolute figures, which hold for one machine at one moment."""

    key: str
    what: str
    unit: str
    places: int = 1


FIGURES: Final = (
    Figure("caller", "caller's time per statement", "µs", 2),
    Figure("caller at once", "the same, without what the caller's thread serialises later", "µs", 2),
    Figure("events_per_s", "delivered, from the first event to the last response", "events/s", 0),
    Figure("cpu_us", "CPU time of the process per delivered event", "µs", 2),
    Figure("wire", "on the wire per event", "bytes", 0),
    Figure("import", "import", "ms", 1),
    Figure("memory", "a queued event in memory", "bytes", 0),
)


@dataclass(frozen=True)
class Spread:
    """One figure's values over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, places: int) -> str:
        median, least, most = (f"{value:,.{places}f}" for value in (self.median, self.least, self.most))
        return median if least == most else f"{median} ({least} … {most})"


@dataclass(frozen=True)
class Claim:
    """A ratio within each round; `limit` is its lower bound, or its upper bound with `at_most`."""

    what: str
    target: str
    limit: float
    ratios: Callable[[Samples], list[float]]
    at_most: bool = False
    places: int = 1

    def is_met(self, samples: Samples) -> bool:
        # Compare the printed value: 19.98 counts as 20.0.
        median = round(statistics.median(self.ratios(samples)), self.places)
        return median <= self.limit if self.at_most else median >= self.limit


def _rounds(samples: Samples, figure: str, of: Sequence[str], against: Sequence[str]) -> list[float]:
    """`of` / `against` in each round; of several systems, the least value counts."""

    def least(names: Sequence[str]) -> list[float]:
        return [min(values) for values in zip(*(samples[figure][name] for name in names), strict=True)]

    return [one / other for one, other in zip(least(of), least(against), strict=True)]


def _best_peer_rate(samples: Samples) -> list[float]:
    rates = samples["events_per_s"]
    return [
        ours / max(peers)
        for ours, *peers in zip(rates[OURS], rates[CONNECTOR], rates[OPENTELEMETRY], strict=True)
    ]


def _across(samples: Samples, figure: str) -> list[dict[str, float]]:
    """A figure that was measured at several counts: per round, its values by count."""
    counts = samples[figure]
    return [dict(zip(counts, values, strict=True)) for values in zip(*counts.values(), strict=True)]


def _rise(samples: Samples) -> list[float]:
    return [max(by_count.values()) / by_count["1"] for by_count in _across(samples, "connections caller")]


def _more_threads(samples: Samples) -> list[float]:
    return [max(by_count.values()) - by_count["1"] for by_count in _across(samples, "connections threads")]


def _fall(samples: Samples) -> list[float]:
    return [min(by_count.values()) / by_count["1"] for by_count in _across(samples, "threads delivered")]


CLAIMS: Final = (
    Claim(
        f"caller's time per statement, against `{CONNECTOR}`",
        "20 times less",
        20,
        lambda samples: _rounds(samples, "caller", [CONNECTOR], [OURS]),
    ),
    Claim(
        f"the same, against `{OPENTELEMETRY}`",
        "5 times less",
        5,
        lambda samples: _rounds(samples, "caller", [OPENTELEMETRY], [OURS]),
    ),
    Claim(
        "`enqueue` of a ready log, against a bare `deque.append`",
        "within 8 times",
        8,
        lambda samples: _rounds(samples, "enqueue", ["enqueue"], ["append"]),
        at_most=True,
    ),
    Claim("events per second, against the better peer", "10 times more", 10, _best_peer_rate),
    Claim(
        "process CPU time per event in the same run, against the better peer",
        "10 times less",
        10,
        lambda samples: _rounds(samples, "cpu_us", [CONNECTOR, OPENTELEMETRY], [OURS]),
    ),
    Claim(
        f"bytes on the wire per event, with gzip, against `{CONNECTOR}`",
        "20 times less",
        20,
        lambda samples: _rounds(samples, "wire", [CONNECTOR], [OURS + GZIP]),
    ),
    Claim(
        f"`import adbc_telemetry`, against `{OPENTELEMETRY}` and its exporter",
        "0.4 of its time",
        0.4,
        lambda samples: _rounds(samples, "import", [OURS], [OPENTELEMETRY]),
        at_most=True,
        places=2,
    ),
    Claim(
        f"memory of a queued event, against `{OPENTELEMETRY}`",
        "no more",
        1,
        lambda samples: _rounds(samples, "memory", [OURS], [OPENTELEMETRY]),
        at_most=True,
        places=2,
    ),
    Claim(
        "caller's time with up to 1,000 connections, against one (the slowest count)",
        "flat: within 1.25 times",
        1.25,
        _rise,
        at_most=True,
        places=2,
    ),
    Claim(
        "additional threads with 1,000 connections, against one",
        "none",
        0,
        _more_threads,
        at_most=True,
        places=0,
    ),
    Claim(
        "events per second with 2 to 16 producing threads, against one (the slowest count)",
        "does not fall: at least 0.9, because of noise",
        0.9,
        _fall,
        places=2,
    ),
)


def has_peers(run: Run) -> bool:
    return set(run["settings"]) >= {OURS, CONNECTOR, OPENTELEMETRY}


def missed(run: Run) -> list[str]:
    """The claims that this run does not meet."""
    return [claim.what for claim in CLAIMS if not claim.is_met(run["samples"])]


def tables(run: Run) -> str:
    """All tables of a run, in Markdown."""
    parts = [_about(run)]
    if has_peers(run):
        parts.append(_claims(run["samples"]))
    parts += [_figures(run), _counts(run["samples"]), _stages(run["samples"]), _settings(run)]
    return "\n\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A padded table, readable on a console; the first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "| " + " | ".join(cells) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([line(head), rule, *map(line, rows)])


def _about(run: Run) -> str:
    machine, versions = run["machine"], run["versions"]
    systems = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['python']} on {machine['system']}, {machine['cores']} cores; {systems}.\n"
        f"Medians of {run['rounds']} rounds, with minimum and maximum. "
        f"The null server was busy for {run['null_server_busy']:.1%} of the time."
    )


def _claims(samples: Samples) -> str:
    rows = []
    for claim in CLAIMS:
        measured = Spread.of(claim.ratios(samples)).text(claim.places)
        rows.append((claim.what, claim.target, measured, "yes" if claim.is_met(samples) else "**no**"))
    return _table(("ratio", "target", "measured", "reached"), rows)


def _figures(run: Run) -> str:
    rows = []
    for figure in FIGURES:
        for name, values in run["samples"].get(figure.key, {}).items():
            rows.append((f"{figure.what}: {name}", figure.unit, Spread.of(values).text(figure.places)))
    for name, values in run["samples"]["enqueue"].items():
        rows.append(
            (f"`{name}`: {OURS}" if name == "enqueue" else "`deque.append`", "ns", Spread.of(values).text(1))
        )
    return _table(("absolute figures of that machine at that moment", "unit", "measured"), rows)


def _counts(samples: Samples) -> str:
    rows = []
    for key, what, unit, places in (
        ("connections caller", "caller's time per statement, connections", "µs", 2),
        ("connections threads", "threads, connections", "", 0),
        ("threads delivered", "delivered, producing threads", "events/s", 0),
        ("threads enqueued", "enqueued, producing threads", "events/s", 0),
    ):
        for count, values in samples[key].items():
            rows.append((f"{what}: {int(count):,}", unit, Spread.of(values).text(places)))
    return _table((OURS, "unit", "measured"), rows)


def _stages(samples: Samples) -> str:
    rows = [(name, Spread.of(values).text(0)) for name, values in samples["stages"].items()]
    return _table((f"time per event in {OURS}, by stage", "ns"), rows)


def _settings(run: Run) -> str:
    rows = []
    for name, settings in run["settings"].items():
        rows.append((name, ", ".join(f"{key}={value}" for key, value in settings.items())))
    return _table(("best settings of each system, by a sweep in the same run", "settings"), rows)

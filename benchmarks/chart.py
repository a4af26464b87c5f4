"""The chart of a run: each peer's costs as multiples of ours. `make chart` draws it from `performance.json`.

    python benchmarks/chart.py docs/performance.json docs/performance.svg

The SVG keeps text as text and has neither dates nor random ids, so that a run always gives the same file.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from report import GZIP, Run
from systems import CONNECTOR, OPENTELEMETRY, OURS


@dataclass(frozen=True)
class Group:
    """A group of bars.

    Attributes:
        key: the key of the run's samples.
        is_rate: whether the samples are events per second; the bars show the microseconds per event.
    """

    key: str
    title: str
    unit: str
    places: int = 0
    is_rate: bool = False


GROUPS: Final = (
    Group("caller", "caller's time per statement", "µs", 1),
    Group("cpu_us", "CPU time per delivered event", "µs", 1),
    Group("events_per_s", "time to deliver an event", "µs", 1, is_rate=True),
    Group("wire", "bytes on the wire per event", "B"),
    Group("memory", "memory per queued event", "B"),
    Group("import", "time to import", "ms"),
)
COLOURS: Final = {OURS: "#0b6bcb", CONNECTOR: "#c4662b", OPENTELEMETRY: "#7d8590"}
BAR: Final = 0.27


@dataclass(frozen=True)
class Bar:
    """A system's median, and its multiple of ours."""

    system: str
    ratio: float
    label: str


def bars(run: Run, group: Group) -> list[Bar]:
    """The bars of a group, ours first."""
    medians: dict[str, float] = {}
    for system in COLOURS:
        samples = run["samples"][group.key]
        # With the system's compression: users would set it where bytes count.
        values = samples.get(system + GZIP if group.key == "wire" else system, samples.get(system))
        if values:
            median = statistics.median(values)
            medians[system] = 1e6 / median if group.is_rate else median
    drawn = []
    for system, median in medians.items():
        ratio = median / medians[OURS]
        times = "" if system == OURS else f" · {ratio:.{0 if ratio >= 10 else 1}f}×"
        drawn.append(Bar(system, ratio, f"{median:,.{group.places}f} {group.unit}{times}"))
    return drawn


def draw(run: Run, path: Path) -> None:
    """Write the chart to `path`, an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "adbc-telemetry", "font.family": "sans-serif"}
    )
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    for number, group in enumerate(GROUPS):
        for place, bar in enumerate(bars(run, group)):
            known = bar.system in axes.get_legend_handles_labels()[1]
            y = number + (place - 1) * BAR
            axes.barh(y, bar.ratio, BAR * 0.9, color=COLOURS[bar.system], label=None if known else bar.system)
            axes.annotate(
                bar.label, (bar.ratio, y), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
    axes.set_yticks(range(len(GROUPS)), [group.title for group in GROUPS])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    handles, systems = axes.get_legend_handles_labels()
    versions = [f"{system} {run['versions'].get(system, '')}" for system in systems]
    axes.legend(handles, versions, loc="upper right", frameon=False)
    axes.set_title(f"What an event costs, as a multiple of {OURS}", fontweight="bold")
    machine = run["machine"]
    axes.set_xlabel(
        f"Medians of one run, {machine['python']}, {machine['cores']} cores; less is better.\n"
        f"On the wire each with gzip, which {CONNECTOR} does not have.",
        fontsize=8,
    )
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))

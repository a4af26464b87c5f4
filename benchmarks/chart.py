"""The picture of a run: how many times more than us each peer takes, as SVG by hand.

No library draws it, so that the same run gives the same bytes, and so that it reads in light and in dark.
"""

from __future__ import annotations

import statistics
from html import escape
from typing import Final

from report import GZIP, Run
from systems import CONNECTOR, OPENTELEMETRY, OURS

# What is drawn: the key of the figure, its title, its unit and places, and whether it is a rate a second.
_GROUPS: Final = (
    ("caller", "caller's time for a statement", "µs", 1, False),
    ("cpu_us", "CPU time for an event delivered", "µs", 1, False),
    ("events_per_s", "time to deliver an event", "µs", 1, True),
    ("wire", "bytes on the wire for an event", "B", 0, False),
    ("memory", "memory of a queued event", "B", 0, False),
    ("import", "time to import", "ms", 0, False),
)
_CLASSES: Final = {OURS: "ours", CONNECTOR: "connector", OPENTELEMETRY: "otel"}

_WIDTH: Final = 860
_LEFT: Final = 236
_RIGHT: Final = 132
_TOP: Final = 74
_BAR: Final = 15
_GAP: Final = 2
_BETWEEN: Final = 18

_STYLE: Final = """
text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.soft{fill:#59636e;font-size:12px}.grid{stroke:#d1d9e0}
.ours{fill:#0b6bcb}.connector{fill:#c4662b}.otel{fill:#7d8590}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.soft{fill:#9198a1}.grid{stroke:#3d444d}
.ours{fill:#4f9cf0}.connector{fill:#e08a52}.otel{fill:#8b949e}}
"""


def _bars(run: Run, key: str, is_rate: bool) -> list[tuple[str, float, float]]:
    """System, its median (of a rate, the microseconds each), and how many times ours that is."""
    samples = run["samples"][key]
    rows = []
    for name in _CLASSES:
        # Each with the compression that it has: it is what a user would set where bytes count.
        with_gzip = name + GZIP
        values = samples[with_gzip] if key == "wire" and with_gzip in samples else samples.get(name)
        if values:
            median = statistics.median(values)
            rows.append((name, 1e6 / median if is_rate else median))
    ours = rows[0][1]
    return [(name, value, value / ours) for name, value in rows]


def draw(run: Run) -> str:
    """The SVG."""
    groups = [(title, unit, places, _bars(run, key, rate)) for key, title, unit, places, rate in _GROUPS]
    most = max(bar[2] for group in groups for bar in group[3])
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts = [f'<text class="title" x="16" y="26">What an event costs, as a multiple of {OURS}</text>']
    place = 16.0
    for name, kind in _CLASSES.items():
        label = f"{name} {run['versions'].get(name, '')}".strip()
        parts.append(f'<rect class="{kind}" x="{place:.0f}" y="40" width="12" height="12" rx="2"/>')
        parts.append(f'<text class="soft" x="{place + 17:.0f}" y="50">{escape(label)}</text>')
        place += 40 + 6.6 * len(label)
    height = _TOP + sum(len(bars) * (_BAR + _GAP) + _BETWEEN for *_, bars in groups)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000) if most / step <= 8)
    for multiple in range(0, int(most) + 1, step):
        x = _LEFT + multiple * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height}"/>')
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{height + 16}" text-anchor="middle">{multiple}×</text>'
        )
    y = _TOP + 4.0
    for title, unit, places, bars in groups:
        middle = y + len(bars) * (_BAR + _GAP) / 2 + 4
        parts.append(f'<text x="{_LEFT - 12}" y="{middle:.0f}" text-anchor="end">{escape(title)}</text>')
        for name, value, ratio in bars:
            width = ratio * scale
            parts.append(
                f'<rect class="{_CLASSES[name]}" x="{_LEFT}" y="{y:.0f}" width="{width:.1f}" '
                f'height="{_BAR}" rx="2"/>'
            )
            label = f"{value:,.{places}f} {unit}"
            label += "" if name == OURS else f" · {ratio:.{0 if ratio >= 10 else 1}f}×"
            parts.append(
                f'<text class="soft" x="{_LEFT + width + 6:.1f}" y="{y + 12:.0f}">{escape(label)}</text>'
            )
            y += _BAR + _GAP
        y += _BETWEEN
    machine = run["machine"]
    below = (
        f"Medians of one run, {machine['python']}, {machine['cores']} cores; less is better. "
        f"On the wire each with gzip, which {CONNECTOR} has not."
    )
    parts.append(f'<text class="soft" x="16" y="{height + 40}">{escape(below)}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height + 54}" role="img" '
        f'aria-label="Costs of {OURS} beside its peers, as ratios">\n<style>{_STYLE}</style>\n{body}\n</svg>\n'
    )

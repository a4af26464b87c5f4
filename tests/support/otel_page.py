"""The tables in `docs/opentelemetry.md` that are made from the code.

PYTHONPATH=tests python tests/support/otel_page.py    writes them into the page
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from adbc_telemetry.otel.attributes import NEVER, TABLE
from adbc_telemetry.otel.descriptions import OPERATION_NAMES
from adbc_telemetry.otel.systems import BY_DRIVER
from support.mapping import between_marks

PAGE = Path(__file__).parents[2] / "docs" / "opentelemetry.md"


def attributes() -> str:
    """Each attribute, and what is done about it."""
    head = ("attribute", "level", "when, and from what", "only with", "for samplers", "on metrics")
    rows = [
        (
            f"`{row.attribute}`",
            row.level,
            row.source,
            f"`{row.asked_for}`" if row.asked_for else "",
            "yes" if row.at_start and row.attribute not in NEVER else "",
            "yes" if row.on_metrics and row.attribute not in NEVER else "",
        )
        for row in TABLE
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n" for line in lines)


def operations() -> str:
    """Each method that is one operation, and the operation's name."""
    rows = [(f"`{method}`", f"`{name}`") for method, name in OPERATION_NAMES.items()]
    return _table(("method", "`db.operation.name`"), rows)


def systems() -> str:
    """Each driver that is known, and the system that it is for."""
    rows = [
        (part, f"`{system.name}`", system.dialect or "", str(system.port or ""))
        for part, system in BY_DRIVER.items()
    ]
    head = ("the driver's name has", "`db.system.name`", "dialect", "default port")
    return _table(head, [*rows, ("anything else", "`other_sql`", "", "")])


TABLES: Mapping[str, Callable[[], str]] = {
    "attributes": attributes,
    "operations": operations,
    "systems": systems,
}

if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        head, mark, rest = page.partition(f"<!-- table: {name} -->\n")
        page = head + mark + make() + rest[rest.index("<!-- end -->") :]
    PAGE.write_text(page, encoding="utf-8")
    assert all(between_marks(page, name) == make() for name, make in TABLES.items())

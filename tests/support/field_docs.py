"""The tables in `docs/fields.md` that are made from the code.

python tests/support/field_docs.py    writes them into the page
"""

from __future__ import annotations

import json
from pathlib import Path

from adbc_telemetry.driver_facts.connection_parameters import DATABRICKS_DEFAULTS
from adbc_telemetry.driver_facts.error_category import CODES, ErrorCategory
from adbc_telemetry.driver_facts.field_table import FIELD_TABLE, Row
from support.mapping import write_tables
from support.wire import WIRE

PAGE = Path(__file__).parents[2] / "docs" / "fields.md"


def fields() -> str:
    """Each message, with its fields in the wire's order."""
    return "\n".join(_message(name) for name in WIRE["messages"])


def _message(name: str) -> str:
    lines = [f"### {name}", "", "| field | filled by | from | example |", "| --- | --- | --- | --- |"]
    for field in WIRE["messages"][name]:
        row = FIELD_TABLE[name][field]
        by = ", ".join(_who(row))
        lines.append(f"| `{field}` | {by} | {row.source} | {_example(row)} |")
    return "\n".join([*lines, ""])


def _who(row: Row) -> list[str]:
    return [each.value if " " in each.value else f"`{each.value}`" for each in row.by] or ["–"]


def _example(row: Row) -> str:
    return "" if row.example is None else f"`{json.dumps(row.example)}`"


def categories() -> str:
    """Each category, with the codes and the classes that lead to it."""
    lines = [
        "| category | SQLSTATE | ADBC | HTTP | SQLite | classes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for category in ErrorCategory:
        cells = [", ".join(f"{code}" for code, each in table.items() if each is category) for table in CODES]
        lines.append(f"| `{category.value}` | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def defaults() -> str:
    """What the C# driver does where a property is not given."""
    lines = ["| property | default |", "| --- | --- |"]
    lines += [f"| `{name}` | `{json.dumps(value)}` |" for name, value in DATABRICKS_DEFAULTS.items()]
    return "\n".join([*lines, ""])


TABLES = {"fields": fields, "categories": categories, "defaults": defaults}


if __name__ == "__main__":
    write_tables(PAGE, TABLES)

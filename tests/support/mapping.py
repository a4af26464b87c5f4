"""The tables in `docs/instrumentation.md` that are made from the code.

python tests/support/mapping.py    writes them into the page
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from adbc_telemetry.instrumentation.driver_info import ALLOWED_OPTIONS
from adbc_telemetry.instrumentation.operations import (
    CONNECTION_OPERATIONS,
    CREATE_SESSION,
    CURSOR_CANCEL,
    CURSOR_FETCHES,
    CURSOR_OPERATIONS,
    DELETE_SESSION,
    PEP249_CONNECTION_OPERATIONS,
    PEP249_CURSOR_OPERATIONS,
    Fetch,
    Operation,
)
from support.matrix import as_markdown as matrix

PAGE = Path(__file__).parents[2] / "docs" / "instrumentation.md"


def operations() -> str:
    """Each method, with the types and the moment of its event."""
    adbc = {
        "connect, `adbc_clone`": CREATE_SESSION,
        **{f"`connection.{name}`": operation for name, operation in CONNECTION_OPERATIONS.items()},
        "`connection.close`": DELETE_SESSION,
        **{f"`cursor.{name}`": operation for name, operation in CURSOR_OPERATIONS.items()},
        "`cursor.adbc_cancel`": CURSOR_CANCEL,
    }
    pep249 = {
        **{f"`connection.{name}`": operation for name, operation in PEP249_CONNECTION_OPERATIONS.items()},
        **{f"`cursor.{name}`": operation for name, operation in PEP249_CURSOR_OPERATIONS.items()},
    }
    return "\n".join(
        [
            "| ADBC | operation type | statement type | event |",
            "| --- | --- | --- | --- |",
            *_rows(adbc),
            "| **any other PEP 249 connection** | | | |",
            *_rows({"connect": CREATE_SESSION, **pep249, "`connection.close`": DELETE_SESSION}),
            "",
        ]
    )


def _rows(operations: Mapping[str, Operation]) -> Iterator[str]:
    for name, operation in operations.items():
        kind = f"`{operation.operation_type.name}`"
        if operation.by_depth:
            depths = (f"{depth}: `{each.name}`" for depth, each in operation.by_depth.items())
            kind = ", ".join(depths)
        statement = "–" if operation.statement_type is None else f"`{operation.statement_type.name}`"
        if operation.reads_sql:
            statement = "by the first word of the SQL"
        if operation.opens_results:
            moment = "at the end of its rows; without rows, on return"
        elif operation.ends_transaction:
            moment = "on return; none where the connection has no transactions"
        else:
            moment = "on return"
        yield f"| {name} | {kind} | {statement} | {moment} |"


def fetches() -> str:
    """Each fetching method, and when it ends the statement."""
    methods: dict[Fetch, list[str]] = {}
    for name, end in CURSOR_FETCHES.items():
        methods.setdefault(end, []).append(f"`{name}`")
    lines = ["| fetched by | end of the statement |", "| --- | --- |"]
    lines += [f"| {', '.join(names)} | {end.value} |" for end, names in methods.items()]
    return "\n".join([*lines, ""])


def options() -> str:
    """The connection options that are recorded."""
    lines = ["| option | drivers | field |", "| --- | --- | --- |"]
    lines += [
        f"| `{each.key}` | {each.driver or 'all'} | `{each.field}` |"
        for each in sorted(ALLOWED_OPTIONS, key=lambda each: (each.driver, each.key, each.field))
    ]
    return "\n".join([*lines, ""])


TABLES = {"operations": operations, "fetches": fetches, "options": options, "matrix": matrix}


def between_marks(text: str, name: str) -> str:
    """The text between a table's marks in the page."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert found, f"no table {name}"
    return found[1]


def write_tables(page: Path, tables: Mapping[str, Callable[[], str]]) -> None:
    """Write tables between their marks in a page."""
    text = page.read_text(encoding="utf-8")
    for name, make in tables.items():
        start = f"<!-- table: {name} -->\n"
        text = text.replace(start + between_marks(text, name), start + make(), 1)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_tables(PAGE, TABLES)

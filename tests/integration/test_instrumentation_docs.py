"""The page on instrumentation shows what the code does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adbc_telemetry.instrumentation.operations import CURSOR_FETCHES, CURSOR_OPERATIONS
from support.mapping import PAGE, TABLES, between_marks


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_the_code(name: str) -> None:
    make: Callable[[], str] = TABLES[name]
    assert between_marks(PAGE.read_text(encoding="utf-8"), name) == make(), (
        "run: PYTHONPATH=tests python tests/support/mapping.py"
    )


def test_the_tables_cover_every_method_of_a_cursor_that_talks_to_the_database() -> None:
    dbapi = pytest.importorskip("adbc_driver_manager.dbapi")
    silent = {
        "adbc_cancel",
        "adbc_statement",
        "callproc",
        "close",
        "nextset",
        "setinputsizes",
        "setoutputsize",
    }
    silent |= {"arraysize", "connection", "description", "rowcount", "rownumber"}
    public = {name for name in vars(dbapi.Cursor) if not name.startswith("_")} | {"__next__"}
    assert public - silent == {*CURSOR_OPERATIONS, *CURSOR_FETCHES}

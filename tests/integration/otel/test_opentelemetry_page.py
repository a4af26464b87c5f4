"""The page on OpenTelemetry shows what the code does."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from adbc_telemetry.instrumentation.operations import CONNECTION_OPERATIONS, CURSOR_OPERATIONS
from adbc_telemetry.otel.descriptions import OPERATION_NAMES
from support.mapping import between_marks
from support.otel_page import PAGE, TABLES

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_the_code(name: str) -> None:
    make: Callable[[], str] = TABLES[name]
    assert between_marks(TEXT, name) == make(), "run: PYTHONPATH=tests python tests/support/otel_page.py"


def test_every_operation_of_adbc_has_a_name_or_takes_sql() -> None:
    take_sql = {"execute", "executemany", "adbc_execute_partitions"}
    assert {*CONNECTION_OPERATIONS, *CURSOR_OPERATIONS} - take_sql <= set(OPERATION_NAMES)


def test_the_examples_of_the_page_run() -> None:
    pytest.importorskip("adbc_driver_sqlite")
    pytest.importorskip("adbc_driver_flightsql")
    for example in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(example, "opentelemetry.md", "exec"), {"__name__": "example"})

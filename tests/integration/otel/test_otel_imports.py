"""OpenTelemetry is not imported for those who do not use it, and the parser only for those who ask for texts."""

from __future__ import annotations

import pytest

from support.process import run_python

pytest.importorskip("adbc_driver_sqlite")

USE = """
def use(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]

import sys
import adbc_driver_sqlite.dbapi as sqlite
"""
TELL = """
print(sorted({name.partition(".")[0] for name in sys.modules} & {"opentelemetry", "sqlglot"}))
"""


def imported(program: str) -> str:
    ended = run_python(USE + program + TELL)
    assert ended.code == 0, ended.stderr
    return ended.stdout.strip()


def test_our_own_events_import_none_of_it() -> None:
    program = """
from adbc_telemetry import InMemoryTelemetryExporter, instrument
exporter = InMemoryTelemetryExporter()
with instrument(sqlite.connect(), exporter=exporter) as connection:
    use(connection)
assert len(exporter.logs) == 3
"""
    assert imported(program) == "[]"


def test_spans_import_the_parser_where_texts_are_asked_for() -> None:
    program = """
from adbc_telemetry.otel import ADBCInstrumentor
ADBCInstrumentor().instrument()
with sqlite.connect() as connection:
    use(connection)
assert "sqlglot" not in sys.modules
ADBCInstrumentor().uninstrument()
ADBCInstrumentor().instrument(capture_query_text=True)
"""
    assert imported(program) == "['opentelemetry', 'sqlglot']"

"""What a driver warns of is attributed to the line of the program that called it."""

from __future__ import annotations

import functools
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from support.callers import WarningConnection, both, followed, told_of

# What a warning is attributed to.


USES = """
cursor = connection.cursor()
cursor.execute("SELECT 1")
cursor.fetchone(); cursor.fetchone()
cursor.fetchmany(1)
cursor.fetchall()
(
    cursor
    .executemany(
        "INSERT",
    )
)
for row in cursor:
    pass
list(cursor)
next(cursor, None)
cursor.callproc("p")
cursor.executescript("...")
cursor.nextset()
len(cursor)
with cursor:
    pass
cursor.connection
cursor.connection = 1
del cursor.connection
cursor.close()
connection.commit()
connection.rollback()
connection.executemany("INSERT")
with connection:
    pass
connection.close()
"""


@pytest.mark.parametrize("wrap", ["{}", "def use():\n{}\nuse()", "class Uses:\n{}"])
def test_what_a_driver_warns_of_is_attributed_to_its_caller_s_line(wrap: str) -> None:
    body = USES if wrap == "{}" else "\n".join("  " + line for line in USES.splitlines())
    code = compile(wrap.format(body), "<program>", "exec")
    plain, instrumented = (
        told_of(lambda connection=connection: exec(code, {"connection": connection, "__name__": "program"}))  # type: ignore[misc]
        for connection in (WarningConnection(), followed(WarningConnection()))
    )
    assert instrumented == plain
    assert {filename for _, filename, _ in plain} == {"<program>"}


def test_what_c_code_warns_of_is_attributed_to_its_caller_s_line() -> None:
    def use(connection: Any) -> None:
        connection.create_function("warn", 1, functools.partial(warnings.warn))
        cursor = connection.execute(
            "SELECT warn('of ' || n) FROM (SELECT 1 AS n UNION SELECT 2 UNION SELECT 3)"
        )
        cursor.fetchone()
        cursor.fetchall()

    plain, instrumented = (
        told_of(functools.partial(use, connection))
        for connection in both(lambda: sqlite3.connect(":memory:"))
    )
    assert instrumented == plain
    assert {filename for _, filename, _ in plain} == {__file__}


SCRIPT = """
import sqlite3, sys, warnings
from adbc_telemetry import InMemoryTelemetryExporter, instrument

def old(value):
    warnings.warn("converters of this kind are deprecated", DeprecationWarning, stacklevel=2)
    return value

sqlite3.register_converter("old", old)
connection = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)
if sys.argv[1] == "instrumented":
    connection = instrument(connection, exporter=InMemoryTelemetryExporter())
connection.execute("CREATE TABLE t (n old)")
connection.executemany("INSERT INTO t VALUES (?)", [("1",), ("2",), ("3",)])
for row in connection.execute("SELECT n FROM t"):
    pass
connection.execute("SELECT n FROM t").fetchall()
connection.close()
"""


def test_python_s_default_filter_shows_the_warnings_that_it_would_show_without_us(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SCRIPT, encoding="utf-8")
    plain, instrumented = (
        subprocess.run(
            [sys.executable, str(program), how], capture_output=True, text=True, timeout=60, check=True
        ).stderr
        for how in ("plain", "instrumented")
    )
    assert instrumented == plain
    assert plain.count("converters of this kind") == 2


def test_a_cursor_that_does_not_close_is_told_of_in_the_name_of_who_closes_its_adbc_connection() -> None:
    dbapi = pytest.importorskip("adbc_driver_sqlite.dbapi")

    class Stubborn:
        def close(self) -> None:
            raise RuntimeError("not yet")

    def use(connection: Any) -> None:
        connection._cursors = [Stubborn()]
        connection.close()

    plain, instrumented = (
        told_of(functools.partial(use, connection)) for connection in both(lambda: dbapi.connect(":memory:"))
    )
    assert instrumented == plain
    assert [filename for _, filename, _ in plain] == [__file__]

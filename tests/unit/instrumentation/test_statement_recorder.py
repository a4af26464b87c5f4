"""The recorder of a cursor's statements."""

from __future__ import annotations

import pytest

from adbc_telemetry.instrumentation.observed import new_statement_recorder
from adbc_telemetry.instrumentation.operations import CURSOR_OPERATIONS, classify
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder


class Text(str):
    """SQL of a type of the program's."""

    __slots__ = ()


@pytest.mark.parametrize(
    "sql",
    [
        *(
            "SELECT 1",
            "select 1",
            "Select 1",
            "SELECT ",
            "SELECT  1",
            "SELECT \x00",
            "SELECT \uffff",
            "SELECT é",
        ),
        *(
            "",
            "S",
            "SELECT",
            "select",
            "SELECT!",
            "SELECT\t1",
            "SELECT\x1f1",
            "SELECT(1)",
            "SELECTED 1",
            "SELECT\xa01",
        ),
        *(
            "INSERT INTO t",
            "insert into t",
            "UPDATE t",
            "values (1)",
            "WITH x AS (SELECT 1)",
            " SELECT 1",
            "T",
        ),
        *(Text("SELECT 1"), Text("DELETE FROM t"), b"SELECT 1", None, 1),
    ],
)
def test_what_is_seen_at_a_glance_is_what_a_search_finds(sql: object) -> None:
    recorder = new_statement_recorder(SessionRecorder())
    recorder.begin(CURSOR_OPERATIONS["execute"], sql)
    assert recorder._kind == classify(sql)

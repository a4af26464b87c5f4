"""The real `databricks-sql-connector` over our pipeline, next to its own client: the whole comparison, run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("databricks.sql", reason="databricks-sql-connector is not installed")
pytest.importorskip("duckdb")
pytest.importorskip("starlette")
if sys.platform == "win32":
    pytest.skip("the collector's process is ended as on POSIX", allow_module_level=True)

from support.mapping import between_marks

# Six processes that import the connector: seconds, or many of them on a busy machine.
pytestmark = pytest.mark.timeout(300)

EXAMPLE = Path(__file__).parents[2] / "examples" / "databricks_sql_connector"
ROUNDS = 4


class Comparison(NamedTuple):
    """What the comparator found; pairs are of the connector's own client, and of ours."""

    events: int
    differences: set[tuple[str, str]]
    cost: list[Any]
    arrived: list[int]
    ended: list[str]
    late: list[str]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    options = ("--cap", "4", "--rounds", f"{ROUNDS}", "--close-timeout-ms", "500", "--json")
    ended = subprocess.run(
        [sys.executable, EXAMPLE / "compare.py", *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    return Comparison(**{**told, "differences": {(side, path) for side, path in told["differences"]}})


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLE)
    import compare

    return compare


def test_the_same_events_arrive_by_both_clients(comparison: Comparison) -> None:
    assert comparison.events == 15


def test_they_differ_in_what_the_table_says_and_in_nothing_else(comparison: Comparison, compare: Any) -> None:
    expected = set(compare.REASONS)
    assert expected - compare.OF_THE_MACHINE <= comparison.differences <= expected


def test_the_page_shows_that_table(compare: Any) -> None:
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert between_marks(page, "differences") == "\n".join([*compare.reasons(compare.REASONS), ""])


def test_the_caller_pays_at_least_15_times_less_and_every_event_arrives(comparison: Comparison) -> None:
    (_, own), (_, ours) = comparison.cost
    assert own > 15 * ours
    assert comparison.arrived == [ROUNDS * 200] * 2


def test_an_endpoint_that_never_answers_holds_up_the_end_of_the_connector_s_process_and_not_of_ours(
    comparison: Comparison,
) -> None:
    own, ours = comparison.ended
    assert own.endswith("killed 4 s later")
    closed = re.fullmatch(r"closed after ([0-9.]+) s, ended [0-9.]+ s later", ours)
    assert closed, ours
    assert float(closed[1]) < 10


def test_an_event_after_the_close_is_counted(comparison: Comparison) -> None:
    assert comparison.late == ["lost without a trace", "dropped_closed=1"]


def test_a_difference_that_has_no_reason_is_noticed(compare: Any) -> None:
    own = {"session_id": "1", "sql_operation": {"retry_count": 0}, "operation_latency_ms": 5}
    ours = {"session_id": "1", "sql_operation": {"retry_count": 1, "chunk_id": 1}, "operation_latency_ms": 6}
    assert compare.differences(own, ours) == {
        (compare.BOTH, "sql_operation.retry_count"),
        (compare.OURS, "sql_operation.chunk_id"),
    }


def test_an_event_that_one_of_them_loses_or_repeats_is_noticed(compare: Any) -> None:
    log = {"session_id": "1"}
    with pytest.raises(AssertionError):
        compare.pair({"own": [log], "ours": []})
    with pytest.raises(AssertionError, match="twice"):
        compare.pair({"own": [log], "ours": [log, log]})


def test_what_is_detached_is_the_connector_s_own_again() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); hook = sys.excepthook;"
        "from databricks.sql.telemetry.telemetry_client import TelemetryClientFactory as factory;"
        "from pipeline_client import attach; own = dict(vars(factory));"
        "detach = attach(); assert factory.get_telemetry_client is not own['get_telemetry_client'].__func__;"
        "factory.initialize_telemetry_client(True, 's', None, 'no host at all', 100, None);"
        "factory.get_telemetry_client('no host at all').export_failure_log('Error', 'text');"
        "detach(); assert dict(vars(factory)) == own; assert sys.excepthook is hook"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr

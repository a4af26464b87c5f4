"""`adbc-telemetry demo`, which is `make demo` as well."""

from __future__ import annotations

import pytest

from support.process import python


def require_extras() -> None:
    for needed in ("adbc_driver_duckdb.dbapi", "adbc_driver_sqlite.dbapi", "rich", "starlette"):
        pytest.importorskip(needed)


@pytest.mark.parametrize(
    "variable", ["DO_NOT_TRACK=1", "DATABRICKS_TELEMETRY_ENABLED=false", "ADBC_TELEMETRY_DEBUG=1"]
)
def test_the_demo_says_that_telemetry_is_turned_off(variable: str) -> None:
    require_extras()
    name, _, value = variable.partition("=")
    with python("-m", "adbc_telemetry", "demo", environ={name: value}) as running:
        ended = running.end(60)
    assert (ended.code, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert name in line


def test_the_demo_survives_an_outage_and_its_account_closes() -> None:
    require_extras()
    with python("-m", "adbc_telemetry", "demo") as running:
        ended = running.end(110)
    assert (ended.code, ended.stderr) == (0, "")
    for told in ("4 threads on SQLite and DuckDB", "the circuit is open", "the circuit is closed", "closes"):
        assert told in ended.stdout
    assert "the page was at http://127.0.0.1:" in ended.stdout


def test_the_demo_without_the_extra_of_adbc_says_what_to_install() -> None:
    require_extras()
    hidden = "import sys; sys.modules['pyarrow'] = None; from adbc_telemetry.cli import main; sys.exit(main(['demo']))"
    with python("-c", hidden) as running:
        ended = running.end(60)
    assert (ended.code, ended.stdout) == (2, "")
    assert "pip install 'adbc-telemetry[adbc,collector]'" in ended.stderr

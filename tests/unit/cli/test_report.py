"""What `report` prints of a folder."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.cli import main
from support.stores import Log, running_store, stored_log


def event(
    driver: str, version: str, operation: str, latency: int, error: str | None = None, host: str = "h"
) -> Log:
    failure: dict[str, Any] = {"error_info": {"error_name": error}} if error else {}
    return stored_log(
        session_id="s",
        system_configuration={"driver_name": driver, "driver_version": version},
        driver_connection_params={"host_info": {"host_url": host}},
        sql_operation={"operation_detail": {"operation_type": operation}},
        operation_latency_ms=latency,
        **failure,
    )


EVENTS = [
    event("one", "1.0", "EXECUTE_STATEMENT", 10),
    event("one", "1.0", "EXECUTE_STATEMENT", 30),
    event("one", "2.0", "CREATE_SESSION", 500, "TimeoutError", host="other"),
    event("two", "7", "EXECUTE_STATEMENT", 20, "DataError"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "store"

    async def fill() -> None:
        async with running_store(path) as running:
            await running.add(EVENTS)

    asyncio.run(fill())
    return path


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    assert main(["report", *map(str, arguments), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("driver", [(["one"], 3, 1), (["two"], 1, 1)]),
        ("version", [(["one", "1.0"], 2, 0), (["one", "2.0"], 1, 1), (["two", "7"], 1, 1)]),
        ("host", [(["h"], 3, 1), (["other"], 1, 1)]),
        ("error", [([None], 2, 0), (["DataError"], 1, 1), (["TimeoutError"], 1, 1)]),
    ],
)
def test_groups_are_counted(
    store: Path, capsys: pytest.CaptureFixture[str], by: str, groups: list[object]
) -> None:
    report = as_json(capsys, store, "--by", by)
    found = report["groups"]
    assert isinstance(found, list)
    assert [(row["values"], row["count"], row["errors"]) for row in found] == groups


@pytest.mark.parametrize(
    ("options", "events"),
    [
        (["--driver", "one"], 3),
        (["--driver", "one", "--version", "2.0"], 1),
        (["--operation", "EXECUTE_STATEMENT"], 3),
        (["--host", "other"], 1),
        (["--error", "DataError"], 1),
        (["--since", "1h"], 4),
        (["--until", "1h"], 0),
        (["--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"], 0),
    ],
)
def test_filters_choose_events(
    store: Path, capsys: pytest.CaptureFixture[str], options: list[str], events: int
) -> None:
    assert as_json(capsys, store, *options)["events"] == events


def test_percentiles_are_exact(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    operations = as_json(capsys, store)["operations"]
    assert isinstance(operations, list)
    assert (operations[0]["p50_ms"], operations[0]["p99_ms"]) == (20.0, pytest.approx(29.8))


@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_tables_fit_the_terminal(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["report", str(store), "--by", "driver"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert ("p95 ms" in " ".join(lines)) == (columns == "200")


def test_watching_prints_again_until_it_is_interrupted(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("adbc_telemetry.cli.report.time.sleep", nap)
    assert main(["report", str(store), "--watch"]) == 0
    assert capsys.readouterr().out.count("\x1b[2J") == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["localhost:8317"],
            "localhost:8317 has no scheme; write http://localhost:8317 for a collector's URL.",
        ),
        (["http://127.0.0.1:1"], "nothing listens there; start one with: adbc-telemetry collect"),
        (["http://nowhere.invalid"], "its host is not known; see whether the name is right"),
        (["store", "--since", "soon"], "The value of since is not a time; give a duration such as 15m"),
    ],
)
def test_what_cannot_be_reported_ends_with_a_sentence(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    source, *options = arguments
    assert main(["report", str(store) if source == "store" else source, *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_a_host_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        code = (
            "import sys; from adbc_telemetry.cli import fetching, main; fetching._SECONDS = 0.2; "
            f"sys.exit(main(['report', {url!r}]))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
    assert result.returncode == 2
    assert "it takes the connection but does not answer; see its log" in result.stderr

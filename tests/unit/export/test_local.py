"""Events that stay on the machine: the mode `local`, and `ADBC_TELEMETRY_DEBUG`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    ConnectionTelemetry,
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryClientManager,
    TelemetryConfiguration,
)
from adbc_telemetry.export.local import FILE_NAME, local_file
from support.clients import assert_account_closes
from support.logs import make_log
from support.process import running_python
from support.server import TelemetryServer, refused_url

LOCAL = {"adbc.databricks.telemetry.mode": "local"}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_in_the_local_mode_events_go_into_the_users_file_and_nothing_is_sent(
    server: TelemetryServer, tmp_path: Path
) -> None:
    file = tmp_path / "made" / "on demand.jsonl"
    config = TelemetryConfiguration.from_properties(
        {**LOCAL, "adbc.databricks.telemetry.local_path": str(file)}, {}
    )
    drivers_own = InMemoryTelemetryExporter()
    for exporter in (None, drivers_own):
        with TelemetryClient(server.url, config, exporter=exporter) as client:
            client.enqueue(make_log("an event"))
        assert assert_account_closes(client, 1).delivered == 1
    assert [line["frontend_log_event_id"] for line in lines_of(file)] == 2 * ["an event"]
    assert drivers_own.logs == []
    assert server.connections == []


def test_a_word_in_the_environment_keeps_every_client_local(
    server: TelemetryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_MODE", "local")
    monkeypatch.setenv("DATABRICKS_TELEMETRY_LOCAL_PATH", str(tmp_path))
    spool = tmp_path / "spool"
    config = TelemetryConfiguration(enabled=True, spool_dir=spool)
    with TelemetryClientManager.get_instance().acquire(server.url, config) as lease:
        lease.client.enqueue(make_log())
    assert len(lines_of(tmp_path / FILE_NAME)) == 1
    assert server.connections == []
    assert not spool.exists()


def test_a_local_connection_does_not_share_the_client_that_sends(
    server: TelemetryServer, tmp_path: Path
) -> None:
    manager = TelemetryClientManager.get_instance()
    file = tmp_path / "events.jsonl"
    local = TelemetryConfiguration(mode="local", local_path=file)
    with (
        manager.acquire(server.url, TelemetryConfiguration(enabled=True)) as sending,
        manager.acquire(server.url, local) as staying,
        manager.acquire(server.url, local) as staying_too,
    ):
        assert staying.client is staying_too.client
        assert staying.client.host == sending.client.host
        sending.client.enqueue(make_log("sent"))
        staying.client.enqueue(make_log("kept"))
    assert server.accepted == ["sent"]
    assert [line["frontend_log_event_id"] for line in lines_of(file)] == ["kept"]


def test_the_local_file_is_named_or_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_file(tmp_path) == str(tmp_path / FILE_NAME)
    assert local_file(tmp_path / "a file") == str(tmp_path / "a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert local_file() == str(tmp_path / "adbc-telemetry" / FILE_NAME)
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_file() == str(tmp_path / ".local" / "state" / "adbc-telemetry" / FILE_NAME)


def test_a_file_that_cannot_be_written_is_a_failed_export(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    config = TelemetryConfiguration(mode="local", local_path=tmp_path / "file" / "below")
    with TelemetryClient("host.example", config) as client:
        client.enqueue(make_log())
    assert assert_account_closes(client, 1).failed == 1


WATCHED = """
import sys
sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)

import sqlite3
from adbc_telemetry import ConnectionTelemetry, instrument
url = {url!r}
with instrument(sqlite3.connect(":memory:"), url) as connection:
    connection.execute("SELECT 'a secret'").fetchall()
connection.close()
sqlite3_alone = instrument(sqlite3.connect(":memory:"))
sqlite3_alone.close()
telemetry = ConnectionTelemetry.create({{}}, driver_name="tiny", driver_version="1", host=url, auth=lambda: 1 / 0)
telemetry.close()
silent = ConnectionTelemetry.create(
    {{"adbc.databricks.telemetry.enabled": "false"}}, driver_name="silent", driver_version="1", host=url
)
silent.close()
print("sockets", sockets)
"""


def test_debugging_prints_each_event_to_stderr_and_opens_no_socket() -> None:
    environ = {"ADBC_TELEMETRY_DEBUG": "1"}
    with running_python(WATCHED.format(url=refused_url()), environ=environ) as running:
        ended = running.end(60)
    assert ended.code == 0, ended.stderr
    assert ended.told("sockets") == ["[]"]
    events = [json.loads(line)["entry"]["sql_driver_log"] for line in ended.stderr.splitlines()]
    drivers = [event["system_configuration"]["driver_name"] for event in events]
    assert drivers == 5 * ["sqlite3"] + 2 * ["tiny"]
    assert [event["sql_operation"]["operation_detail"]["operation_type"] for event in events] == [
        "CREATE_SESSION",
        "EXECUTE_STATEMENT",
        "DELETE_SESSION",
        *2 * ["CREATE_SESSION", "DELETE_SESSION"],
    ]
    assert "secret" not in ended.stderr


@pytest.mark.parametrize("authenticated", [True, False])
def test_debugging_shows_ids_only_where_they_would_travel(
    authenticated: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADBC_TELEMETRY_DEBUG", "1")
    calls: list[int] = []

    def auth() -> dict[str, str]:
        calls.append(1)
        return {}

    telemetry = ConnectionTelemetry.create(
        driver_name="tiny",
        driver_version="1",
        host="host.example",
        auth=auth if authenticated else None,
        workspace_id=42,
    )
    telemetry.close()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event.get("workspace_id") for event in events] == 2 * [42 if authenticated else None]
    assert calls == []


def test_without_debugging_the_same_program_opens_sockets(server: TelemetryServer) -> None:
    """Else the test above would prove nothing."""
    with running_python(WATCHED.format(url=server.url)) as running:
        ended = running.end(60)
    assert ended.code == 0, ended.stderr
    assert "socket.connect" in ended.told("sockets")[0]
    assert ended.stderr == ""


def test_a_no_of_the_user_silences_debugging_too() -> None:
    environ = {"ADBC_TELEMETRY_DEBUG": "1", "DO_NOT_TRACK": "1"}
    with running_python(WATCHED.format(url=refused_url()), environ=environ) as running:
        ended = running.end(60)
    assert (ended.code, ended.stderr) == (0, "")

"""Bugs that relatives of this package have had, and this one must not have.

A close event whose latency is the session's age, and parameters that outlive their connection: see `test_connection`.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import ConnectionTelemetry, TelemetryClientManager, instrument
from adbc_telemetry.schema import StatementType
from adbc_telemetry.testing import CapturingExporter, configuration
from support.server import Reply, TelemetryServer
from support.waiting import run_in_threads, wait_until

YES = {"adbc.databricks.telemetry.enabled": "true"}
POLITE = Path(__file__).parents[2] / "benchmarks" / "polite.py"


def of_tenant(url: str, tenant: int, **settings: str) -> ConnectionTelemetry:
    return ConnectionTelemetry.create(
        {**YES, **{f"adbc.databricks.telemetry.{name}": value for name, value in settings.items()}},
        driver_name="tiny",
        driver_version="1.0",
        host=url,
        auth=lambda: {"Authorization": f"Bearer of {tenant}"},
        workspace_id=tenant,
    )


def execute(telemetry: ConnectionTelemetry) -> None:
    with telemetry.statement(statement_type=StatementType.QUERY):
        pass


def tenants_by_credentials(server: TelemetryServer) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for request in server.requests:
        found.setdefault(request.headers["Authorization"], set()).update(
            log["workspace_id"] for log in request.logs
        )
    return found


def test_events_of_a_tenant_never_travel_under_the_credentials_of_another_on_a_host_that_they_share(
    server: TelemetryServer,
) -> None:
    tenants = [1, 2, 3]

    def work(index: int) -> None:
        for _ in range(5):
            with of_tenant(server.url, tenants[index % 3]) as telemetry:
                for _ in range(20):
                    execute(telemetry)

    run_in_threads(6, work)
    assert tenants_by_credentials(server) == {f"Bearer of {tenant}": {tenant} for tenant in tenants}
    assert len(server.accepted) == 6 * 5 * 22


def test_nor_do_they_where_they_come_from_the_spool(server: TelemetryServer, tmp_path: Path) -> None:
    settings = {"spool_dir": str(tmp_path), "max_retries": "0", "flush_interval_ms": "10"}
    server.always = lambda request: Reply(503)
    with of_tenant(server.url, 1, **settings) as telemetry:
        execute(telemetry)
    assert telemetry.client.stats().spooled == 3
    server.requests.clear()
    server.always = lambda request: Reply()
    with of_tenant(server.url, 2, **settings) as telemetry:
        execute(telemetry)
    assert tenants_by_credentials(server) == {"Bearer of 2": {2}}
    with of_tenant(server.url, 1, **settings) as telemetry:
        execute(telemetry)
        wait_until(lambda: not list(tmp_path.glob("*.spool")))
    assert tenants_by_credentials(server) == {"Bearer of 1": {1}, "Bearer of 2": {2}}


def test_tenants_of_a_host_share_its_circuit_and_count_as_one_host(server: TelemetryServer) -> None:
    manager = TelemetryClientManager.get_instance()
    first, second = of_tenant(server.url, 1), of_tenant(server.url, 2)
    assert first.client is not second.client
    assert manager.hosts() == [first.client.host]
    assert manager.ref_count(server.url) == 2
    first.close()
    assert manager.ref_count(server.url) == 1
    assert manager.close_all()
    second.close()


def test_a_closed_connections_credentials_are_not_used_for_those_that_live_on(
    server: TelemetryServer,
) -> None:
    def connect(name: str) -> ConnectionTelemetry:
        return ConnectionTelemetry.create(
            YES,
            driver_name="tiny",
            driver_version="1.0",
            host=server.url,
            auth=lambda: {"Authorization": f"Bearer of {name}"},
        )

    staying, leaving = connect("staying"), connect("leaving")
    leaving.close()
    before = len(server.requests)
    execute(staying)
    staying.close()
    assert {each.headers["Authorization"] for each in server.requests[before:]} == {"Bearer of staying"}


def test_connections_that_take_turns_in_one_thread_keep_their_own_events() -> None:
    captured = CapturingExporter()
    connections = [
        ConnectionTelemetry.create(
            YES, driver_name=name, driver_version="1", host="host.example", exporter=captured, session_id=name
        )
        for name in ("one", "two", "three")
    ]
    for _ in range(3):
        for telemetry in connections:
            with telemetry.statement() as outer:
                outer.statement_id = f"outer of {telemetry.session.session_id}"
                other = connections[0]
                with other.statement() as inner:
                    inner.statement_id = f"inner of {other.session.session_id}"
    for telemetry in connections:
        telemetry.close()
    statements = [log for log in captured.driver_logs if log.sql_statement_id is not None]
    assert len(statements) == 18
    for log in statements:
        assert str(log.sql_statement_id).endswith(f" of {log.session_id}")
        assert log.system_configuration is not None
        assert log.system_configuration.driver_name == log.session_id


@pytest.mark.parametrize("way", ["fetchone", "fetchmany", "iteration"])
def test_a_fetch_of_many_rows_is_one_event_however_it_is_read(way: str) -> None:
    captured = CapturingExporter()
    connection: Any = instrument(
        sqlite3.connect(":memory:"), "host.example", exporter=captured, config=configuration()
    )
    rows = 5_000
    cursor = connection.cursor()
    cursor.execute(
        f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {rows}) SELECT x FROM n"
    )
    if way == "fetchone":
        read = sum(1 for _ in iter(cursor.fetchone, None))
    elif way == "fetchmany":
        read = sum(len(batch) for batch in iter(lambda: cursor.fetchmany(7), []))
    else:
        read = sum(1 for _ in cursor)
    connection.close()
    assert read == rows
    assert [event.operation_type for event in captured.events] == [
        "CREATE_SESSION",
        "EXECUTE_STATEMENT",
        "DELETE_SESSION",
    ]


@pytest.mark.slow
def test_many_clients_leave_a_server_alone_for_as_long_as_it_asks_and_come_back_one_by_one() -> None:
    """The short version of `benchmarks/polite.py`, which takes a thousand clients."""
    arguments = ["--clients", "120", "--processes", "3", "--retry-after", "1", "--windows", "3"]
    out = subprocess.run(
        [sys.executable, str(POLITE), *arguments], capture_output=True, text=True, timeout=100
    )
    assert (out.returncode, out.stderr) == (0, ""), out.stdout + out.stderr
    seen = json.loads(out.stdout)
    assert seen["clients_back"] == 120
    assert seen["requests_refused"] > 120
    assert seen["circuits_opened"] > 120

"""The real `databricks-sql-connector` sends its own telemetry, and the collector's intake keeps every event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

pytest.importorskip("databricks.sql", reason="databricks-sql-connector is not installed")
pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from adbc_telemetry.collector.intake import AcceptedLog, read_request
from support.connector import send_by_the_connector
from support.endpoints import TlsTelemetryServer, server_context
from support.server import Reply

PRIVATE = "[TABLE_OR_VIEW_NOT_FOUND] SECRET"
STATEMENT_TYPE = "entry.sql_driver_log.sql_operation.statement_type"


@contextmanager
def https_endpoint(folder: Path) -> Iterator[tuple[TlsTelemetryServer, Path]]:
    """A service behind TLS, and the file of its certificate's authority."""
    authority = trustme.CA()
    file = folder / "authority.pem"
    authority.cert_pem.write_to_path(file)
    with TlsTelemetryServer(server_context(authority.issue_cert("127.0.0.1"))) as server:
        yield server, file


def test_every_event_of_the_connector_is_kept(tmp_path: Path) -> None:
    with https_endpoint(tmp_path) as (server, authority):
        sent = send_by_the_connector(server.url, authority, private=PRIVATE)
    assert {request.path for request in server.requests} == {"/telemetry-ext", "/telemetry-unauth"}
    logs: list[AcceptedLog] = []
    unknown: dict[str, int] = {}
    dropped = 0
    for request in server.requests:
        intake = read_request(request.body)
        assert intake.errors == []
        logs += intake.logs
        dropped += intake.dropped_private
        for name, times in intake.unknown.items():
            unknown[name] = unknown.get(name, 0) + times
    assert len(logs) == sent > 40
    assert sorted(log.event_id for log in logs) == sorted(server.accepted)
    assert unknown == {
        f"{STATEMENT_TYPE}=NONE": 8
    }  # the only thing of the connector's that the schema does not know
    assert any(PRIVATE in request.body.decode() for request in server.requests)
    assert dropped == 3
    assert not any("SECRET" in f"{log}" for log in logs)


def test_an_event_that_the_endpoint_refuses_is_noticed(tmp_path: Path) -> None:
    """Otherwise a collector that drops events would pass for one that keeps them."""
    refusing = b'{"errors": ["no"], "numSuccess": 0, "numProtoSuccess": 0, "numRealtimeSuccess": 0}'
    with https_endpoint(tmp_path) as (server, authority):
        server.always = lambda _: Reply(body=refusing)
        with pytest.raises(AssertionError, match="Partial failure"):
            send_by_the_connector(server.url, authority, private=PRIVATE)

"""Real senders and a real collector, over TLS and with a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")

from support.collectors import collecting, loopback_certificate
from support.connector import send_by_the_connector
from support.stores import events_in

PRIVATE = "[TABLE_OR_VIEW_NOT_FOUND] SECRET"


def test_every_event_of_the_real_connector_is_stored_and_no_text_of_an_error(tmp_path: Path) -> None:
    pytest.importorskip("databricks.sql", reason="databricks-sql-connector is not installed")
    store, certificate = tmp_path / "store", loopback_certificate(tmp_path)
    (tmp_path / "token").write_text("token\n")
    with collecting(store, *certificate.options, "--token-file", tmp_path / "token") as running:
        sent = send_by_the_connector(running.url, certificate.authority, private=PRIVATE)
        in_the_journal = b"".join(path.read_bytes() for path in (store / "journal").iterdir())
        assert b"SECRET" not in in_the_journal
    assert sent > 40
    ((events, ids, errors),) = events_in(store, "count(*), count(DISTINCT event_id), count(error_name)")
    assert (events, ids, errors) == (sent, sent, 3)
    assert events_in(store, "count(*)", "WHERE contains(log, 'SECRET')") == [(0,)]


def test_our_own_pipeline_delivers_over_tls_with_a_token(tmp_path: Path) -> None:
    store, certificate = tmp_path / "store", loopback_certificate(tmp_path)
    (tmp_path / "token").write_text("0123456789\n")
    program = """
import sys
from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.testing import configuration
from support.logs import make_log
client = TelemetryClient(sys.argv[1], configuration(batch_size=50), auth=lambda: {"Authorization": "Bearer 0123456789"})
for _ in range(500):
    client.enqueue(make_log())
assert client.close(20)
stats = client.stats()
assert (stats.delivered, stats.closes) == (500, True), stats
"""
    with collecting(store, *certificate.options, "--token-file", tmp_path / "token") as running:
        environment = {
            **os.environ,
            "SSL_CERT_FILE": str(certificate.authority),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        ended = subprocess.run(
            [sys.executable, "-c", program, running.url],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
    assert events_in(store, "count(DISTINCT event_id)") == [(500,)]

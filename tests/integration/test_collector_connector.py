"""The senders that matter most, over TLS to a collector with a token: nothing is lost on the way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

pytest.importorskip("duckdb")
pytest.importorskip("starlette")
if sys.platform == "win32":
    pytest.skip("the collector's process is watched as on POSIX", allow_module_level=True)

from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from support.collecting import a_log
from support.collector_process import Collecting, collecting, log_text, request_of, stored_ids
from support.connector import send_by_the_connector

TOKEN = "token"  # what the connector's program shows
PRIVATE = "[TABLE_OR_VIEW_NOT_FOUND] SECRET"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    file = tmp_path / "authority.pem"
    own = trustme.CA()
    own.cert_pem.write_to_path(file)
    certificate = own.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    return file


@pytest.fixture
def collector(tmp_path: Path, authority: Path) -> Iterator[Collecting]:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--token-file", "token")
    paths = [option if option.startswith("--") else tmp_path / option for option in options]
    with collecting(tmp_path, *paths) as running:
        yield running


def ended(collector: Collecting) -> list[str]:
    code, _ = collector.end(signal.SIGTERM)
    assert (code, collector.log) == (0, "")
    return stored_ids(collector.store)


def test_the_real_connector_sends_over_tls_and_every_event_is_kept(
    collector: Collecting, authority: Path
) -> None:
    pytest.importorskip("databricks.sql", reason="databricks-sql-connector is not installed")
    sent = send_by_the_connector(f"https://127.0.0.1:{collector.port}", authority, private=PRIVATE)
    ids = ended(collector)
    assert len(ids) == len(set(ids)) == sent > 40


def test_our_own_pipeline_sends_over_tls_and_every_event_is_kept(
    collector: Collecting, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    config = TelemetryConfiguration(enabled=True, batch_size=50, close_timeout_ms=20_000, compression="gzip")
    sent = [a_log() for _ in range(1000)]
    client = TelemetryClient(
        f"https://127.0.0.1:{collector.port}", config, auth=lambda: {"Authorization": f"Bearer {TOKEN}"}
    )
    for log in sent:
        client.enqueue(log)
    client.close()
    assert client.stats().delivered == len(sent)
    ids = ended(collector)
    assert sorted(ids) == sorted(str(log.frontend_log_event_id) for log in sent)


def test_without_the_token_nothing_is_kept(collector: Collecting, authority: Path) -> None:
    """Otherwise the tests above would pass without any check of it."""
    import ssl
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        f"https://127.0.0.1:{collector.port}/telemetry-ext", request_of([log_text()]), method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(authority)), timeout=30)
    refused.value.close()
    assert refused.value.code == 401
    assert ended(collector) == []

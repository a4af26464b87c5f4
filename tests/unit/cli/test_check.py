"""The command `adbc-telemetry check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adbc_telemetry.cli import main
from support.server import Reply, TelemetryServer, refused_url


@pytest.fixture(autouse=True)
def decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_ENABLED", "true")


@pytest.fixture
def in_order(server: TelemetryServer) -> TelemetryServer:
    server.always = lambda request: Reply() if request.raw else Reply(404)
    return server


def test_an_event_that_arrives_is_said_so(
    in_order: TelemetryServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", in_order.url]) == 0
    printed = capfd.readouterr().out
    assert printed.rstrip().endswith("Events arrive.")
    assert len(in_order.accepted) == 1


def test_each_failure_comes_with_its_cause_and_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", refused_url()]) == 1
    printed = capfd.readouterr().out
    assert "connection-refused: nothing listens at that port." in printed
    assert "What to do: start the collector (adbc-telemetry collect), or correct the port." in printed
    assert printed.rstrip().endswith("Events do not arrive; what to do stands above.")


def test_the_environment_names_the_endpoint(
    in_order: TelemetryServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADBC_TELEMETRY_ENDPOINT", in_order.url)
    assert main(["check"]) == 0
    assert in_order.url in capfd.readouterr().out


def test_json_holds_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    url = refused_url()
    assert main(["check", url, "--json"]) == 1
    report = json.loads(capfd.readouterr().out)
    assert report["endpoint"] == url
    assert report["arrives"] is False
    [failed] = [step for step in report["steps"] if step["status"] == "failed"]
    assert failed["step"] == "connection"
    assert failed["diagnosis"] == "connection-refused"
    assert failed["remedy"]


def test_no_secret_is_printed(
    in_order: TelemetryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:s3cret-password@127.0.0.1:1")
    for endpoint in (in_order.url, "https://user:s3cret-user@telemetry.example"):
        main(["check", endpoint, "--token-file", str(token), "--timeout", "2"])
        printed = capfd.readouterr()
        assert "s3cret" not in printed.out + printed.err


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"], ids=["missing", "empty", "no text"])
def test_a_token_file_that_cannot_be_used_is_said_so(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert main(["check", "http://127.0.0.1:1", "--token-file", str(file)]) == 2
    assert str(file) in capfd.readouterr().err

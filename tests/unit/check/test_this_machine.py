"""What is wrong on this machine, diagnosed by name: configuration, endpoint, spool."""

from __future__ import annotations

import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from adbc_telemetry.check import Diagnosis
from support.server import Reply, TelemetryServer
from unit.check.conftest import Check

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def no_flags(server: TelemetryServer) -> None:
    server.always = lambda request: Reply() if request.raw else Reply(404)


@pytest.mark.parametrize("variable", ["DO_NOT_TRACK=1", "DATABRICKS_TELEMETRY_ENABLED=false"])
def test_a_user_who_says_no_is_told_so_and_nothing_is_sent(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(*variable.split("="))
    assert diagnosed(server.url) == {"configuration": "opted-out"}
    assert server.requests == []


@pytest.mark.parametrize("variable", ["ADBC_TELEMETRY_DEBUG=1", "DATABRICKS_TELEMETRY_MODE=local"])
def test_a_user_who_keeps_events_on_this_machine_is_told_so_and_nothing_is_sent(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(*variable.split("="))
    assert diagnosed(server.url) == {"configuration": "local-only"}
    assert server.requests == []


def test_a_setting_that_makes_no_sense(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_BATCH_SIZE", "many")
    assert diagnosed(server.url) == {"settings": "bad-setting"}


def test_a_setting_whose_name_is_misspelt(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_BATCHSIZE", "10")
    assert diagnosed(server.url) == {"settings": "unknown-setting"}


def test_no_endpoint(diagnosed: Check) -> None:
    assert diagnosed(None) == {"endpoint": "no-endpoint"}


@pytest.mark.parametrize("endpoint", ["ftp://host.example", "https://", "host.example:port", "a b"])
def test_an_endpoint_that_is_none(diagnosed: Check, endpoint: str) -> None:
    assert diagnosed(endpoint) == {"endpoint": "bad-endpoint"}


def test_a_spool_in_a_folder_that_does_not_exist_yet_is_in_order(
    diagnosed: Check, server: TelemetryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_DIR", str(tmp_path / "not" / "yet"))
    assert diagnosed(server.url) == {}


def test_a_spool_that_is_a_file(
    diagnosed: Check, server: TelemetryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spool").write_text("")
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_DIR", str(tmp_path / "spool"))
    assert diagnosed(server.url) == {"spool": "spool-is-no-folder"}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that even root cannot write to")
def test_a_spool_that_cannot_be_written_to(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_DIR", "/proc/self/spool")
    assert diagnosed(server.url) == {"spool": "spool-not-writable"}


@pytest.mark.skipif(
    sys.platform != "linux" or os.access("/proc/1/root", os.X_OK), reason="may enter any folder"
)
def test_a_spool_in_a_folder_that_may_not_be_entered(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_DIR", "/proc/1/root/spool")
    assert diagnosed(server.url) == {"spool": "spool-not-writable"}


def test_a_spool_whose_segment_is_sent_meanwhile(
    diagnosed: Check, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "0-0-0.spool").symlink_to(tmp_path / "gone")
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_DIR", str(tmp_path))
    assert diagnosed(server.url) == {}


def test_the_query_of_an_endpoint_is_not_printed() -> None:
    from adbc_telemetry.check.target import Target

    assert Target(None, name="otlp+https://host.example/x?key=secret").shown == "otlp+https://host.example/x"


def test_a_spool_that_is_nearly_full(
    diagnosed: Check, server: TelemetryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0-0-0.spool").write_bytes(b"x" * 950)
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_DIR", str(tmp_path))
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_MAX_BYTES", "1000")
    assert diagnosed(server.url) == {"spool": "spool-full"}


def test_a_spool_on_a_disk_without_room(
    diagnosed: Check, server: TelemetryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 999, 1))
    monkeypatch.setenv("DATABRICKS_TELEMETRY_SPOOL_DIR", str(tmp_path))
    assert diagnosed(server.url) == {"spool": "disk-full"}


def test_the_documentation_names_each_diagnosis_with_its_remedy() -> None:
    page = (DOCS / "check.md").read_text()
    for diagnosis in Diagnosis:
        row = f"| `{diagnosis.label}` | {diagnosis.value.cause} | {diagnosis.value.remedy} |"
        assert row in page, row


def test_an_endpoint_whose_package_is_not_installed(
    diagnosed: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adbc_telemetry.export.endpoints._has_opentelemetry", lambda: False)
    assert diagnosed("otlp+http://127.0.0.1:4318") == {"endpoint": "needs-extra"}

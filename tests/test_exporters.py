"""The small exporters, and which errors are for good."""

from __future__ import annotations

import json
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    ExportOutcome,
    InMemoryTelemetryExporter,
    JsonLinesTelemetryExporter,
    TelemetryExporter,
    is_terminal_error,
)
from support.logs import ids_of, make_log, make_logs


def test_the_memory_exporter_keeps_what_it_gets() -> None:
    exporter = InMemoryTelemetryExporter()
    logs = make_logs(5)
    assert exporter.export(logs[:2])
    assert exporter.export(logs[2:]).delivered == 3
    assert exporter.logs == logs
    assert [len(batch) for batch in exporter.batches] == [2, 3]
    exporter.clear()
    assert exporter.logs == []
    assert isinstance(exporter, TelemetryExporter)


def test_json_lines_are_one_log_a_line_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    exporter = JsonLinesTelemetryExporter(path)
    logs = [*make_logs(3), make_log("odd", session_id="line\nbreak")]
    assert exporter.export(logs).delivered == 4
    assert exporter.export(make_logs(1)).delivered == 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frontend_log_event_id"] for line in lines[:4]] == ids_of(logs)
    assert len(lines) == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert isinstance(exporter, TelemetryExporter)


def test_a_file_that_cannot_be_written_fails_the_export(tmp_path: Path) -> None:
    result = JsonLinesTelemetryExporter(tmp_path / "no such folder" / "f").export([make_log()])
    assert (result.outcome, result.reason) == (ExportOutcome.FAILED, "FileNotFoundError")


def test_a_log_that_cannot_be_encoded_is_rejected_alone(tmp_path: Path) -> None:
    bad: Any = object()
    result = JsonLinesTelemetryExporter(tmp_path / "f").export([make_log("a"), bad, make_log("b")])
    assert (result.outcome, result.delivered, result.rejected) == (ExportOutcome.DELIVERED, 2, 1)
    assert len((tmp_path / "f").read_text().splitlines()) == 2


def test_a_closed_exporter_writes_nothing(tmp_path: Path) -> None:
    exporter = JsonLinesTelemetryExporter(tmp_path / "f")
    exporter.close()
    assert exporter.export([make_log()]).outcome is ExportOutcome.CANCELLED
    assert not os.path.exists(tmp_path / "f")


class _WithStatus(Exception):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes)


class _Response:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 451, 301])
def test_client_errors_are_for_good(status: int) -> None:
    assert is_terminal_error(_WithStatus(status=status))
    assert is_terminal_error(_WithStatus(status_code=status))
    assert is_terminal_error(_WithStatus(code=status))
    assert is_terminal_error(_WithStatus(response=_Response(status)))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_too_many_requests_and_server_errors_pass(status: int) -> None:
    assert not is_terminal_error(_WithStatus(status=status))
    assert not is_terminal_error(_WithStatus(response=_Response(status)))


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionError(), OSError(), RuntimeError(), ValueError()]
)
def test_timeouts_connection_errors_and_the_unknown_pass(error: Exception) -> None:
    assert not is_terminal_error(error)


def test_an_untrusted_certificate_is_for_good_also_as_a_cause() -> None:
    assert is_terminal_error(ssl.SSLCertVerificationError())
    wrapped = RuntimeError()
    wrapped.__cause__ = _WithStatus(status=403)
    assert is_terminal_error(wrapped)
    wrapped.__cause__ = wrapped
    assert not is_terminal_error(wrapped)


def test_an_exception_whose_attributes_raise_is_not_known() -> None:
    class Odd(Exception):
        @property
        def status(self) -> int:
            raise RuntimeError

    assert not is_terminal_error(Odd())

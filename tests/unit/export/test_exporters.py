"""The small exporters, and which errors are for good."""

from __future__ import annotations

import json
import os
import sqlite3
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    CircuitBreaker,
    CircuitBreakerManager,
    CircuitBreakerTelemetryExporter,
    DatabricksTelemetryExporter,
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    JsonLinesTelemetryExporter,
    OtlpTelemetryExporter,
    TelemetryClient,
    TelemetryClientManager,
    TelemetryConfiguration,
    TelemetryExporter,
    install,
    instrument,
    is_terminal_error,
)
from adbc_telemetry.feature_flags import FeatureFlags
from adbc_telemetry.testing import BrokenExporter, CapturingExporter, GatedExporter
from support.logs import ids_of, make_log, make_logs
from support.server import TelemetryServer


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


# An empty batch is no export.


@pytest.mark.parametrize("empty", [[], (), None])
@pytest.mark.parametrize("closed", [False, True])
def test_an_empty_batch_is_delivered_and_touches_nothing(
    empty: Any, closed: bool, server: TelemetryServer, tmp_path: Path
) -> None:
    config = TelemetryConfiguration(request_timeout_ms=5_000)
    memory, captured = InMemoryTelemetryExporter(), CapturingExporter()
    exporters: list[TelemetryExporter] = [
        DatabricksTelemetryExporter(server.url, config),
        OtlpTelemetryExporter(server.url),
        JsonLinesTelemetryExporter(tmp_path / "f"),
        CircuitBreakerTelemetryExporter(BrokenExporter(), "host"),
        BrokenExporter(),
        GatedExporter(),
        memory,
        captured,
    ]
    for exporter in exporters:
        if closed and not isinstance(exporter, BrokenExporter):
            exporter.close()
        result = exporter.export(empty)
        assert (result.outcome, result.delivered, result.rejected) == (ExportOutcome.DELIVERED, 0, 0), (
            exporter
        )
        assert bool(result)
        if not isinstance(exporter, BrokenExporter):
            exporter.close()
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []
    assert memory.batches == []
    assert captured.logs == []


def test_an_outcome_may_be_given_by_position() -> None:
    assert ExportResult(ExportOutcome.FAILED) == ExportResult(outcome=ExportOutcome.FAILED)
    assert ExportResult(ExportOutcome.DELIVERED, delivered=3)
    assert not ExportResult(ExportOutcome.REJECTED, reason="HTTP 400")


# What is missing or wrong is told when the exporter is made.


class _WithoutClose:
    def export(self, logs: object, *, deadline: float | None = None) -> ExportResult:
        return ExportResult(ExportOutcome.DELIVERED)


class _WithoutExport:
    def close(self) -> None:
        pass


SOUND = TelemetryConfiguration()
UNSOUND = TelemetryConfiguration(batch_size=0)
MEMORY = InMemoryTelemetryExporter()
WRONG: dict[str, Callable[..., object]] = {
    "no host and no configuration": lambda _: DatabricksTelemetryExporter(_, _),
    "no host": lambda _: DatabricksTelemetryExporter(_, SOUND),
    "no configuration": lambda _: DatabricksTelemetryExporter("host", _),
    "no configuration of flags": lambda _: FeatureFlags("host", _),
    "no inner exporter": lambda _: CircuitBreakerTelemetryExporter(_, "host"),
    "no host of a breaker": lambda _: CircuitBreakerTelemetryExporter(MEMORY, _),
    "no path": lambda _: JsonLinesTelemetryExporter(_),
    "no client's configuration": lambda _: TelemetryClient("host", _),
    "no client's host": lambda _: TelemetryClient(_, SOUND),
    "no lease's host": lambda _: TelemetryClientManager.get_instance().acquire(_, SOUND),
    "no lease's configuration": lambda _: TelemetryClientManager.get_instance().acquire("host", _),
    "no breaker's host": lambda _: CircuitBreakerManager.get_instance().get_circuit_breaker(_),
}


@pytest.mark.parametrize("nothing", [None, object(), 7])
@pytest.mark.parametrize("what", WRONG)
def test_what_is_missing_is_told_when_it_is_made(what: str, nothing: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        WRONG[what](nothing)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CircuitBreakerTelemetryExporter(_WithoutClose(), "host"),  # type: ignore[arg-type]
        lambda: CircuitBreakerTelemetryExporter(_WithoutExport(), "host"),  # type: ignore[arg-type]
        lambda: CircuitBreakerTelemetryExporter(InMemoryTelemetryExporter, "host"),  # type: ignore[arg-type]
        lambda: CircuitBreakerTelemetryExporter(MEMORY, ""),
        lambda: CircuitBreakerTelemetryExporter(MEMORY, "host", object()),  # type: ignore[arg-type]
        lambda: CircuitBreakerTelemetryExporter(MEMORY, "host", UNSOUND),
        lambda: CircuitBreaker("fast"),  # type: ignore[arg-type]
        lambda: CircuitBreaker(UNSOUND),
        lambda: DatabricksTelemetryExporter("", SOUND),
        lambda: DatabricksTelemetryExporter("host", UNSOUND),
        lambda: DatabricksTelemetryExporter("host", SOUND, auth="token"),  # type: ignore[arg-type]
        lambda: OtlpTelemetryExporter("otlp.example", headers=["a: b"]),  # type: ignore[arg-type]
        lambda: JsonLinesTelemetryExporter(""),
        lambda: JsonLinesTelemetryExporter("a\0b"),
        lambda: TelemetryClient("host", SOUND, exporter=InMemoryTelemetryExporter),  # type: ignore[arg-type]
        lambda: TelemetryClientManager.get_instance().acquire("host", SOUND, exporter="x"),  # type: ignore[arg-type]
        lambda: instrument(sqlite3.Connection, exporter="x"),  # type: ignore[arg-type]
        lambda: install(exporter=InMemoryTelemetryExporter),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_told_when_it_is_made(make: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()


def test_a_second_lease_of_a_host_is_as_strict_as_the_first() -> None:
    manager = TelemetryClientManager.get_instance()
    with manager.acquire("host", SOUND):
        for wrong in ({"config": None}, {"config": SOUND, "exporter": object()}):
            with pytest.raises(TypeError):
                manager.acquire("host", **wrong)
        assert manager.ref_count("host") == 1


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

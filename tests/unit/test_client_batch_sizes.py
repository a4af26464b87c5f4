"""Batches that follow the load: how large they get, and what bounds them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adbc_telemetry import (
    DatabricksTelemetryExporter,
    ExportOutcome,
    OtlpTelemetryExporter,
    TelemetryClient,
    TelemetryConfiguration,
)
from adbc_telemetry.export import delivery
from adbc_telemetry.pipeline.flow import batch_sizes
from support.clients import GatedExporter, configuration
from support.logs import make_log, make_logs
from support.server import Reply, Request, TelemetryServer
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, (100, 1_000, 1.0)),
        ({"batch_size": 7}, (7, 7, 1.0)),
        ({"batch_size": 500, "max_queue_size": 1_000}, (500, 500, 1.0)),
        ({"max_batch_size": 2_000}, (100, 2_000, 0.0)),
        ({"max_batch_size": 100}, (100, 100, 0.0)),
        ({"max_batch_size": 40}, (40, 40, 0.0)),
        ({"max_batch_size": 99_999, "max_queue_size": 50}, (50, 50, 0.0)),
    ],
)
def test_the_sizes_of_a_configuration(settings: dict[str, Any], sizes: tuple[int, int, float]) -> None:
    assert batch_sizes(TelemetryConfiguration(**settings)) == sizes


def test_a_busy_client_sends_fewer_and_larger_batches() -> None:
    exporter = GatedExporter()
    settings = configuration(batch_size=5, max_batch_size=50)
    with TelemetryClient("host", settings, exporter=exporter) as client:
        for log in make_logs(5):
            client.enqueue(log)
        wait_until(lambda: client.stats().in_flight == 5)
        for log in make_logs(200):
            client.enqueue(log)
        exporter.gate.set()
        assert client.flush(20)

        stats = client.stats()
        assert stats.delivered == 205
        assert stats.exports == 5, "5 events, then 50 at a time"


def test_an_idle_client_is_as_prompt_as_ever() -> None:
    exporter = GatedExporter()
    exporter.gate.set()
    with TelemetryClient("host", configuration(batch_size=5, max_batch_size=50), exporter=exporter) as client:
        for log in make_logs(5):
            client.enqueue(log)
        wait_until(lambda: client.stats().delivered == 5)


def test_what_is_left_at_close_travels_in_small_requests() -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=5, max_batch_size=50), exporter=exporter)
    for log in make_logs(5):
        client.enqueue(log)
    wait_until(lambda: client.stats().in_flight == 5)
    for log in make_logs(20):
        client.enqueue(log)
    client.begin_close(client.close_deadline(20))
    exporter.gate.set()
    assert client.close(20)
    assert (client.stats().delivered, client.stats().exports) == (25, 5)


def test_after_a_failure_a_request_costs_few_events(server: TelemetryServer) -> None:
    settings = configuration(batch_size=5, max_batch_size=50, max_retries=0, circuit_breaker_enabled=False)
    server.replies.append(Reply(503))
    with TelemetryClient(server.url, settings) as client:
        for log in make_logs(5):
            client.enqueue(log)
        assert client.flush(20)
        for log in make_logs(4):
            client.enqueue(log)
        assert client.flush(20)
        assert client._flow.timing.size(0.0) == 5
        for log in make_logs(5):
            client.enqueue(log)
        assert client.flush(20)
        assert client._flow.timing.size(0.0) == 50


# What an endpoint's 413 says is remembered.


def sizes_of(server: TelemetryServer) -> list[int]:
    return [len(request.raw) for request in server.requests]


def exporters(server: TelemetryServer) -> list[DatabricksTelemetryExporter | OtlpTelemetryExporter]:
    return [
        DatabricksTelemetryExporter(server.url, TelemetryConfiguration()),
        OtlpTelemetryExporter(server.url),
    ]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_request_that_was_too_large_is_made_once(
    server: TelemetryServer, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes_little(request: Request) -> Reply:
        if len(request.raw) > 5_000:
            return Reply(413)
        return Reply(body=b"" if kind else json.dumps({"numProtoSuccess": len(request.ids)}).encode())

    server.always = takes_little
    exporter = exporters(server)[kind]
    logs = make_logs(64)
    assert exporter.export(logs).delivered == 64
    assert max(sizes_of(server)) > 5_000
    server.requests.clear()
    for _ in range(3):
        assert exporter.export(logs).delivered == 64
    assert max(sizes_of(server)) <= 5_000

    monkeypatch.setattr(delivery, "_REMEMBERED_SECONDS", 0.0)
    exporter._limit.refused(5_001)
    server.requests.clear()
    assert exporter.export(logs).delivered == 64
    assert max(sizes_of(server)) > 5_000, "after a while it tries again"
    exporter.close()


@pytest.mark.parametrize("kind", [0, 1])
def test_one_huge_event_does_not_make_all_requests_small(server: TelemetryServer, kind: int) -> None:
    def refuses_the_huge_one(request: Request) -> Reply:
        if b"huge" in request.raw:
            return Reply(413)
        return Reply(body=b"" if kind else json.dumps({"numProtoSuccess": len(request.ids)}).encode())

    server.always = refuses_the_huge_one
    exporter = exporters(server)[kind]
    result = exporter.export([make_log("huge"), *make_logs(63)])
    assert (result.outcome, result.delivered, result.rejected) == (ExportOutcome.DELIVERED, 63, 1)
    server.requests.clear()
    assert exporter.export(make_logs(64)).delivered == 64
    assert len(server.requests) <= 3
    exporter.close()

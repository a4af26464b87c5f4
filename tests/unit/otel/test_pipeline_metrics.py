"""The pipeline's own account as metrics: named after the convention, and equal to `stats()`."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk.metrics")

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.semconv._incubating.metrics import otel_metrics

from adbc_telemetry import (
    CircuitBreakerManager,
    ExportOutcome,
    ExportResult,
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryClientManager,
)
from adbc_telemetry.export.base import AbleExporter
from adbc_telemetry.otel import pipeline_metrics
from adbc_telemetry.otel.pipeline_metrics import observe_pipeline, stop_observing_pipeline
from adbc_telemetry.pipeline.accounts import accounts
from adbc_telemetry.testing import BrokenExporter
from support.clients import GatedExporter, configuration
from support.logs import make_log, make_logs
from support.process import run_program
from support.server import Reply, TelemetryServer
from support.waiting import wait_until
from support.watching import Watch

PROCESSOR = "adbc_telemetry.client.TelemetryClient"
DATABRICKS = "adbc_telemetry.export.databricks.DatabricksTelemetryExporter"


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch(monkeypatch)
    yield watch
    watch.stop()


def values(watch: Watch, name: str) -> dict[str | None, float]:
    """The values of a metric, by the one attribute that tells its points apart."""
    found: dict[str | None, float] = {}
    for metric, attributes, value in watch.points():
        if metric == name:
            reasons = [
                attribute
                for key, attribute in attributes.items()
                if key in ("error.type", "adbc.telemetry.loss.reason", "adbc.telemetry.circuit_breaker.state")
            ]
            reason = str(reasons[0]) if reasons else None
            found[reason] = found.get(reason, 0) + value
    return found


def send(client: TelemetryClient, count: int = 1) -> None:
    for log in make_logs(count):
        client.enqueue(log)
    assert client.flush(20)


def test_each_end_of_an_event_has_its_place(watch: Watch, server: TelemetryServer) -> None:
    settings = configuration(batch_size=10, max_queue_size=10, max_retries=0, circuit_breaker_threshold=3)
    server.replies.extend([Reply(), Reply(400), Reply(503), Reply(503)])
    client = TelemetryClient(server.url, settings)
    for count in (4, 3, 2, 1):
        send(client, count)
    send(client, 5)  # the circuit is open
    client.close()
    client.enqueue(make_log())

    assert values(watch, "otel.sdk.processor.log.processed") == {
        None: 10,
        "queue_full": 0,
        "already_shutdown": 1,
        "circuit_open": 5,
    }
    assert values(watch, "otel.sdk.exporter.log.exported") == {None: 4, "400": 3, "503": 3}
    assert values(watch, "adbc.telemetry.lost") == {
        "rejected": 3,
        "failed": 3,
        "dropped_queue_full": 0,
        "dropped_circuit_open": 5,
        "dropped_closed": 1,
    }
    assert values(watch, "adbc.telemetry.enqueued") == {None: 16}
    watch.assert_equal()


def test_the_attributes_are_those_of_the_convention(watch: Watch, server: TelemetryServer) -> None:
    server.replies.append(Reply(503))
    with TelemetryClient(server.url, configuration(max_retries=0)) as client:
        send(client)

        points = watch.points()

    of_processor = {"otel.component.type": PROCESSOR, "otel.component.name": f"{PROCESSOR}/0"}
    of_exporter = {
        "otel.component.type": DATABRICKS,
        "otel.component.name": f"{DATABRICKS}/0",
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    failed = {**of_exporter, "error.type": "503"}
    told = [(name, attributes) for name, attributes, _ in points if name.startswith("otel.")]
    assert sorted(told, key=str) == sorted(
        [
            ("otel.sdk.processor.log.queue.size", of_processor),
            ("otel.sdk.processor.log.queue.capacity", of_processor),
            ("otel.sdk.processor.log.processed", of_processor),
            *(
                ("otel.sdk.processor.log.processed", {**of_processor, "error.type": reason})
                for reason in ("queue_full", "already_shutdown", "circuit_open")
            ),
            ("otel.sdk.exporter.log.inflight", of_exporter),
            ("otel.sdk.exporter.log.exported", of_exporter),
            ("otel.sdk.exporter.log.exported", failed),
            ("otel.sdk.exporter.operation.duration", {**failed, "http.response.status_code": 503}),
        ],
        key=str,
    )


def test_names_units_and_kinds_are_those_of_the_conventions_package(watch: Watch) -> None:
    names = {
        value
        for constant, value in vars(otel_metrics).items()
        if constant.isupper() and isinstance(value, str) and ("_LOG_" in constant or "OPERATION" in constant)
    }
    ours = {metric for metric in pipeline_metrics.__doc__.split() if metric.startswith("otel.sdk.")}

    assert ours == names - {"otel.sdk.log.created"}


def test_what_waits_and_what_is_under_way_is_measured(watch: Watch) -> None:
    exporter = GatedExporter()
    client = TelemetryClient(
        "gated.example", configuration(batch_size=2, max_queue_size=3), exporter=exporter
    )
    for log in make_logs(2):
        client.enqueue(log)
    wait_until(lambda: client.stats().in_flight == 2)
    for log in make_logs(4):
        client.enqueue(log)

    assert values(watch, "otel.sdk.exporter.log.inflight") == {None: 2}
    assert values(watch, "otel.sdk.processor.log.queue.size") == {None: 3}
    assert values(watch, "otel.sdk.processor.log.queue.capacity") == {None: 3}
    assert values(watch, "otel.sdk.processor.log.processed")["queue_full"] == 1
    watch.assert_equal()
    exporter.gate.set()
    assert client.close(20)
    assert values(watch, "otel.sdk.processor.log.queue.capacity") == {None: 0}
    watch.assert_equal()


def test_the_state_of_the_breaker_is_told(watch: Watch, server: TelemetryServer) -> None:
    settings = configuration(max_retries=0, circuit_breaker_threshold=1, circuit_breaker_timeout_ms=1)
    server.replies.append(Reply(503))

    def state() -> str | None:
        [now] = [
            name for name, value in values(watch, "adbc.telemetry.circuit_breaker.state").items() if value
        ]
        return now

    with TelemetryClient(server.url, settings) as client:
        states = [state()]
        send(client)
        states.append(state())
        breaker = CircuitBreakerManager.get_instance().get_circuit_breaker(client.host)
        wait_until(lambda: breaker._storage.seconds_open() >= 0.001)
        for _ in range(2):
            send(client)
            states.append(state())

    assert states == ["closed", "open", "half-open", "closed"]
    assert values(watch, "adbc.telemetry.circuit_breaker.state") == {}


def test_one_duration_for_each_export_that_was_tried(watch: Watch, server: TelemetryServer) -> None:
    server.replies.extend([Reply(), Reply(503), Reply(503)])
    settings = configuration(max_retries=1, retry_delay_ms=1, circuit_breaker_threshold=1)
    with TelemetryClient(server.url, settings) as client:
        send(client)
        send(client)  # tried twice: one export
        send(client)  # the circuit is open: none

        assert values(watch, "otel.sdk.exporter.operation.duration") == {None: 1, "503": 1}
    data = watch._reader.get_metrics_data()
    assert data is not None
    [histogram] = [
        metric.data
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "otel.sdk.exporter.operation.duration"
    ]
    point = histogram.data_points[0]
    assert isinstance(point, HistogramDataPoint)
    assert list(point.explicit_bounds) == []
    assert 0 < point.sum < 20


# Clients that come and go.


def test_no_counter_goes_back_when_a_client_is_closed_and_collected(watch: Watch) -> None:
    manager = TelemetryClientManager.get_instance()
    counts = []
    for _ in range(3):
        with manager.acquire("host.example", configuration(), exporter=InMemoryTelemetryExporter()) as lease:
            send(lease.client, 2)
        counts.append(values(watch, "otel.sdk.exporter.log.exported"))
        del lease
        gc.collect()
        counts.append(values(watch, "otel.sdk.exporter.log.exported"))

    assert [count[None] for count in counts] == [2, 2, 4, 4, 6, 6]
    assert len(accounts._living) == 0
    names = {attributes["otel.component.name"] for _, attributes, _ in watch.points()}
    assert len(names) == 2, "the processor and the exporter, each once"


def test_endpoints_and_exporters_are_told_apart(watch: Watch, tmp_path: Path) -> None:
    memory = InMemoryTelemetryExporter()
    with (
        TelemetryClient("host.example", configuration(), exporter=memory) as one,
        TelemetryClient("other.example", configuration(), exporter=memory) as other,
        TelemetryClient((tmp_path / "f").as_uri(), configuration()) as file,
    ):
        for count, client in enumerate((one, other, file), 1):
            send(client, count)

        exported = {
            (attributes["otel.component.name"], attributes.get("server.address")): value
            for name, attributes, value in watch.points()
            if name == "otel.sdk.exporter.log.exported"
        }

    assert exported == {
        ("adbc_telemetry.export.memory.InMemoryTelemetryExporter/0", "host.example"): 1,
        ("adbc_telemetry.export.memory.InMemoryTelemetryExporter/1", "other.example"): 2,
        ("adbc_telemetry.export.jsonlines.JsonLinesTelemetryExporter/2", None): 3,
    }


def test_what_the_spool_takes_and_gives_back_is_measured(
    watch: Watch, server: TelemetryServer, tmp_path: Path
) -> None:
    settings = configuration(spool_dir=tmp_path, max_retries=0, flush_interval_ms=10)
    server.replies.append(Reply(503))
    with TelemetryClient(server.url, settings) as client:
        send(client, 3)
        wait_until(lambda: client.stats().replayed == 3)

        assert values(watch, "adbc.telemetry.spool.written") == {None: 3}
        assert values(watch, "adbc.telemetry.spool.replayed") == {None: 3}
        assert values(watch, "otel.sdk.exporter.operation.duration") == {None: 1, "503": 1}
    watch.assert_equal()


def test_exceptions_of_an_exporter_count_wherever_the_batch_came_from(watch: Watch, tmp_path: Path) -> None:
    settings = configuration(spool_dir=tmp_path, flush_interval_ms=10, circuit_breaker_enabled=False)
    with TelemetryClient("host.example", settings, exporter=BrokenExporter()) as client:
        send(client)  # into the spool, from where it is tried again and again
        wait_until(lambda: client.stats().errors >= 3)
    assert client.stats().exports == 1
    watch.assert_equal()


class _Odd(AbleExporter):
    """Has another reason for each failure."""

    def __init__(self) -> None:
        self._calls = 0

    def export(self, logs: Any, *, deadline: float | None = None) -> ExportResult:
        self._calls += 1
        return ExportResult(ExportOutcome.FAILED, reason=f"Reason{self._calls}")

    def close(self) -> None:
        pass


def test_an_exporter_with_a_reason_for_each_failure_does_not_flood_the_metrics(watch: Watch) -> None:
    settings = configuration(batch_size=1, circuit_breaker_enabled=False)
    with TelemetryClient("host.example", settings, exporter=_Odd()) as client:
        send(client, 80)

    exported = values(watch, "otel.sdk.exporter.log.exported")
    assert len(exported) == 52
    assert exported["_OTHER"] == 30
    assert sum(exported.values()) == 80


# On and off.


def test_to_observe_twice_is_to_observe_once_and_to_stop_ends_it(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    observe_pipeline(watch._provider)
    with TelemetryClient("host.example", configuration(), exporter=InMemoryTelemetryExporter()) as client:
        send(client)
        once = values(watch, "otel.sdk.exporter.operation.duration")
        stop_observing_pipeline(watch._provider)
        send(client)
        stopped = watch.points()
        observe_pipeline(watch._provider)
        send(client)
        again = values(watch, "otel.sdk.exporter.log.exported")

    assert once == {None: 1}
    assert {name for name, _, _ in stopped} <= {"otel.sdk.exporter.operation.duration"}
    assert again == {None: 3}
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


class _Broken:
    def get_meter(self, *_: object, **__: object) -> Any:
        raise RuntimeError("no meter")


@pytest.mark.parametrize("provider", [_Broken(), NoOpMeterProvider(), object(), None])
def test_to_observe_never_raises(provider: Any) -> None:
    before = accounts.observers
    observe_pipeline(provider)
    stop_observing_pipeline(provider)
    assert accounts.observers == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_measures_what_is_its_own(server: TelemetryServer) -> None:
    out = run_program(
        """
import os
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from adbc_telemetry.otel.pipeline_metrics import observe_pipeline

reader = InMemoryMetricReader()
observe_pipeline(MeterProvider([reader]))

def counts():
    return {
        metric.name.removeprefix("otel.sdk.exporter."): sum(
            getattr(point, "count", None) or getattr(point, "value", 0) for point in metric.data.data_points
        )
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("otel.sdk.exporter.")
    }

client = make_client(sys.argv[1])
enqueue(client, 5)
assert client.flush(20)
pid = os.fork()
if not pid:
    code = 1
    try:
        enqueue(client, 3)
        assert client.flush(20)
        assert counts() == {"log.exported": 3, "log.inflight": 0, "operation.duration": 1}, counts()
        code = 0
    finally:
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
enqueue(client, 1)
assert client.flush(20)
assert counts() == {"log.exported": 6, "log.inflight": 0, "operation.duration": 2}, counts()
client.close()
""",
        server.url,
    )
    assert out.code == 0, out


def test_a_pipeline_that_is_not_observed_loads_nothing_of_opentelemetry() -> None:
    program = """
import sys
from adbc_telemetry import InMemoryTelemetryExporter, TelemetryClient, TelemetryConfiguration
from adbc_telemetry.schema import TelemetryFrontendLog
with TelemetryClient("host", TelemetryConfiguration(enabled=True), exporter=InMemoryTelemetryExporter()) as client:
    client.enqueue(TelemetryFrontendLog())
assert client.stats().delivered == 1
assert not [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

"""The pages on delivery and on watching the pipeline say what the code does, and their examples run as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from adbc_telemetry.export import otlp_mapping
from adbc_telemetry.export.endpoints import normalize_endpoint
from adbc_telemetry.otel.pipeline_metrics import observe_pipeline, stop_observing_pipeline
from support.logs import make_log
from support.process import running_python

DOCS = Path(__file__).parents[2] / "docs"
DELIVERY = (DOCS / "delivery.md").read_text(encoding="utf-8")
WATCHING = (DOCS / "self-observability.md").read_text(encoding="utf-8")


def examples() -> list[str]:
    return [
        example
        for page in (DELIVERY, WATCHING)
        for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    ]


@pytest.mark.parametrize("number", range(len(examples())))
def test_an_example_runs(number: int) -> None:
    with running_python(examples()[number]) as running:
        ended = running.end(60)
    assert (ended.code, ended.stderr) == (0, "")


def test_every_endpoint_of_the_page_is_one() -> None:
    table = DELIVERY.partition("| endpoint |")[2].partition("\n\n")[0]
    endpoints = [
        endpoint
        for row in re.findall(r"^\| (`.+?) \|", table, re.M)
        for endpoint in re.findall(r"`([^`]+)`", row)
    ]
    assert len(endpoints) == 8
    for endpoint in endpoints:
        assert normalize_endpoint(endpoint)


def test_the_page_names_the_events_that_there_are() -> None:
    table = DELIVERY.partition("| event |")[2].partition("\n\n")[0]
    names = re.findall(r"\| `([a-z.]+)` \|", table)
    assert names == [otlp_mapping.FAILURE_EVENT, otlp_mapping.SESSION_EVENT, otlp_mapping.STATEMENT_EVENT]


def test_the_page_names_the_metrics_that_there_are() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe_pipeline(provider)
    settings = TelemetryConfiguration(enabled=True, max_retries=0)
    with TelemetryClient("http://127.0.0.1:1", settings) as client:
        client.enqueue(make_log())
        assert client.flush(20)
        data = reader.get_metrics_data()
    stop_observing_pipeline(provider)
    provider.shutdown()

    assert data is not None
    measured = {
        metric.name
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    table = WATCHING.partition("| metric |")[2].partition("\n\n")[0]
    told = set(re.findall(r"^\| `([a-z_.]+)`", table, re.M))
    told |= {f"adbc.telemetry.spool{name}" for name in re.findall(r"`(\.[a-z]+)`", table)}
    assert told == measured

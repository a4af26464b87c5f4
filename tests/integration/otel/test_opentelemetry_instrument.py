"""`opentelemetry-instrument python script.py`, with a script that knows nothing of us."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.otlp import OtlpReceiver, ReceivedSpan, otlp_receiver
from support.postgres import PostgresServer
from support.spans import follows_the_table

for needed in ("opentelemetry.distro", "adbc_driver_sqlite", "pandas", "polars", "sqlalchemy"):
    pytest.importorskip(needed)

TESTS = Path(__file__).parents[2]
PROGRAM = TESTS / "support" / "an_instrumented_program.py"
COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")

SYSTEMS = {"sqlite": "sqlite", "duckdb": "duckdb", "postgresql": "postgresql"}


def instrumented(receiver: OtlpReceiver, *arguments: str, **environ: str) -> None:
    """Run the program to its end, with all its spans and metrics sent to the receiver."""
    variables = {
        "PYTHONPATH": str(TESTS),
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        **environ,
    }
    ended = subprocess.run(
        [str(COMMAND), sys.executable, str(PROGRAM), *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "done"


def spans_of(kind: str, uri: str, *what: str, **environ: str) -> tuple[list[ReceivedSpan], OtlpReceiver]:
    with otlp_receiver() as receiver:
        instrumented(receiver, kind, uri, *what, **environ)
        ours = [span for span in receiver.spans if span.scope == "adbc_telemetry.otel"]
        return ours, receiver


@pytest.fixture(params=list(SYSTEMS))
def database(request: pytest.FixtureRequest) -> tuple[str, str]:
    if request.param != "postgresql":
        return request.param, ""
    pytest.importorskip("adbc_driver_postgresql")
    server: PostgresServer = request.getfixturevalue("postgres")
    return request.param, server.fresh_uri()


def test_every_operation_of_a_program_is_a_span_with_the_attributes_of_the_table(
    database: tuple[str, str],
) -> None:
    kind, uri = database
    what = ["plain", "libraries", *(["alchemy"] if kind == "sqlite" else [])]
    spans, receiver = spans_of(kind, uri, *what)
    for span in spans:
        assert (span.service, span.kind) == ("shop", "CLIENT")
        assert span.attributes["db.system.name"] == SYSTEMS[kind]
        follows_the_table(span.name, span.attributes, failed=span.failed)
    names = Counter(
        span.attributes.get("db.query.summary", span.attributes.get("db.operation.name")) for span in spans
    )
    # The program's own, and those of pandas, polars and SQLAlchemy.
    assert names["CREATE"] == 1
    assert names["BATCH INSERT"] == (kind != "duckdb")
    assert names["INGEST"] == 3
    assert names["SELECT"] >= 3 + 2
    assert names["GET_OBJECTS"] >= 1
    assert names["COMMIT"] >= 1
    assert names["ROLLBACK"] >= 1
    assert names["CONNECT"] >= 2
    read = [span.events for span in spans if span.events]
    # SQLAlchemy leaves results after the first row. polars takes the stream, and reads it by itself.
    assert read.count(["adbc.first_batch", "adbc.last_batch"]) >= 3
    assert all(events[0] == "adbc.first_batch" for events in read)
    (failed,) = (span for span in spans if span.failed)
    assert failed.message == ""
    if kind == "postgresql":
        assert failed.attributes["error.type"] == failed.attributes["db.response.status_code"] == "42P01"
        assert failed.attributes["server.address"] in uri.replace("%2F", "/")
    told = repr(spans)
    for private in ("secret", "hidden", "ingested", "by_pandas", "by_polars", "missing"):
        assert private not in told
    _measured(receiver, spans)


def _measured(receiver: OtlpReceiver, spans: list[ReceivedSpan]) -> None:
    metrics: dict[str, list[dict[str, Any]]] = {metric.name: metric.points for metric in receiver.metrics}
    durations = metrics["db.client.operation.duration"]
    summaries = {span.attributes.get("db.query.summary") for span in spans}
    assert {point.get("db.query.summary") for point in durations} == summaries
    assert metrics["db.client.response.returned_rows"]


def test_it_can_be_switched_off_by_its_name() -> None:
    spans, _ = spans_of("sqlite", "", "plain", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="adbc")
    assert spans == []


def test_a_sampler_of_the_environment_is_obeyed() -> None:
    spans, receiver = spans_of("sqlite", "", "plain", OTEL_TRACES_SAMPLER="always_off")
    assert spans == []
    assert {metric.name for metric in receiver.metrics} >= {"db.client.operation.duration"}

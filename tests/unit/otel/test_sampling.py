"""A sampler is asked first, and of what is not recorded nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from adbc_telemetry.otel import descriptions
from adbc_telemetry.otel.sampling import EarlyAnswer
from support.spans import Spans, follows_the_table


class Recording(Sampler):  # type: ignore[misc, unused-ignore]
    """A sampler that keeps what it is asked."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        *_: Any,
        **__: Any,
    ) -> SamplingResult:
        self.asked.append((name, dict(attributes or {})))
        return SamplingResult(self.decision, attributes)

    def get_description(self) -> str:
        return "recording"


def query(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()


def test_a_sampler_sees_the_name_and_the_attributes(raw: Any) -> None:
    sampler = Recording(Decision.RECORD_AND_SAMPLE)
    spans = Spans(sampler)
    query(spans.follow(raw))
    ((name, attributes),) = sampler.asked
    follows_the_table(name, attributes)
    assert attributes == {"db.system.name": "sqlite", "db.namespace": "main", "db.query.summary": "SELECT"}
    assert spans.one.attributes == attributes


def test_a_sampler_of_the_program_s_own_is_asked_once(raw: Any) -> None:
    sampler = Recording(Decision.DROP)
    spans = Spans(sampler, measured=False)
    query(spans.follow(raw))
    assert len(sampler.asked) == 1
    assert spans.all == []


def test_what_is_not_recorded_is_measured_all_the_same(raw: Any) -> None:
    spans = Spans(ALWAYS_OFF)
    query(spans.follow(raw))
    assert spans.all == []
    (duration,) = spans.points("db.client.operation.duration")
    assert duration.count == 1


def test_of_what_is_not_recorded_nothing_is_computed(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = Spans(ALWAYS_OFF, measured=False)
    connection = spans.follow(raw)
    query(connection)  # the first asks the driver for its trace parent
    monkeypatch.delattr(descriptions.Descriptions, "describe")
    query(connection)
    assert connection._adbc_telemetry.observer.tracing.errors == 0


@pytest.mark.parametrize(
    "read",
    [
        lambda cursor: [cursor.fetchone(), cursor.fetchone()],
        lambda cursor: cursor.fetchmany(2),
        lambda cursor: list(cursor),
        lambda cursor: cursor.fetch_arrow_table(),
        lambda cursor: cursor.fetch_record_batch().read_all(),
        lambda cursor: cursor.fetch_arrow(),
        lambda cursor: cursor.adbc_prepare("SELECT 1"),
        lambda cursor: cursor.executescript("SELECT 1"),
    ],
)
def test_the_results_of_what_is_not_recorded_are_read_in_every_way(
    read: Callable[[Any], object], raw: Any
) -> None:
    spans = Spans(ALWAYS_OFF, measured=False)
    connection = spans.follow(raw)
    for _ in range(2):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            read(cursor)
            with pytest.raises(Exception, match="no such table"):
                cursor.execute("SELECT * FROM missing")
    recorder = connection._adbc_telemetry
    assert (recorder.errors, recorder.observer.tracing.errors) == (0, 0)


@pytest.mark.parametrize(
    ("sampler", "known"),
    [
        (ALWAYS_OFF, True),
        (ParentBased(ALWAYS_OFF), True),
        (TraceIdRatioBased(0), True),
        (ParentBasedTraceIdRatio(0), True),
        (ALWAYS_ON, False),
        (TraceIdRatioBased(0.01), False),
        (ParentBased(ALWAYS_ON), False),
        (Recording(Decision.DROP), False),
        (ParentBased(Recording(Decision.DROP)), False),
    ],
)
def test_a_no_is_known_early_of_the_sdk_s_samplers_that_refuse_every_root(
    sampler: Sampler, known: bool
) -> None:
    tracer = Spans(sampler).tracer()
    assert EarlyAnswer(tracer).is_no(Context()) is known
    if isinstance(sampler, Recording):
        assert sampler.asked == []


@pytest.mark.parametrize("sampled", [True, False])
def test_a_parent_that_is_not_sampled_is_an_early_no(sampled: bool) -> None:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True, trace_flags=flags))
    tracer = Spans(ParentBased(ALWAYS_ON)).tracer()
    assert EarlyAnswer(tracer).is_no(trace.set_span_in_context(parent)) is not sampled


def test_a_ratio_of_all_traces_is_kept(raw: Any) -> None:
    spans = Spans(ParentBased(TraceIdRatioBased(0.5)), measured=False)
    connection = spans.follow(raw)
    for _ in range(200):
        query(connection)
    assert 50 < len(spans.all) < 150


def test_a_tracer_without_an_sdk_is_never_an_early_no() -> None:
    assert not EarlyAnswer(trace.NoOpTracer()).is_no(Context())


def test_suppression_is_obeyed(raw: Any, spans: Spans) -> None:
    connection = spans.follow(raw)
    with suppress_instrumentation():
        query(connection)
        connection.commit()
    assert spans.all == []
    assert spans.points("db.client.operation.duration") == []
    query(connection)
    assert spans.names == ["SELECT"]


def test_a_provider_that_is_set_after_instrumenting_gets_the_spans_of_later_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sqlite = pytest.importorskip("adbc_driver_sqlite.dbapi")
    from adbc_telemetry.otel import ADBCInstrumentor

    spans = Spans()
    ADBCInstrumentor().instrument()
    try:
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.tracer_provider)
        with sqlite.connect() as connection:
            query(connection)
    finally:
        ADBCInstrumentor().uninstrument()
    assert spans.names == ["CONNECT", "SELECT"]

"""One span per statement, from `execute` to the end of its results."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from adbc_telemetry.instrumentation import statement_recorder
from adbc_telemetry.otel import spans as spans_module
from support.spans import Spans, events_of

pyarrow = pytest.importorskip("pyarrow")

THREE_ROWS = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3"


def fetch_each(cursor: Any) -> None:
    while cursor.fetchone() is not None:
        pass


def fetch_two_at_a_time(cursor: Any) -> None:
    while len(cursor.fetchmany(2)) == 2:
        pass


FETCHES: list[Callable[[Any], object]] = [
    fetch_each,
    fetch_two_at_a_time,
    lambda cursor: cursor.fetchall(),
    lambda cursor: list(cursor),
    lambda cursor: cursor.fetch_arrow_table(),
    lambda cursor: cursor.fetch_record_batch().read_all(),
]


@pytest.mark.parametrize("fetch", FETCHES)
def test_a_query_is_one_span_that_ends_with_its_results(
    fetch: Callable[[Any], object], cursor: Any, spans: Spans
) -> None:
    cursor.execute(THREE_ROWS)
    assert spans.all == []
    fetch(cursor)
    assert spans.one.kind is SpanKind.CLIENT
    assert events_of(spans.one) == ["adbc.first_batch", "adbc.last_batch"]
    assert spans.one.status.status_code is StatusCode.UNSET
    start, end = spans.one.start_time, spans.one.end_time
    first, last = (event.timestamp for event in spans.one.events)
    assert start < first <= last <= end
    (rows,) = spans.points("db.client.response.returned_rows")
    assert (rows.count, rows.sum) == (1, 3)


def test_a_statement_without_rows_ends_on_return(cursor: Any, spans: Spans) -> None:
    cursor.execute("CREATE TABLE t (n INT)")
    assert spans.one.name == "CREATE"
    assert events_of(spans.one) == []
    assert spans.points("db.client.response.returned_rows") == []


def test_a_thousand_rows_fetched_one_by_one_make_two_events(cursor: Any, spans: Spans) -> None:
    cursor.execute(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) SELECT n FROM c"
    )
    fetch_each(cursor)
    assert len(spans.one.events) == 2


def test_results_that_are_left_unread_end_at_the_last_thing_that_the_driver_did(
    cursor: Any, spans: Spans
) -> None:
    cursor.execute(THREE_ROWS)
    cursor.fetchone()
    cursor.close()
    assert events_of(spans.one) == ["adbc.first_batch"]
    assert spans.one.end_time == spans.one.events[0].timestamp


def test_the_next_statement_of_a_cursor_ends_the_one_before(cursor: Any, spans: Spans) -> None:
    cursor.execute(THREE_ROWS)
    cursor.execute("VALUES (1)")
    assert spans.names == ["SELECT"]


def test_a_statement_that_fails_is_an_error_with_its_class_and_without_its_message(
    cursor: Any, spans: Spans
) -> None:
    with pytest.raises(Exception, match="no such table"):
        cursor.execute("SELECT 'a secret' FROM hidden")
    assert spans.one.status.status_code is StatusCode.ERROR
    assert spans.one.status.description is None
    assert spans.one.attributes["error.type"] == "adbc_driver_manager.ProgrammingError"
    assert "exception" not in events_of(spans.one)
    told = spans.one.to_json()
    assert "secret" not in told
    assert "hidden" not in told


def test_an_error_that_cannot_tell_its_message_is_told_without_it() -> None:
    import sqlite3

    class UntoldError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Failing(sqlite3.Connection):
        def commit(self) -> None:
            raise UntoldError

    spans = Spans()
    connection = spans.follow(sqlite3.connect(":memory:", factory=Failing), capture_query_text=True)
    with pytest.raises(UntoldError):
        connection.commit()
    connection.close()
    assert spans.one.status.status_code is StatusCode.ERROR
    assert spans.one.status.description is None


def test_an_ingest_that_fails_is_an_error(cursor: Any, spans: Spans) -> None:
    def batches() -> Iterator[Any]:
        yield pyarrow.record_batch({"n": [1]})
        raise ValueError("broken")

    reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema([("n", pyarrow.int64())]), batches())
    with pytest.raises(Exception, match="broken"):
        cursor.adbc_ingest("t", reader)
    assert spans.one.name == "INGEST main"
    assert spans.one.status.status_code is StatusCode.ERROR


def test_a_driver_error_with_a_code_tells_it() -> None:
    import sqlite3

    spans = Spans()
    connection = spans.follow(sqlite3.connect(":memory:"))
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("SELECT * FROM missing")
    connection.close()
    code = spans.one.attributes.get("db.response.status_code")
    assert spans.one.attributes["error.type"] == (code or "sqlite3.OperationalError")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("COMMIT main", lambda connection: connection.commit()),
        ("ROLLBACK main", lambda connection: connection.rollback()),
        ("GET_OBJECTS main", lambda connection: connection.adbc_get_objects().read_all()),
        ("GET_INFO main", lambda connection: connection.adbc_get_info()),
        ("GET_TABLE_TYPES main", lambda connection: connection.adbc_get_table_types()),
    ],
)
def test_an_operation_of_the_connection_is_a_span(
    name: str, call: Callable[[Any], object], connection: Any, spans: Spans
) -> None:
    call(connection)
    assert spans.names == [name]


def test_a_script_is_one_span(cursor: Any, spans: Spans) -> None:
    cursor.executescript("CREATE TABLE t (n INT); INSERT INTO t VALUES (1);")
    assert spans.names == ["EXECUTE_SCRIPT main"]


# The context.


def test_a_span_s_parent_is_the_span_at_execute(connection: Any, spans: Spans) -> None:
    with spans.tracer().start_as_current_span("request") as request, connection.cursor() as cursor:
        cursor.execute(THREE_ROWS)
    cursor.close()
    (span,) = (span for span in spans.all if span.name == "SELECT")
    assert span.parent.span_id == request.get_span_context().span_id


def test_a_span_is_the_current_one_while_the_driver_works_and_not_afterwards(
    cursor: Any, spans: Spans
) -> None:
    before = trace.get_current_span()
    seen = []

    def batches() -> Iterator[Any]:
        seen.append(trace.get_current_span())
        yield pyarrow.record_batch({"n": [1]})

    reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema([("n", pyarrow.int64())]), batches())
    cursor.adbc_ingest("t", reader)
    assert [span.get_span_context() for span in seen] == [spans.one.get_span_context()]
    assert trace.get_current_span() is before
    cursor.execute(THREE_ROWS)
    assert trace.get_current_span() is before
    with pytest.raises(Exception, match="no such table"):
        cursor.execute("SELECT * FROM missing")
    assert trace.get_current_span() is before


def test_a_reader_that_outlives_its_cursor_ends_the_span_with_its_last_batch(
    connection: Any, spans: Spans
) -> None:
    def reader() -> Any:
        cursor = connection.cursor()
        cursor.execute(THREE_ROWS)
        return cursor.fetch_record_batch(), cursor

    batches, cursor = reader()
    assert spans.all == []
    assert batches.read_all().num_rows == 3
    cursor.close()
    assert events_of(spans.one) == ["adbc.first_batch", "adbc.last_batch"]


def test_a_stream_s_span_lasts_until_the_cursor_is_closed_and_counts_no_rows(
    cursor: Any, spans: Spans
) -> None:
    cursor.execute(THREE_ROWS)
    assert pyarrow.table(cursor.fetch_arrow()).num_rows == 3
    read_at = time.time_ns()
    cursor.close()
    assert spans.one.end_time >= read_at
    assert events_of(spans.one) == []
    assert spans.points("db.client.response.returned_rows") == []


def test_a_cursor_that_is_dropped_ends_its_span_once(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    cursor.execute(THREE_ROWS)
    holder = [cursor]
    del cursor
    with pytest.warns(ResourceWarning):
        holder.clear()
    gc.collect()
    assert spans.names == ["SELECT"]


def test_results_may_be_fetched_and_ended_by_other_threads(connection: Any, spans: Spans) -> None:
    with spans.tracer().start_as_current_span("request") as request:
        cursor = connection.cursor()
        cursor.execute(THREE_ROWS)
        threads = [threading.Thread(target=cursor.fetchone), threading.Thread(target=cursor.close)]
        for thread in threads:
            thread.start()
            thread.join()
    assert cursor.connection is connection
    (span,) = (span for span in spans.all if span.name == "SELECT")
    assert span.parent.span_id == request.get_span_context().span_id


def test_tasks_of_asyncio_have_their_own_parents(spans: Spans) -> None:
    sqlite = pytest.importorskip("adbc_driver_sqlite.dbapi")

    async def request(number: int) -> None:
        with spans.tracer().start_as_current_span(f"request {number}"), sqlite.connect() as raw:
            connection = spans.follow(raw)
            for _ in range(3):
                with connection.cursor() as cursor:
                    await asyncio.to_thread(cursor.execute, THREE_ROWS)
                    await asyncio.sleep(0)
                    await asyncio.to_thread(cursor.fetchall)

    async def requests() -> None:
        await asyncio.gather(*(request(number) for number in range(4)))

    asyncio.run(requests())
    of_requests = {span.get_span_context().span_id: span.name for span in spans.all if span.name != "SELECT"}
    parents = [of_requests[span.parent.span_id] for span in spans.all if span.name == "SELECT"]
    assert sorted(parents) == sorted([f"request {number}" for number in range(4)] * 3)


def test_an_error_in_the_span_processor_does_not_reach_the_program(raw: Any) -> None:
    from opentelemetry.sdk.trace import SpanProcessor

    class Broken(SpanProcessor):  # type: ignore[misc, unused-ignore]
        def on_start(self, span: object, parent_context: object = None) -> None:
            raise RuntimeError("broken")

    spans = Spans()
    spans.tracer_provider.add_span_processor(Broken())
    connection = spans.follow(raw)
    with connection.cursor() as cursor:
        cursor.execute(THREE_ROWS)
        assert len(cursor.fetchall()) == 3
    assert connection._adbc_telemetry.observer.tracing.errors == 1


@pytest.mark.parametrize("module", [statement_recorder, spans_module])
def test_a_signal_handler_that_raises_leaves_no_span_behind_as_the_current_one(
    cursor: Any, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    name = "attach" if module is spans_module else "next_number"
    original = getattr(module, name)

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(module, name, original)
        original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        cursor.execute("SELECT 1")
    assert not get_current_span().get_span_context().is_valid

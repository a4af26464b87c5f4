"""Readers and streams that a cursor hands out: one event, at their end, and batches as the driver gives them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adbc_telemetry.instrumentation.readers import follow_reader
from adbc_telemetry.testing import CapturingExporter, Event, FakeClock
from support.databases import ADBC, Database, Followed, database_of, followed
from support.differential import outcomes
from support.matrix import CREATE, DELETE, QUERY, consume, drain

pyarrow = pytest.importorskip("pyarrow")

ROWS = 200_000
MANY = {
    "ADBC SQLite": f"WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {ROWS}) SELECT n FROM r",
    "ADBC DuckDB": f"SELECT range + 1 AS n FROM range({ROWS})",
    "ADBC PostgreSQL": f"SELECT n::bigint FROM generate_series(1, {ROWS}) s(n)",
}
# A failure that comes when rows have been read already.
FAILS_LATE = {
    "ADBC SQLite": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5000) "
    "SELECT CASE WHEN n < 4000 THEN n ELSE 'a text' END FROM r",
    "ADBC PostgreSQL": "SELECT 1 / (3000000 - n) FROM generate_series(1, 3000001) s(n)",
}


@pytest.fixture(params=ADBC)
def on(request: pytest.FixtureRequest) -> Iterator[Followed]:
    for thing in followed(request, request.param):
        thing.captured.wait_for(1)
        thing.captured.clear()
        yield thing


@pytest.fixture(params=FAILS_LATE)
def failing(request: pytest.FixtureRequest) -> Iterator[Followed]:
    for thing in followed(request, request.param):
        thing.captured.wait_for(1)
        thing.captured.clear()
        yield thing


def open_reader(thing: Followed, sql: str | None = None) -> tuple[Any, Any]:
    cursor = thing.connection.cursor()
    cursor.execute(sql or MANY[thing.database.name])
    return cursor, cursor.fetch_record_batch()


READ: dict[str, Callable[[Any], Any]] = {
    "read_all": lambda r: r.read_all().num_rows,
    "iteration": lambda r: sum(batch.num_rows for batch in r),
    "read_pandas": lambda r: pytest.importorskip("pandas") and len(r.read_pandas()),
    "the PyCapsule interface": lambda r: pyarrow.table(pyarrow.RecordBatchReader.from_stream(r)).num_rows,
    "polars": lambda r: pytest.importorskip("polars").from_arrow(r).height,
    "another reader": lambda r: r.cast(r.schema).read_all().num_rows,
}


@pytest.mark.parametrize("how", READ)
def test_a_statement_ends_with_its_reader(how: str, on: Followed) -> None:
    cursor, reader = open_reader(on)
    assert type(reader) is pyarrow.RecordBatchReader
    assert READ[how](reader) == ROWS
    on.captured.wait_for(1)
    cursor.close()
    del reader
    on.connection.close()
    on.captured.wait_for(2)
    assert on.captured.events == [QUERY, DELETE]


def test_latencies_are_those_of_the_batches(on: Followed) -> None:
    with FakeClock() as clock:
        cursor, reader = open_reader(on)
        clock.advance_ms(30)
        reader.read_next_batch()
        clock.advance_ms(20)
        reader.read_all()
        clock.advance_ms(600_000)
        [log] = on.captured.wait_for(1)
        cursor.close()
    assert log.operation_latency_ms == 50
    assert log.sql_operation is not None
    assert log.sql_operation.result_latency is not None
    assert log.sql_operation.result_latency.result_set_ready_latency_millis == 30
    assert log.sql_operation.result_latency.result_set_consumption_latency_millis == 50


def drop_reader(cursor: Any, holder: list[Any]) -> None:
    holder.clear()
    gc.collect()


ENDS: dict[str, Callable[[Any, list[Any]], object]] = {
    "reader dropped": drop_reader,
    "cursor closed": lambda cursor, holder: cursor.close(),
    "cursor used again": lambda cursor, holder: cursor.execute("SELECT 1").fetchall(),
    "connection closed": lambda cursor, holder: cursor.connection.close(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("batches", [0, 1])
def test_a_reader_that_is_not_read_to_the_end_is_one_event_until_its_last_batch(
    batches: int, end: str, on: Followed
) -> None:
    with FakeClock() as clock:
        cursor, reader = open_reader(on)
        holder = [reader]
        del reader
        clock.advance_ms(30)
        for _ in range(batches):
            holder[0].read_next_batch()
        clock.advance_ms(600_000)
        ENDS[end](cursor, holder)
        log = on.captured.wait_for(1)[0]
    again = [QUERY] if end == "cursor used again" else []
    cursor.close()
    holder.clear()
    on.connection.close()
    on.captured.wait_for(2 + len(again))
    assert on.captured.events == [QUERY, *again, DELETE]
    assert log.operation_latency_ms == 30 * batches
    assert log.sql_operation is not None
    assert log.sql_operation.result_latency is not None
    assert log.sql_operation.result_latency.result_set_consumption_latency_millis is None


def test_a_reader_closed_by_hand_is_one_event(on: Followed) -> None:
    cursor, reader = open_reader(on)
    with reader as entered:
        entered.read_next_batch()
    del reader, entered
    on.captured.wait_for(1)
    cursor.close()
    assert on.captured.events == [QUERY]


def test_a_reader_that_fails_is_one_event_with_the_error(failing: Followed) -> None:
    cursor, reader = open_reader(failing, FAILS_LATE[failing.database.name])
    with pytest.raises((OSError, pyarrow.ArrowInvalid)) as failure:
        drain(reader)
    with pytest.raises((OSError, pyarrow.ArrowInvalid)):
        drain(reader)
    cursor.close()
    failing.captured.wait_for(1)
    del reader
    failing.connection.close()
    failing.captured.wait_for(2)
    assert failing.captured.events == [QUERY._replace(error_name=failure.type.__name__), DELETE]


def test_a_reader_of_the_statement_before_says_nothing_of_the_next(on: Followed) -> None:
    cursor, reader = open_reader(on)
    cursor.execute("SELECT 1")
    with pytest.raises(pyarrow.ArrowInvalid):
        reader.read_next_batch()
    del reader
    assert cursor.fetchall() == [(1,)]
    cursor.close()
    on.captured.wait_for(2)
    assert on.captured.events == [QUERY, QUERY]


def test_the_cursor_goes_on_where_its_reader_stopped(on: Followed) -> None:
    cursor, reader = open_reader(on)
    read = reader.read_next_batch().num_rows
    assert cursor.fetch_record_batch() is reader
    assert cursor.fetchone() == (None if read == ROWS else (read + 1,))
    assert len(cursor.fetchall()) == max(0, ROWS - read - 1)
    on.captured.wait_for(1)
    cursor.close()
    assert on.captured.events == [QUERY]


def test_an_interrupt_passes_through_a_reader(on: Followed) -> None:
    class Interrupted:
        schema = pyarrow.schema([("n", pyarrow.int64())])
        from_batches = staticmethod(pyarrow.RecordBatchReader.from_batches)

        def read_next_batch(self) -> None:
            raise KeyboardInterrupt

    cursor = on.connection.cursor()
    cursor.execute("SELECT 1")
    reader = follow_reader(cursor._adbc_telemetry, Interrupted())
    with pytest.raises(KeyboardInterrupt):
        reader.read_next_batch()
    cursor.close()
    on.captured.wait_for(1)
    assert on.captured.events == [Event("EXECUTE_STATEMENT", "QUERY", "KeyboardInterrupt")]


def test_a_reader_may_be_read_in_another_thread_while_its_cursor_is_closed(on: Followed) -> None:
    for _ in range(5):
        cursor, reader = open_reader(on)
        reader.read_next_batch()
        dropping = threading.Thread(target=cursor._adbc_telemetry.end)
        dropping.start()
        reader.read_all()
        dropping.join()
        cursor.close()
    on.captured.wait_for(5)
    assert on.captured.events == [QUERY] * 5


def test_a_stream_ends_with_its_cursor_and_is_the_drivers_own(on: Followed) -> None:
    from adbc_driver_manager._lib import ArrowArrayStreamHandle

    with FakeClock() as clock:
        cursor = on.connection.cursor()
        cursor.execute(MANY[on.database.name])
        clock.advance_ms(30)
        stream = cursor.fetch_arrow()
        assert type(stream) is ArrowArrayStreamHandle
        assert consume(stream) == ROWS
        clock.advance_ms(600_000)
        cursor.close()
        [log] = on.captured.wait_for(1)
    assert on.captured.events == [QUERY]
    assert log.operation_latency_ms == 30


def test_a_stream_may_outlive_its_cursor(request: pytest.FixtureRequest) -> None:
    for thing in followed(request, "ADBC DuckDB"):
        cursor = thing.connection.cursor()
        cursor.execute("SELECT 1 AS n")
        stream = cursor.fetch_arrow()
        cursor.close()
        thing.captured.wait_for(2)
        assert pyarrow.table(stream).to_pylist() == [{"n": 1}]
        del stream
        assert thing.captured.events == [CREATE, QUERY]


def steps(connection: Any, name: str) -> Iterator[Callable[[], object]]:
    """What a program may do with what it is handed out."""
    cursor = connection.cursor()
    yield lambda: cursor.execute(MANY[name]) is cursor
    reader = cursor.fetch_record_batch()
    yield lambda: (type(reader), reader.schema)
    yield lambda: reader.read_next_batch().num_rows
    yield lambda: reader.read_next_batch_with_custom_metadata()
    yield lambda: next(reader.iter_batches_with_custom_metadata())
    yield lambda: cursor.fetch_record_batch() is reader
    yield cursor.fetchone
    yield lambda: reader.read_all().num_rows
    if name != "ADBC DuckDB":  # some versions of it fail when they are read beyond the end
        yield reader.read_next_batch
        yield cursor.fetchone
        yield lambda: cursor.fetch_record_batch().read_all().num_rows
    yield cursor.fetch_arrow
    if name in FAILS_LATE:
        yield lambda: cursor.execute(FAILS_LATE[name]).fetch_record_batch().read_all()
        yield lambda: drain(cursor.execute(FAILS_LATE[name]).fetch_record_batch())
        yield lambda: consume(cursor.execute(FAILS_LATE[name]).fetch_arrow())
        yield lambda: cursor.execute(FAILS_LATE[name]).fetch_arrow_table()
        yield lambda: cursor.execute(FAILS_LATE[name]).fetchall()
        yield lambda: cursor.execute(FAILS_LATE[name]).fetch_polars()
    yield connection.rollback
    yield lambda: consume(cursor.execute("SELECT 1").fetch_arrow())
    yield lambda: cursor.execute("SELECT 1").fetch_arrow().address > 0
    last = cursor.execute(MANY[name]).fetch_record_batch()
    yield cursor.close
    yield last.read_next_batch
    yield connection.close


@pytest.mark.parametrize("name", ADBC)
def test_a_program_sees_no_difference(name: str, request: pytest.FixtureRequest) -> None:
    database: Database = database_of(request, name)
    without = outcomes(steps(database.open(), name), whole_traces=False)
    for thing in followed(request, name):
        for one, other in zip(
            outcomes(steps(thing.connection, name), whole_traces=False), without, strict=True
        ):
            assert one == other


def test_readers_may_be_ingested_by_another_connection(request: pytest.FixtureRequest) -> None:
    for source in followed(request, "ADBC SQLite"):
        for target in followed(request, "ADBC DuckDB"):
            cursor, reader = open_reader(source)
            with target.connection.cursor() as into:
                assert into.adbc_ingest("t", reader) in (ROWS, -1)
                assert into.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)
            source.captured.wait_for(2)
            cursor.close()


def test_captured_events_are_those_of_one_connection(request: pytest.FixtureRequest) -> None:
    for thing in followed(request, "ADBC SQLite"):
        assert isinstance(thing.captured, CapturingExporter)
        assert {log.session_id for log in thing.captured.wait_for(1)} == {"the session"}

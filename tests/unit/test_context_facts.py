"""What a driver's readers know, and how a statement's context is told."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from adbc_telemetry import StatementTelemetryContext, TelemetrySessionContext
from adbc_telemetry.context import internal_calls
from adbc_telemetry.driver_facts.error_category import ErrorCategory
from adbc_telemetry.schema import (
    ChunkDetails,
    DriverErrorInfo,
    ExecutionResultFormat,
    OssSqlDriverTelemetryLog,
    SqlExecutionEvent,
    StatementType,
    VolumeOperationEvent,
    VolumeOperationType,
)
from adbc_telemetry.testing import CapturedClient, FakeClock
from support.waiting import run_in_threads


def statement(**session: Any) -> StatementTelemetryContext:
    return StatementTelemetryContext(TelemetrySessionContext(session_id="s", **session))


def operation(context: StatementTelemetryContext) -> SqlExecutionEvent:
    told = context.build_telemetry_log().sql_operation
    assert told is not None
    return told


def is_internal(context: StatementTelemetryContext) -> bool | None:
    detail = operation(context).operation_detail
    assert detail is not None
    return detail.is_internal_call


# Readers


def test_the_reader_that_the_answer_led_to_beats_the_session_s_defaults() -> None:
    context = statement(
        default_result_format=ExecutionResultFormat.EXTERNAL_LINKS, default_compression_enabled=True
    )
    context.record_reader(result_format=ExecutionResultFormat.INLINE_ARROW, is_compressed=False)
    told = operation(context)
    assert (told.execution_result, told.is_compressed) == (ExecutionResultFormat.INLINE_ARROW, False)


def test_what_the_reader_does_not_name_stays_the_session_s_default() -> None:
    context = statement(
        default_result_format=ExecutionResultFormat.EXTERNAL_LINKS, default_compression_enabled=True
    )
    context.record_reader()
    told = operation(context)
    assert (told.execution_result, told.is_compressed) == (ExecutionResultFormat.EXTERNAL_LINKS, True)
    assert told.chunk_details is None


def test_chunks_that_are_present_and_chunks_that_were_read_are_told_apart() -> None:
    context = statement()
    context.record_reader(total_chunks_present=5)
    for latency in (30, 20, 50):
        context.record_chunk(latency)
    assert operation(context).chunk_details == ChunkDetails(30, 50, 5, 3, 100)


def test_a_later_word_on_chunks_beats_an_earlier_one_in_what_it_names() -> None:
    context = statement()
    context.set_chunk_details(total_chunks_present=5, total_chunks_iterated=1)
    context.set_chunk_details(total_chunks_iterated=4)
    assert operation(context).chunk_details == ChunkDetails(total_chunks_present=5, total_chunks_iterated=4)


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_switches")
def test_chunks_may_be_recorded_by_several_threads_at_once() -> None:
    context = statement()

    def download(_: int) -> None:
        for _ in range(2_000):
            context.record_chunk(1)

    run_in_threads(4, download)
    assert operation(context).chunk_details == ChunkDetails(1, 1, None, 8_000, 8_000)


def test_retries_add_up() -> None:
    context = statement()
    assert operation(context).retry_count is None
    context.record_retry()
    context.record_retry(2)
    assert operation(context).retry_count == 3


def test_a_retry_that_is_no_number_is_counted_as_an_error_and_raises_nothing() -> None:
    context = statement()
    context.record_retry("two")  # type: ignore[arg-type]
    assert (operation(context).retry_count, context.errors) == (None, 1)


def test_a_volume_operation_tells_what_was_done_and_no_path() -> None:
    context = statement()
    context.statement_type = StatementType.VOLUME
    context.volume_operation = VolumeOperationType.PUT
    log = context.build_telemetry_log()
    assert log.vol_operation == VolumeOperationEvent(VolumeOperationType.PUT)
    assert operation(context).statement_type is StatementType.VOLUME


def test_a_statement_that_was_timed_elsewhere_began_before_its_context() -> None:
    with FakeClock() as clock:
        context = statement()
        clock.advance_ms(5)
        context.began_before(250.5)
        context.record_execute_complete()
        log = context.build_telemetry_log()
    assert log.operation_latency_ms == 250
    latency = operation(context).result_latency
    assert latency is not None
    assert latency.result_set_ready_latency_millis == 250


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "soon", None])
def test_a_time_that_is_none_is_counted_and_the_statement_began_with_its_context(wrong: Any) -> None:
    with FakeClock() as clock:
        context = statement()
        clock.advance_ms(5)
        context.began_before(wrong)
        assert context.build_telemetry_log().operation_latency_ms == 5
    assert context.errors == 1


# Internal calls


def test_a_statement_of_the_driver_s_own_is_marked_by_the_driver() -> None:
    session = TelemetrySessionContext(session_id="s")
    assert is_internal(StatementTelemetryContext(session, is_internal_call=True))


def test_statements_in_a_block_of_internal_calls_are_marked_and_those_behind_it_are_not() -> None:
    with internal_calls():
        inside = statement()
        with internal_calls():
            deeper = statement()
        after_the_inner_block = statement()
    outside = statement()
    marks = [is_internal(each) for each in (inside, deeper, after_the_inner_block, outside)]
    assert marks == [True, True, True, False]


def test_the_mark_is_of_the_statement_s_beginning() -> None:
    began_outside = statement()
    with internal_calls():
        assert is_internal(began_outside) is False


def test_the_mark_belongs_to_a_thread_and_a_task() -> None:
    marks: list[bool | None] = []
    with internal_calls():
        run_in_threads(1, lambda _: marks.append(is_internal(statement())))

    async def heartbeat() -> None:
        with internal_calls():
            await asyncio.sleep(0)
            marks.append(is_internal(statement()))

    async def users() -> None:
        await asyncio.sleep(0)
        marks.append(is_internal(statement()))

    async def both() -> None:
        await asyncio.gather(heartbeat(), users())

    asyncio.run(both())
    assert sorted(map(bool, marks)) == [False, False, True]


def test_a_block_that_is_left_in_another_context_raises_nothing() -> None:
    block = internal_calls()
    contextvars.copy_context().run(block.__enter__)
    assert not block.__exit__(None, None, None)
    assert is_internal(statement()) is False


def test_an_error_passes_through_the_block() -> None:
    with pytest.raises(ValueError, match="the driver's"), internal_calls():
        raise ValueError("the driver's")


# Categories of errors


def failed(**session: Any) -> tuple[StatementTelemetryContext, OssSqlDriverTelemetryLog]:
    client = CapturedClient()
    with pytest.raises(TimeoutError), statement(client=client, **session) as context:
        raise TimeoutError("SELECT secret")
    [event] = client.wait_for(1)
    return context, event


def test_the_category_is_known_to_the_driver_and_stays_in_the_process() -> None:
    context, log = failed()
    assert context.error_category is ErrorCategory.TIMEOUT
    assert log.error_info == DriverErrorInfo("TimeoutError")


def test_the_category_travels_as_a_bare_word_where_the_session_says_so() -> None:
    _, log = failed(error_categories=True)
    assert log.error_info == DriverErrorInfo("TimeoutError", "timeout")


def test_the_first_error_gives_the_category_and_without_one_there_is_none() -> None:
    context = statement(error_categories=True)
    assert context.error_category is None
    assert context.build_telemetry_log().error_info is None
    context.record_error(PermissionError())
    context.record_error(TimeoutError())
    assert context.build_telemetry_log().error_info == DriverErrorInfo("PermissionError", "permission")


def test_a_word_that_is_no_yes_opens_nothing() -> None:
    session = TelemetrySessionContext(error_categories="yes")  # type: ignore[arg-type]
    assert session.errors == 1
    context = StatementTelemetryContext(session)
    context.record_error(TimeoutError())
    assert context.build_telemetry_log().error_info == DriverErrorInfo("TimeoutError")

"""This project, by its public names only."""

from __future__ import annotations

from itertools import repeat
from typing import Final

from adbc_telemetry import (
    StatementTelemetryContext,
    TelemetryClient,
    TelemetryClientProtocol,
    TelemetryConfiguration,
    TelemetrySessionContext,
)
from adbc_telemetry.core.ids import new_id
from adbc_telemetry.schema import (
    ChunkDetails,
    ExecutionResultFormat,
    FrontendLogContext,
    FrontendLogEntry,
    OperationDetail,
    OperationType,
    OssSqlDriverTelemetryLog,
    ResultLatency,
    SqlExecutionEvent,
    StatementType,
    TelemetryClientContext,
    TelemetryFrontendLog,
)
from adbc_telemetry.system import detect_system_configuration
from systems import USER_AGENT, Facts, Settings

_SYSTEM: Final = detect_system_configuration(
    driver_name="adbc-driver", driver_version="1.2.3", client_app_name="benchmark"
)


def make_session(client: TelemetryClientProtocol | None) -> TelemetrySessionContext:
    return TelemetrySessionContext(
        session_id=new_id(),
        system_configuration=_SYSTEM,
        default_result_format=ExecutionResultFormat.INLINE_ARROW,
        default_compression_enabled=True,
        client=client,
        user_agent=USER_AGENT,
    )


def make_statement(session: TelemetrySessionContext) -> StatementTelemetryContext:
    return StatementTelemetryContext(
        session, statement_type=StatementType.QUERY, operation_type=OperationType.EXECUTE_STATEMENT
    )


def record_facts(statement: StatementTelemetryContext) -> None:
    """Record the six facts of a successful statement."""
    statement.record_poll(3)
    statement.record_execute_complete()
    statement.record_first_batch_ready()
    statement.record_chunk(2)
    statement.retry_count = 0
    statement.record_results_consumed()


def whole_statement(session: TelemetrySessionContext) -> None:
    """Make the context, record six facts, build the log and enqueue it."""
    statement = make_statement(session)
    record_facts(statement)
    statement.emit()


def make_log(session: TelemetrySessionContext, facts: Facts) -> TelemetryFrontendLog:
    """The log of a statement with given facts instead of measured ones."""
    return TelemetryFrontendLog(
        frontend_log_event_id=new_id(),
        context=FrontendLogContext(
            client_context=TelemetryClientContext(
                timestamp_millis=facts.timestamp_millis, user_agent=session.user_agent
            )
        ),
        entry=FrontendLogEntry(
            sql_driver_log=OssSqlDriverTelemetryLog(
                session_id=session.session_id,
                sql_statement_id=facts.statement_id,
                system_configuration=session.system_configuration,
                sql_operation=SqlExecutionEvent(
                    statement_type=StatementType.QUERY,
                    is_compressed=True,
                    execution_result=ExecutionResultFormat.INLINE_ARROW,
                    retry_count=facts.retry_count,
                    chunk_details=ChunkDetails(
                        initial_chunk_latency_millis=facts.first_chunk_ms,
                        slowest_chunk_latency_millis=facts.slowest_chunk_ms,
                        total_chunks_iterated=facts.chunks,
                        sum_chunks_download_time_millis=facts.chunks_ms,
                    ),
                    result_latency=ResultLatency(
                        result_set_ready_latency_millis=facts.ready_ms,
                        result_set_consumption_latency_millis=facts.consumed_ms,
                    ),
                    operation_detail=OperationDetail(
                        n_operation_status_calls=facts.polls,
                        operation_status_latency_millis=facts.polls_ms,
                        operation_type=OperationType.EXECUTE_STATEMENT,
                        is_internal_call=False,
                    ),
                ),
                operation_latency_ms=facts.total_ms,
            )
        ),
    )


def make_config(settings: Settings, *, events: int, idle: bool, gzip: bool = False) -> TelemetryConfiguration:
    return TelemetryConfiguration(
        enabled=True,
        batch_size=2 * events if idle else settings["batch_size"],
        max_queue_size=4 * events,
        flush_interval_ms=600_000 if idle else 5_000,
        max_request_bytes=settings["max_request_bytes"],
        close_timeout_ms=60_000,
        compression="gzip" if gzip else "none",
    )


class Ours:
    """A session with its own client."""

    CANDIDATES = tuple(
        {"batch_size": size, "max_request_bytes": 64_000_000} for size in (500, 1_000, 2_000, 5_000, 10_000)
    )
    BEST = CANDIDATES[2]

    def __init__(self, url: str, settings: Settings, *, events: int, idle: bool, gzip: bool) -> None:
        config = make_config(settings, events=events, idle=idle, gzip=gzip)
        self.client = TelemetryClient(url, config)
        self.session = make_session(self.client)

    def emit(self) -> None:
        whole_statement(self.session)

    def emit_facts(self, facts: Facts) -> None:
        self.client.enqueue(make_log(self.session, facts))

    def emit_ready(self, count: int) -> None:
        """Enqueue ready logs, to measure the pipeline alone."""
        log, enqueue = make_log(self.session, EXAMPLE), self.client.enqueue
        for _ in repeat(None, count):
            enqueue(log)

    def pay(self) -> None:
        pass

    def finish(self) -> int:
        self.client.flush()
        return self.client.stats().delivered

    def close(self) -> None:
        self.client.close()


EXAMPLE: Final = Facts(
    statement_id="01ef-5b7c-1d2e-4f3a",
    timestamp_millis=1_764_000_000_000,
    retry_count=0,
    polls=1,
    polls_ms=3,
    chunks=1,
    first_chunk_ms=2,
    slowest_chunk_ms=2,
    chunks_ms=2,
    ready_ms=14,
    consumed_ms=27,
    total_ms=27,
)

SYSTEM = Ours

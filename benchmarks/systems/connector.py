"""The telemetry client of `databricks-sql-connector`, built as the connector's factory builds it."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from databricks.sql.auth.common import ClientContext
from databricks.sql.telemetry.models.enums import ExecutionResultFormat, StatementType
from databricks.sql.telemetry.models.event import (
    ChunkDetails,
    OperationDetail,
    ResultLatency,
    SqlExecutionEvent,
)
from databricks.sql.telemetry.telemetry_client import TelemetryClient

from systems import USER_AGENT, Facts, Settings, statement_ids


class _CountingClient(TelemetryClient):
    """Counts accepted events, once per request, in the sending thread."""

    accepted = 0
    _counting = threading.Lock()

    def _telemetry_request_callback(self, future: Future[Any], sent_count: int) -> None:
        super()._telemetry_request_callback(future, sent_count)
        if future.exception() is None and 200 <= future.result().status < 300:
            with self._counting:
                self.accepted += sent_count


class Connector:
    """A session and its client, which serialises each full batch on the calling thread: see `pay`."""

    # The factory's pool always has ten workers; fewer may be faster here.
    CANDIDATES = (
        {"batch_size": 100, "workers": 10},
        {"batch_size": 1_000, "workers": 1},
        {"batch_size": 5_000, "workers": 1},
    )
    BEST = CANDIDATES[1]

    def __init__(self, url: str, settings: Settings, *, events: int, idle: bool, gzip: bool) -> None:
        if gzip:
            raise ValueError("the connector's telemetry knows no compression")
        self._executor = ThreadPoolExecutor(max_workers=settings["workers"])
        self._session_id = "01ef-5b7c-1d2e-4f3a-8b9c-0d1e2f3a4b5c"
        self._client = _CountingClient(
            telemetry_enabled=True,
            session_id_hex=self._session_id,
            auth_provider=None,
            host_url=url,
            executor=self._executor,
            batch_size=2 * events if idle else settings["batch_size"],
            client_context=ClientContext(hostname=url, user_agent=USER_AGENT),
        )
        self._client._user_agent = USER_AGENT  # as `export_initial_telemetry_log` does, without its event
        self._next_id = statement_ids().__next__

    def emit(self) -> None:
        self._client.export_latency_log(
            27,
            SqlExecutionEvent(
                statement_type=StatementType.QUERY,
                is_compressed=True,
                execution_result=ExecutionResultFormat.INLINE_ARROW,
                retry_count=0,
                chunk_id=None,
                chunk_details=ChunkDetails(2, 2, None, 1, 2),
                result_latency=ResultLatency(14, 27),
                operation_detail=OperationDetail(1, 3, "EXECUTE_STATEMENT", False),
            ),
            self._next_id(),
            self._session_id,
        )

    def emit_facts(self, facts: Facts) -> None:
        self._client.export_latency_log(
            facts.total_ms,
            SqlExecutionEvent(
                statement_type=StatementType.QUERY,
                is_compressed=True,
                execution_result=ExecutionResultFormat.INLINE_ARROW,
                retry_count=facts.retry_count,
                chunk_id=None,
                chunk_details=ChunkDetails(
                    facts.first_chunk_ms, facts.slowest_chunk_ms, None, facts.chunks, facts.chunks_ms
                ),
                result_latency=ResultLatency(facts.ready_ms, facts.consumed_ms),
                operation_detail=OperationDetail(facts.polls, facts.polls_ms, "EXECUTE_STATEMENT", False),
            ),
            facts.statement_id,
            self._session_id,
        )

    def pay(self) -> None:
        self._client.close()  # a flush: serialises everything and hands it to the pool

    def finish(self) -> int:
        self._client.close()
        self._executor.shutdown(wait=True)
        return self._client.accepted

    def close(self) -> None:
        self._executor.shutdown(wait=True)


SYSTEM = Connector

"""OpenTelemetry: the SDK's batch log processor with its OTLP/HTTP exporter."""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from systems import USER_AGENT, Facts, Settings, statement_ids

# The twelve fields about the process in our event; sent once per request.
_RESOURCE = Resource(
    {
        "driver_version": "1.2.3",
        "runtime_name": "CPython 3.11.7",
        "runtime_version": "3.11.7",
        "runtime_vendor": "CPython",
        "os_name": "Linux",
        "os_version": "Debian GNU/Linux 12 (bookworm)",
        "os_arch": "x86_64",
        "driver_name": "adbc-driver",
        "client_app_name": "benchmark",
        "locale_name": "en_US",
        "char_set_encoding": "UTF-8",
        "process_name": "measure.py",
        "user_agent": USER_AGENT,
    }
)


class _CountingExporter(OTLPLogExporter):
    """Counts accepted events, once per request."""

    accepted = 0

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = super().export(batch)
        if result is LogRecordExportResult.SUCCESS:
            self.accepted += len(batch)
        return result


class OpenTelemetry:
    """A logger whose events have ten attributes; in its favour, polls and chunks are left out."""

    CANDIDATES = (
        {"max_export_batch_size": 512, "schedule_delay_millis": 1_000},
        {"max_export_batch_size": 2_048, "schedule_delay_millis": 1_000},
        {"max_export_batch_size": 8_192, "schedule_delay_millis": 1_000},
    )
    BEST = CANDIDATES[1]

    def __init__(self, url: str, settings: Settings, *, events: int, idle: bool, gzip: bool) -> None:
        self._exporter = _CountingExporter(
            endpoint=f"{url}/v1/logs",
            compression=Compression.Gzip if gzip else Compression.NoCompression,
            timeout=60,
            max_request_size=0,
        )
        self._provider = LoggerProvider(resource=_RESOURCE, shutdown_on_exit=False)
        # The queue holds all events: a full one drops the oldest.
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                self._exporter,
                schedule_delay_millis=600_000 if idle else settings["schedule_delay_millis"],
                max_export_batch_size=2 * events if idle else settings["max_export_batch_size"],
                max_queue_size=max(4 * events, settings["max_export_batch_size"]),
            )
        )
        self._logger = self._provider.get_logger("adbc-driver", "1.2.3")
        self._session_id = "01ef-5b7c-1d2e-4f3a-8b9c-0d1e2f3a4b5c"
        self._next_id = statement_ids().__next__

    def emit(self) -> None:
        self._logger.emit(
            timestamp=time.time_ns(),
            event_name="statement",
            attributes={
                "session_id": self._session_id,
                "statement_id": self._next_id(),
                "statement_type": "QUERY",
                "operation_type": "EXECUTE_STATEMENT",
                "execution_result": "INLINE_ARROW",
                "is_compressed": True,
                "retry_count": 0,
                "ready_latency_ms": 14,
                "consumption_latency_ms": 27,
                "operation_latency_ms": 27,
            },
        )

    def emit_facts(self, facts: Facts) -> None:
        self._logger.emit(
            timestamp=facts.timestamp_millis * 1_000_000,
            event_name="statement",
            attributes={
                "session_id": self._session_id,
                "statement_id": facts.statement_id,
                "statement_type": "QUERY",
                "operation_type": "EXECUTE_STATEMENT",
                "execution_result": "INLINE_ARROW",
                "is_compressed": True,
                "retry_count": facts.retry_count,
                "ready_latency_ms": facts.ready_ms,
                "consumption_latency_ms": facts.consumed_ms,
                "operation_latency_ms": facts.total_ms,
            },
        )

    def pay(self) -> None:
        pass

    def finish(self) -> int:
        self._provider.force_flush()
        return self._exporter.accepted

    def close(self) -> None:
        self._provider.shutdown()


SYSTEM = OpenTelemetry

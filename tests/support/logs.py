"""Events for tests to send."""

from __future__ import annotations

from typing import Any

from adbc_telemetry.core.ids import new_id
from adbc_telemetry.schema import (
    FrontendLogContext,
    FrontendLogEntry,
    OssSqlDriverTelemetryLog,
    TelemetryClientContext,
    TelemetryFrontendLog,
)


def make_log(event_id: str | None = None, **fields: Any) -> TelemetryFrontendLog:
    return TelemetryFrontendLog(
        workspace_id=1,
        frontend_log_event_id=event_id or new_id(),
        context=FrontendLogContext(
            client_context=TelemetryClientContext(timestamp_millis=1_764_000_000_000, user_agent="test")
        ),
        entry=FrontendLogEntry(sql_driver_log=OssSqlDriverTelemetryLog(**fields)),
    )


def make_logs(count: int) -> list[TelemetryFrontendLog]:
    return [make_log() for _ in range(count)]


def ids_of(logs: list[TelemetryFrontendLog]) -> list[str]:
    return [log.frontend_log_event_id or "" for log in logs]

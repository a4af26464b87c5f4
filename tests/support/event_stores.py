"""Stores of events made by hand, in Parquet files and in the journal."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from adbc_telemetry.collector.store.compaction import Compactor
from adbc_telemetry.collector.store.layout import StoreFolder, create_store

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc).timestamp()


def an_event(
    *,
    at: float | None = NOON,
    operation: str | None = "EXECUTE_STATEMENT",
    statement_type: str | None = "QUERY",
    driver: str | None = "a driver",
    version: str | None = "1.0",
    host: str | None = "a.example",
    error: str | None = None,
    ms: int | None = 12,
    session: str = "session-1",
    event_id: str | None = None,
) -> dict[str, Any]:
    """An event's log; `at` is in seconds since 1970."""
    log: dict[str, Any] = {
        "session_id": session,
        "sql_statement_id": str(uuid.uuid4()),
        "operation_latency_ms": ms,
        "system_configuration": {"driver_name": driver, "driver_version": version},
        "driver_connection_params": {"host_info": {"host_url": host}},
        "sql_operation": {
            "statement_type": statement_type,
            "operation_detail": {"operation_type": operation},
        },
        "error_info": {"error_name": error},
    }
    return {
        "frontend_log_event_id": event_id or str(uuid.uuid4()),
        "context": {"client_context": {"timestamp_millis": None if at is None else int(at * 1000)}},
        "entry": {"sql_driver_log": log},
    }


class EventStore:
    """A store that grows by whole files."""

    def __init__(self, path: Path) -> None:
        self.folder: StoreFolder = create_store(path)
        self.path = path
        self._segments = 0

    def add_segment(self, events: Sequence[dict[str, Any]], *, received: float = NOON + 60) -> Path:
        """Write a segment of the journal."""
        self._segments += 1
        segment = self.folder.segment(self._segments, "2026-03-01")
        lines = (
            json.dumps({"received_us": int(received * 1_000_000), "log": json.dumps(event)})
            for event in events
        )
        segment.path.write_text("".join(line + "\n" for line in lines))
        return segment.path

    def add_file(self, events: Sequence[dict[str, Any]], *, received: float = NOON + 60) -> Path:
        """Write a Parquet file."""
        segment = self.add_segment(events, received=received)
        target = self.folder.data_file(self._segments, "2026-03-01").path
        Compactor(str(self.path)).compact([(self._segments, str(segment))], str(target))
        segment.unlink()
        return target

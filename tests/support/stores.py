"""Helpers of the store's tests: logs, a running store, and what readers see of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from adbc_telemetry.collector.store.compaction import connect
from adbc_telemetry.collector.store.layout import open_store
from adbc_telemetry.collector.store.retention import Retention
from adbc_telemetry.collector.store.snapshot import read_consistently
from adbc_telemetry.collector.store.writer import Store

TIMEOUT = 20.0


class Log(NamedTuple):
    """A log as the intake hands it over."""

    event_id: str
    text: str
    canonical: bytes | None = None


def stored_log(event_id: str | None = None, **driver_log: Any) -> Log:
    """A log with an id of its own; `driver_log` are fields of the driver's message."""
    event_id = event_id or str(uuid.uuid4())
    message = {"frontend_log_event_id": event_id, "entry": {"sql_driver_log": driver_log}}
    return Log(event_id, json.dumps(message))


def stored_logs(count: int) -> list[Log]:
    return [stored_log(session_id="s", operation_latency_ms=number) for number in range(count)]


@contextlib.asynccontextmanager
async def running_store(path: Path, retention: Retention | None = None) -> AsyncIterator[Store]:
    """A store that is stopped in the end."""
    store = Store(path, retention)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def events_in(path: Path, columns: str = "*", rest: str = "") -> list[tuple[Any, ...]]:
    """What a reader sees, in the journal and in Parquet files together."""
    with contextlib.closing(connect("200MB", threads=1)) as connection:
        return read_consistently(
            open_store(path),
            connection,
            lambda snapshot: connection.execute(
                f"SELECT {columns} FROM ({snapshot.events_sql()}) {rest}"
            ).fetchall(),
        )


def parquet_files(path: Path) -> list[Path]:
    return sorted(path.glob("events/*/*.parquet"))


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, and let the event loop run meanwhile."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"this did not happen: {what}"
        await asyncio.sleep(0.01)

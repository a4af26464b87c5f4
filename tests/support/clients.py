"""Clients that tests use."""

from __future__ import annotations

from adbc_telemetry import ClientStats, TelemetryClient, TelemetryConfiguration
from adbc_telemetry.testing import GatedExporter

__all__ = ["GatedExporter", "assert_account_closes", "configuration"]


def configuration(**settings: object) -> TelemetryConfiguration:
    return TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})  # type: ignore[arg-type]


def assert_account_closes(client: TelemetryClient, enqueued: int) -> ClientStats:
    stats = client.stats()
    assert stats.closes, stats
    assert stats.enqueued == enqueued, stats
    return stats

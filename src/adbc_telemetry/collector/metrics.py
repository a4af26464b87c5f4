"""The collector's own figures, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from adbc_telemetry.collector.account import IntakeAccount
from adbc_telemetry.collector.destination import Health
from adbc_telemetry.core.version import __version__

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "adbc_telemetry_collector_"


def render_metrics(account: IntakeAccount, health: Health, connections: int, requests: int) -> bytes:
    """The figures in Prometheus's text format.

    Args:
        account: what came in.
        health: how the destination is doing.
        connections: open connections.
        requests: requests with events under way.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(account, health, connections, requests))
    return generate_latest(registry)


class _Figures:
    def __init__(self, account: IntakeAccount, health: Health, connections: int, requests: int) -> None:
        self._account = account
        self._health = health
        self._connections = connections
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        account, health = self._account, self._health
        yield _by(
            "requests", "Requests with events, by the status of their answer.", "status", account.answers
        )
        yield _by("refused_events", "Events refused, by reason.", "reason", account.refused)
        yield _by(
            "unknown_names", "Fields and enum values that are not known, by name.", "name", account.unknown
        )
        yield _counter("events", "Events made durable.", health.events)
        yield _counter(
            "duplicate_events", "Events left out because they were stored already.", health.duplicates
        )
        yield _counter("private_texts", "Private texts left out before storing.", account.private_texts)
        yield _counter(
            "failed_commits", "Groups of events that could not be written.", health.failed_requests
        )
        yield _gauge("up", "1 while all is well, 0 while /healthz names a problem.", int(not health.problems))
        for name, text, value in health.gauges():
            yield _gauge(name, text, value)
        yield _gauge("connections", "Open connections.", self._connections)
        yield _gauge("requests_under_way", "Requests with events under way.", self._requests)
        yield _gauge("start_time_seconds", "When the collector started, Unix time.", account.since)
        if health.newest_commit_age_seconds is not None:
            yield _gauge(
                "newest_commit_age_seconds",
                "Age of the newest durable event.",
                health.newest_commit_age_seconds,
            )
        build = GaugeMetricFamily(_PREFIX + "build_info", "The version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def _by(name: str, text: str, label: str, counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=[label])
    for key, count in counts.items():
        family.add_metric([str(key)], count)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)

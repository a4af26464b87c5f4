"""Clients watched from outside: what OpenTelemetry's SDK measures, beside what their own `stats()` say."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from adbc_telemetry import ClientStats, TelemetryClient
from adbc_telemetry.otel.pipeline_metrics import observe_pipeline, stop_observing_pipeline
from adbc_telemetry.pipeline.accounts import ClientAccount, accounts
from support.waiting import TIMEOUT

Key = tuple[str, tuple[tuple[str, object], ...]]
"""The name of a metric, and its attributes but for those that tell components apart."""

_OF_COMPONENTS = ("otel.component.name", "otel.component.type", "server.address", "server.port")


class Watch:
    """The metrics of all clients from now on, and the accounts of the clients that are made meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._accounts: list[ClientAccount] = []
        original = TelemetryClient.__init__

        def __init__(client: TelemetryClient, *args: object, **kwargs: object) -> None:
            original(client, *args, **kwargs)  # type: ignore[arg-type]
            self._accounts.append(client._delivery.account)  # not the client, which may have to be collected

        monkeypatch.setattr(TelemetryClient, "__init__", __init__)
        accounts.after_fork_in_child()  # else each test would tell of all earlier ones, which had an endpoint each
        monkeypatch.setattr(accounts, "_numbers", {})
        monkeypatch.setattr(accounts, "_next_number", itertools.count())
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False)
        observe_pipeline(self._provider)
        self._before = self.measured()

    def stop(self) -> None:
        """Measure no more, and leave nothing behind that has a number of this test's."""
        stop_observing_pipeline(self._provider)
        self._provider.shutdown()
        accounts.after_fork_in_child()

    def points(self) -> list[tuple[str, dict[str, object], float]]:
        """Each point: the metric's name, its attributes, and its value (of a histogram the count)."""
        data = self._reader.get_metrics_data()
        return [
            (metric.name, dict(point.attributes or {}), _value_of(point))
            for resource in (data.resource_metrics if data is not None else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    def measured(self) -> Counter[Key]:
        """The sum over all components, by name and by the attributes that are left."""
        sums: Counter[Key] = Counter()
        for name, attributes, value in self.points():
            left = tuple(sorted(item for item in attributes.items() if item[0] not in _OF_COMPONENTS))
            sums[name, left] += int(value)
        return sums

    def assert_equal(self) -> None:
        """At a quiet moment, the metrics say what the clients' own stats say."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            stats = self._stats()
            measured = self.measured()
            if stats == self._stats():
                break
            assert time.monotonic() < deadline, "the pipeline does not come to rest"
        measured.subtract(self._before)
        assert _counts(measured) == expected(stats), (measured, stats)

    def _stats(self) -> list[ClientStats]:
        return [_without_failure(account.stats()) for account in self._accounts]


def expected(stats: Iterable[ClientStats]) -> dict[str, int]:
    """What the metrics come to, by a name that `_counts` gives them."""
    stats = list(stats)

    def total(*names: str) -> int:
        return sum(getattr(each, name) for each in stats for name in names)

    return {
        "queue.size": total("queued"),
        "inflight": total("in_flight"),
        "processed": total("delivered", "rejected", "failed", "spooled"),
        "processed queue_full": total("dropped_queue_full"),
        "processed already_shutdown": total("dropped_closed"),
        "processed circuit_open": total("dropped_circuit_open"),
        "exported": total("delivered"),
        "exported with an error": total("rejected", "failed"),
        "enqueued": total("enqueued"),
        "exports": total("exports"),
        "errors": total("errors"),
        "spool.written": total("spooled"),
        "spool.replayed": total("replayed"),
        "spool.lost": total("spool_lost"),
        **{
            f"lost {reason}": total(reason)
            for reason in (
                "rejected",
                "failed",
                "dropped_queue_full",
                "dropped_circuit_open",
                "dropped_closed",
            )
        },
    }


def _counts(measured: Counter[Key]) -> dict[str, int]:
    counts = dict.fromkeys(expected([]), 0)
    for (name, attributes), count in measured.items():
        reason = dict(attributes).get("error.type") or dict(attributes).get("adbc.telemetry.loss.reason")
        short = name.removeprefix("otel.sdk.processor.log.").removeprefix("otel.sdk.exporter.log.")
        short = short.removeprefix("adbc.telemetry.")
        if short == "exported" and reason is not None:
            short, reason = "exported with an error", None
        key = short if reason is None else f"{short} {reason}"
        if key in counts:
            counts[key] += count
        else:
            assert short in ("queue.capacity", "circuit_breaker.state") or "duration" in short, key
    return counts


def _value_of(point: object) -> float:
    if isinstance(point, NumberDataPoint):
        return float(point.value)
    assert isinstance(point, HistogramDataPoint)
    return float(point.count)


def _without_failure(stats: ClientStats) -> ClientStats:
    return ClientStats(
        **{name: getattr(stats, name) for name in stats.__struct_fields__ if name != "last_failure"}
    )

"""The metrics of the database conventions: how long operations take, and how many rows they return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider, NoOpHistogram, get_meter

from adbc_telemetry.core.version import __version__
from adbc_telemetry.otel.attributes import SCHEMA_URL

DURATION: Final = "db.client.operation.duration"
DURATION_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
RETURNED_ROWS: Final = "db.client.response.returned_rows"
RETURNED_ROWS_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class Metrics:
    """The two histograms of one meter."""

    __slots__ = ("_duration", "_rows")

    def __init__(self, meter_provider: MeterProvider | None) -> None:
        meter = get_meter("adbc_telemetry.otel", __version__, meter_provider, SCHEMA_URL)
        self._duration = meter.create_histogram(
            DURATION,
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._rows = meter.create_histogram(
            RETURNED_ROWS,
            "{row}",
            "The actual number of records returned by the database operation.",
            explicit_bucket_boundaries_advisory=RETURNED_ROWS_BUCKETS,
        )

    @property
    def are_on(self) -> bool:
        """Whether measurements go anywhere: not as long as there is no provider but the API's own."""
        # What stands in for an instrument until there is a provider keeps the real one in this attribute.
        duration = getattr(self._duration, "_real_instrument", self._duration)
        return duration is not None and not isinstance(duration, NoOpHistogram)

    def record(
        self, duration_s: float, rows: int | None, attributes: Mapping[str, Any], context: Context
    ) -> None:
        """An operation is over.

        Args:
            duration_s: that of its span, in seconds.
            rows: how many were returned, where that is known.
            attributes: those of its span that metrics have.
            context: with its span, for exemplars.
        """
        self._duration.record(duration_s, attributes, context)
        if rows is not None:
            self._rows.record(rows, attributes, context)

"""The pipeline's own account as metrics, after OpenTelemetry's convention for self-observability.

Source: semantic conventions v1.44, "Semantic conventions for OpenTelemetry SDK metrics" (status: development). The
numbers are those of `TelemetryClient.stats()`, summed over all clients with the same endpoint and exporter: they are
equal whenever nothing is under way. A counter never goes back when a client is closed.

    otel.sdk.processor.log.queue.size          queued
    otel.sdk.processor.log.queue.capacity      max_queue_size of the open clients
    otel.sdk.processor.log.processed           delivered + rejected + failed + spooled
      error.type=queue_full                    dropped_queue_full
      error.type=already_shutdown              dropped_closed
      error.type=circuit_open                  dropped_circuit_open
    otel.sdk.exporter.log.inflight             in_flight
    otel.sdk.exporter.log.exported             delivered
      error.type=503, ConnectTimeoutError, ... rejected + failed
    otel.sdk.exporter.operation.duration       one measurement for each export that was tried

So `enqueued` is the size of the queue plus all that is in flight or processed. The convention's processors count a
record when they hand it over. Here a batch may come back to the queue, so it counts once its end is known.

Under names of our own: what was enqueued, lost and by which reason, the exports, the swallowed errors, the spool, and
the state of the circuit breaker.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from opentelemetry.metrics import (
    CallbackOptions,
    Histogram,
    Meter,
    MeterProvider,
    Observation,
    get_meter_provider,
)
from opentelemetry.util.types import AttributeValue

from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import RLock
from adbc_telemetry.core.version import __version__
from adbc_telemetry.export.base import ExportResult
from adbc_telemetry.export.breaker import CircuitBreakerState
from adbc_telemetry.export.endpoints import server_of
from adbc_telemetry.pipeline.accounts import Total, Watched, accounts

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
PREFIX: Final = "adbc.telemetry."

_PROCESSOR: Final = "adbc_telemetry.client.TelemetryClient"
_RECORDS: Final = "{log_record}"
# So many exports may end between two collections. Of more, the oldest durations are forgotten.
_MOST_UNTOLD: Final = 5_000
_LOSSES: Final = ("rejected", "failed", "dropped_queue_full", "dropped_circuit_open", "dropped_closed")

_Attributes: TypeAlias = dict[str, AttributeValue]
_Measure: TypeAlias = Callable[[Total], Iterator[Observation]]


def observe_pipeline(meter_provider: MeterProvider | None = None) -> None:
    """Have the account of every client of this process, now and later, measured by `meter_provider`. Never raises.

    A second call for the same provider does nothing. In a forked child the numbers are the child's own.

    Args:
        meter_provider: of OpenTelemetry's API; None for the global one.
    """
    _observers.switch(meter_provider, on=True)


def stop_observing_pipeline(meter_provider: MeterProvider | None = None) -> None:
    """Undo `observe_pipeline`: the provider's instruments stay and measure nothing. Never raises."""
    _observers.switch(meter_provider, on=False)


class _PipelineObserver:
    """The instruments of one meter provider. They cannot be taken back, so this is switched on and off.

    Nothing of OpenTelemetry runs on a sender's thread. Its locks may be held at a fork, and stay held in the child;
    a view or an exemplar filter may take long. So durations wait here until the provider collects.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self._active = False
        self._untold: deque[tuple[float, _Attributes]] = deque(maxlen=_MOST_UNTOLD)
        meter = provider.get_meter("adbc_telemetry", __version__, SCHEMA_URL)
        self._duration = _make_duration(meter)
        for name, unit, description, measure in _UP_DOWN_COUNTERS:
            meter.create_observable_up_down_counter(name, [self._callback(measure)], unit, description)
        for name, unit, description, measure in _COUNTERS:
            meter.create_observable_counter(name, [self._callback(measure)], unit, description)
        renew_in_child(self)

    def switch(self, *, on: bool) -> None:
        """Measure, or don't."""
        self._active = on
        others = tuple(each for each in accounts.observers if each != self.exported)
        accounts.observers = (*others, self.exported) if on else others

    def exported(
        self, watched: Watched, number: int, seconds: float, result: ExportResult, error_type: str | None
    ) -> None:
        """See `ExportObserver`."""
        attributes = _exporter(watched, number)
        if error_type is not None:
            attributes["error.type"] = error_type
            if error_type.isdigit():
                attributes["http.response.status_code"] = int(error_type)
        self._untold.append((seconds, attributes))

    def after_fork_in_child(self) -> None:
        """The parent tells of its exports itself."""
        self._untold.clear()

    def _tell_durations(self) -> None:
        while self._untold:
            try:
                seconds, attributes = self._untold.popleft()
            except IndexError:
                return  # another reader was faster
            self._duration.record(seconds, attributes)

    def _callback(self, measure: _Measure) -> Callable[[CallbackOptions], Iterable[Observation]]:
        @never_raises(lambda error, options: [])
        def observe(options: CallbackOptions) -> list[Observation]:
            if not self._active:
                return []
            self._tell_durations()
            return [observation for total in accounts.totals() for observation in measure(total)]

        return observe


def _make_duration(meter: Meter) -> Histogram:
    # The convention wants a single bucket: how many exports, and how long they took together.
    return meter.create_histogram(
        "otel.sdk.exporter.operation.duration",
        "s",
        "The duration of exporting a batch of telemetry records.",
        explicit_bucket_boundaries_advisory=[],
    )


def _processor(total: Total) -> _Attributes:
    return _component(_PROCESSOR, total.number)


def _exporter(watched: Watched, number: int) -> _Attributes:
    attributes = _component(watched.exporter, number)
    server = server_of(watched.endpoint) if watched.endpoint else None
    if server is not None:
        attributes["server.address"], attributes["server.port"] = server
    return attributes


def _component(kind: str, number: int) -> _Attributes:
    return {"otel.component.type": kind, "otel.component.name": f"{kind}/{number}"}


# What the instruments measure of a total.


def _of_processor(name: str) -> _Measure:
    def measure(total: Total) -> Iterator[Observation]:
        yield Observation(getattr(total.stats, name), _processor(total))

    return measure


def _capacity(total: Total) -> Iterator[Observation]:
    yield Observation(total.capacity, _processor(total))


def _in_flight(total: Total) -> Iterator[Observation]:
    yield Observation(total.stats.in_flight, _exporter(total.watched, total.number))


def _processed(total: Total) -> Iterator[Observation]:
    stats = total.stats
    handed_over = stats.delivered + stats.rejected + stats.failed + stats.spooled
    yield Observation(handed_over, _processor(total))
    for error_type, count in (
        ("queue_full", stats.dropped_queue_full),
        ("already_shutdown", stats.dropped_closed),
        ("circuit_open", stats.dropped_circuit_open),
    ):
        yield Observation(count, {**_processor(total), "error.type": error_type})


def _exported(total: Total) -> Iterator[Observation]:
    attributes = _exporter(total.watched, total.number)
    yield Observation(total.stats.delivered, attributes)
    for error_type, count in total.undelivered.items():
        yield Observation(count, {**attributes, "error.type": error_type})


def _lost(total: Total) -> Iterator[Observation]:
    for name in _LOSSES:
        yield Observation(getattr(total.stats, name), {**_processor(total), f"{PREFIX}loss.reason": name})


def _breaker_state(total: Total) -> Iterator[Observation]:
    if total.breaker is not None:
        now = total.breaker.state
        for state in CircuitBreakerState:
            attributes = {**_processor(total), f"{PREFIX}circuit_breaker.state": state.value}
            yield Observation(int(state is now), attributes)


_UP_DOWN_COUNTERS: Final[tuple[tuple[str, str, str, _Measure], ...]] = (
    (
        "otel.sdk.processor.log.queue.size",
        _RECORDS,
        "The number of log records in the queue of a given instance of an SDK log processor.",
        _of_processor("queued"),
    ),
    (
        "otel.sdk.processor.log.queue.capacity",
        _RECORDS,
        "The maximum number of log records the queue of a given instance of an SDK Log Record processor can hold.",
        _capacity,
    ),
    (
        "otel.sdk.exporter.log.inflight",
        _RECORDS,
        "The number of log records which were passed to the exporter, but that have not been exported yet.",
        _in_flight,
    ),
    (
        f"{PREFIX}circuit_breaker.state",
        "1",
        "1 for the state that the circuit breaker is in, 0 for the others.",
        _breaker_state,
    ),
)
_COUNTERS: Final[tuple[tuple[str, str, str, _Measure], ...]] = (
    (
        "otel.sdk.processor.log.processed",
        _RECORDS,
        "The number of log records for which the processing has finished, either successful or failed.",
        _processed,
    ),
    (
        "otel.sdk.exporter.log.exported",
        _RECORDS,
        "The number of log records for which the export has finished, either successful or failed.",
        _exported,
    ),
    (f"{PREFIX}enqueued", _RECORDS, "Events that came.", _of_processor("enqueued")),
    (f"{PREFIX}lost", _RECORDS, "Events that will never arrive, by the reason.", _lost),
    (f"{PREFIX}exports", "{export}", "Exports, delivered or not.", _of_processor("exports")),
    (f"{PREFIX}errors", "{error}", "Exceptions that ended in the pipeline.", _of_processor("errors")),
    (f"{PREFIX}spool.written", _RECORDS, "Events written to the spool.", _of_processor("spooled")),
    (f"{PREFIX}spool.replayed", _RECORDS, "Events delivered from the spool.", _of_processor("replayed")),
    (f"{PREFIX}spool.lost", _RECORDS, "Events of the spool that are lost.", _of_processor("spool_lost")),
)


class _Observers:
    """The observers of this process, one for each meter provider."""

    def __init__(self) -> None:
        self._observers: weakref.WeakKeyDictionary[MeterProvider, _PipelineObserver] = (
            weakref.WeakKeyDictionary()
        )
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = RLock()  # guards _observers

    @never_raises(lambda error, *_, **__: None)
    def switch(self, provider: MeterProvider | None, *, on: bool) -> None:
        """Have a provider (None: the global one) measure, or not."""
        if provider is None:
            provider = get_meter_provider()
        with self._lock:
            observer = self._observers.get(provider)
            if observer is None and on:
                observer = self._observers[provider] = _PipelineObserver(provider)
            if observer is not None:
                observer.switch(on=on)


_observers: Final = _Observers()

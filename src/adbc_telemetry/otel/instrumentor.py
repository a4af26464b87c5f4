"""`ADBCInstrumentor`: spans and metrics of ADBC connections, for `opentelemetry-instrument` and by hand."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from typing import Any, Final, TypeVar

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.instrumentation import adbc, pep249
from adbc_telemetry.instrumentation.connecting import observe_connecting, place_of, stop_observing
from adbc_telemetry.instrumentation.driver_info import driver_name_and_version, facts_of_pep249
from adbc_telemetry.instrumentation.new_connections import add_follower, remove_follower
from adbc_telemetry.instrumentation.session_recorder import SessionRecorder
from adbc_telemetry.otel import query_text
from adbc_telemetry.otel.spans import ConnectingSpans, ConnectionSpans, Tracing, place_of_adbc
from adbc_telemetry.otel.systems import NOWHERE, Place, place_of_pep249, system_of_package
from adbc_telemetry.otel.trace_parent import TraceParent

Connection = TypeVar("Connection")

_VARIABLES: Final = "OTEL_PYTHON_ADBC_"


class ADBCInstrumentor(BaseInstrumentor):  # type: ignore[misc, unused-ignore]
    """Makes a span of each statement of each ADBC connection, and of connecting, commits and metadata.

    `opentelemetry-instrument` calls `instrument()` by itself: this is its entry point `adbc`.
    """

    _tracing: Tracing | None = None
    _follow: Any = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """The package that is instrumented."""
        return ("adbc-driver-manager >= 1.8",)

    def _instrument(self, **kwargs: Any) -> None:
        """Instrument every ADBC connection that is opened from now on.

        Args:
            tracer_provider, meter_provider: of OpenTelemetry; by default the global ones.
            capture_query_text: tell the text of statements without its literals, the names of tables, and messages of
                errors. By default what the environment's `OTEL_PYTHON_ADBC_CAPTURE_QUERY_TEXT` says; else False.
            capture_returned_rows: give spans the number of rows (`db.response.returned_rows`). False by default, or
                `OTEL_PYTHON_ADBC_CAPTURE_RETURNED_ROWS`.
        """
        tracing = _tracing(
            **{
                "capture_query_text": _is_asked_for("CAPTURE_QUERY_TEXT"),
                "capture_returned_rows": _is_asked_for("CAPTURE_RETURNED_ROWS"),
                **kwargs,
            }
        )
        self._tracing = tracing
        self._follow = partial(_follow, tracing)
        if add_follower(self._follow):
            observe_connecting(ConnectingSpans(tracing))

    def _uninstrument(self, **kwargs: Any) -> None:
        """Undo `instrument`, also for connections that are open. Our own events are not touched."""
        if self._tracing is not None:
            self._tracing.is_on = False
            stop_observing()
            remove_follower(self._follow)
        self._tracing = self._follow = None

    @staticmethod
    def instrument_connection(
        connection: Connection,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        capture_query_text: bool = False,
        capture_returned_rows: bool = False,
    ) -> Connection:
        """Instrument one connection that is open. Its cursors that exist already are not followed.

        Args:
            connection: of ADBC, or of any other driver that follows PEP 249.
            tracer_provider, meter_provider, capture_query_text, capture_returned_rows: as of `instrument`.

        Returns:
            An ADBC connection itself; for any other a proxy that stands for it. The connection as it is, where it is
            closed or instrumented already.

        Raises:
            TypeError: this is no connection of PEP 249, or one of asyncio's.
        """
        if not (adbc.is_adbc_connection(connection) or pep249.is_pep249_connection(connection)):
            kind = type(connection)
            raise TypeError(
                "only DBAPI connections, of ADBC or another driver of PEP 249, can be instrumented, "
                f"not {kind.__module__}.{kind.__qualname__}"
            )
        tracing = _tracing(tracer_provider, meter_provider, capture_query_text, capture_returned_rows)
        followed: Connection = _follow(tracing, connection)
        return followed

    @staticmethod
    def uninstrument_connection(connection: Connection) -> Connection:
        """Make no more spans of this connection. Our own events, if it records any, go on.

        Returns:
            What the program is to use: the connection itself, or of a proxy that records nothing more, its original.
        """
        left: Connection = _leave(connection)
        return left


def _is_asked_for(what: str) -> bool:
    """Whether the environment asks for it: `opentelemetry-instrument` gives no arguments."""
    return os.environ.get(f"{_VARIABLES}{what}", "").strip().lower() in ("1", "true", "yes", "on")


def _tracing(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_query_text: bool = False,
    capture_returned_rows: bool = False,
    **_: Any,
) -> Tracing:
    if capture_query_text:
        query_text.prepare()
    return Tracing(tracer_provider, meter_provider, bool(capture_query_text), bool(capture_returned_rows))


@never_raises(lambda error, tracing, connection: connection)
def _follow(tracing: Tracing, connection: Any) -> Any:
    """Observe a connection that is not observed yet, or no more; leave any other as it is."""
    if adbc.is_adbc_connection(connection):
        _follow_adbc(tracing, adbc.itself(connection))
        return connection
    recorder = pep249.recorder_of(connection)
    raw = connection if recorder is None else connection.__wrapped__
    if pep249.is_closed(raw) or (recorder is not None and _is_observed(recorder)):
        return connection
    system = system_of_package(facts_of_pep249(raw).driver_name)
    observer = ConnectionSpans(tracing, place_of_pep249(raw, system), None, partial(_follow, tracing))
    if recorder is None:
        return pep249.follow(connection, lambda: _observed(observer))
    recorder.observer = observer
    pep249.renew_recorder(connection)
    return connection


def _follow_adbc(tracing: Tracing, connection: Any) -> None:
    recorder = adbc.recorder_of(connection)
    if adbc.is_closed(connection) or (recorder is not None and _is_observed(recorder)):
        return
    told = place_of(connection.adbc_database)
    place = place_of_adbc(connection, told if isinstance(told, Place) else NOWHERE)
    driver = " ".join(map(str, driver_name_and_version(connection)))
    observer = ConnectionSpans(tracing, place, TraceParent(driver), partial(_follow, tracing))
    if recorder is None:
        adbc.follow(connection, lambda: _observed(observer))
    else:
        recorder.observer = observer


def _observed(observer: ConnectionSpans) -> SessionRecorder:
    recorder = SessionRecorder()
    recorder.observer = observer
    return recorder


def _is_observed(recorder: SessionRecorder) -> bool:
    observer = recorder.observer
    return observer is not None and not (isinstance(observer, ConnectionSpans) and not observer.tracing.is_on)


@never_raises(lambda error, connection: connection)
def _leave(connection: Any) -> Any:
    is_adbc = adbc.is_adbc_connection(connection)
    raw = adbc.itself(connection) if is_adbc else connection
    recorder = adbc.recorder_of(raw) if is_adbc else pep249.recorder_of(raw)
    if recorder is None:
        return connection
    recorder.observer = None
    if recorder.session is not None:
        return connection
    if is_adbc:
        adbc.leave(raw)
        return connection
    return connection.__wrapped__

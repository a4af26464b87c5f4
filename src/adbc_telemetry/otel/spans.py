"""Spans and metrics of connections: the second listener of `adbc_telemetry.instrumentation.observers`.

A span begins with the call of `execute` and its like, and ends with the results. It is the current span during the call
alone, so that what the driver does in it is its child, and what the program does between two fetches is not. A sampler
is asked first. Of a span that is not recorded nothing more is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from functools import partial
from sys import modules
from time import monotonic_ns, time_ns
from types import SimpleNamespace
from typing import Any, Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.metrics import MeterProvider
from opentelemetry.semconv.attributes.db_attributes import (
    DB_NAMESPACE,
    DB_RESPONSE_STATUS_CODE,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
    get_tracer,
    set_span_in_context,
)

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.version import __version__
from adbc_telemetry.instrumentation.driver_info import driver_name_and_version
from adbc_telemetry.instrumentation.observers import OperationObserver, Outcome
from adbc_telemetry.instrumentation.operations import CURSOR_OPERATIONS, Operation
from adbc_telemetry.otel.attributes import (
    DB_RESPONSE_RETURNED_ROWS,
    FIRST_BATCH,
    LAST_BATCH,
    SCHEMA_URL,
    STATEMENT_ID,
)
from adbc_telemetry.otel.collecting import (
    catch_up,
    here,
    put_off,
    watch_the_collector,
)
from adbc_telemetry.otel.descriptions import Description, Descriptions
from adbc_telemetry.otel.errors import error_type, message_of, status_code
from adbc_telemetry.otel.metrics import Metrics
from adbc_telemetry.otel.other_spans import SQLALCHEMY, has_stable_metrics, is_suppressed, statement_span
from adbc_telemetry.otel.sampling import EarlyAnswer
from adbc_telemetry.otel.systems import NOWHERE, OTHER, Place, namespace_of, place_of, system_of_driver
from adbc_telemetry.otel.trace_parent import TraceParent

_CLIENT: Final = SpanKind.CLIENT
_EXECUTE: Final = CURSOR_OPERATIONS["execute"]


def _not_begun(error: Exception, connection: ConnectionSpans, *_: object) -> OperationObserver | None:
    connection.tracing.errors += 1
    return None


class Tracing:
    """What the connections of one call of `instrument` or `instrument_connection` share.

    Attributes:
        is_on: false once it is undone, also for the connections that there are.
        metrics: where measurements go.
        capture_query_text: whether texts, names of tables and error messages may be told.
        capture_returned_rows: whether spans have the number of rows.
        errors: how many operations could not be told.
    """

    __slots__ = ("_provider", "capture_query_text", "capture_returned_rows", "errors", "is_on", "metrics")

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        capture_query_text: bool,
        capture_returned_rows: bool,
    ) -> None:
        watch_the_collector()
        self.is_on = True
        self.errors = 0
        self._provider = tracer_provider
        self.metrics = Metrics(meter_provider)
        self.capture_query_text = capture_query_text
        self.capture_returned_rows = capture_returned_rows

    def tracer(self) -> Tracer:
        """Where spans go. Asked for each connection, since the global provider may come later than instrumentation."""
        return get_tracer("adbc_telemetry.otel", __version__, self._provider, SCHEMA_URL)


class ConnectionSpans:
    """Makes the spans of one connection. It does not refer to the connection.

    Args:
        tracing: where they go.
        place: what is connected to.
        parent: tells the driver of the span; None of a driver that is not one of ADBC.
        follow: observes another connection in the same way.
    """

    __slots__ = ("_descriptions", "_early", "_follow", "_is_native", "_parent", "_tracer", "_tracing")

    def __init__(self, tracing: Tracing, place: Place, parent: TraceParent | None, follow: Any) -> None:
        self._tracing = tracing
        self._descriptions = Descriptions(place, tracing.capture_query_text)
        self._parent = parent
        self._is_native = parent is not None
        self._tracer = tracing.tracer()
        self._early = EarlyAnswer(self._tracer)
        self._follow = follow

    @property
    def tracing(self) -> Tracing:
        """What this shares with other connections."""
        return self._tracing

    @never_raises(_not_begun)
    def begin(
        self, operation: Operation, sql: object, thing: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> OperationObserver | None:
        tracing = self._tracing
        context = get_current()
        if not tracing.is_on or (context and is_suppressed(context)):
            self._tell_driver(INVALID_SPAN, thing)
            return None
        # Of a query that is not recorded nothing is to be told. And nothing in it could begin a span of its own: a
        # driver of ADBC runs no code of Python's, and this one does not take the parent of its spans.
        may_be_ignored = operation is _EXECUTE and self._is_native
        is_early_no = may_be_ignored and self._parent is None and self._early.is_no(context)
        if is_early_no and not tracing.metrics.are_on:
            return None
        description = self._descriptions.describe(operation, sql, args, kwargs)
        if sql is not None and (context or SQLALCHEMY in modules):
            other = statement_span(context)
            if other is not None:
                self._tell_driver(other, thing)
                return _OperationOfAnother(tracing, description, other, context)
        if put_off:
            catch_up()
        begun_ns, begun_at_ns = monotonic_ns(), time_ns()
        span = self._tracer.start_span(
            description.name, context, _CLIENT, description.attributes, None, begun_at_ns, False, False
        )
        if self._parent is not None:
            self._tell_driver(span, thing)
        if may_be_ignored and not span.is_recording() and not tracing.metrics.are_on:
            return None
        try:
            return OperationSpan(tracing, description, span, context, begun_ns, begun_at_ns)
        except (
            BaseException
        ):  # of a signal handler: or all later spans of this thread would be this one's children
            attach(context)
            raise

    def _tell_driver(self, span: Span, thing: Any) -> None:
        parent = self._parent
        if parent is not None:
            parent.tell(span.get_span_context(), thing)
            if not parent.is_wanted:
                self._parent = None

    def follow_clone(self, connection: Any) -> None:
        self._follow(connection)


class OperationSpan:
    """An operation with a span of ours, from when this is made until `ended`.

    Args:
        tracing: where its measurements go.
        description: what the span said in the beginning.
        span: has been started.
        context: the span's parent's.
        begun_ns, begun_at_ns: when it began, by the monotonic clock and in Unix time.
    """

    __slots__ = ("_begun_at_ns", "_begun_ns", "_context", "_description", "_token", "span", "tracing")

    def __init__(
        self,
        tracing: Tracing,
        description: Description,
        span: Span,
        context: Context,
        begun_ns: int,
        begun_at_ns: int,
    ) -> None:
        self.tracing = tracing
        self._description = description
        self.span = span
        self._begun_ns = begun_ns
        self._begun_at_ns = begun_at_ns
        self._context = set_span_in_context(span, context)
        # Last: from here on the thread's context is ours to take back.
        self._token: Token[Context] | None = attach(self._context)

    def returned(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            detach(token)

    def ended(self, outcome: Outcome) -> None:
        if here.is_collecting:
            put_off.append(partial(self.ended, outcome))
            return
        _, error, first_batch_ns, last_batch_ns, ended_ns, rows = outcome
        span, tracing = self.span, self.tracing
        took_ns = ended_ns - self._begun_ns
        failure = None if error is None else _failure(error, self._description)
        if span.is_recording():
            if first_batch_ns is not None:
                offset = self._begun_at_ns - self._begun_ns
                span.add_event(FIRST_BATCH, None, first_batch_ns + offset)
                if last_batch_ns is not None:
                    span.add_event(LAST_BATCH, None, last_batch_ns + offset)
            if outcome.statement_id is not None:
                span.set_attribute(STATEMENT_ID, outcome.statement_id)
            if rows is not None and tracing.capture_returned_rows:
                span.set_attribute(DB_RESPONSE_RETURNED_ROWS, rows)
            if failure is not None:
                span.set_attributes(failure)
                span.set_status(StatusCode.ERROR, message_of(error) if tracing.capture_query_text else None)
            span.end(self._begun_at_ns + took_ns)
        if tracing.metrics.are_on:
            attributes = self._description.metric_attributes
            if failure is not None:
                attributes = {**attributes, **failure}
            tracing.metrics.record(took_ns / 1e9, rows, attributes, self._context)


def _failure(error: BaseException, description: Description) -> dict[str, str]:
    code = status_code(error, str(description.attributes[DB_SYSTEM_NAME]))
    failure = {ERROR_TYPE: code or error_type(error)}
    if code is not None:
        failure[DB_RESPONSE_STATUS_CODE] = code
    return failure


class _OperationOfAnother:
    """An operation that another instrumentation has made the span of: there is no second one, but it is measured."""

    __slots__ = ("_begun_ns", "_context", "_description", "_is_measured", "tracing")

    def __init__(self, tracing: Tracing, description: Description, span: Span, context: Context) -> None:
        self.tracing = tracing
        self._is_measured = not has_stable_metrics(span)
        self._description = description
        self._context = context
        self._begun_ns = monotonic_ns()

    def returned(self) -> None:
        """The span is the other's to end."""

    def ended(self, outcome: Outcome) -> None:
        if here.is_collecting:
            put_off.append(partial(self.ended, outcome))
            return
        if self._is_measured:
            attributes = self._description.metric_attributes
            if outcome.error is not None:
                attributes = {**attributes, **_failure(outcome.error, self._description)}
            took_s = (outcome.ended_ns - self._begun_ns) / 1e9
            self.tracing.metrics.record(took_s, outcome.rows, attributes, self._context)


class ConnectingSpans:
    """Makes the spans of ADBC connections in the making."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def place_of(self, options: Mapping[str, Any]) -> object:
        return place_of(options)

    def begin_connect(self, place: object, started_ns: int) -> OperationObserver | None:
        context = get_current()
        if not self._tracing.is_on or is_suppressed(context):
            return None
        known = place if isinstance(place, Place) else NOWHERE
        description = Descriptions(known, self._tracing.capture_query_text).connecting()
        begun_at_ns = time_ns() - (monotonic_ns() - started_ns)
        span = self._tracing.tracer().start_span(
            description.name, context, _CLIENT, description.attributes, None, begun_at_ns, False, False
        )
        return OperationSpan(self._tracing, description, span, context, started_ns, begun_at_ns)

    def connected(self, observer: OperationObserver | None, connection: Any) -> None:
        if isinstance(observer, OperationSpan) and observer.span.is_recording():
            place = place_of_adbc(SimpleNamespace(adbc_connection=connection), NOWHERE)
            observer.span.set_attribute(DB_SYSTEM_NAME, place.system.name)
            if place.namespace is not None:
                observer.span.set_attribute(DB_NAMESPACE, place.namespace)


def place_of_adbc(connection: Any, told: Place) -> Place:
    """What an ADBC connection is to, with what the options of its database have told."""
    driver, _ = driver_name_and_version(connection)
    system = told.system if driver is None else system_of_driver(driver)
    if system is OTHER:
        system = told.system
    namespace = namespace_of(connection.adbc_connection, system)
    return told._replace(system=system, namespace=namespace or told.namespace)

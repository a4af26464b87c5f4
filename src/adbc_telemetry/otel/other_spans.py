"""What the context says before there is a span: that there is to be none, or that there is one of another already.

OpenTelemetry's `dbapi` and its kin make their span the current one while they call the driver. That for SQLAlchemy
keeps its span in the execution's context, which a frame of SQLAlchemy's has. Such a statement needs no second span.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, get_current_span

from adbc_telemetry.core.guard import never_raises

_STATEMENT: Final = ("db.query.text", "db.statement")  # as conventions have it, and as they had it before
_STABLE: Final = "db.system.name"

SQLALCHEMY: Final = "opentelemetry.instrumentation.sqlalchemy"
_EXECUTES: Final = "sqlalchemy.engine.default"
_FRAMES_AT_MOST: Final = 8


def is_suppressed(context: Context) -> bool:
    """Whether `suppress_instrumentation` is in force: what OpenTelemetry's `is_instrumentation_enabled` asks."""
    return bool(context.get(_SUPPRESS_INSTRUMENTATION_KEY) or context.get("suppress_instrumentation"))


def statement_span(context: Context) -> Span | None:
    """The span that another instrumentation has made for the statement that is being executed; None without one."""
    current = get_current_span(context)
    if current is not INVALID_SPAN and _is_of_a_statement(current):
        return current
    if SQLALCHEMY in sys.modules:
        return _span_of_sqlalchemy()
    return None


def has_stable_metrics(span: Span) -> bool:
    """Whether the span follows the stable conventions, so that its instrumentation measures durations as well."""
    return _STABLE in (getattr(span, "attributes", None) or ())


def _is_of_a_statement(span: Any) -> bool:
    # The API does not let a span be read; the SDK's can be, and those that record nothing tell nothing.
    if getattr(span, "kind", None) is not SpanKind.CLIENT or not span.is_recording():
        return False
    attributes = getattr(span, "attributes", None) or ()
    return any(name in attributes for name in _STATEMENT)


def _no_span(error: Exception) -> Span | None:
    return None


@never_raises(_no_span)
def _span_of_sqlalchemy() -> Span | None:
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_FRAMES_AT_MOST):
        if frame is None:
            return None
        if frame.f_globals.get("__name__") == _EXECUTES and frame.f_code.co_name.startswith("do_execute"):
            span = getattr(frame.f_locals.get("context"), "_otel_span", None)
            return span if isinstance(span, Span) and span.is_recording() else None
        frame = frame.f_back
    return None

"""Requests of our own, which OpenTelemetry's instrumentations of HTTP clients are to make no spans of.

They would show the host program's owner requests that the program does not make, and each export of those spans would
be followed by another. OpenTelemetry is not imported for that: an instrumentation that is at work has imported it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from adbc_telemetry.core.guard import never_raises

_UTILS = "opentelemetry.instrumentation.utils"


def _with_spans(error: Exception) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


@never_raises(_with_spans)
def without_spans() -> contextlib.AbstractContextManager[object]:
    """A block in which no instrumentation of OpenTelemetry's makes spans; no more than a block where none is there."""
    suppress: Any = getattr(sys.modules.get(_UTILS), "suppress_instrumentation", None)
    if suppress is None:
        return contextlib.nullcontext()
    block: contextlib.AbstractContextManager[object] = suppress()
    return block

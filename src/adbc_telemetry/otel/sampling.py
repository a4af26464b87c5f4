"""Asks the sampler before there is a span, where its answer can be known.

To start a span that is not recorded takes the SDK twice as long as all the rest of not recording it.

Only the SDK's own samplers are asked in this way. They answer by the parent and the trace's id alone, so that it makes
no difference to ask them twice. A trace without a parent has no id yet: they are asked about id 0, which none refuses
that does not refuse every other one (TraceIdRatioBased takes all ids below a bound). Any other sampler, and any other
tracer than the SDK's, is asked by starting the span.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer, get_current_span

_SDK: Final = "opentelemetry.sdk.trace.sampling"
_SAMPLERS: Final = ("StaticSampler", "TraceIdRatioBased", "ParentBased", "ParentBasedTraceIdRatio")


class EarlyAnswer:
    """What is known of a tracer's sampler before it is asked about a span.

    Args:
        tracer: whose sampler it is.
    """

    __slots__ = ("_asked", "_may_be_asked", "_refuses_all_roots", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Any = tracer
        self._asked: Any = None  # the sampler that this is about
        self._may_be_asked = False
        self._refuses_all_roots = False

    def is_no(self, context: Context) -> bool:
        """Whether the sampler says no to a span in this context. False where that is not known yet."""
        sampler = getattr(self._tracer, "sampler", None)
        if sampler is not self._asked:
            self._get_to_know(sampler)
        if not context:
            return self._refuses_all_roots
        parent = get_current_span(context).get_span_context()
        if not parent.is_valid:
            return self._refuses_all_roots
        # With a parent that is sampled the answer is mostly yes: to ask twice would cost more than it saves.
        if parent.trace_flags.sampled or not self._may_be_asked:
            return False
        return _refuses(sampler, context, parent.trace_id)

    def _get_to_know(self, sampler: Any) -> None:
        self._asked = sampler
        self._may_be_asked = _is_of_the_sdk(sampler)
        self._refuses_all_roots = self._may_be_asked and _refuses(sampler, Context(), 0)


def _refuses(sampler: Any, context: Context, trace_id: int) -> bool:
    result = sampler.should_sample(context, trace_id, "", SpanKind.CLIENT)
    return not result.decision.is_recording()


def _is_of_the_sdk(sampler: Any) -> bool:
    """Whether this is a sampler of the SDK, and so are those to which it leaves the answer."""
    sdk = sys.modules.get(_SDK)
    known = tuple(getattr(sdk, name, None) for name in _SAMPLERS)
    if sdk is None or type(sampler) not in known:
        return False
    return all(_is_of_the_sdk(each) for each in vars(sampler).values() if isinstance(each, sdk.Sampler))

"""The border to the host program: the one place where an exception of ours is swallowed.

Everything inside raises and propagates as usual; whatever would cross into the caller's code goes through
`contained`, which hands the error to whoever counts it and writes its class to the log at DEBUG.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger("adbc_telemetry")

P = ParamSpec("P")
R = TypeVar("R")


def contained(fallback: Callable[..., R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that an `Exception` becomes `fallback(exception, *args, **kwargs)`.

    The fallback gets what the function got, and has to count the error. `KeyboardInterrupt`, `SystemExit` and
    their like belong to the host program and pass through.
    """

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(call)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the border
                # Only the class: a message may hold what the host program would not want to see in a log.
                logger.debug("telemetry error swallowed: %s", type(error).__name__)
                return fallback(error, *args, **kwargs)

        return guarded

    return decorate


def contained_positionally(fallback: Callable[..., R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`contained`, for what is called several times a statement, with one to three arguments by their places.

    To pass these on as they are costs a third of what it costs to pack and to unpack them.
    """

    def swallowed(error: Exception, *args: Any) -> R:
        logger.debug("telemetry error swallowed: %s", type(error).__name__)
        return fallback(error, *args)

    def decorate(call: Callable[..., R]) -> Callable[..., R]:
        def guarded_1(a: Any) -> R:
            try:
                return call(a)
            except Exception as error:  # noqa: BLE001 - the border
                return swallowed(error, a)

        def guarded_2(a: Any, b: Any) -> R:
            try:
                return call(a, b)
            except Exception as error:  # noqa: BLE001 - the border
                return swallowed(error, a, b)

        def guarded_3(a: Any, b: Any, c: Any) -> R:
            try:
                return call(a, b, c)
            except Exception as error:  # noqa: BLE001 - the border
                return swallowed(error, a, b, c)

        by_count: dict[int, Callable[..., R]] = {1: guarded_1, 2: guarded_2, 3: guarded_3}
        return functools.wraps(call)(by_count[len(inspect.signature(call).parameters)])

    return decorate

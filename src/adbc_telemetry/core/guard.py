"""The border to the host program: the only place that swallows an exception of this package.

Everything inside raises and propagates as usual; whatever would cross into the caller's code goes through
`never_raises`, which hands the error to a function that counts it, and writes its class to the log at DEBUG.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

logger = logging.getLogger("adbc_telemetry")

P = ParamSpec("P")
R = TypeVar("R")


def log(message: str, *arguments: object) -> None:
    """Write a line to the log, at DEBUG.

    A handler of the program's may raise, and logging is gone at the very end of the interpreter: neither goes further.
    """
    with contextlib.suppress(Exception):
        logger.debug(message, *arguments)


def never_raises(fallback: Callable[..., R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
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
                log("telemetry error swallowed: %s", type(error).__name__)
                return fallback(error, *args, **kwargs)

        return guarded

    return decorate

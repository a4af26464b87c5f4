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
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


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


def never_raises_of_four(
    fallback: Callable[..., R],
) -> Callable[[Callable[[A, B, C, D], R]], Callable[[A, B, C, D], R]]:
    """`never_raises` for a function of four arguments, all by position, that each statement calls.

    `never_raises` takes any arguments, and to pack and unpack them costs more than all else that it does.
    """

    def decorate(call: Callable[[A, B, C, D], R]) -> Callable[[A, B, C, D], R]:
        @functools.wraps(call)
        def guarded(first: A, second: B, third: C, fourth: D, /) -> R:
            try:
                return call(first, second, third, fourth)
            except Exception as error:  # noqa: BLE001 - the border
                # Spelt out again: near the limit of recursion, a function in common might be a step too deep.
                log("telemetry error swallowed: %s", type(error).__name__)
                return fallback(error, first, second, third, fourth)

        return guarded

    return decorate

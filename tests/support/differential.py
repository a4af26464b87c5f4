"""The outcomes of a program's steps, to compare runs with and without instrumentation."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType

import adbc_telemetry

PACKAGE = os.path.join(os.path.dirname(adbc_telemetry.__file__), "")
"""The folder of the package's code."""


def outcomes(steps: Iterable[Callable[[], object]], whole_traces: bool = True) -> list[object]:
    """Each step's result, or everything about its error, and its warnings.

    With `whole_traces`, tracebacks include every frame; else only the last.
    """
    seen: list[object] = []
    for number, step in enumerate(steps):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                outcome: object = without_addresses(repr(step()))
            except BaseException as error:  # noqa: BLE001 - to compare it
                outcome = all_of(error, whole_traces)
        seen.append(
            (number, outcome, [(each.category, without_addresses(str(each.message))) for each in caught])
        )
    return seen


def all_of(error: BaseException, whole_trace: bool) -> tuple[object, ...]:
    return (
        type(error),
        without_addresses(repr(error.args)),
        without_addresses(str(error)),
        without_addresses(repr(error.__cause__)),
        without_addresses(repr(error.__context__)),
        getattr(error, "__notes__", None),
        without_addresses(repr(sorted(vars(error).items()))),
        frames(error.__traceback__)[0 if whole_trace else -1 :],
    )


def frames(trace: TracebackType | None) -> list[tuple[str, str, int | None]]:
    """The frames of a traceback; in Python 3.10, where the package cannot remove its own frames, without those."""
    told = [(each.filename, each.name, each.lineno) for each in traceback.extract_tb(trace)]
    if sys.version_info < (3, 11):
        told = [each for each in told if not is_ours(each[0])]
    return told


def is_ours(filename: str) -> bool:
    """Whether the file holds code of the package; the clone's folder may have the same name."""
    return filename.startswith(PACKAGE)


def without_addresses(text: str) -> str:
    """The text without what differs between runs, such as the stack of a C++ driver."""
    return re.sub(r"0x[0-9a-f]+", "0x", re.sub(r"Stack Trace:.*", "", text, flags=re.DOTALL))

"""Which interpreter this is, and whether it may have threads at all."""

from __future__ import annotations

import _thread
import importlib
from typing import Any


def is_main_interpreter() -> bool:
    """Whether this is not a subinterpreter."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        try:
            interpreters: Any = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True  # as far as can be known: there is no module that could have made another


def forbids_threads(error: RuntimeError) -> bool:
    """Whether a daemon thread that could not be started, with this error, never can be in this interpreter.

    A system that has no thread left at the moment raises the same class, and lets the next try succeed.
    """
    allowed = getattr(_thread, "daemon_threads_allowed", None)  # from Python 3.12 on
    return "isolated subinterpreter" in str(error) or (allowed is not None and not allowed())

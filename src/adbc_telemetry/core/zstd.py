"""Zstandard: of the standard library where that has it (Python 3.14), else of the package `backports-zstd`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

_MODULES = ("compression.zstd", "backports.zstd")


@functools.cache
def is_available() -> bool:
    """Whether there is one. Loads neither."""
    return any(_is_there(name) for name in _MODULES)


@functools.cache
def zstd() -> Any:
    """The module, with the interface of `compression.zstd`.

    Raises:
        ImportError: there is none.
    """
    for name in _MODULES:
        if _is_there(name):
            return importlib.import_module(name)
    raise ImportError("zstd needs Python 3.14, or: pip install 'adbc-telemetry[zstd]'")


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # not even its parent is there, or it is blocked
        return False

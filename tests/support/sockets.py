"""Unix sockets: their paths must be short, and folders for temporary files may have long ones."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_LONGEST = 103
"""Bytes that the path of a Unix socket may have: 107 on Linux, 103 on macOS."""


def fits_socket(path: str | os.PathLike[str]) -> bool:
    """Whether a Unix socket may have that path."""
    return len(os.fsencode(path)) <= _LONGEST


def short_temporary_folder() -> dict[str, str]:
    """What to add to the environment of a process in which `multiprocessing` makes its sockets.

    It makes them among the temporary files, and raises where their path is too long.
    """
    socket = Path(tempfile.gettempdir()) / "pymp-xxxxxxxx" / "listener-xxxxxxxx"
    return {} if fits_socket(socket) else {"TMPDIR": "/tmp"}

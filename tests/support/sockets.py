"""Unix sockets: their paths must be short, but the folder for temporary files may have a long one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_LONGEST = 103
"""The longest path of a Unix socket in bytes: 107 on Linux, 103 on macOS."""


def fits_socket(path: str | os.PathLike[str]) -> bool:
    """Whether a Unix socket may have that path."""
    return len(os.fsencode(path)) <= _LONGEST


def short_temporary_folder() -> dict[str, str]:
    """Environment variables for a process in which `multiprocessing` makes its sockets.

    It makes them in the folder for temporary files, and raises when their path is too long.
    """
    socket = Path(tempfile.gettempdir()) / "pymp-xxxxxxxx" / "listener-xxxxxxxx"
    return {} if fits_socket(socket) else {"TMPDIR": "/tmp"}

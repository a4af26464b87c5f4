"""How a command says that it cannot do its work, and how it writes its output."""

from __future__ import annotations

import os
import sys


class CommandError(Exception):
    """The command cannot do its work; the message says why, and what to do."""


def write(output: bytes) -> None:
    """Write to standard output at once. A reader that has left, such as `head`, has read what it wanted.

    Raises:
        CommandError: the output cannot be written.
    """
    if sys.stdout is None:  # it was closed before Python began
        return
    try:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    except OSError as error:
        # Discard the rest. The interpreter would try to write it when it exits, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise CommandError(
                f"cannot write to standard output: {error.strerror}; send it elsewhere."
            ) from error

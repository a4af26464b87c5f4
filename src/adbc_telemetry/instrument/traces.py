"""Tracebacks that do not tell of us."""

from __future__ import annotations


def leave_no_frame(error: BaseException) -> None:
    """Take the frame that calls this, which has caught `error` and raises it again, out of its traceback.

    So a driver's error ends where it would without us, also that of a driver written in C, which has no frames.
    (Python 3.10 puts the frame in again when the error is raised again.)
    """
    trace = error.__traceback__
    if trace is not None:
        BaseException.with_traceback(error, trace.tb_next)  # whatever attributes its class lets be set

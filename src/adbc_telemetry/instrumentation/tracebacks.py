"""Tracebacks that do not tell of us."""

from __future__ import annotations

from adbc_telemetry.instrumentation.callers import makes_a_call


def leave_no_frame(error: BaseException) -> None:
    """Take the frame that calls this, which has caught `error` and raises it again, out of its traceback.

    So a driver's error ends where it would without us, also that of a driver written in C, which has no frames.
    (Python 3.10 puts the frame in again when the error is raised again.)
    """
    trace = error.__traceback__
    if trace is not None:
        BaseException.with_traceback(error, trace.tb_next)  # whatever attributes its class lets be set


def leave_no_frames(error: BaseException) -> None:
    """As `leave_no_frame`, for a frame that has made its call in the caller's place: with the frame of that call."""
    trace = error.__traceback__
    if trace is not None and trace.tb_next is not None and makes_a_call(trace.tb_next.tb_frame):
        trace.tb_next = trace.tb_next.tb_next  # the very traceback that Python 3.10 puts in again
    leave_no_frame(error)

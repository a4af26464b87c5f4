"""A thread of this package, and waiting for its end."""

from __future__ import annotations

import time
from collections.abc import Callable

from adbc_telemetry.core.native import get_ident, start_thread
from adbc_telemetry.core.reentrant import ReentrantEvent


class DaemonThread:
    """A real daemon thread, started at once, that green threads may wait for as well.

    Args:
        run: what it does.
        name: as debuggers show it.

    Raises:
        RuntimeError: there is no thread to be had.
    """

    def __init__(self, run: Callable[[], object], name: str) -> None:
        self._run = run
        self._ended = ReentrantEvent()
        self._ident: int | None = None
        self._thread = start_thread(self._work, name)

    @property
    def is_alive(self) -> bool:
        """Whether it runs still."""
        return not self._ended.is_set()

    def join(self, deadline: float) -> None:
        """Wait for its end until `deadline` (`time.monotonic()`); not at all when called on the thread itself."""
        if self._ident == get_ident():
            return
        if self._ended.wait(deadline - time.monotonic()) and self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))  # for the few steps that are left

    def _work(self) -> None:
        self._ident = get_ident()
        try:
            self._run()
        finally:
            self._ended.set()

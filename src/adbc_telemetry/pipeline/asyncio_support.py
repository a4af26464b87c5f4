"""Waiting in asyncio for what other threads do. The event loop is never blocked.

`asyncio` is imported when it is needed, since it takes its time to load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.native import start_thread

if TYPE_CHECKING:
    import asyncio

# How often a close that cannot have a thread looks whether it is over.
_POLL_SECONDS: Final = 0.02


class LoopSignal:
    """A future of the running event loop that other threads may resolve."""

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    def send(self, value: bool = True) -> None:
        """Resolve it, from any thread."""
        _call_in_loop(self._loop, lambda: _resolve(self._future, value))

    async def wait(self, timeout: float | None = None) -> bool:
        """The value; False after `timeout` seconds."""
        import asyncio

        try:
            return await asyncio.wait_for(self._future, timeout)
        except asyncio.TimeoutError:
            return False


def _resolve(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():  # the task that waits may have been cancelled
        future.set_result(value)


@never_raises(lambda error, loop, call: None)  # the event loop has ended, so no task waits
def _call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)


def run_in_thread(call: Callable[[], bool], name: str) -> LoopSignal:
    """Start `call` in a thread; the signal gives its value. When the waiting task is cancelled, `call` goes on.

    A thread of its own and not the loop's executor: the process would wait for an executor's thread at exit.

    Raises:
        RuntimeError: no thread can be started.
    """
    signal = LoopSignal()

    def run() -> None:
        value = False
        try:
            value = call()
        finally:
            signal.send(value)

    start_thread(run, name)
    return signal


async def value_from_thread(
    call: Callable[[], bool], name: str, *, without_thread: Callable[[], bool]
) -> bool:
    """What `call` returns in a thread; what `without_thread` returns here, if no thread can be started."""
    try:
        value = run_in_thread(call, name)
    except RuntimeError:
        return without_thread()
    return await value.wait()


async def poll_until(is_over: Callable[[], bool], deadline: float) -> None:
    """Look again and again whether something is over, until `deadline` (`time.monotonic()`)."""
    import asyncio

    while not is_over() and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)

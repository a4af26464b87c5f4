"""The end of the process: all open clients deliver what they have, within one common timeout."""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Sequence
from typing import Final, Protocol

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.interpreters import is_main_interpreter
from adbc_telemetry.core.process_pools import EndOfChild
from adbc_telemetry.core.reentrant import WeakRegistry
from adbc_telemetry.core.uwsgi import prefork

_SETTLING_SECONDS: Final = 5.0


class Closeable(Protocol):
    """What the end of the process needs of a client. All deadlines are `time.monotonic()` values."""

    def close_deadline(self, timeout: float | None = None) -> float:
        """When a close that begins now has to be over."""
        ...

    def begin_close(self, deadline: float) -> None:
        """Begin to close, unless a close has begun already."""
        ...

    def finish_close(self) -> None:
        """Wait for the close that has begun, at most until its deadline."""
        ...

    def begin_at_exit(self) -> None:
        """Send each event at once: the client is made while the process ends."""
        ...

    def begin_exit(self, deadline: float) -> None:
        """Have all queued events sent by `deadline`, and later ones at once; returns at once."""
        ...

    def finish_exit(self, deadline: float) -> bool:
        """Wait for what `begin_exit` has begun, until `deadline`.

        Returns:
            False where the client has to be closed now.
        """
        ...


class Settling(Protocol):
    """What holds events back that are to reach a client before the clients are closed."""

    def settle(self, deadline: float) -> None:
        """Hand them over, or drop them; wait for that until `deadline` (`time.monotonic()`) at most."""
        ...


def close_together(clients: Sequence[Closeable], timeout: float | None = None) -> None:
    """Close `clients` side by side: all together take no longer than one."""
    _close_by([(client, client.close_deadline(timeout)) for client in clients])


def _close_by(clients: Sequence[tuple[Closeable, float]]) -> None:
    """Close clients side by side, each by its deadline (`time.monotonic()`)."""
    for client, deadline in clients:
        client.begin_close(deadline)
    for client, _ in clients:
        client.finish_close()


class _Exit:
    """Delivers what open clients have when the interpreter exits, and when a child of a process pool does.

    Exit handlers that were registered before this one run after it, and may still use connections and close them. So
    clients that have delivered everything in time stay open, and send each further event at once.
    """

    def __init__(self) -> None:
        self._clients: WeakRegistry[Closeable] = WeakRegistry()
        self._settling: WeakRegistry[Settling] = WeakRegistry()
        self._ends = False
        # urllib3's finalizers end its connections, so they must run after our last requests. All finalizers run in one
        # exit handler, which the first one of a process registers; and the handler that is registered first runs last.
        weakref.finalize(self, _Exit).detach()
        atexit.register(self._deliver)
        self._end_of_child = EndOfChild(self._close_all)

    def add(self, client: Closeable) -> None:
        self._clients.add(client)
        self._end_of_child.register()
        if self._ends:
            client.begin_at_exit()

    def add_settling(self, thing: Settling) -> None:
        self._settling.add(thing)
        self._end_of_child.register()

    @never_raises(lambda error, self: None)
    def _settle(self) -> None:
        deadline = time.monotonic() + _SETTLING_SECONDS
        for thing in self._settling.living():
            thing.settle(deadline)

    @never_raises(lambda error, self: None)
    def _deliver(self) -> None:
        self._ends = True
        prefork.end_of_forks()
        self._settle()
        clients = self._clients.living()
        if not is_main_interpreter():  # it must have no threads any more when its exit handlers have run
            close_together(clients)
            return
        ending = [(client, client.close_deadline()) for client in clients]
        for client, deadline in ending:
            client.begin_exit(deadline)
        _close_by([(client, deadline) for client, deadline in ending if not client.finish_exit(deadline)])

    @never_raises(lambda error, self: None)
    def _close_all(self) -> None:
        self._settle()
        close_together(self._clients.living())


_exit = _Exit()
close_at_exit = _exit.add
settle_at_exit = _exit.add_settling

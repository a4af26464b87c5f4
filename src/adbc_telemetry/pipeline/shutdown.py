"""The end of the process: open clients deliver what they have, all of them within one common timeout."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from typing import Protocol

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.interpreters import is_main_interpreter
from adbc_telemetry.core.process_pools import EndOfChild
from adbc_telemetry.core.reentrant import WeakRegistry
from adbc_telemetry.core.uwsgi import prefork


class Closeable(Protocol):
    """A client, as its end has to do with it."""

    def close_deadline(self, timeout: float | None = None) -> float:
        """When a close that begins now has to be over (`time.monotonic()`)."""
        ...

    def begin_close(self, deadline: float) -> None:
        """Start closing, if nobody has yet."""
        ...

    def finish_close(self) -> None:
        """Wait for the end of it, whoever has begun it, at most until its deadline."""
        ...

    def begin_at_exit(self) -> None:
        """Send each event at once: the client is made while the process ends."""
        ...

    def begin_exit(self, deadline: float) -> None:
        """Have all that is there sent by `deadline`, and from now on each event at once; returns at once."""
        ...

    def finish_exit(self, deadline: float) -> bool:
        """Wait for that, until `deadline`; False where the client has to be closed now."""
        ...


def close_together(clients: Sequence[Closeable], timeout: float | None = None) -> None:
    """Close `clients` side by side, so that all of them take no longer than one."""
    _close_by([(client, client.close_deadline(timeout)) for client in clients])


def _close_by(clients: Sequence[tuple[Closeable, float]]) -> None:
    """Close clients side by side, each by its deadline (`time.monotonic()`)."""
    for client, deadline in clients:
        client.begin_close(deadline)
    for client, _ in clients:
        client.finish_close()


class _Exit:
    """Delivers what open clients have when the interpreter exits, and when a child of a pool does.

    Handlers that were registered before this one run after it, and may still use connections and close them. So the
    exit leaves clients open that have delivered everything in time, each ready to send the next event at once.
    """

    def __init__(self) -> None:
        self._clients: WeakRegistry[Closeable] = WeakRegistry()
        self._ends = False
        # The first `weakref.finalize` of a process registers the exit of all of them, and what is registered first
        # runs last. urllib3 has finalizers that end its connections: they must not come before our last requests.
        weakref.finalize(self, _Exit).detach()
        atexit.register(self._deliver)
        self._end_of_child = EndOfChild(self._close_all)

    def add(self, client: Closeable) -> None:
        self._clients.add(client)
        self._end_of_child.register()
        if self._ends:
            client.begin_at_exit()

    @never_raises(lambda error, self: None)
    def _deliver(self) -> None:
        self._ends = True
        prefork.end_of_forks()
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
        close_together(self._clients.living())


_exit = _Exit()
close_at_exit = _exit.add

"""The end of the process: open clients deliver what they have, all of them within one common timeout."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Sequence
from typing import Protocol

from adbc_telemetry.forking import renew_in_child
from adbc_telemetry.guard import contained
from adbc_telemetry.registry import WeakRegistry


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


def close_together(clients: Sequence[Closeable], timeout: float | None = None) -> None:
    """Close `clients` side by side, so that all of them take no longer than one."""
    for client in clients:
        client.begin_close(client.close_deadline(timeout))
    for client in clients:
        client.finish_close()


class _Exit:
    """Closes what is open when the interpreter exits, and when a `multiprocessing` child does.

    Such a child ends by `os._exit`, past `atexit`, but runs multiprocessing's own finalizers.
    """

    def __init__(self) -> None:
        self._clients: WeakRegistry[Closeable] = WeakRegistry()
        self._finalizer_registered = False
        # The first `weakref.finalize` of a process registers the exit of all of them, and what is registered first
        # runs last. urllib3 has finalizers that end its connections: they must not come before our last requests.
        weakref.finalize(self, _Exit).detach()
        atexit.register(self.close_all)
        renew_in_child(self)

    def add(self, client: Closeable) -> None:
        self._clients.add(client)
        self._register_finalizer()

    def after_fork_in_child(self) -> None:
        self._finalizer_registered = False
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            # A child of multiprocessing forgets all finalizers when it starts, then runs these.
            util.register_after_fork(self, _Exit._register_finalizer)

    @contained(lambda error, self: None)
    def close_all(self) -> None:
        close_together(self._clients.living())

    def _register_finalizer(self) -> None:
        process = sys.modules.get("multiprocessing.process")
        if self._finalizer_registered or process is None or process.parent_process() is None:
            return
        from multiprocessing.util import Finalize

        Finalize(None, self.close_all, exitpriority=0)
        self._finalizer_registered = True


_exit = _Exit()
close_at_exit = _exit.add

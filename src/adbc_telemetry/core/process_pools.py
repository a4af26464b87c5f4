"""Children of process pools: they end by `os._exit`, past `atexit`, each family of them in a way of its own.

None of the families is imported here: without its modules the process is no child of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from adbc_telemetry.core.fork import renew_in_child
from adbc_telemetry.core.guard import never_raises

# multiprocessing and its forks. Their children forget all finalizers when they start, then run what was registered for
# after the fork; at their end they run the finalizers that they have by then.
_FAMILIES: Final = ("multiprocessing", "multiprocess", "billiard")


class EndOfChild:
    """Calls `call` when a child of a pool ends, possibly more than once.

    Args:
        call: what to do; it must not raise.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._followed: set[str] = set()  # families that call `register` when one of their children starts
        self._finalizers: dict[str, Any] = {}  # of this process, by their family
        self._worker: Any = None  # that calls `call` when it exits
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """Finalizers of the parent's do nothing in a child."""
        self._finalizers = {}
        self.register()

    def register(self) -> None:
        """Register with the families that are there, unless that is done. A child that starts forgets finalizers."""
        for family in _FAMILIES:
            self._register_with(family)
        self._register_with_worker()

    @never_raises(lambda error, self, family: None)
    def _register_with(self, family: str) -> None:
        util, process = sys.modules.get(f"{family}.util"), sys.modules.get(f"{family}.process")
        if util is None or process is None:
            return
        if family not in self._followed:
            util.register_after_fork(self, EndOfChild.register)
            self._followed.add(family)
        finalizer = self._finalizers.get(family)
        if _is_child(process) and (finalizer is None or not finalizer.still_active()):
            self._finalizers[family] = util.Finalize(None, self._call, exitpriority=0)

    @never_raises(lambda error, self: None)
    def _register_with_worker(self) -> None:
        """A worker of billiard's pool runs no finalizers. What it calls at its end is its `on_exit`."""
        pool, process = sys.modules.get("billiard.pool"), sys.modules.get("billiard.process")
        if pool is None or process is None:
            return
        worker = getattr(process.current_process(), "_target", None)
        if worker is self._worker or not isinstance(worker, pool.Worker):
            return
        self._worker = worker
        before = worker.on_exit

        def on_exit(pid: int, exitcode: int | None) -> None:
            try:
                if before is not None:
                    before(pid, exitcode)  # Celery's `worker_process_shutdown`: the program's own farewell
            finally:
                self._call()

        worker.on_exit = on_exit


def _is_child(process: Any) -> bool:
    if hasattr(process, "parent_process"):
        return process.parent_process() is not None
    return getattr(process.current_process(), "_parent_pid", None) is not None  # billiard

"""uWSGI, which forks its workers without running Python's fork hooks.

It forks in C, by default without the hooks that Python runs at a fork. And it does not care who has the interpreter's
lock: a thread that runs in the master at that moment, or waits for that lock, leaves the worker a lock that no thread
gives back, so that the worker hangs. So this package starts no thread in the master until the master ends, and the
workers learn of the fork from uWSGI's own hook.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from adbc_telemetry.core.fork import renew_if_forked
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.core.reentrant import WeakRegistry


class Starting(Protocol):
    """What waits for its threads."""

    def start_sending(self) -> None:
        """Start them, unless a fork has done that already."""
        ...


class _Prefork:
    """What is known of uWSGI, should the process be one of its own."""

    def __init__(self) -> None:
        self._uwsgi: Any = None
        self._forks_are_over = False
        self._made_in = os.getpid()
        self._waiting: WeakRegistry[Starting] = WeakRegistry()
        self._watch()

    def threads_may_start(self) -> bool:
        """Whether this process may have threads: any but one that uWSGI is about to fork."""
        self._watch()
        uwsgi = self._uwsgi
        if uwsgi is None or self._forks_are_over:
            return True
        master = uwsgi.masterpid()
        if master:
            return bool(master != os.getpid())
        # Without a master the first worker forks the others, and gets its number after that.
        return bool(os.getpid() != self._made_in or uwsgi.worker_id())

    def start_when_forked(self, thing: Starting) -> None:
        """Call `thing.start_sending()` in the process that uWSGI runs as a worker."""
        self._waiting.add(thing)

    def end_of_forks(self) -> None:
        """No more workers are forked from this process: it is a worker, or it ends."""
        self._forks_are_over = True

    @never_raises(lambda error, self: None)
    def _watch(self) -> None:
        uwsgi = sys.modules.get("uwsgi")
        if self._uwsgi is not None or not hasattr(uwsgi, "masterpid"):
            return
        self._uwsgi = uwsgi
        _call_after_fork(uwsgi, self._after_fork)

    @never_raises(lambda error, self: None)
    def _after_fork(self) -> None:
        renew_if_forked()
        self.end_of_forks()
        for thing in self._waiting.living():
            thing.start_sending()


def _call_after_fork(uwsgi: Any, call: Callable[[], None]) -> None:
    """Have uWSGI run `call` in every worker, mule and spooler.

    uWSGI has room for one function. Its `uwsgidecorators`, which the program may import at any time, put a function
    there that calls any number of others. So they are imported first, and what they replace is put back.
    """
    names = ("post_fork_hook", "spooler", "mule_msg_hook")
    before = {name: getattr(uwsgi, name) for name in names if hasattr(uwsgi, name)}
    already = "uwsgidecorators" in sys.modules
    decorators: Any = _import_decorators()
    hook = before.pop("post_fork_hook", None)
    if decorators is None:
        uwsgi.post_fork_hook = call if hook is None else _both(call, hook)
        return
    decorators.postfork_chain.insert(0, call)
    if not already:
        if hook is not None:
            decorators.postfork_chain.append(hook)
        for name, value in before.items():
            setattr(uwsgi, name, value)


def _none(error: Exception) -> object:
    return None


@never_raises(_none)
def _import_decorators() -> object:
    """None where there are none, or where they cannot be used for want of a master."""
    import uwsgidecorators

    return uwsgidecorators


def _both(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


prefork: Final = _Prefork()

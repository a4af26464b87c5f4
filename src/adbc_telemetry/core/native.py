"""Threads, locks, sockets and TLS of the operating system, whatever a program has put in their place.

gevent and eventlet replace parts of `threading`, `queue`, `time`, `socket` and `ssl`, before this package is imported
or long after, and pytest-socket takes sockets away for a while. The sender needs real ones: a real thread that waits
at a green lock, or a greenlet that waits at a real queue, stops the whole process.

So this module has copies of the modules that nothing else can reach: of the compiled ones from the start, of `socket`
and `ssl` when something is to be sent. They share types and errors with the originals, since those are compiled.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import _thread
    import socket
    import ssl
    from queue import Empty, SimpleQueue
    from threading import Lock, RLock, get_ident, local
    from time import sleep
else:

    def _compiled_copy(name):
        spec = importlib.util.find_spec(name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    _thread = _compiled_copy("_thread")
    Lock = _thread.allocate_lock
    RLock = _thread.RLock
    get_ident = _thread.get_ident
    local = _thread._local
    _queue = _compiled_copy("_queue")
    SimpleQueue, Empty = _queue.SimpleQueue, _queue.Empty
    sleep = _compiled_copy("time").sleep

__all__ = [
    "Empty",
    "Lock",
    "RLock",
    "SimpleQueue",
    "current_task",
    "get_ident",
    "local",
    "sleep",
    "socket",
    "ssl",
    "start_thread",
]

_GREEN: Final = ("gevent", "eventlet")
_COPIED: Final = ("socket", "ssl")  # `ssl` builds its sockets on those of `socket`


def __getattr__(name: str) -> Any:
    """`native.socket` and `native.ssl`, copied on first use."""
    if name not in _COPIED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for each in _COPIED:
        globals()[each] = _python_copy(each)
    return globals()[name]


def _python_copy(name: str) -> types.ModuleType:
    """A module made of the same code, which imports our copies where there are some."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no module {name!r}")
    copy = types.ModuleType(f"{__name__}.{name}")
    copies: dict[str, Any] = {each: globals()[each] for each in _COPIED if each in globals()}

    def import_copies(module: str, *args: Any, **kwargs: Any) -> Any:
        return copies.get(module) or builtins.__import__(module, *args, **kwargs)

    vars(copy).update(__builtins__={**vars(builtins), "__import__": import_copies}, __spec__=spec)
    sys.modules[copy.__name__] = copy  # where its enums look for their names
    exec(spec.loader.get_code(name), vars(copy))  # type: ignore[attr-defined]
    return copy


def is_green(thing: object) -> bool:
    """Whether a function or class belongs to a library of green threads."""
    return str(getattr(thing, "__module__", "")).startswith(_GREEN)


def green_sleep() -> Callable[[float], object] | None:
    """How the calling code waits without stopping other green threads; None where there are none to stop.

    Green threads run in a thread that has a hub, and only while nothing in that thread blocks.
    """
    gevent = sys.modules.get("gevent._hub_local")
    if gevent is not None:
        hub = gevent.get_hub_if_exists()
        if (
            hub is not None and sys.modules["greenlet"].getcurrent() is not hub
        ):  # the hub cannot wait for itself
            return sys.modules["gevent"].sleep  # type: ignore[no-any-return]
    eventlet = sys.modules.get("eventlet.hubs")
    if eventlet is not None:
        hub = getattr(eventlet._threadlocal, "hub", None)
        if hub is not None and sys.modules["greenlet"].getcurrent() is not hub.greenlet:
            return sys.modules["eventlet"].sleep  # type: ignore[no-any-return]
    return None


def current_task() -> object:
    """Tells the running thread, or green thread, from all others that run now."""
    greenlet = sys.modules.get("greenlet")
    return get_ident() if greenlet is None else (get_ident(), id(greenlet.getcurrent()))


class _Thread(threading.Thread):
    """Ends in peace when threads have been patched while it ran: it would look itself up by a green thread's ident."""

    def _delete(self) -> None:
        threading._active.pop(self.ident, None)  # type: ignore[attr-defined]


def _threads_are_green() -> bool:
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        return True
    return eventlet is not None and bool(eventlet.is_monkey_patched("thread"))


def start_thread(run: Callable[[], object], name: str) -> threading.Thread | None:
    """Start a real daemon thread.

    Returns:
        The thread as `threading` knows it; None where that starts green ones.

    Raises:
        RuntimeError: there is no thread to be had.
    """
    if _threads_are_green():
        _thread.start_new_thread(run, ())
        return None
    thread = _Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread

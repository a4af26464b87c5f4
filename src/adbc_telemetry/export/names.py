"""Name resolution with an end: `getaddrinfo` knows no timeout, and nobody can interrupt it.

So it runs on a thread of its own, which is there for the time of the look-up; whoever waits for it goes by its
deadline, or when it is told to. Addresses and names of this machine are looked up at once: they never hang.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from adbc_telemetry.forking import renew_in_child
from adbc_telemetry.hosts import is_loopback

Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
"""As `socket.getaddrinfo` returns them."""

_MAX_LOOKUPS: Final = 4
# How long a look-up waits for one of the others to end: they hang, most likely.
_QUEUE_SECONDS: Final = 1.0


class _Lookups:
    """How many threads look something up: a resolver that hangs must not cost more and more of them."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The parent's look-ups are the parent's."""
        self.free = threading.BoundedSemaphore(_MAX_LOOKUPS)


_lookups = _Lookups()


class Resolution:
    """The look-up of one name: `wait` for it on one thread, `cancel` it on another."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._answers: SimpleQueue[list[Address] | OSError | None] = SimpleQueue()

    def cancel(self) -> None:
        """Have `wait` raise at once."""
        self._answers.put(None)

    def wait(self, deadline: float) -> list[Address]:
        """The addresses of the name.

        Raises:
            TimeoutError: `deadline` (`time.monotonic()`) came first, `cancel` was called, or too many others hang.
            OSError: the name could not be resolved.
        """
        if _never_hangs(self._host):
            return _resolve(self._host, self._port)
        free = _lookups.free
        if not free.acquire(timeout=max(0.0, min(_QUEUE_SECONDS, deadline - time.monotonic()))):
            raise TimeoutError("too many look-ups hang")
        try:
            threading.Thread(
                target=self._look_up, args=(free.release,), name="adbc-telemetry-lookup", daemon=True
            ).start()
        except RuntimeError:
            # There is none to be had; Python 3.12 starts none once the interpreter ends. A look-up that hangs then
            # holds its lane, which others wait for no longer than their deadlines.
            self._look_up(free.release)
        try:
            answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            answer = None
        if answer is None:
            raise TimeoutError("the name was not resolved in time")
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _look_up(self, done: Callable[[], None]) -> None:
        try:
            answer: list[Address] | OSError = _resolve(self._host, self._port)
        except OSError as error:
            answer = error
        except UnicodeError:  # of a label that is too long, say
            answer = socket.gaierror(socket.EAI_NONAME, "not a name")
        done()
        self._answers.put(answer)


def _resolve(host: str, port: int) -> list[Address]:
    return list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))


def _never_hangs(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return is_loopback(host)
    return True

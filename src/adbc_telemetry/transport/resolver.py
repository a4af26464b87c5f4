"""Name resolution with an end: `getaddrinfo` knows no timeout, and cannot be interrupted.

So it runs on a thread of its own, which is there for the time of the look-up. The request that waits for it goes by
its deadline, or when it is cancelled. Addresses are not looked up at all, and names of this machine at once.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from adbc_telemetry.core import native
from adbc_telemetry.core.fork import fork_gate, renew_in_child
from adbc_telemetry.core.hosts import is_loopback
from adbc_telemetry.core.native import Empty, SimpleQueue, start_thread

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
        self.free: SimpleQueue[None] = SimpleQueue()
        for _ in range(_MAX_LOOKUPS):
            self.free.put(None)


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
        address = _address_of(self._host, self._port)
        if address is not None:
            return [address]
        if is_loopback(self._host):
            return _resolve(self._host, self._port)
        free = _lookups.free
        try:
            free.get(timeout=max(0.0, min(_QUEUE_SECONDS, deadline - time.monotonic())))
        except Empty:
            raise TimeoutError("too many look-ups hang") from None
        try:
            start_thread(lambda: self._look_up(lambda: free.put(None)), "adbc-telemetry-lookup")
        except RuntimeError:
            # There is none to be had; Python 3.12 starts none once the interpreter ends. A look-up that hangs then
            # holds its worker, which others wait for no longer than their deadlines.
            self._look_up(lambda: free.put(None))
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
    # The program's own resolver, if it has put one in the place of the system's; a green one needs its hub.
    resolver = socket if not native.is_green(socket.getaddrinfo) else native.socket
    with fork_gate.briefly():  # the C library takes locks
        return list(resolver.getaddrinfo(host, port, 0, socket.SOCK_STREAM))


def _address_of(host: str, port: int) -> Address | None:
    """What `getaddrinfo` would answer for an address; None for a name. Takes no lock of the C library."""
    text, _, zone = host.strip("[]").partition("%")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if zone:  # names an interface: only the system knows its number
        return None
    if address.version == 4:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port))
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port, 0, 0))

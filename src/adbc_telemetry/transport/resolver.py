"""Name look-ups that end by a deadline: `getaddrinfo` has no timeout and cannot be interrupted.

So each look-up runs on a thread of its own, which ends with it. The request that waits for it stops waiting at its
deadline, or when it is cancelled. An address needs no look-up, and a name of this machine needs no thread. Nothing is
cached: that is the system's business.
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
# How long a further look-up waits for one of those to end: if it takes longer, they most likely hang.
_QUEUE_SECONDS: Final = 1.0


class _Lookups:
    """Bounds how many threads look something up: a resolver that hangs must not take more and more of them."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        renew_in_child(self)

    def after_fork_in_child(self) -> None:
        """The child has none of the parent's threads."""
        self.free: SimpleQueue[None] = SimpleQueue()
        for _ in range(_MAX_LOOKUPS):
            self.free.put(None)


_lookups = _Lookups()


class Resolution:
    """The look-up of one name: one thread waits for it with `wait`, another may `cancel` it."""

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
        if "%" not in self._host and is_loopback(
            self._host
        ):  # "%" is in an address with a zone, no name of a host
            return _resolve(self._host, self._port)
        free = _lookups.free
        try:
            free.get(timeout=max(0.0, min(_QUEUE_SECONDS, deadline - time.monotonic())))
        except Empty:
            raise TimeoutError("too many look-ups hang") from None
        try:
            start_thread(lambda: self._look_up(lambda: free.put(None)), "adbc-telemetry-lookup")
        except RuntimeError:
            # No thread can be started: Python 3.12 starts none once the interpreter ends. If this look-up hangs it
            # holds up its worker, but other requests still end by their deadlines.
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
        except UnicodeError:  # a label that is too long, for example
            answer = socket.gaierror(socket.EAI_NONAME, "not a name")
        done()
        self._answers.put(answer)


def _resolve(host: str, port: int) -> list[Address]:
    # If the program has replaced the resolver, use its own, unless that is one for green threads: it needs a hub.
    resolver = socket if not native.is_green(socket.getaddrinfo) else native.socket
    with fork_gate.briefly():  # the C library takes locks
        return list(resolver.getaddrinfo(host, port, 0, socket.SOCK_STREAM))


def _address_of(host: str, port: int) -> Address | None:
    """What `getaddrinfo` would answer for an address; None for a name. It takes no lock of the C library."""
    text, _, zone = host.strip("[]").partition("%")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if zone:  # the name of a network interface: only the system knows its number
        return None
    if address.version == 4:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port))
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port, 0, 0))

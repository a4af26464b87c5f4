"""Name look-ups that end by a deadline, with a resolver that does as it is told, on no thread but the test's own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adbc_telemetry.transport import resolver
from adbc_telemetry.transport.resolver import Resolution

FOUND = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 443))
MAX_LOOKUPS = resolver._MAX_LOOKUPS


class Names:
    """Stands in for `socket.getaddrinfo`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, host: str, port: int, *_: object, **__: object) -> list[Any]:
        self.asked.append((host, port))
        self.meanwhile()
        if self.error is not None:
            raise self.error
        return [FOUND]


class Threads:
    """Stands in for `start_thread`: runs at once what is to run, unless it hangs or no thread can be started."""

    def __init__(self) -> None:
        self.started = 0
        self.hanging: list[Callable[[], object]] = []
        self.hang = self.none_left = False

    def __call__(self, run: Callable[[], object], name: str) -> None:
        if self.none_left:
            raise RuntimeError("can't start new thread")
        self.started += 1
        if self.hang:
            self.hanging.append(run)
        else:
            run()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    threads = Threads()
    monkeypatch.setattr(resolver, "start_thread", threads)
    yield threads
    assert resolver._lookups.free.qsize() == MAX_LOOKUPS - len(threads.hanging)
    for run in threads.hanging:
        run()
    assert resolver._lookups.free.qsize() == MAX_LOOKUPS, "a look-up has kept its place"


def look_up(host: str, seconds: float = 10.0) -> list[Any]:
    return Resolution(host, 443).wait(time.monotonic() + seconds)


def test_a_name_is_looked_up_on_a_thread_of_its_own(names: Names, threads: Threads) -> None:
    assert look_up("one.example") == [FOUND]
    assert (names.asked, threads.started) == ([("one.example", 443)], 1)


def test_an_answer_is_not_kept(names: Names, threads: Threads) -> None:
    look_up("one.example")
    look_up("one.example")
    assert len(names.asked) == 2


@pytest.mark.parametrize(
    ("address", "family", "where"),
    [
        ("192.0.2.7", socket.AF_INET, ("192.0.2.7", 443)),
        ("[2001:db8::7]", socket.AF_INET6, ("2001:db8::7", 443, 0, 0)),
        ("2001:db8::7", socket.AF_INET6, ("2001:db8::7", 443, 0, 0)),
    ],
)
def test_an_address_is_not_looked_up(
    names: Names, threads: Threads, address: str, family: socket.AddressFamily, where: tuple[Any, ...]
) -> None:
    assert look_up(address) == [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]
    assert (names.asked, threads.started) == ([], 0)


def test_an_address_of_a_network_interface_is_looked_up_since_the_system_knows_its_number(
    names: Names, threads: Threads
) -> None:
    look_up("fe80::1%eth0")
    assert names.asked == [("fe80::1%eth0", 443)]


def test_a_name_of_this_machine_is_looked_up_without_a_thread(names: Names, threads: Threads) -> None:
    assert look_up("localhost") == [FOUND]
    assert (names.asked, threads.started) == ([("localhost", 443)], 0)


def test_a_failure_is_raised_where_the_request_waits(names: Names, threads: Threads) -> None:
    names.error = socket.gaierror(socket.EAI_AGAIN, "try again")
    with pytest.raises(socket.gaierror, match="try again"):
        look_up("one.example")


def test_what_cannot_be_a_name_is_a_failure_too(names: Names, threads: Threads) -> None:
    names.error = UnicodeError("label too long")
    with pytest.raises(socket.gaierror, match="not a name"):
        look_up("x" * 64 + ".example")


@pytest.mark.parametrize("seconds", [0.02, 0.0, -1.0])
def test_a_look_up_that_hangs_ends_by_the_deadline(names: Names, threads: Threads, seconds: float) -> None:
    threads.hang = True
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="in time"):
        look_up("one.example", seconds)
    assert time.monotonic() - began < 5


def test_a_cancelled_look_up_ends_at_once(names: Names, threads: Threads) -> None:
    threads.hang = True
    resolution = Resolution("one.example", 443)
    resolution.cancel()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="in time"):
        resolution.wait(time.monotonic() + 60)
    assert time.monotonic() - began < 5


def test_an_answer_that_comes_after_the_cancellation_is_too_late(names: Names, threads: Threads) -> None:
    resolution = Resolution("one.example", 443)
    names.meanwhile = resolution.cancel
    with pytest.raises(TimeoutError):
        resolution.wait(time.monotonic() + 60)


def test_look_ups_that_hang_do_not_take_more_and_more_threads(names: Names, threads: Threads) -> None:
    threads.hang = True
    for n in range(MAX_LOOKUPS):
        with pytest.raises(TimeoutError, match="in time"):
            look_up(f"{n}.example", 0.0)
    with pytest.raises(TimeoutError, match="too many"):
        look_up("further.example", 0.02)
    assert threads.started == MAX_LOOKUPS
    threads.hanging.pop()()
    threads.hang = False
    assert look_up("further.example") == [FOUND]


def test_without_a_thread_to_be_had_the_request_s_own_thread_looks_up(names: Names, threads: Threads) -> None:
    threads.none_left = True
    assert look_up("one.example") == [FOUND]
    assert threads.started == 0


def test_a_forked_child_does_not_wait_for_the_look_ups_of_its_parent(names: Names, threads: Threads) -> None:
    threads.hang = True
    for n in range(MAX_LOOKUPS):
        with pytest.raises(TimeoutError):
            look_up(f"{n}.example", 0.0)
    parents = resolver._lookups.free
    resolver._lookups.after_fork_in_child()
    threads.hang = False
    try:
        assert look_up("one.example") == [FOUND]
    finally:
        resolver._lookups.free = parents

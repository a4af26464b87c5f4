"""Waiting for conditions with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

TIMEOUT = 20.0


def wait_until(
    condition: Callable[[], object], timeout: float = TIMEOUT, what: Callable[[], str] | None = None
) -> None:
    """Return once `condition` holds; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what() if what else f"not within {timeout} s: {condition}")
        time.sleep(0.002)


def run_in_threads(count: int, target: Callable[[int], object], timeout: float = 60.0) -> None:
    """Run `target(i)` in `count` threads that start together; raises the first exception of a thread."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        start.wait()
        try:
            target(index)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), name=f"test-{index}") for index in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]

"""Event loops are never blocked, calls can be cancelled, and a loop can close under a waiting coroutine."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from adbc_telemetry import InMemoryTelemetryExporter, TelemetryClient, TelemetryConfiguration
from adbc_telemetry.testing import GatedExporter
from faults.scenario import Scenario
from support.logs import make_log, make_logs
from support.process import run_program
from support.server import Reply, TelemetryServer, black_hole, raw_endpoint, refused_url
from support.waiting import run_in_threads, wait_until


def configuration(**settings: object) -> TelemetryConfiguration:
    return TelemetryConfiguration(**{"enabled": True, "flush_interval_ms": 60_000, **settings})  # type: ignore[arg-type]


def watchers(client: TelemetryClient) -> list[object]:
    """The barriers that event loops wait at; threads use their own."""
    return [barrier for barrier in client._flow.barriers._raised if barrier.notify is not None]


class Lag:
    """The longest delay of a task that wants to run every millisecond."""

    largest = 0.0
    ticks = 0

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        async def tick() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                self.largest = max(self.largest, time.monotonic() - before)
                self.ticks += 1

        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        try:
            yield
            ticks = self.ticks
            while self.ticks == ticks:  # count the tick that a blocked loop delays, too
                await asyncio.sleep(0)
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking


# The loop's lag. Its bound is far below the duration of each call and far above the delays of a busy machine.
LAG = 0.25


def test_a_black_hole_while_the_loop_flushes_and_closes(fault: Scenario) -> None:
    """The endpoint never answers; `aflush` waits 0.5 s for it and `aclose` another 0.5 s."""
    lag = Lag()

    async def main(url: str) -> TelemetryClient:
        client = TelemetryClient(url, configuration(close_timeout_ms=500))
        for log in make_logs(10):
            client.enqueue(log)
        async with lag.measured():
            assert await client.aflush(0.5) is False
            assert await client.aclose() is False
        return client

    with raw_endpoint(black_hole) as url:
        began = time.monotonic()
        client = asyncio.run(main(url))
        assert 0.9 < time.monotonic() - began < 1 + 0.5
    assert lag.largest < LAG
    assert lag.ticks > 50
    fault.settled(client.stats(), sent=10, arrived=[])


def test_a_slow_endpoint_while_the_loop_flushes_and_closes(fault: Scenario, server: TelemetryServer) -> None:
    """Each answer takes half a second; `async with` closes the client."""
    lag = Lag()
    gates = [threading.Event(), threading.Event()]
    server.replies.extend(Reply(release=gate) for gate in gates)

    async def main() -> TelemetryClient:
        async with lag.measured(), TelemetryClient(server.url, configuration()) as client:
            client.enqueue(make_log())
            asyncio.get_running_loop().call_later(0.5, gates[0].set)
            assert await client.aflush(10) is True
            client.enqueue(make_log())
            asyncio.get_running_loop().call_later(0.5, gates[1].set)
        return client

    client = asyncio.run(main())
    assert lag.largest < LAG
    assert lag.ticks > 50
    fault.settled(client.stats(), sent=2, arrived=server.accepted)
    assert fault.delivered == 2


def test_the_endpoint_refuses_while_the_loop_flushes_and_closes(fault: Scenario) -> None:
    """The port refuses connections, and each batch is tried six times with back-offs."""
    lag = Lag()

    async def main() -> TelemetryClient:
        config = configuration(max_retries=5, retry_delay_ms=20, close_timeout_ms=2_000)
        client = TelemetryClient(refused_url(), config)
        async with lag.measured():
            client.enqueue(make_log())
            assert await client.aflush(10) is True
            client.enqueue(make_log())
            assert await client.aclose() is True
        return client

    client = asyncio.run(main())
    assert lag.largest < LAG
    fault.settled(client.stats(), sent=2, arrived=[])
    assert fault.lost == {"failed": 2}


def test_the_clients_lock_is_not_held_while_the_loop_asks(fault: Scenario) -> None:
    """One loop runs 16 flushes at once while a thread keeps filling the queue."""
    lag = Lag()
    exporter = InMemoryTelemetryExporter()
    made = 0
    stop = threading.Event()

    async def main() -> None:
        async with lag.measured():
            for _ in range(10):
                assert all(await asyncio.gather(*(client.aflush(10) for _ in range(16))))

    client = TelemetryClient("host", configuration(batch_size=10, max_queue_size=100), exporter=exporter)

    def produce() -> None:
        nonlocal made
        while not stop.is_set():
            client.enqueue(make_log())
            made += 1

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        asyncio.run(main())
    finally:
        stop.set()
        producer.join(10)
        client.close()
    assert watchers(client) == []
    assert lag.largest < LAG
    fault.settled(client.stats(), sent=made, arrived=[log.frontend_log_event_id for log in exporter.logs])


# Cancellation.


@pytest.mark.parametrize("call", ["aflush", "aclose"])
def test_a_call_is_cancelled_at_any_moment(fault: Scenario, server: TelemetryServer, call: str) -> None:
    """The call in brackets is cancelled at 80 different moments, by steps of the loop or by time."""
    moments = random.Random(7)
    sent = delivered = cancelled = 0

    async def main(steps: int, seconds: float, client: TelemetryClient) -> bool:
        task = asyncio.create_task(getattr(client, call)())
        for _ in range(steps):
            await asyncio.sleep(0)
        if seconds:
            await asyncio.sleep(seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return task.cancelled()

    for moment in range(80):
        client = TelemetryClient(server.url, configuration(batch_size=2))
        for log in make_logs(6):
            client.enqueue(log)
        steps, seconds = moment % 5, moments.uniform(0, 0.006) if moment % 2 else 0.0
        cancelled += asyncio.run(main(steps, seconds, client))
        assert watchers(client) == []
        if call == "aclose" and steps:  # it has begun, so it continues in the background
            wait_until(lambda client=client: client.is_closed)  # type: ignore[misc]
        assert client.close()
        stats = client.stats()
        assert stats.closes
        assert (stats.enqueued, stats.delivered) == (6, 6)
        sent, delivered = sent + 6, delivered + 6
    assert cancelled > 0
    assert len(server.accepted) == len(set(server.accepted)) == delivered
    fault.seen(sent=sent, delivered=delivered)


@pytest.mark.parametrize("way", ["wait_for", "timeout"])
def test_a_call_runs_into_the_programs_own_timeout(fault: Scenario, way: str) -> None:
    """The endpoint hangs; the program wraps `aflush` and `aclose` in its own timeout."""
    if way == "timeout" and sys.version_info < (3, 11):
        pytest.skip("asyncio.timeout needs Python 3.11")
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(), exporter=exporter)

    async def within(call: Awaitable[bool], seconds: float) -> None:
        if way == "wait_for":
            await asyncio.wait_for(call, seconds)
        else:
            async with asyncio.timeout(seconds):  # type: ignore[attr-defined,unused-ignore]
                await call

    async def main() -> None:
        client.enqueue(make_log())
        for call in (client.aflush(), client.aflush(20), client.aclose()):
            with pytest.raises(asyncio.TimeoutError):
                await within(call, 0.03)
        assert watchers(client) == []
        exporter.gate.set()
        assert await client.aclose() is True  # the same close: it continued in the background

    asyncio.run(main())
    fault.settled(client.stats(), sent=1, arrived=[log.frontend_log_event_id for log in exporter.logs])
    assert fault.delivered == 1


# Several loops, several threads.


def test_loops_and_threads_share_a_client(fault: Scenario, server: TelemetryServer) -> None:
    """Four loops in four threads and four plain threads share a client: all enqueue and flush, the loops also cancel
    flushes, and all close it."""
    client = TelemetryClient(server.url, configuration(batch_size=20))

    async def loop(index: int) -> None:
        for number in range(15):
            for log in make_logs(5):
                client.enqueue(log)
            flushes = [asyncio.create_task(client.aflush(10)) for _ in range(3)]
            await asyncio.sleep(0)
            flushes[number % 3].cancel()
            results = await asyncio.gather(*flushes, return_exceptions=True)
            assert all(result is True or isinstance(result, asyncio.CancelledError) for result in results)

    def thread(index: int) -> None:
        for _ in range(15):
            for log in make_logs(5):
                client.enqueue(log)
            assert client.flush(10)

    def work(index: int) -> None:
        if index % 2:
            asyncio.run(loop(index))
        else:
            thread(index)

    run_in_threads(8, work)
    assert watchers(client) == []

    async def close() -> bool:
        return all(await asyncio.gather(client.aclose(), client.aclose()))

    closed: list[bool] = []
    run_in_threads(4, lambda index: closed.append(asyncio.run(close()) if index % 2 else client.close()))
    assert closed == [True] * 4
    fault.settled(client.stats(), sent=8 * 15 * 5, arrived=server.accepted)
    assert fault.delivered == 600


def test_the_loop_closes_while_calls_wait_in_it(fault: Scenario) -> None:
    """The program closes a loop while an `aflush` and an `aclose` wait in it, without cancelling them."""
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(), exporter=exporter)
    client.enqueue(make_log())
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the program abandons its tasks on purpose
    tasks = [loop.create_task(client.aflush()), loop.create_task(client.aclose())]
    loop.run_until_complete(asyncio.sleep(0))
    assert len(watchers(client)) == 1
    loop.close()
    exporter.gate.set()
    assert client.close()
    wait_until(lambda: watchers(client) == [])
    for task in tasks:
        coroutine = task.get_coro()
        with suppress(RuntimeError):  # the loop is closed
            coroutine.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    fault.settled(client.stats(), sent=1, arrived=[log.frontend_log_event_id for log in exporter.logs])
    assert fault.delivered == 1


def test_two_tasks_and_two_loops_close_a_client(fault: Scenario, server: TelemetryServer) -> None:
    """Two loops with two tasks each await `aclose` while the last request hangs, and once more after it."""
    release = threading.Event()
    server.replies.append(Reply(release=release))
    client = TelemetryClient(server.url, configuration())
    client.enqueue(make_log())
    ended: list[list[bool]] = []

    async def close() -> list[bool]:
        results = await asyncio.gather(client.aclose(), client.aclose())
        return [*results, await client.aclose(), await client.aflush()]

    def let_go() -> None:
        wait_until(lambda: server.requests)
        assert ended == []
        release.set()

    jobs: list[Callable[[], object]] = [let_go, *[lambda: ended.append(asyncio.run(close()))] * 2]
    run_in_threads(3, lambda index: jobs[index]())
    assert ended == [[True] * 4] * 2
    client.enqueue(make_log())
    fault.settled(client.stats(), sent=2, arrived=server.accepted)
    assert fault.lost == {"dropped_closed": 1}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, asyncio.CancelledError])
def test_the_body_of_async_with_raises(
    fault: Scenario, server: TelemetryServer, error: type[BaseException]
) -> None:
    """The program raises the exception in brackets inside `async with`, and it propagates."""
    clients: list[TelemetryClient] = []

    async def main() -> None:
        async with TelemetryClient(server.url, configuration()) as client:
            clients.append(client)
            client.enqueue(make_log())
            raise error

    with pytest.raises(error):
        asyncio.run(main())
    fault.settled(clients[0].stats(), sent=1, arrived=server.accepted)
    assert fault.delivered == 1


@pytest.mark.parametrize("way", ["open", "closing"])
def test_the_loop_ends_and_then_the_program(fault: Scenario, server: TelemetryServer, way: str) -> None:
    """`asyncio.run` returns with the client open or its `aclose` cancelled (see brackets); then the program ends."""
    release = threading.Event()
    server.replies.append(Reply(release=release))

    def release_the_request() -> None:
        wait_until(lambda: server.requests)
        release.set()

    threading.Thread(target=release_the_request, daemon=True).start()
    out = run_program(
        """
        import asyncio

        async def main():
            enqueue(client, 10)
            if sys.argv[2] == "closing":
                closing = asyncio.ensure_future(client.aclose())
                await asyncio.sleep(0)
                closing.cancel()

        client = make_client(sys.argv[1])
        asyncio.run(main())
        """,
        *(server.url, way),
    )
    assert (out.code, out.stderr) == (0, "")
    (stats,) = out.accounts
    fault.settled(stats, sent=10, arrived=server.accepted)
    assert fault.delivered == 10


def test_the_system_has_no_thread_left_for_aclose(
    fault: Scenario, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting a thread fails when the program calls `aclose`."""
    client = TelemetryClient(server.url, configuration())
    client.enqueue(make_log())
    assert client.flush(10)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "adbc-telemetry-close":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    try:
        asyncio.run(client.aclose())  # True or False: only the account counts
    finally:
        client.close()
    fault.settled(client.stats(), sent=1, arrived=server.accepted)

"""Attacks on the collector's HTTP server, in a process of its own: it stays up, small, quick and quiet.

The margins are wide: these tests run on busy machines, and each attack takes the server without its limits down for
good, or to several times these figures.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
if sys.platform == "win32":
    pytest.skip("signals and limits of POSIX", allow_module_level=True)

from support.served_process import ServedProcess, served_process
from support.serving import RawClient, get, latencies, post, request_head
from support.waiting import wait_until

CONNECTIONS = 500
BODY = b"x" * 70_000
MEGABYTE = 2**20


def raise_own_limit() -> None:
    """The test's own end of the connections needs descriptors as well."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


@pytest.fixture(autouse=True)
def descriptors() -> None:
    raise_own_limit()


def assert_honest_clients_are_served(served: ServedProcess) -> None:
    taken = latencies(served.port, 100, BODY)
    assert taken[98] < 1.0, f"p99 {taken[98]:.3f} s"
    assert taken[-1] < 2.0, f"longest {taken[-1]:.3f} s"


HALF_HEADERS = b"POST /telemetry-ext HTTP/1.1\r\nX-Slow: "
HALF_BODY = request_head(Content_Length=100_000) + b"x" * 50_000


@pytest.mark.parametrize(
    "first_words",
    [
        pytest.param(b"", id="silent"),
        pytest.param(HALF_HEADERS, id="half-sent headers"),
        pytest.param(HALF_HEADERS + b"x" * 30_000, id="large half-sent headers"),
        pytest.param(HALF_BODY, id="half-sent bodies"),
        pytest.param(request_head(Content_Length=16_000_000) + b"x", id="bodies promised and not sent"),
        pytest.param(request_head(Transfer_Encoding="chunked") + b"1\r\nx\r\n", id="half-sent chunks"),
        pytest.param(post(b"x") * 100, id="many requests in one packet"),
        pytest.param(get("/big"), id="answers left unread"),
    ],
)
def test_500_connections_at_once_do_not_keep_honest_clients_from_their_answers(
    first_words: bytes, tmp_path: Path
) -> None:
    limits = {"header_seconds": 3, "idle_seconds": 3, "body_seconds": 3, "answer_seconds": 3}
    with served_process(tmp_path, limits=limits, descriptors=4096) as served, ExitStack() as stack:
        assert_honest_clients_are_served(served)  # warm, so that the memory counts the attack alone
        before = served.memory
        for _ in range(CONNECTIONS):
            client = stack.enter_context(served.client())
            with suppress(ConnectionError):
                client.send(first_words)
        assert_honest_clients_are_served(served)
        assert served.memory - before < 150 * MEGABYTE
        wait_until(lambda: served.connections == 0, what=lambda: f"{served.connections} are left")
        assert_honest_clients_are_served(served)
        code, log = served.ends_with(signal.SIGTERM)
        assert (code, log) == (0, "")


def drip(clients: list[RawClient], piece: Callable[[], bytes], until: threading.Event) -> None:
    """Send a piece on each connection, every tenth of a second, for as long as the server takes them."""
    left = list(clients)
    while left and not until.wait(0.1):
        for client in list(left):
            try:
                client.send(piece())
            except OSError:
                left.remove(client)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(HALF_HEADERS, b"x", id="headers"),
        pytest.param(request_head(Content_Length=10**6), b"x", id="bodies"),
        pytest.param(request_head(Transfer_Encoding="chunked"), b"1\r\nx\r\n", id="chunks"),
    ],
)
def test_500_connections_that_drip_are_cut_off_and_slow_nobody_down(
    head: bytes, piece: bytes, tmp_path: Path
) -> None:
    limits = {"header_seconds": 3, "body_seconds": 3}
    ended = threading.Event()
    with served_process(tmp_path, limits=limits, descriptors=4096) as served, ExitStack() as stack:
        attackers = [stack.enter_context(served.client()) for _ in range(CONNECTIONS)]
        for attacker in attackers:
            attacker.send(head)
        thread = threading.Thread(target=drip, args=(attackers, lambda: piece, ended), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(ended.set)
        assert_honest_clients_are_served(served)
        wait_until(lambda: served.connections == 0, what=lambda: f"{served.connections} are left")


def test_bodies_that_fill_the_room_and_stop_give_way(tmp_path: Path) -> None:
    """40 of them hold all the bytes that the server holds, and all they would have to do is wait."""
    with served_process(tmp_path, admission={"max_bytes": 20 * MEGABYTE}) as served, ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(served.client())
            half = MEGABYTE // 2
            client.send(request_head(Transfer_Encoding="chunked") + b"%x\r\n" % half + b"x" * (half - 1))

        def accepted() -> bool:
            with served.client() as honest:
                return all(honest.ask(post(BODY)).status == 200 for _ in range(20))

        # Some honest requests may come before all of these bodies have, and some before the oldest give way.
        began = time.monotonic()
        wait_until(accepted)
        assert time.monotonic() - began < 10  # of the 30 that a body may take
        assert_honest_clients_are_served(served)


def test_a_flood_of_bodies_is_refused_beyond_the_bytes_that_may_be_held(tmp_path: Path) -> None:
    sizes = {"max_requests": 4, "max_bytes": 20 * MEGABYTE}
    with served_process(tmp_path, admission=sizes) as served, ExitStack() as stack:
        assert_honest_clients_are_served(served)
        before = served.memory
        held = [stack.enter_context(served.client()) for _ in range(4)]
        for client in held:
            client.send(post(b"x" * MEGABYTE, path="/held"))
        peak = 0
        statuses = set()

        def status() -> int:
            with served.client() as flood:
                return flood.ask(post(b"x" * 10 * MEGABYTE)).status

        deadline = time.monotonic() + 20
        while status() != 503:  # the four have not all arrived
            assert time.monotonic() < deadline
        for _ in range(30):
            statuses.add(status())
            peak = max(peak, served.memory)
        assert statuses == {503}
        assert peak - before < 100 * MEGABYTE


def test_when_descriptors_are_used_up_the_server_goes_on_afterwards_and_logs_one_line(tmp_path: Path) -> None:
    with (
        # More connections allowed than the process has descriptors for.
        served_process(tmp_path, descriptors=100, limits={"max_connections": 1000}) as served,
        ExitStack(),
    ):
        with served.client() as early:
            assert early.ask(get()).status == 200
            with ExitStack() as flood:
                for _ in range(300):
                    flood.enter_context(served.client())
                wait_until(lambda: "No connection can be accepted" in served.stderr.read_text())
                assert early.ask(post(BODY)).status == 200, "those that are there are served"
                time_before = served.cpu_seconds
                waiting = flood.enter_context(served.client())
                waiting.socket.settimeout(2)
                with pytest.raises(TimeoutError):
                    waiting.ask(get())
                assert served.cpu_seconds - time_before < 0.5, "it does not spin meanwhile"
        assert_honest_clients_are_served(served)
        code, log = served.ends_with(signal.SIGTERM)
        assert code == 0
        [line] = log.splitlines()
        assert line == ("WARNING No connection can be accepted (errno 24); raise the limit of open files.")


def test_connections_beyond_the_limit_are_refused_while_those_within_are_served(tmp_path: Path) -> None:
    with (
        served_process(tmp_path, descriptors=400) as served,  # 400 less the reserve of 128
        served.client() as honest,
        ExitStack() as stack,
    ):
        assert honest.ask(get()).status == 200
        refused = 0
        for number in range(CONNECTIONS):
            client = stack.enter_context(served.client())
            if number > 400:
                with suppress(OSError):  # the flood itself may be cut off without a word
                    refused += client.answer().status == 503
            assert honest.ask(get()).status == 200
        assert refused > 10
        code, log = served.ends_with(signal.SIGTERM)
        assert code == 0
        assert set(log.splitlines()) == {"WARNING Connections are refused: 272 are open."}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_process_ends_by_a_signal_within_its_deadline_whatever_500_clients_do(
    signum: signal.Signals, tmp_path: Path
) -> None:
    words = (b"", HALF_HEADERS, HALF_BODY, get("/stream"), get("/big"), post(b"", path="/held"), get())
    settings = {"graceful_seconds": 2}
    with served_process(tmp_path, limits=settings, descriptors=4096) as served, ExitStack() as stack:
        for number in range(CONNECTIONS):
            client = stack.enter_context(served.client())
            with suppress(ConnectionError):  # one of the held ones too many
                client.send(words[number % len(words)])
        wait_until(lambda: served.connections > 100)
        began = time.monotonic()
        code, log = served.ends_with(signum)
        assert code == 0
        assert time.monotonic() - began < 10, "two seconds of grace, and what a busy machine adds"
        assert log == ""


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with served_process(tmp_path, limits={"graceful_seconds": 60}) as served, served.client() as client:
        client.send(post(b"", path="/held"))
        wait_until(lambda: served.connections == 1)
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(served.port))
        began = time.monotonic()
        code, log = served.ends_with(signal.SIGTERM)
        assert (code, log) == (0, "")
        assert time.monotonic() - began < 10


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""The whole collector, as the command runs it: attacked, read from, ended and searched for secrets.

Margins are wide, since these tests run on busy machines.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import itertools
import os
import re
import signal
import socket
import statistics
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("starlette")
pytest.importorskip("psutil")
if sys.platform == "win32":
    pytest.skip("signals and memory of POSIX", allow_module_level=True)

from support.collector_process import Collecting, collecting, log_text, request_of, stored_ids
from support.waiting import run_in_threads, wait_until

MEGABYTE = 2**20
BODY = 8 * MEGABYTE - 100
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) .+")


def filled_with(piece: bytes) -> bytes:
    return b'{"protoLogs":[' + piece * (BODY // len(piece) - 10) + b'""]}'


def large_logs(count: int, characters: str) -> bytes:
    return request_of([log_text(error_info={"error_name": characters}) for _ in range(count)])


GZIP = "gzip"
ATTACKS: dict[str, tuple[bytes, str]] = {
    "a bomb": (gzip.compress(bytes(60 * MEGABYTE)), GZIP),
    "a bomb of many members": (gzip.compress(bytes(MEGABYTE)) * 60, GZIP),
    "empty members": (gzip.compress(b"") * 400_000, GZIP),
    "packed strings": (gzip.compress(filled_with(b'"",')), GZIP),
    "strings": (filled_with(b'"",'), ""),
    "objects": (filled_with(b"{},"), ""),
    "brackets": (b'{"protoLogs":' + b"[" * BODY, ""),
    "digits": (b'{"protoLogs":[' + b"1" * BODY, ""),
    "10,000 empty logs": (request_of(["{}"] * 10_000), ""),
    "10,000 small logs": (request_of([log_text(f"small-{number}") for number in range(10_000)]), ""),
    "logs of a megabyte": (large_logs(7, "x" * 1_000_000), ""),
    "logs of a megabyte in few characters": (large_logs(7, "\U0001f600" * 250_000), ""),
}


def test_no_request_makes_the_collector_large_and_all_are_answered(tmp_path: Path) -> None:
    with collecting(tmp_path) as collector:
        for name, (body, encoding) in ATTACKS.items():
            began = time.monotonic()
            assert collector.post(body, Content_Encoding=encoding).status in (200, 400, 413), name
            assert time.monotonic() - began < 10, name
        in_turn = itertools.cycle(ATTACKS.values())
        statuses: Counter[int] = Counter()

        def attack(number: int) -> None:
            body, encoding = attacks[number]
            # Refused while it is being sent, the client may find the connection closed before it reads the answer.
            with contextlib.suppress(ConnectionError):
                statuses[collector.post(body, Content_Encoding=encoding).status] += 1

        for kind in [[each] * 40 for each in ATTACKS.values()] + [[next(in_turn) for _ in range(40)]]:
            attacks = kind
            run_in_threads(40, attack)
        assert statuses.keys() <= {200, 400, 413, 503}, statuses
        assert collector.post(request_of([log_text("honest")])).status == 200
        assert collector.ask("GET", "/healthz").status == 200
        print(f"own {collector.peak // MEGABYTE} MB, all {collector.peak_of_all // MEGABYTE} MB, {statuses}")
        assert collector.peak < 350 * MEGABYTE
        assert collector.peak_of_all < 500 * MEGABYTE


def test_large_logs_do_not_keep_events_out_of_parquet_files_nor_the_page_from_its_answers(
    tmp_path: Path,
) -> None:
    """With them DuckDB ran out of its memory for ever, and everything behind them stayed in the journal."""
    with collecting(tmp_path) as collector:
        for _ in range(15):
            assert collector.post(large_logs(4, "\U0001f600" * 240_000)).status == 200
        assert collector.post(request_of([log_text("behind-them")])).status == 200
        wait_until(
            lambda: not any(segment.stat().st_size for segment in (collector.store / "journal").iterdir())
        )
        for panel in ("newest", "slowest", "errors", "summary", "timeline"):
            answer = collector.ask("GET", f"/api/{panel}")
            assert answer.status == 200, (panel, answer.body[:200])
            assert len(answer.body) < MEGABYTE
        for number in range(150):  # each is a question of its own
            assert collector.ask("GET", f"/api/event?id=behind-them&since={number + 1}h").status == 200
        assert collector.ask("GET", "/healthz").status == 200
        assert collector.peak < 350 * MEGABYTE
        code, _ = collector.end(signal.SIGTERM)
        assert code == 0
        assert collector.log == ""
    ids = stored_ids(collector.store)
    assert len(ids) == len(set(ids)) == 61


def latencies_of_posts(collector: Collecting, count: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", collector.port, timeout=30)
    taken = []
    with contextlib.closing(connection):
        for _ in range(count):
            body = request_of([log_text() for _ in range(20)])
            began = time.perf_counter()
            connection.request("POST", "/telemetry-ext", body)
            answer = connection.getresponse()
            answer.read()
            taken.append(time.perf_counter() - began)
            assert answer.status == 200
    return sorted(taken)


PANELS = ("summary", "timeline", "operations", "drivers", "hosts", "errors", "newest", "slowest", "report")


@pytest.mark.slow
def test_45_readers_at_once_do_not_slow_a_post_down(tmp_path: Path) -> None:
    with collecting(tmp_path) as collector:
        for number in range(100):
            system = {"driver_name": f"d{number % 7}", "driver_version": f"{number % 3}"}
            logs = [log_text(operation_latency_ms=i, system_configuration=system) for i in range(1000)]
            assert collector.post(request_of(logs)).status == 200
        assert collector.ask("GET", "/api/summary").status == 200
        alone = latencies_of_posts(collector, 150)
        ended = threading.Event()
        answers: Counter[int] = Counter()

        def read(number: int) -> None:
            for turn in itertools.count():
                if ended.is_set():
                    return
                path = f"/api/{PANELS[(number + turn) % 9]}?driver=d{turn % 7}&since={number + turn + 1}h"
                if number % 15 == 0:
                    path = "/api/export?format=parquet"
                answers[collector.ask("GET", path).status] += 1

        readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(45)]
        for reader in readers:
            reader.start()
        try:
            wait_until(lambda: sum(answers.values()) >= 10)
            beside = latencies_of_posts(collector, 150)
        finally:
            ended.set()
            for reader in readers:
                reader.join(30)
        median, slowed = statistics.median(alone), statistics.median(beside)
        print(f"median alone {median * 1000:.1f} ms, beside 45 readers {slowed * 1000:.1f} ms, {answers}")
        assert slowed < max(4 * median, 0.1)
        assert beside[-1] < 2
        assert answers.keys() <= {200, 503}
        assert answers[200]


@contextlib.contextmanager
def senders_at_full_speed(collector: Collecting, count: int) -> Iterator[set[str]]:
    """The ids that were acknowledged; the senders end when the collector does."""
    acknowledged: set[str] = set()

    def send(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", collector.port, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                ids = [str(uuid.uuid4()) for _ in range(100)]
                connection.request("POST", "/telemetry-ext", request_of([log_text(each) for each in ids]))
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    acknowledged.update(ids)

    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_within_ten_seconds_whatever_clients_do_and_nothing_acknowledged_is_lost(
    signum: signal.Signals, tmp_path: Path
) -> None:
    head = b"POST /telemetry-ext HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"
    with collecting(tmp_path) as collector, contextlib.ExitStack() as stack:

        def connected(first_words: bytes) -> socket.socket:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", collector.port), 30))
            client.sendall(first_words)
            return client

        acknowledged = stack.enter_context(senders_at_full_speed(collector, 8))
        wait_until(lambda: len(acknowledged) > 5000)
        connected(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connected(b"")
        connected(head)
        slow = connected(head)

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not collector._ended.wait(0.1):
                    slow.sendall(b" ")

        threading.Thread(target=drip, daemon=True).start()
        for number in range(20):
            path = ("/api/export?format=csv", f"/api/newest?since={number}m")[number % 2]
            connected(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        code, seconds = collector.end(signum)
        assert code == 0
        assert seconds < 10
        assert all(LOG_LINE.fullmatch(line) for line in collector.log.splitlines()), collector.log
    ids = stored_ids(collector.store)
    assert len(ids) == len(set(ids))
    assert acknowledged <= set(ids)


SECRET = "hunter2"


def test_nothing_that_was_sent_stands_in_the_log_and_no_private_text_in_the_store(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"token-{SECRET}\n")
    options = ("--verbose", "--access-log", "--token-file", token)
    with collecting(tmp_path, *options) as collector:
        key = {"Authorization": f"Bearer token-{SECRET}"}
        private = {"error_name": "E", "stack_trace": f"SELECT '{SECRET}'"}
        good = request_of([log_text(error_info=private), log_text(errorInfo=private, stack_trace=SECRET)])
        assert collector.post(good, **key).status == 200
        odd = request_of(
            [SECRET, f'{{"{SECRET}": 1}}', log_text(SECRET * 30), log_text(operation_latency_ms=SECRET)]
        )
        assert collector.post(odd, **key).status == 200
        for body, headers in (
            (SECRET.encode(), key),
            (SECRET.encode(), {**key, "Content-Encoding": SECRET}),
            (SECRET.encode(), {**key, "Content-Encoding": "gzip"}),
            (b"{}", {"Authorization": f"Bearer wrong-{SECRET}"}),
            (b"{}", {**key, "Origin": f"https://{SECRET}.example"}),
            (b"{}", {**key, "Host": f"{SECRET}.example"}),
        ):
            assert 400 <= collector.post(body, **headers).status < 500
        for path in (
            f"/{SECRET}",
            f"/page/{SECRET}",
            f"/api/newest?{SECRET}={SECRET}",
            f"/api/newest?driver={SECRET}",
            f"/api/event?id={SECRET}",
            f"/api/2.0/connector-service/feature-flags/{SECRET}/{SECRET}",
        ):
            collector.ask("GET", path, None, **key)
        for raw in (
            f"{SECRET} / HTTP/1.1\r\n\r\n",
            f"GET /{SECRET} HTTP/9\r\n\r\n",
            f"GET / HTTP/1.1\r\n{SECRET}\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", collector.port), 30) as client:
                client.sendall(raw.encode())
                client.recv(1000)
        journal = b"".join(file.read_bytes() for file in (collector.store / "journal").iterdir())
        wait_until(lambda: any((collector.store / "events").rglob("*.parquet")))
        code, _ = collector.end(signal.SIGTERM)
    assert code == 0
    lines = collector.log.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines), collector.log
    assert any("POST /telemetry-ext 200" in line for line in lines), "the access log names the route"
    assert SECRET not in collector.log
    assert SECRET.encode() not in journal
    script = f"SELECT count(*), count(*) FILTER (log LIKE '%{SECRET}%') FROM '{collector.store}/events/**/*.parquet'"
    import duckdb

    [(count, private_texts)] = duckdb.execute(script).fetchall()
    assert (count, private_texts) == (2, 0)


def test_exports_that_are_not_read_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = tmp_path / "exports"
    exports.mkdir()
    monkeypatch.setenv("TMPDIR", str(exports))
    with collecting(tmp_path) as collector, contextlib.ExitStack() as stack:
        for _ in range(24):
            texts = [log_text(auth_type=os.urandom(500_000).hex()[:900_000])]
            assert collector.post(request_of(texts)).status == 200
        wait_until(lambda: not list((collector.store / "journal").iterdir()))
        for number in range(12):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", collector.port))
            client.sendall(b"GET /api/export?format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.settimeout(30)
            status = client.recv(12)
            assert status == (b"HTTP/1.1 200" if number < 4 else b"HTTP/1.1 503"), number
        assert len(list(exports.iterdir())) == 4
        code, _ = collector.end(signal.SIGTERM)
        assert code == 0
    assert list(exports.iterdir()) == []

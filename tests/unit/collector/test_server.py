"""The collector as a server, over real sockets."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

import urllib3  # noqa: E402

from adbc_telemetry.collector.bodies import MAX_BODY_BYTES  # noqa: E402
from adbc_telemetry.collector.server import Collector  # noqa: E402
from adbc_telemetry.collector.store.journal import Journal  # noqa: E402
from support.collecting import (  # noqa: E402
    TIMEOUT,
    Sender,
    a_log,
    encoded,
    report_of,
    request_body,
)
from support.stores import events_in  # noqa: E402


def test_one_connection_serves_many_requests_without_delay(sender: Sender) -> None:
    began = time.monotonic()
    for _ in range(100):
        assert sender.get("/healthz")[0] == 200
    assert sender.pool.num_connections == 1
    # Without TCP_NODELAY each answer waits 40 ms for the acknowledgement of its head.
    assert time.monotonic() - began < 100 * 0.040


def test_a_connection_is_of_use_after_every_kind_of_answer(sender: Sender) -> None:
    for body, status in ((b"bad", 400), (b" " * (MAX_BODY_BYTES + 1), 413), (request_body(), 200)):
        assert sender.post(body)[0] == status
    assert sender.pool.num_connections <= 2  # the one that was too large is closed before it is read


def test_the_maintenance_switch_is_looked_at_for_every_request(tmp_path: Path, store: Path) -> None:
    switch = tmp_path / "down"
    switch.touch()
    with Collector(store, unavailable_while=switch) as collector:
        sender = Sender(collector.url)
        for expected in (503, 200, 503, 200):
            status, response = sender.post(request_body(encoded(a_log())))
            assert (status, response.numProtoSuccess) == (expected, int(expected == 200))
            switch.unlink() if switch.exists() else switch.touch()
        switch.unlink()
        assert report_of(sender).events == 2
        sender.pool.close()


def test_stopping_finishes_the_request_in_flight(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, released = threading.Event(), threading.Event()
    commit = Journal.commit

    def held(journal: Journal, lines: Any, day: str) -> None:
        entered.set()
        assert released.wait(TIMEOUT)
        commit(journal, lines, day)

    monkeypatch.setattr(Journal, "commit", held)
    collector = Collector(store)
    collector.start()
    sender = Sender(collector.url)
    with ThreadPoolExecutor(2) as pool:
        response = pool.submit(sender.send, encoded(a_log()))
        assert entered.wait(TIMEOUT)
        stopped = pool.submit(collector.stop)
        deadline = time.monotonic() + TIMEOUT
        while _accepts(sender.pool.port or 0):
            assert time.monotonic() < deadline, "it goes on listening"
        assert not stopped.done()
        released.set()
        assert response.result(TIMEOUT).numProtoSuccess == 1
        stopped.result(TIMEOUT)
    sender.pool.close()
    assert len(events_in(store)) == 1


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
    except OSError:
        return False
    return True


def test_stopping_twice_is_stopping_once_and_it_starts_again(store: Path) -> None:
    collector = Collector(store)
    for expected in (1, 2):
        with collector:
            with pytest.raises(RuntimeError, match="runs already"):
                collector.start()
            sender = Sender(collector.url)
            sender.send(encoded(a_log()))
            assert report_of(sender).events == expected
            sender.pool.close()
        collector.stop()
        with pytest.raises(RuntimeError, match="not running"):
            _ = collector.url


def test_an_embedded_collector_leaves_signals_and_logging_alone(store: Path) -> None:
    def state() -> tuple[object, ...]:
        handlers = [logging.getLogger(name).handlers[:] for name in ("", "uvicorn", "uvicorn.error")]
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), handlers

    before = state()
    with Collector(store):
        assert state() == before
    assert state() == before


def test_a_port_that_is_taken_is_an_error_and_leaves_no_folder(collector: Collector, tmp_path: Path) -> None:
    port = urllib3.util.parse_url(collector.url).port
    assert port is not None
    other = tmp_path / "other"
    with pytest.raises(OSError):
        Collector(other, port=port).start()
    assert not other.exists()


def test_a_sender_that_goes_away_is_no_news(
    collector: Collector, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    port = urllib3.util.parse_url(collector.url).port
    with socket.create_connection(("127.0.0.1", port or 0), TIMEOUT) as connection:
        connection.sendall(b"POST /telemetry-ext HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert sender.send(encoded(a_log())).numProtoSuccess == 1
    collector.stop()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

"""A pipeline that fails can be questioned: its last failure, its errors, and its lines in the log at DEBUG."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    CircuitBreakerManager,
    CircuitBreakerTelemetryExporter,
    ClientStats,
    ExportOutcome,
    ExportResult,
    Failure,
    InMemoryTelemetryExporter,
    TelemetryClient,
    TelemetryConfiguration,
)
from adbc_telemetry.core import diagnostics as diagnostics_module
from adbc_telemetry.core.diagnostics import LINE_SECONDS, Diagnostics
from adbc_telemetry.export import breaker as breaker_module
from adbc_telemetry.pipeline import spool as spool_module
from adbc_telemetry.pipeline.spool import Spool
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.testing import GatedExporter
from support.clock import Clock
from support.logs import ids_of, make_log, make_logs
from support.server import Reply, TelemetryServer, refused_url
from support.waiting import wait_until

BASE_EXCEPTIONS = [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit]


def configuration(**settings: Any) -> TelemetryConfiguration:
    return TelemetryConfiguration(
        **{"enabled": True, "flush_interval_ms": 60_000, "max_retries": 0, "retry_delay_ms": 1, **settings}
    )


class Answering(InMemoryTelemetryExporter):
    """Answers as told: with a result, or by raising."""

    def __init__(self, *answers: ExportResult | BaseException) -> None:
        super().__init__()
        self.answers = list(answers)

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        answer = self.answers.pop(0) if self.answers else super().export(logs)
        if isinstance(answer, BaseException):
            raise answer
        return answer


FAILED = ExportResult(ExportOutcome.FAILED, reason="HTTP 503")


def send(client: TelemetryClient, count: int = 1) -> ClientStats:
    """Enqueue `count` events, each in a batch of its own."""
    for log in make_logs(count):
        client.enqueue(log)
        assert client.flush(10)
    return client.stats()


def reason_of(stats: ClientStats) -> str:
    assert stats.last_failure is not None
    assert stats.last_failure.age >= 0
    return stats.last_failure.reason


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(diagnostics_module, "time", clock)
    monkeypatch.setattr(breaker_module, "time", clock)
    return clock


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert {(record.name, record.levelno) for record in caplog.records if record.name != "root"} <= {
        ("adbc_telemetry", logging.DEBUG)
    }


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was told of a host, without its digits."""
    told = [record.getMessage() for record in caplog.records if record.name == "adbc_telemetry"]
    return [line.partition(": ")[2] for line in told if line.startswith("host ")]


# The last failure, and errors.


def test_a_client_that_is_well_has_no_last_failure() -> None:
    with TelemetryClient("host", configuration(), exporter=InMemoryTelemetryExporter()) as client:
        stats = send(client)
    assert (stats.last_failure, stats.errors) == (None, 0)
    assert ClientStats().last_failure is None


@pytest.mark.parametrize("with_breaker", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, *BASE_EXCEPTIONS])
def test_what_an_exporter_raises_counts_as_an_error_each_time(
    error: type[BaseException], with_breaker: bool, clock: Clock
) -> None:
    exporter = Answering(*(error("sentinel") for _ in range(3)))
    config = configuration(circuit_breaker_enabled=with_breaker)
    with TelemetryClient("host", config, exporter=exporter) as client:
        stats = send(client, 3)
        assert (stats.failed, stats.errors) == (3, 3)
        assert stats.last_failure == Failure(error.__name__, 0.0)
        clock.now += 7
        assert client.stats().last_failure == Failure(error.__name__, 7.0)
        stats = send(client)
        assert (stats.delivered, stats.errors, reason_of(stats)) == (1, 3, error.__name__)


@pytest.mark.parametrize("answer", [None, "delivered", ExportResult("delivered")])  # type: ignore[arg-type]
def test_an_answer_that_is_none_counts_as_an_error(answer: Any) -> None:
    with TelemetryClient("host", configuration(), exporter=Answering(answer)) as client:
        stats = send(client)
    assert (stats.failed, stats.errors, reason_of(stats)) == (1, 1, "TypeError")


@pytest.mark.parametrize("with_breaker", [True, False])
def test_what_an_exporter_raises_when_it_is_told_of_the_end_counts_too(with_breaker: bool) -> None:
    class Raising(InMemoryTelemetryExporter):
        def expire(self, deadline: float) -> None:
            raise RuntimeError

        def preempt(self, long_waits_only: bool = False) -> None:
            raise RuntimeError

        def close(self) -> None:
            raise RuntimeError

    client = TelemetryClient("host", configuration(circuit_breaker_enabled=with_breaker), exporter=Raising())
    client._delivery.preempt(long_waits_only=False)
    assert client.stats().errors == 1
    assert client.close()
    assert client.stats().errors == 3


def test_errors_of_an_exporter_that_two_clients_share_are_each_counted_once() -> None:
    exporter = CircuitBreakerTelemetryExporter(Answering(RuntimeError(), RuntimeError()), "host")
    with TelemetryClient("host", configuration(), exporter=exporter) as client:
        assert send(client).errors == 1
    assert exporter.errors == 1
    with TelemetryClient("host", configuration(), exporter=exporter) as client:
        assert client.stats().errors == 0
        assert send(client).errors == 1


def test_the_last_failure_is_the_answer_of_the_endpoint(server: TelemetryServer) -> None:
    server.replies.extend([Reply(503), Reply(401)])
    with TelemetryClient(server.url, configuration()) as client:
        assert reason_of(send(client)) == "HTTP 503"
        assert reason_of(send(client)) == "HTTP 401"


def test_the_last_failure_is_that_there_is_no_answer() -> None:
    with TelemetryClient(refused_url(), configuration()) as client:
        stats = send(client)
    assert (stats.failed, reason_of(stats)) == (1, "NewConnectionError")
    assert stats.errors == 0  # the endpoint's, and not ours


@pytest.mark.parametrize("error", [KeyError, SystemExit])
def test_the_last_failure_is_that_of_auth(error: type[BaseException], server: TelemetryServer) -> None:
    def auth() -> dict[str, str]:
        raise error("sentinel_token")

    with TelemetryClient(server.url, configuration(), auth=auth) as client:
        stats = send(client)
    assert stats.failed == 1
    assert error.__name__ in reason_of(stats)
    assert "sentinel" not in repr(stats)


def test_the_last_failure_is_that_of_a_log_that_cannot_be_encoded(server: TelemetryServer) -> None:
    with TelemetryClient(server.url, configuration()) as client:
        client.enqueue(make_log(session_id=object()))
        stats = send(client)
    assert (stats.rejected, stats.delivered) == (1, 1)
    assert "the wire cannot carry" in reason_of(stats)


def test_the_last_failure_is_that_of_the_spool(tmp_path: Path) -> None:
    (tmp_path / "sentinel").touch()
    exporter = Answering(FAILED)
    config = configuration(spool_dir=tmp_path / "sentinel")
    with TelemetryClient("host", config, exporter=exporter) as client:
        stats = send(client)
    assert stats.failed == 1
    # A file is in the folder's place: to write fails in one way, and to look for segments, before or after, in another.
    reason = reason_of(stats)
    assert reason.startswith("the spool could not be "), reason
    assert reason.endswith(("FileExistsError EEXIST", "NotADirectoryError ENOTDIR")), reason
    assert stats.errors > 0
    assert "sentinel" not in repr(stats)


def test_the_last_failure_is_that_an_export_does_not_end() -> None:
    gate = threading.Event()

    class Stubborn(InMemoryTelemetryExporter):
        def export(
            self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None
        ) -> ExportResult:
            gate.wait(30)
            return super().export(logs)

    client = TelemetryClient("host", configuration(), exporter=Stubborn())
    client.enqueue(make_log())
    assert client.close(0.05) is False
    assert reason_of(client.stats()) == "an export did not end in time"
    gate.set()


def test_an_open_circuit_does_not_hide_what_has_opened_it() -> None:
    exporter = Answering(ExportResult(ExportOutcome.FAILED, reason="the disk is full"))
    with TelemetryClient("host", configuration(circuit_breaker_threshold=1), exporter=exporter) as client:
        stats = send(client, 3)
        assert (stats.dropped_circuit_open, reason_of(stats)) == (2, "the disk is full")


@pytest.mark.parametrize(
    "reason",
    [
        None,
        "",
        7,
        "no answer from https://sentinel.example/telemetry-ext",
        "Sentinel.example refused",
        "two\nlines: sentinel",
        "sentinel" * 100,
    ],
)
def test_what_is_no_reason_in_words_is_not_repeated(reason: Any, logged: pytest.LogCaptureFixture) -> None:
    exporter = Answering(ExportResult(ExportOutcome.FAILED, reason=reason))
    with TelemetryClient("sentinel.example", configuration(), exporter=exporter) as client:
        assert reason_of(send(client)) == "the export has failed"
    assert "sentinel" not in logged.text.lower()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_without_a_failure() -> None:
    with TelemetryClient("host", configuration(), exporter=Answering(RuntimeError())) as client:
        assert send(client).errors == 1
        child = os.fork()
        if child == 0:
            stats = client.stats()
            os._exit((stats.last_failure, stats.errors) != (None, 0))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert reason_of(client.stats()) == "RuntimeError"


# The log.


def test_the_first_failure_and_the_recovery_are_told(logged: pytest.LogCaptureFixture) -> None:
    exporter = Answering(FAILED, FAILED)
    with TelemetryClient("host", configuration(), exporter=exporter) as client:
        send(client)
        assert lines(logged) == ["delivery fails: HTTP 503"]
        send(client, 3)
    assert lines(logged) == ["delivery fails: HTTP 503", "delivery works again, after 2 failed exports"]


def test_a_dead_endpoint_is_told_of(logged: pytest.LogCaptureFixture) -> None:
    with TelemetryClient(refused_url(), configuration(circuit_breaker_threshold=2)) as client:
        send(client, 4)
    assert lines(logged) == [
        "delivery fails: NewConnectionError",
        "circuit closed -> open",
        "1 event dropped: the circuit was open",
        "1 event dropped: the circuit was open",  # at the close
    ]


def test_each_change_of_the_circuit_is_told(logged: pytest.LogCaptureFixture, clock: Clock) -> None:
    exporter = Answering(FAILED, FAILED)
    config = configuration(circuit_breaker_threshold=1, circuit_breaker_timeout_ms=10_000)
    with TelemetryClient("host", config, exporter=exporter) as client:
        send(client)
        clock.now += 10
        send(client)  # a probe that fails
        clock.now += 10
        send(client, 2)
    assert [line for line in lines(logged) if line.startswith("circuit")] == [
        "circuit closed -> open",
        "circuit open -> half-open",
        "circuit half-open -> open",
        "circuit open -> half-open",
        "circuit half-open -> closed",
    ]


def test_events_that_a_full_queue_drops_are_told_on_the_sender_s_side(
    logged: pytest.LogCaptureFixture,
) -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=1, max_queue_size=2), exporter=exporter)
    client.enqueue(make_log())
    assert exporter.entered.wait(10)
    for log in make_logs(7):
        client.enqueue(log)
    assert lines(logged) == []  # not by who enqueues
    exporter.gate.set()
    assert client.flush(10)
    assert client.stats().dropped_queue_full == 5
    assert lines(logged) == ["5 events dropped: the queue was full"]
    [record] = [record for record in logged.records if record.name == "adbc_telemetry"]
    assert record.threadName is not None
    assert record.threadName.startswith("adbc-telemetry-sender")
    assert client.close()


def test_events_that_a_close_drops_are_told(logged: pytest.LogCaptureFixture) -> None:
    exporter = GatedExporter()
    client = TelemetryClient("host", configuration(batch_size=2), exporter=exporter)
    for log in make_logs(5):
        client.enqueue(log)
    assert exporter.entered.wait(10)
    assert client.close(0) is False
    stats = client.stats()
    assert (stats.dropped_closed, stats.failed) == (3, 2)
    assert "3 events dropped: the client was closed" in lines(logged)


def test_what_the_spool_takes_and_gives_back_is_told(
    logged: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = configuration(spool_dir=tmp_path, flush_interval_ms=20)
    with TelemetryClient("host", config, exporter=Answering(FAILED)) as client:
        client.enqueue(make_log())
        wait_until(lambda: client.stats().replayed == 1)
        wait_until(lambda: len(lines(logged)) == 3)
    assert lines(logged) == [
        "delivery fails: HTTP 503",
        "1 event written to the spool",
        "1 event of the spool delivered",
    ]


def test_what_the_spool_loses_is_told(logged: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    spool = Spool(tmp_path, "host", 1500)
    assert spool.append(make_logs(10)) > 0
    lost = spool.dropped
    assert lost > 0
    assert lines(logged) == [
        "10 events written to the spool",
        f"{lost} events dropped from the spool, old ones or torn ones",
    ]
    (tmp_path / "file").touch()
    assert Spool(tmp_path / "file", "host", 4000).append(make_logs(2)) == 0
    assert lines(logged)[2:] == [
        "the spool could not be written: FileExistsError EEXIST",
        "2 events that could not be written to the spool",
    ]


def test_lines_of_a_kind_are_counted_and_not_repeated(logged: pytest.LogCaptureFixture, clock: Clock) -> None:
    exporter = Answering(*[FAILED] * 100)
    config = configuration(circuit_breaker_enabled=False)
    with TelemetryClient("host", config, exporter=exporter) as client:
        send(client, 50)
        clock.now += LINE_SECONDS - 0.1
        send(client)
        assert lines(logged) == ["delivery fails: HTTP 503"]
        clock.now += 0.2
        send(client)
    assert lines(logged) == [
        "delivery fails: HTTP 503",
        "delivery fails: HTTP 503 (50 lines like this left out)",
    ]


def test_counts_of_events_are_told_in_full_however_few_the_lines(
    logged: pytest.LogCaptureFixture, clock: Clock
) -> None:
    diagnostics = Diagnostics("host")
    for total in (1, 1, 3, 6):
        diagnostics.tell_count("drops", total, "dropped")
    clock.now += LINE_SECONDS
    diagnostics.tell_count("drops", 7, "dropped")
    diagnostics.tell_count("drops", 9, "dropped", last=True)
    diagnostics.tell_count("drops", 9, "dropped", last=True)
    assert lines(logged) == ["1 event dropped", "6 events dropped", "2 events dropped"]


def test_lines_of_two_hosts_can_be_told_apart_and_name_neither(logged: pytest.LogCaptureFixture) -> None:
    for host in ("sentinel-one.example", "http://sentinel-two.example:8080"):
        with TelemetryClient(host, configuration(), exporter=Answering(FAILED)) as client:
            send(client)
    told = {record.getMessage().partition(": ")[0] for record in logged.records}
    assert len(told) == 2
    assert "sentinel" not in logged.text


def test_nothing_is_told_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with TelemetryClient(
        "host", configuration(circuit_breaker_threshold=1), exporter=Answering(FAILED)
    ) as client:
        send(client, 2)
    assert [record for record in caplog.records if record.name == "adbc_telemetry"] == []


@contextlib.contextmanager
def handler(emit: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit(record)

    logger, added = logging.getLogger("adbc_telemetry"), Handler(logging.DEBUG)
    before = logger.level
    logger.addHandler(added)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(added)
        logger.setLevel(before)


def test_no_lock_is_held_while_a_line_is_written(tmp_path: Path, clock: Clock) -> None:
    """Each line's handler has another thread use all that a lock of ours guards, and waits for it."""
    config = configuration(spool_dir=tmp_path, circuit_breaker_threshold=1, flush_interval_ms=3_600_000)
    client = TelemetryClient("host", config, exporter=Answering(FAILED, FAILED))
    breaker = CircuitBreakerManager.get_instance().get_circuit_breaker("host")
    told: list[str] = []
    stuck: list[str] = []

    def use(line: str) -> None:
        client.stats()
        client.enqueue(make_log())
        client.run_soon(lambda: None)
        assert breaker.transitions is not None
        with Spool(tmp_path, "host", 10_000)._locked_folder():
            pass

    def emit(record: logging.LogRecord) -> None:
        line = record.getMessage()
        told.append(line)
        if len(told) < 20:
            other = threading.Thread(target=use, args=(line,), name="test-use", daemon=True)
            other.start()
            other.join(5)
            if other.is_alive():
                stuck.append(line)

    with handler(emit):
        for log in make_logs(2):
            client.enqueue(log)
            assert client.flush(20)
            clock.now += 100
        assert client.close()
    assert any("circuit" in line for line in told)
    assert any("spool" in line for line in told)
    assert any("delivery" in line for line in told)
    assert stuck == []


def test_a_handler_that_raises_costs_no_event() -> None:
    def emit(record: logging.LogRecord) -> None:
        raise ZeroDivisionError

    exporter = Answering(FAILED, RuntimeError())
    with handler(emit), TelemetryClient("host", configuration(), exporter=exporter) as client:
        stats = send(client, 4)
    assert (stats.failed, stats.delivered, stats.errors) == (2, 2, 1)
    assert stats.closes


# A segment of the spool that cannot be read.


def test_a_segment_that_cannot_be_read_now_can_be_claimed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, "host", 1_000_000)
    logs = make_logs(3)
    assert spool.append(logs) == 3

    def broken(descriptor: int) -> bytes:
        raise OSError(5, "sentinel")

    before = os.listdir("/dev/fd") if os.path.exists("/dev/fd") else []
    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "_read_all", broken)
        for _ in range(3):
            assert spool.claim() is None
    assert spool.errors == 3
    assert spool.diagnostics.last_failure is not None
    assert spool.diagnostics.last_failure.reason == "the spool could not be read: OSError EIO"
    assert (os.listdir("/dev/fd") if before else []) == before
    segment = spool.claim()
    assert segment is not None
    assert ids_of(segment.last(10)) == ids_of(logs)
    segment.release()


def test_a_segment_that_cannot_be_read_does_not_stand_before_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, "host", 16)  # one event a segment
    spool._max_bytes = 1_000_000
    first, second = make_logs(2)
    assert (spool.append([first]), spool.append([second])) == (1, 1)
    read_all, calls = spool_module._read_all, iter(range(10))

    def broken(descriptor: int) -> bytes:
        if next(calls) == 0:
            raise OSError(5, "sentinel")
        return read_all(descriptor)

    monkeypatch.setattr(spool_module, "_read_all", broken)
    segment = spool.claim()
    assert segment is not None
    assert ids_of(segment.last(10)) == ids_of([second])
    segment.release()


def test_a_segment_that_was_released_is_released_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "host", 1_000_000)
    assert spool.append(make_logs(1)) == 1
    segment = spool.claim()
    assert segment is not None
    assert segment.cut(1) is False  # it is gone, and its descriptor closed
    with open(tmp_path / "another", "wb") as another:  # which has got the same number, most likely
        segment.release()
        os.fstat(another.fileno())


def test_a_lock_that_fails_keeps_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "host", 1_000_000)
    assert spool.append(make_logs(1)) == 1
    closed: list[int] = []
    close = os.close

    def broken(descriptor: int, operation: int) -> None:
        raise OSError(37, "sentinel")

    def counted_close(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "flock", broken)
        patch.setattr(os, "close", counted_close)
        assert spool.claim() is None
    assert len(closed) == 1
    segment = spool.claim()
    assert segment is not None
    segment.release()

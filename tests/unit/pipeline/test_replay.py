"""The replay's states, with a spool and an exporter that do as they are told. No thread, no disk, no waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from adbc_telemetry import ExportOutcome, ExportResult
from adbc_telemetry.core.diagnostics import Diagnostics
from adbc_telemetry.export.base import AbleExporter
from adbc_telemetry.pipeline import replay as replay_module
from adbc_telemetry.pipeline.replay import Replay
from adbc_telemetry.schema import TelemetryFrontendLog
from support.clock import Clock
from support.logs import ids_of, make_log

PAUSE = 5.0
DELIVERED = ExportResult(ExportOutcome.DELIVERED)
FAILED = ExportResult(ExportOutcome.FAILED, reason="HTTP 503")


class FakeSegment:
    def __init__(self, ids: str) -> None:
        self.logs = [make_log(each) for each in ids]
        self.released = False
        self.error: OSError | None = None

    @property
    def ids(self) -> str:
        return "".join(ids_of(self.logs))

    def last(self, count: int) -> list[TelemetryFrontendLog]:
        return self.logs[-count:]

    def cut(self, count: int) -> bool:
        if self.error is not None:
            raise self.error
        del self.logs[-count:]
        return bool(self.logs)

    def release(self) -> None:
        self.released = True


class FakeSpool:
    """Hands out its segments, the first one first."""

    def __init__(self, *segments: FakeSegment) -> None:
        self.segments = list(segments)
        self.appended: list[str] = []
        self.room = 1000
        self.failures: list[BaseException] = []
        self.diagnostics = Diagnostics("host")

    def claim(self) -> FakeSegment | None:
        return self.segments.pop(0) if self.segments else None

    def append(self, logs: Sequence[TelemetryFrontendLog]) -> int:
        written = list(logs)[: self.room]
        self.appended.append("".join(ids_of(written)))
        return len(written)

    def failed(self, what: str, error: BaseException) -> None:
        self.failures.append(error)

    def tell(self) -> None:
        pass


class Endpoint(AbleExporter):
    """Gives the next answer to each batch, and delivers once there is none left."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answers: list[ExportResult | BaseException] = []
        self.seconds = 0.0
        self.during: Callable[[], object] = lambda: None
        self.batches: list[str] = []
        self.deadlines: list[float | None] = []
        self.preempted: list[bool] = []

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> ExportResult:
        self.batches.append("".join(ids_of(list(logs))))
        self.deadlines.append(deadline)
        self.clock.now += self.seconds
        self.during()
        answer = self.answers.pop(0) if self.answers else DELIVERED
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def preempt(self, long_waits_only: bool = False) -> None:
        self.preempted.append(long_waits_only)

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(replay_module, "time", clock)
    return clock


@pytest.fixture
def endpoint(clock: Clock) -> Endpoint:
    return Endpoint(clock)


def replay_of(endpoint: Endpoint, *segments: FakeSegment, batch_size: int = 2) -> tuple[Replay, FakeSpool]:
    spool = FakeSpool(*segments)
    return Replay(spool, endpoint, batch_size, PAUSE), spool  # type: ignore[arg-type]


def pause_of(replay: Replay, clock: Clock) -> float | None:
    """Seconds until the replay wants to send; None if it never does."""
    at = replay.next_send(clock.now)
    return None if at is None else max(0.0, at - clock.now)


def is_stopped(replay: Replay, clock: Clock) -> bool:
    return replay.wait_closed(clock.now)


# Paused and sending.


def test_it_looks_into_the_spool_at_once_and_then_once_a_minute(endpoint: Endpoint, clock: Clock) -> None:
    replay, _ = replay_of(endpoint)
    assert pause_of(replay, clock) == 0
    replay.send_batch()
    assert endpoint.batches == []
    assert pause_of(replay, clock) == 60


def test_segments_are_sent_one_after_the_other_each_from_its_end(endpoint: Endpoint, clock: Clock) -> None:
    first, second = FakeSegment("abcde"), FakeSegment("fg")
    replay, _ = replay_of(endpoint, first, second)
    for _ in range(4):
        assert pause_of(replay, clock) == 0
        replay.send_batch()
    assert endpoint.batches == ["de", "bc", "a", "fg"]
    assert (first.ids, second.ids) == ("", "")
    assert (replay.counts.delivered, replay.counts.refused) == (7, 0)


def test_a_batch_that_is_not_delivered_stays_in_its_segment_and_is_sent_again_after_a_pause(
    endpoint: Endpoint, clock: Clock
) -> None:
    segment = FakeSegment("abc")
    replay, spool = replay_of(endpoint, segment)
    endpoint.answers = [FAILED]
    replay.send_batch()
    assert (segment.ids, segment.released, spool.appended) == ("abc", True, [])
    assert pause_of(replay, clock) == PAUSE
    assert replay.is_degraded
    spool.segments.append(segment)
    replay.send_batch()
    assert (endpoint.batches, segment.ids) == (["bc", "bc"], "a")
    assert not replay.is_degraded


def test_an_open_circuit_does_not_make_it_degraded(endpoint: Endpoint, clock: Clock) -> None:
    segment = FakeSegment("ab")
    replay, _ = replay_of(endpoint, segment)
    endpoint.answers = [ExportResult(ExportOutcome.DROPPED)]
    replay.send_batch()
    assert not replay.is_degraded
    assert (segment.ids, pause_of(replay, clock)) == ("ab", PAUSE)


def test_a_slow_delivery_makes_it_degraded(endpoint: Endpoint, clock: Clock) -> None:
    replay, _ = replay_of(endpoint, FakeSegment("abcd"))
    endpoint.seconds = 1.5
    replay.send_batch()
    assert (replay.is_degraded, replay.usual_seconds) == (True, 1.5)
    endpoint.seconds = 0.5
    replay.send_batch()
    assert (replay.is_degraded, replay.usual_seconds) == (False, 0.5)


def test_what_is_left_of_a_batch_is_written_anew_before_the_batch_is_cut_off(endpoint: Endpoint) -> None:
    segment = FakeSegment("xabcd")
    replay, spool = replay_of(endpoint, segment, batch_size=4)
    endpoint.answers = [ExportResult(ExportOutcome.FAILED, delivered=1, rejected=1)]
    replay.send_batch()
    assert (spool.appended, segment.ids, segment.released) == (["cd"], "x", True)
    assert (replay.counts.delivered, replay.counts.refused) == (1, 1)


def test_what_is_left_of_a_batch_and_cannot_be_written_keeps_the_whole_batch(endpoint: Endpoint) -> None:
    segment = FakeSegment("abcd")
    replay, spool = replay_of(endpoint, segment, batch_size=4)
    spool.room = 1
    endpoint.answers = [ExportResult(ExportOutcome.FAILED, delivered=2)]
    replay.send_batch()
    assert (segment.ids, segment.released) == ("abcd", True)


def test_refused_events_leave_the_spool_and_are_remembered(endpoint: Endpoint, clock: Clock) -> None:
    segment = FakeSegment("ab")
    replay, spool = replay_of(endpoint, segment)
    endpoint.answers = [ExportResult(ExportOutcome.REJECTED, reason="HTTP 400")]
    replay.send_batch()
    assert (segment.ids, replay.counts.refused, pause_of(replay, clock)) == ("", 2, 0)
    assert spool.diagnostics.last_failure is not None
    assert spool.diagnostics.last_failure.reason == "HTTP 400"


def test_an_exporter_that_raises_has_failed_and_is_counted(endpoint: Endpoint, clock: Clock) -> None:
    segment = FakeSegment("ab")
    replay, _ = replay_of(endpoint, segment)
    endpoint.answers = [RuntimeError()]
    replay.send_batch()
    assert (segment.ids, replay.counts.errors.value(), pause_of(replay, clock)) == ("ab", 1, PAUSE)


def test_while_a_batch_is_sent_no_other_is_begun(endpoint: Endpoint, clock: Clock) -> None:
    replay, _ = replay_of(endpoint, FakeSegment("abcd"))
    pauses: list[float | None] = []

    def again() -> None:
        pauses.append(pause_of(replay, clock))
        replay.send_batch()

    endpoint.during = again
    replay.send_batch()
    assert (endpoint.batches, pauses) == (["cd"], [None])


def test_new_events_end_a_long_pause_and_not_a_short_one(endpoint: Endpoint, clock: Clock) -> None:
    replay, _ = replay_of(endpoint)
    replay.send_batch()
    replay.look_soon()
    assert pause_of(replay, clock) == PAUSE
    clock.now += 2
    replay.look_soon()
    assert pause_of(replay, clock) == PAUSE - 2


@pytest.mark.parametrize("long_waits_only", [True, False])
def test_a_preemption_goes_to_the_exporter(endpoint: Endpoint, long_waits_only: bool) -> None:
    replay, _ = replay_of(endpoint)
    replay.preempt(long_waits_only)
    assert endpoint.preempted == [long_waits_only]


# The end.


def test_a_close_during_a_pause_stops_it_at_once(endpoint: Endpoint, clock: Clock) -> None:
    replay, _ = replay_of(endpoint)
    replay.send_batch()
    replay.begin_close(clock.now + 10)
    assert is_stopped(replay, clock)
    assert pause_of(replay, clock) is None


def test_a_close_sends_on_until_the_spool_is_empty(endpoint: Endpoint, clock: Clock) -> None:
    replay, _ = replay_of(endpoint, FakeSegment("abcd"))
    deadline = clock.now + 10
    replay.begin_close(deadline)
    for _ in range(2):
        replay.send_batch()
        assert not is_stopped(replay, clock)
    replay.send_batch()
    assert is_stopped(replay, clock)
    assert (endpoint.batches, endpoint.deadlines) == (["cd", "ab"], [deadline, deadline])


def test_a_close_ends_with_the_first_batch_that_is_not_delivered(endpoint: Endpoint, clock: Clock) -> None:
    segment = FakeSegment("abcd")
    replay, _ = replay_of(endpoint, segment)
    replay.begin_close(clock.now + 10)
    endpoint.answers = [FAILED]
    replay.send_batch()
    assert is_stopped(replay, clock)
    assert (segment.ids, segment.released) == ("abcd", True)


def test_a_close_ends_by_its_deadline_and_leaves_the_rest_to_the_next_process(
    endpoint: Endpoint, clock: Clock
) -> None:
    segment = FakeSegment("abcd")
    replay, _ = replay_of(endpoint, segment)
    replay.begin_close(clock.now + 10)
    endpoint.seconds = 10
    replay.send_batch()
    assert is_stopped(replay, clock)
    assert (segment.ids, segment.released) == ("ab", True)


def test_a_stop_waits_for_the_batch_under_way_and_begins_no_other(endpoint: Endpoint, clock: Clock) -> None:
    segment = FakeSegment("abcd")
    replay, _ = replay_of(endpoint, segment)
    stopped_during_export: list[bool] = []

    def stop() -> None:
        replay.stop()
        stopped_during_export.append(is_stopped(replay, clock))

    endpoint.during = stop
    replay.send_batch()
    assert stopped_during_export == [False]
    assert is_stopped(replay, clock)
    replay.send_batch()
    assert (endpoint.batches, segment.ids, segment.released) == (["cd"], "ab", True)


def test_an_error_of_the_disk_stops_it_since_a_batch_could_be_sent_twice(
    endpoint: Endpoint, clock: Clock
) -> None:
    segment = FakeSegment("abcd")
    segment.error = OSError("read-only")
    replay, spool = replay_of(endpoint, segment)
    with pytest.raises(OSError, match="read-only"):
        replay.send_batch()
    assert is_stopped(replay, clock)
    assert (spool.failures, segment.released) == ([segment.error], True)
    replay.send_batch()
    assert endpoint.batches == ["cd"]


def test_a_forked_child_leaves_the_segment_to_its_parent_and_starts_anew(
    endpoint: Endpoint, clock: Clock
) -> None:
    segment = FakeSegment("abcd")
    replay, _ = replay_of(endpoint, segment)
    replay.send_batch()
    replay.after_fork_in_child()
    assert segment.released, "the child would keep the parent's lock alive"
    assert (pause_of(replay, clock), replay.counts.delivered) == (0, 0)
    replay.send_batch()
    assert endpoint.batches == ["cd"], "the child has sent the parent's segment"

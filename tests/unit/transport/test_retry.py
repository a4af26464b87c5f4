"""Retries: which failure is tried again and after how long, and what cuts a wait short. Nothing here really waits."""

from __future__ import annotations

import time as real_time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from adbc_telemetry import TelemetryConfiguration
from adbc_telemetry.transport import retry
from adbc_telemetry.transport.errors import (
    ExportError,
    HttpStatusError,
    RequestCancelledError,
    RequestFailedError,
    UntrustedServerError,
)
from adbc_telemetry.transport.http import Answer, _retry_after
from adbc_telemetry.transport.retry import RetryingTransport, Wait, wait_before_retry
from support.clock import Clock


class Jitter:
    """Stands in for the random number of a back-off: a fraction of its bound."""

    def __init__(self) -> None:
        self.fraction = 1.0
        self.bounds: list[float] = []

    def __call__(self, low: float, high: float) -> float:
        assert low == 0, "full jitter begins at zero"
        self.bounds.append(high)
        return self.fraction * high


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> Jitter:
    jitter = Jitter()
    monkeypatch.setattr(retry, "_uniform", jitter)
    return jitter


# The decision.


CONFIG = TelemetryConfiguration(max_retries=3, retry_delay_ms=100)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_status_that_may_pass_is_tried_again(jitter: Jitter, status: int) -> None:
    assert wait_before_retry(HttpStatusError(status), 0, CONFIG) == Wait(0.1, asked=False)


@pytest.mark.parametrize("status", [301, 304, 307, 400, 401, 403, 404, 409, 413, 422, 451])
def test_a_status_that_is_for_good_is_not_tried_again(jitter: Jitter, status: int) -> None:
    assert wait_before_retry(HttpStatusError(status, retry_after=1.0), 0, CONFIG) is None


def test_a_broken_connection_is_tried_again_and_an_untrusted_server_or_a_cancelled_request_is_not(
    jitter: Jitter,
) -> None:
    assert wait_before_retry(RequestFailedError("TimeoutError"), 0, CONFIG) is not None
    assert wait_before_retry(UntrustedServerError(), 0, CONFIG) is None
    assert wait_before_retry(RequestCancelledError(), 0, CONFIG) is None


@pytest.mark.parametrize("max_retries", [0, 1, 5])
def test_there_are_no_more_retries_than_configured(jitter: Jitter, max_retries: int) -> None:
    config = TelemetryConfiguration(max_retries=max_retries)
    error = HttpStatusError(503)
    decisions = [wait_before_retry(error, retries, config) is not None for retries in range(max_retries + 2)]
    assert decisions == [True] * max_retries + [False, False]


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_a_back_off_is_random_below_a_bound_that_doubles_up_to_thirty_seconds(
    jitter: Jitter, fraction: float
) -> None:
    jitter.fraction = fraction
    config = TelemetryConfiguration(max_retries=10, retry_delay_ms=100)
    waits = [wait_before_retry(HttpStatusError(503), retries, config) for retries in range(10)]
    assert jitter.bounds == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    assert waits == [Wait(fraction * bound, asked=False) for bound in jitter.bounds]


def test_the_random_numbers_are_within_the_bound_and_differ() -> None:
    waits = [wait_before_retry(HttpStatusError(503), 2, CONFIG) for _ in range(100)]
    seconds = {wait.seconds for wait in waits if wait is not None}
    assert len(seconds) > 90
    assert 0 <= min(seconds) < 0.2 < max(seconds) <= 0.4


@pytest.mark.parametrize(("retry_after", "wait"), [(7.0, Wait(7.0, True)), (0.05, Wait(0.1, False))])
def test_a_retry_after_beats_a_shorter_back_off(jitter: Jitter, retry_after: float, wait: Wait) -> None:
    assert wait_before_retry(HttpStatusError(429, retry_after), 0, CONFIG) == wait


# The header.


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 3 ", 3.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),  # it is over
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_a_retry_after_is_a_number_of_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert _retry_after(header) == seconds


def test_a_retry_after_that_is_a_date_counts_from_now() -> None:
    seconds = _retry_after(formatdate(real_time.time() + 90, usegmt=True))
    assert seconds is not None
    assert 80 < seconds <= 90


# Attempts and waits.


class Endpoint:
    """Stands in for `HttpTransport`: gives the next outcome of a list, then answers."""

    def __init__(self) -> None:
        self.outcomes: list[ExportError] = []
        self.requests: list[tuple[str, bytes, dict[str, str], float | None]] = []
        self.calls: list[str] = []

    def post(
        self, path: str, body: bytes, headers: dict[str, str], *, timeout: float, deadline: Any
    ) -> Answer:
        self.requests.append((path, body, headers, deadline))
        if self.outcomes:
            raise self.outcomes.pop(0)
        return Answer(b"ok")

    def preempt(self) -> None:
        self.calls.append("preempt")

    def hold_nothing_open(self) -> None:
        self.calls.append("hold nothing open")

    def close(self) -> None:
        self.calls.append("close")


class Waits:
    """Stands in for the event that a wait ends by: time passes at once, unless something happens meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds: list[float] = []
        self.meanwhile: list[Callable[[], object]] = []

    def __call__(self) -> Waits:
        return self

    def set(self) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self.seconds.append(round(seconds, 6))
        if self.meanwhile:
            self.meanwhile.pop(0)()
        else:
            self.clock.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Waits:
    waits = Waits(clock)
    monkeypatch.setattr(retry, "ReentrantEvent", waits)
    return waits


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    endpoint = Endpoint()
    monkeypatch.setattr(RetryingTransport, "_make_transport", lambda self: endpoint)
    return endpoint


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What each client adds to a Retry-After: nothing, in these tests; the times that it was asked about."""
    asked: list[float] = []

    def none(seconds: float) -> float:
        asked.append(seconds)
        return 0.0

    monkeypatch.setattr(retry, "_spread", none)
    return asked


@pytest.fixture
def transport(endpoint: Endpoint, waits: Waits, jitter: Jitter, spread: list[float]) -> RetryingTransport:
    return RetryingTransport("host", "/path", CONFIG)


def post(transport: RetryingTransport, deadline: float | None = None) -> bytes | None:
    return transport.post(b"body", {}, deadline)


def test_a_request_is_made_again_after_each_back_off(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits
) -> None:
    endpoint.outcomes = [HttpStatusError(503), RequestFailedError("TimeoutError")]
    assert post(transport) == b"ok"
    assert waits.seconds == [0.1, 0.2]
    assert len(endpoint.requests) == 3


def test_the_last_error_is_raised(transport: RetryingTransport, endpoint: Endpoint, waits: Waits) -> None:
    endpoint.outcomes = [HttpStatusError(status) for status in (500, 502, 503, 504)]
    with pytest.raises(HttpStatusError, match="504"):
        post(transport)
    assert waits.seconds == [0.1, 0.2, 0.4]


def test_each_attempt_asks_for_credentials_anew(endpoint: Endpoint, waits: Waits, jitter: Jitter) -> None:
    tokens = iter([{"Authorization": "1"}, None, {"Authorization": "3"}])
    transport = RetryingTransport("host", "/a", CONFIG, auth=lambda: next(tokens), anonymous_path="/b")
    endpoint.outcomes = [HttpStatusError(503), HttpStatusError(503)]
    post(transport)
    assert [(path, headers.get("Authorization")) for path, _, headers, _ in endpoint.requests] == [
        ("/a", "1"),
        ("/b", None),
        ("/a", "3"),
    ]


def test_a_wait_that_would_pass_the_deadline_is_not_begun(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits, clock: Clock
) -> None:
    endpoint.outcomes = [HttpStatusError(503), HttpStatusError(502, retry_after=20.0)]
    with pytest.raises(HttpStatusError, match="502"):
        post(transport, deadline=clock.now + 10)
    assert waits.seconds == [0.1]


def test_an_earlier_deadline_that_comes_during_a_wait_ends_it(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits, clock: Clock
) -> None:
    endpoint.outcomes = [HttpStatusError(503, retry_after=20.0)]
    waits.meanwhile = [lambda: transport.expire(clock.now + 5)]
    with pytest.raises(HttpStatusError, match="503"):
        post(transport, deadline=clock.now + 60)
    assert waits.seconds == [20.0]
    assert len(endpoint.requests) == 1


def test_the_earlier_of_both_deadlines_goes_with_each_request(
    transport: RetryingTransport, endpoint: Endpoint, clock: Clock
) -> None:
    post(transport, deadline=clock.now + 9)
    transport.expire(clock.now + 5)
    post(transport, deadline=clock.now + 9)
    post(transport)
    assert [deadline for *_, deadline in endpoint.requests] == [clock.now + 9, clock.now + 5, clock.now + 5]


def test_a_close_ends_a_wait_and_cancels_later_requests(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits
) -> None:
    endpoint.outcomes = [HttpStatusError(503)]
    waits.meanwhile = [transport.close]
    with pytest.raises(HttpStatusError, match="503"):
        post(transport)
    assert endpoint.calls == ["close"]
    with pytest.raises(RequestCancelledError):
        post(transport)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(("long_waits_only", "to_endpoint"), [(False, ["preempt"]), (True, [])])
def test_a_preemption_ends_a_wait_that_the_endpoint_has_asked_for_and_the_next_request_waits_for_the_rest(
    transport: RetryingTransport,
    endpoint: Endpoint,
    waits: Waits,
    clock: Clock,
    long_waits_only: bool,
    to_endpoint: list[str],
) -> None:
    endpoint.outcomes = [HttpStatusError(503, retry_after=20.0)]

    def preempt() -> None:
        clock.now += 5
        transport.preempt(long_waits_only)

    waits.meanwhile = [preempt]
    with pytest.raises(RequestCancelledError, match="others waited"):
        post(transport)
    assert endpoint.calls == to_endpoint
    assert post(transport) == b"ok"
    assert waits.seconds == [20.0, 15.0]
    post(transport)
    assert waits.seconds == [20.0, 15.0], "a Retry-After is obeyed once"


def test_a_request_whose_deadline_comes_before_the_rest_of_a_retry_after_is_not_made(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits, clock: Clock
) -> None:
    endpoint.outcomes = [HttpStatusError(503, retry_after=20.0)]
    waits.meanwhile = [lambda: transport.preempt(True)]
    with pytest.raises(RequestCancelledError):
        post(transport)
    with pytest.raises(RequestCancelledError, match="Retry-After"):
        post(transport, deadline=clock.now + 5)
    assert len(endpoint.requests) == 1


def test_a_back_off_of_ours_is_ended_by_a_preemption_of_all_and_not_by_one_of_long_waits(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits
) -> None:
    endpoint.outcomes = [HttpStatusError(503)]
    waits.meanwhile = [lambda: transport.preempt(True)]
    assert post(transport) == b"ok"
    assert waits.seconds == [0.1, 0.1], "it looks once, and waits on"
    endpoint.outcomes = [HttpStatusError(503)]
    waits.meanwhile = [lambda: transport.preempt(False)]
    with pytest.raises(RequestCancelledError):
        post(transport)
    assert post(transport) == b"ok"
    assert waits.seconds == [0.1, 0.1, 0.1], "nothing is left of a back-off that was ended"


def test_a_preemption_before_a_request_says_nothing_about_it(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits
) -> None:
    transport.preempt(False)
    endpoint.outcomes = [HttpStatusError(503)]
    assert post(transport) == b"ok"


def test_a_transport_that_holds_nothing_open_tells_it_to_connections_made_later(
    transport: RetryingTransport, endpoint: Endpoint
) -> None:
    transport.hold_nothing_open()
    assert endpoint.calls == []
    post(transport)
    assert endpoint.calls == ["hold nothing open"]


def test_a_retry_after_that_no_retry_is_left_for_holds_for_the_next_request(
    transport: RetryingTransport, endpoint: Endpoint, waits: Waits, spread: list[float]
) -> None:
    endpoint.outcomes = [HttpStatusError(429, retry_after=9.0) for _ in range(4)]
    with pytest.raises(HttpStatusError, match="429"):
        post(transport)
    assert waits.seconds == [9.0, 9.0, 9.0]
    assert post(transport) == b"ok"
    assert waits.seconds == [9.0, 9.0, 9.0, 9.0]
    assert post(transport) == b"ok"
    assert len(waits.seconds) == 4, "it holds once"
    assert spread == [9.0, 9.0, 9.0, 9.0]


def test_clients_that_were_refused_together_come_back_one_by_one() -> None:
    waits = sorted(retry._spread(8.0) for _ in range(1000))
    assert 0.0 <= waits[0] < 0.1
    assert 1.9 < waits[-1] <= 2.0
    assert 0.9 < waits[500] < 1.1

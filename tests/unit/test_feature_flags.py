"""The user's word, and the server's where the user has not said any."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from adbc_telemetry import TelemetryConfiguration
from adbc_telemetry.feature_flags import BACKOFF_SECONDS, TELEMETRY_FLAG, FeatureFlagManager, FeatureFlags
from support.server import Reply, Request, TelemetryServer, black_hole, raw_endpoint, refused_url
from support.waiting import TIMEOUT, run_in_threads, wait_until

NOBODY_SAID = TelemetryConfiguration()
YES = TelemetryConfiguration(enabled=True)
NO = TelemetryConfiguration(enabled=False)


class Clock:
    """A clock that is moved by hand, so that no test waits for flags to age."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def flags(server: TelemetryServer, clock: Clock) -> FeatureFlags:
    server.always = lambda request: answer({TELEMETRY_FLAG: "true"})
    return FeatureFlags(server.url, NOBODY_SAID, client_version="1.2.3", clock=clock)


@pytest.fixture
def manager() -> Iterator[FeatureFlagManager]:
    instance = FeatureFlagManager.get_instance()
    yield instance
    for host in instance.hosts():
        instance.remove_feature_flags(host)


def answer(flags: dict[str, Any], ttl_seconds: object = 900) -> Reply:
    listed = [{"name": name, "value": value} for name, value in flags.items()]
    return Reply(body=json.dumps({"flags": listed, "ttl_seconds": ttl_seconds}).encode())


def hold_answer(server: TelemetryServer) -> threading.Event:
    """Have the next answer held until the event is set."""
    reply = answer({TELEMETRY_FLAG: "true"})
    reply.release = threading.Event()
    server.replies.append(reply)
    return reply.release


def fetched(flags: FeatureFlags) -> bool:
    with flags._lock:
        return not flags._fetching


def look_up(flags: FeatureFlags, name: str = TELEMETRY_FLAG) -> str | None:
    """What a look-up comes to, once the fetch that it may start is over."""
    flags.get(name)
    wait_until(lambda: fetched(flags))
    return flags.get(name)


def test_without_a_word_of_the_user_telemetry_is_off_until_the_server_turns_it_on(
    flags: FeatureFlags, server: TelemetryServer
) -> None:
    assert not flags.telemetry_enabled(NOBODY_SAID)

    wait_until(lambda: flags.telemetry_enabled(NOBODY_SAID))
    assert [request.path for request in server.requests] == [
        "/api/2.0/connector-service/feature-flags/ADBC/1.2.3"
    ]


@pytest.mark.parametrize("value", ["false", "", "1", "yes", "truest", None])
def test_only_true_turns_it_on(flags: FeatureFlags, server: TelemetryServer, value: str | None) -> None:
    server.always = lambda request: answer({TELEMETRY_FLAG: value})
    look_up(flags)

    assert not flags.telemetry_enabled(NOBODY_SAID)


@pytest.mark.parametrize("value", ["true", "TRUE", " True ", True])
def test_true_may_be_spelled_in_many_ways(
    flags: FeatureFlags, server: TelemetryServer, value: object
) -> None:
    server.always = lambda request: answer({TELEMETRY_FLAG: value})
    look_up(flags)

    assert flags.telemetry_enabled(NOBODY_SAID)


def test_another_flag_may_decide(flags: FeatureFlags, server: TelemetryServer) -> None:
    server.always = lambda request: answer({"mine": "true"})
    look_up(flags)

    assert flags.telemetry_enabled(NOBODY_SAID, flag="mine")
    assert not flags.telemetry_enabled(NOBODY_SAID)


def test_a_no_of_the_user_beats_the_flag(flags: FeatureFlags) -> None:
    look_up(flags)

    assert flags.telemetry_enabled(NOBODY_SAID)
    assert not flags.telemetry_enabled(NO)


@pytest.mark.parametrize("name", ["DO_NOT_TRACK", "DATABRICKS_TELEMETRY_ENABLED"])
@pytest.mark.parametrize("config", [NOBODY_SAID, YES, NO])
def test_a_no_in_the_environment_beats_everything(
    flags: FeatureFlags, monkeypatch: pytest.MonkeyPatch, name: str, config: TelemetryConfiguration
) -> None:
    look_up(flags)
    monkeypatch.setenv(name, "1" if name == "DO_NOT_TRACK" else "false")

    assert not flags.telemetry_enabled(config)
    assert flags.get(TELEMETRY_FLAG) is None


def test_a_yes_of_the_user_needs_no_flag(flags: FeatureFlags, server: TelemetryServer) -> None:
    server.always = lambda request: answer({TELEMETRY_FLAG: "false"})

    assert flags.telemetry_enabled(YES)
    look_up(flags)
    assert flags.telemetry_enabled(YES)


def test_a_server_is_not_asked_what_the_user_has_decided(
    flags: FeatureFlags, server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags.telemetry_enabled(YES)
    flags.telemetry_enabled(NO)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    flags.telemetry_enabled(NOBODY_SAID)
    flags.get(TELEMETRY_FLAG)

    assert fetched(flags)
    assert server.requests == []


def test_a_look_up_does_not_wait_for_the_server(flags: FeatureFlags, server: TelemetryServer) -> None:
    release = hold_answer(server)
    start = time.monotonic()

    assert not flags.telemetry_enabled(NOBODY_SAID)
    assert flags.get(TELEMETRY_FLAG) is None

    assert time.monotonic() - start < 1
    assert not fetched(flags)
    release.set()
    wait_until(lambda: flags.telemetry_enabled(NOBODY_SAID))


def test_a_fetch_ends_by_the_request_timeout() -> None:
    with raw_endpoint(black_hole) as url:
        flags = FeatureFlags(url, TelemetryConfiguration(request_timeout_ms=100))
        start = time.monotonic()

        assert look_up(flags) is None

        assert time.monotonic() - start < 2


def test_many_look_ups_make_one_fetch(flags: FeatureFlags, server: TelemetryServer) -> None:
    release = hold_answer(server)

    def look_up_often(_: int) -> None:
        for _ in range(100):
            flags.get(TELEMETRY_FLAG)

    run_in_threads(16, look_up_often)
    release.set()

    wait_until(lambda: flags.get(TELEMETRY_FLAG) == "true")
    assert len(server.requests) == 1


def test_flags_are_fetched_anew_once_they_are_old(
    flags: FeatureFlags, server: TelemetryServer, clock: Clock
) -> None:
    server.replies.extend([answer({"a": "1"}, ttl_seconds=30), answer({"b": "2"})])
    assert look_up(flags, "a") == "1"

    clock.now += 29
    assert look_up(flags, "a") == "1"
    assert len(server.requests) == 1

    clock.now += 2
    assert flags.get("a") == "1", "what is old is better than nothing while the new is on its way"
    wait_until(lambda: flags.get("b") == "2")
    assert flags.get("a") is None
    assert len(server.requests) == 2


@pytest.mark.parametrize("ttl_seconds", [0, -5, None, "soon", True, [900]])
def test_a_ttl_that_makes_no_sense_is_the_default(
    flags: FeatureFlags, server: TelemetryServer, clock: Clock, ttl_seconds: object
) -> None:
    server.always = lambda request: answer({"a": "1"}, ttl_seconds)
    assert look_up(flags, "a") == "1"

    clock.now += 899
    look_up(flags)
    assert len(server.requests) == 1
    clock.now += 2
    look_up(flags)
    assert len(server.requests) == 2


def test_a_ttl_has_a_limit(flags: FeatureFlags, server: TelemetryServer, clock: Clock) -> None:
    server.always = lambda request: answer({"a": "1"}, 10**300)
    look_up(flags)

    clock.now += 86_401
    look_up(flags)
    assert len(server.requests) == 2


FAILURES = {
    "an error": Reply(500),
    "a refusal": Reply(403),
    "no such service": Reply(404),
    "no JSON": Reply(body=b"<html>"),
    "no UTF-8": Reply(body=b'{"flags": [{"name": "\xff"}]}'),
    "nothing": Reply(body=b""),
    "another shape": Reply(body=b"[1, 2]"),
    "flags of another shape": Reply(body=b'{"flags": {"a": "2"}}'),
    "no flags": Reply(body=b'{"ttl_seconds": 1}'),
    "too deep": Reply(body=b"[" * 500_000),
    "too much": Reply(body=b" " * 1_000_001),
    "a redirect": Reply(302, {"Location": "/elsewhere"}),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_leaves_the_flags_as_they_are_and_the_server_alone_for_a_while(
    flags: FeatureFlags, server: TelemetryServer, clock: Clock, failure: Reply
) -> None:
    server.replies.extend([answer({"a": "1"}, ttl_seconds=30), failure])
    look_up(flags)
    clock.now += 31

    assert look_up(flags, "a") == "1"
    assert len(server.requests) == 2

    clock.now += BACKOFF_SECONDS - 1
    assert look_up(flags, "a") == "1"
    assert len(server.requests) == 2

    clock.now += 2
    assert look_up(flags) == "true"
    assert len(server.requests) == 3


def test_a_server_that_asks_for_time_gets_it(
    flags: FeatureFlags, server: TelemetryServer, clock: Clock
) -> None:
    server.replies.append(Reply(429, {"Retry-After": "300"}))
    look_up(flags)

    clock.now += 299
    look_up(flags)
    assert len(server.requests) == 1
    clock.now += 2
    assert look_up(flags) == "true"


def test_a_server_that_is_not_there_leaves_telemetry_off(clock: Clock) -> None:
    flags = FeatureFlags(refused_url(), NOBODY_SAID, clock=clock)
    look_up(flags)

    assert not flags.telemetry_enabled(NOBODY_SAID)


def test_what_is_no_flag_in_an_answer_is_passed_over(flags: FeatureFlags, server: TelemetryServer) -> None:
    entries: list[object] = [
        None,
        1,
        [],
        {},
        {"name": 1, "value": "x"},
        {"name": "n"},
        {"name": "d", "value": {}},
    ]
    good = {"name": "good", "value": "yes", "since": 2024}
    server.replies.append(Reply(body=json.dumps({"flags": [*entries, good], "more": 1}).encode()))

    assert look_up(flags, "good") == "yes"
    assert [flags.get(name) for name in ("n", "d")] == [None, None]


def test_a_fetch_is_made_with_the_credentials_of_the_look_up_that_started_it(
    flags: FeatureFlags, server: TelemetryServer, clock: Clock
) -> None:
    used: list[str] = []

    def auth() -> dict[str, str]:
        used.append(threading.current_thread().name)
        return {"Authorization": "Bearer token"}

    flags.get("a", auth=auth)
    wait_until(lambda: fetched(flags))
    clock.now += 901
    look_up(flags)

    with_auth, without = server.requests
    assert with_auth.headers["Authorization"] == "Bearer token"
    assert "Authorization" not in without.headers, "the credentials of a look-up were kept"
    assert len(used) == 1
    assert used[0].startswith("adbc-telemetry-sender")


def test_an_auth_of_its_own_serves_all_fetches(server: TelemetryServer) -> None:
    server.always = lambda request: answer({})
    flags = FeatureFlags(server.url, NOBODY_SAID, auth=lambda: {"Authorization": "Bearer own"})
    look_up(flags)

    assert server.requests[0].headers["Authorization"] == "Bearer own"


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_an_auth_that_fails_is_a_failed_fetch(
    flags: FeatureFlags, server: TelemetryServer, clock: Clock, error: type[BaseException]
) -> None:
    def auth() -> dict[str, str]:
        raise error("no token: s3cret")

    flags.get("a", auth=auth)
    wait_until(lambda: fetched(flags))
    assert server.requests == []

    clock.now += BACKOFF_SECONDS + 1
    assert look_up(flags) == "true"


def test_credentials_do_not_travel_unencrypted(manager: FeatureFlagManager) -> None:
    def auth() -> dict[str, str]:
        raise AssertionError("asked for credentials in vain")

    with pytest.raises(ValueError, match="https"):
        FeatureFlags("http://flags.example", NOBODY_SAID, auth=auth)
    with pytest.raises(ValueError, match="https"):
        manager.telemetry_enabled("http://flags.example", NOBODY_SAID, auth=auth)


def test_a_redirect_is_not_followed(flags: FeatureFlags, server: TelemetryServer) -> None:
    with TelemetryServer() as elsewhere:
        elsewhere.always = lambda request: answer({TELEMETRY_FLAG: "true"})
        server.always = lambda request: Reply(307, {"Location": f"{elsewhere.url}/flags"})

        flags.get("a", auth=lambda: {"Authorization": "Bearer token"})
        wait_until(lambda: fetched(flags))

        assert elsewhere.requests == []
        assert not flags.telemetry_enabled(NOBODY_SAID)


def test_names_in_the_path_are_quoted(server: TelemetryServer) -> None:
    server.always = lambda request: answer({})
    look_up(FeatureFlags(server.url, NOBODY_SAID, client_name="My Driver", client_version="1/2?"))

    assert server.requests[0].path == "/api/2.0/connector-service/feature-flags/My%20Driver/1%2F2%3F"


def test_nothing_is_logged_above_debug(
    flags: FeatureFlags, server: TelemetryServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.replies.extend(FAILURES.values())
    for _ in FAILURES:
        flags.get("a", auth=lambda: {"Authorization": "Bearer s3cret"})
        wait_until(lambda: fetched(flags))
        clock.now += 1_000

    assert len(server.requests) == len(FAILURES)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert "s3cret" not in caplog.text + repr(flags)


def test_one_host_has_one_set_of_flags(manager: FeatureFlagManager) -> None:
    flags = manager.get_feature_flags("https://Host.example:443/", NOBODY_SAID)

    assert manager.get_feature_flags("host.example", NOBODY_SAID) is flags
    assert manager.get_feature_flags("other.example", NOBODY_SAID) is not flags
    assert manager.hosts() == ["host.example", "other.example"]
    manager.remove_feature_flags("HOST.example")
    manager.remove_feature_flags("HOST.example")
    assert manager.hosts() == ["other.example"]


def test_a_host_that_does_not_answer_does_not_hold_up_another(
    server: TelemetryServer, manager: FeatureFlagManager
) -> None:
    server.always = lambda request: answer({TELEMETRY_FLAG: "true"})
    with TelemetryServer() as slow:
        release = hold_answer(slow)
        assert not manager.telemetry_enabled(slow.url, NOBODY_SAID)

        wait_until(lambda: manager.telemetry_enabled(server.url, NOBODY_SAID))

        assert not manager.telemetry_enabled(slow.url, NOBODY_SAID)
        release.set()
        wait_until(lambda: manager.telemetry_enabled(slow.url, NOBODY_SAID))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_keeps_the_flags_and_fetches_what_the_parent_was_fetching(
    server: TelemetryServer, manager: FeatureFlagManager
) -> None:
    asked, release = threading.Event(), threading.Event()

    def slow_at_first(request: Request) -> Reply:
        reply = answer({TELEMETRY_FLAG: "true"})
        if not asked.is_set():
            asked.set()
            reply.release = release
        return reply

    server.always = slow_at_first
    flags = manager.get_feature_flags(server.url, NOBODY_SAID)
    flags.get(TELEMETRY_FLAG)
    assert asked.wait(TIMEOUT)

    with flags._lock, manager._lock:  # as another thread of the parent may
        child = os.fork()
        if child == 0:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(15)  # the end of a child that hangs on a lock
                wait_until(lambda: manager.telemetry_enabled(server.url, NOBODY_SAID), timeout=10)
                os._exit(0)
            finally:
                os._exit(1)
    _, status = os.waitpid(child, 0)
    release.set()

    assert os.waitstatus_to_exitcode(status) == 0
    wait_until(lambda: manager.telemetry_enabled(server.url, NOBODY_SAID))
    assert len(server.requests) == 2


def test_a_look_up_after_the_end_of_threads_is_a_failed_fetch(
    flags: FeatureFlags, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the interpreter no thread can be started any more."""

    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        assert flags.get("a") is None
        assert fetched(flags)
    clock.now += BACKOFF_SECONDS + 1
    assert look_up(flags) == "true"


# What the flags say about telemetry, and the first answer.


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({}, None),
        ({"another": "true"}, None),
        ({TELEMETRY_FLAG: "true"}, True),
        ({TELEMETRY_FLAG.upper(): "TRUE"}, True),
        ({TELEMETRY_FLAG: "yes"}, False),
        ({"adbc.databricks.telemetry.enabled": "true"}, True),
        ({"ADBC.Databricks.Telemetry.Enabled": "0"}, False),
        ({"adbc.databricks.telemetry.enabled": "perhaps"}, None),
        ({TELEMETRY_FLAG: "true", "adbc.databricks.telemetry.enabled": "false"}, False),
        ({TELEMETRY_FLAG: "true", "adbc.databricks.telemetry.mode": "off"}, False),
        ({TELEMETRY_FLAG: "true", "adbc.databricks.telemetry.mode": "local"}, True),
    ],
)
def test_a_no_of_any_flag_wins_and_names_ignore_case(
    flags: FeatureFlags, server: TelemetryServer, told: dict[str, str], word: bool | None
) -> None:
    server.always = lambda request: answer(told)
    look_up(flags)
    assert flags.word() is word


def test_a_failed_fetch_is_a_first_answer_too_and_a_child_asks_anew(
    flags: FeatureFlags, server: TelemetryServer
) -> None:
    server.replies.append(Reply(500))
    assert not flags.wait_for_first_answer(time.monotonic() + 0.01)
    look_up(flags)
    assert flags.wait_for_first_answer(time.monotonic())
    assert (flags.answered, flags.word()) == (True, None)
    look_up(flags)
    assert len(server.requests) == 1, "the server is left alone for a while"

    flags.after_fork_in_child()
    assert not flags.answered
    assert look_up(flags) == "true"
    assert len(server.requests) == 2

    flags.after_fork_in_child()
    assert (flags.answered, flags.word()) == (True, True)

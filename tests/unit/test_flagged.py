"""Connections whose user is silent: their events wait for the host's flags, and follow them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import (
    ConnectionTelemetry,
    TelemetryClientManager,
    TelemetryConfiguration,
    feature_flags,
    install,
    instrument,
    uninstall,
)
from adbc_telemetry.feature_flags import FeatureFlagManager
from adbc_telemetry.flagged import FlaggedClient, FlagState
from adbc_telemetry.pipeline import asyncio_support
from support.flags import FlagServer
from support.server import TelemetryServer, black_hole, raw_endpoint, refused_url
from support.waiting import run_in_threads, wait_until

PREFIX = "adbc.databricks.telemetry."
CREATE, EXECUTE, DELETE = "CREATE_SESSION", "EXECUTE_STATEMENT", "DELETE_SESSION"


@pytest.fixture(autouse=True)
def no_flags_of_earlier_tests() -> Iterator[None]:
    yield
    manager = FeatureFlagManager.get_instance()
    for host in manager.hosts():
        manager.remove_feature_flags(host)


@pytest.fixture
def flags(server: TelemetryServer) -> FlagServer:
    return FlagServer(server)


def silent(url: str, **properties: Any) -> ConnectionTelemetry:
    """The telemetry of a connection whose user says nothing about telemetry."""
    told = {PREFIX + name: value for name, value in properties.items()}
    return ConnectionTelemetry.create(told, driver_name="tiny", driver_version="1.0", host=url)


def state_of(telemetry: ConnectionTelemetry) -> FlagState:
    assert isinstance(telemetry.client, FlaggedClient)
    return telemetry.client.state


def run_statement(telemetry: ConnectionTelemetry) -> None:
    with telemetry.statement():
        pass


def use_and_close(telemetry: ConnectionTelemetry) -> None:
    run_statement(telemetry)
    telemetry.close()


def seconds_of(call: Any) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


# The first answer.


def test_events_wait_for_the_first_answer_and_are_sent_when_it_is_yes(flags: FlagServer) -> None:
    flags.turn(True)
    release = flags.hold()
    telemetry = silent(flags.url)
    run_statement(telemetry)
    wait_until(lambda: flags.asked)
    assert (telemetry.enabled, state_of(telemetry)) == (False, FlagState.UNDECIDED)
    assert telemetry.client.stats().queued == 2
    assert flags.posts == []

    release.set()
    wait_until(lambda: telemetry.enabled)
    run_statement(telemetry)
    assert telemetry.explain().reason == "on: the server's flag says so"
    assert telemetry.close()
    assert flags.operations == [CREATE, EXECUTE, EXECUTE, DELETE]
    assert len(flags.asked) == 1
    assert telemetry.client.stats().delivered == 4


def test_a_workspace_by_its_databricks_endpoint_is_asked_for_flags_too(flags: FlagServer) -> None:
    flags.turn(True)
    endpoint = flags.url.replace("http://", "databricks://")
    telemetry = silent(endpoint)
    wait_until(lambda: telemetry.enabled)
    assert telemetry.explain().reason == "on: the server's flag says so"
    assert telemetry.close()
    assert flags.operations == [CREATE, DELETE]
    manager = FeatureFlagManager.get_instance()
    assert manager.known(endpoint) is manager.known(flags.url)
    manager.remove_feature_flags(endpoint)
    assert manager.hosts() == []


@pytest.mark.parametrize("word", [False, None])
def test_they_are_dropped_when_it_is_not_yes(flags: FlagServer, word: bool | None) -> None:
    flags.turn(word)
    release = flags.hold()
    telemetry = silent(flags.url)
    run_statement(telemetry)
    release.set()
    wait_until(lambda: state_of(telemetry) is FlagState.OFF)
    run_statement(telemetry)
    assert telemetry.close()
    assert flags.posts == []
    assert not telemetry.enabled
    assert TelemetryClientManager.get_instance().hosts() == []
    stats = telemetry.client.stats()
    assert (stats.enqueued, stats.closes) == (0, True), "as of a client that is disabled"


def test_close_waits_for_the_first_answer(flags: FlagServer) -> None:
    flags.turn(True)
    release = flags.hold()
    telemetry = silent(flags.url)
    threading.Timer(0.2, release.set).start()
    assert telemetry.close()
    assert flags.operations == [CREATE, DELETE]


def test_a_close_that_cannot_wait_so_long_drops_the_events_and_says_so(flags: FlagServer) -> None:
    flags.turn(True)
    release = flags.hold()
    telemetry = silent(flags.url)
    assert telemetry.close(timeout=0.05) is False
    release.set()
    host_flags = FeatureFlagManager.get_instance().known(flags.url)
    assert host_flags is not None
    wait_until(host_flags.first_answer.is_set)
    assert flags.posts == []
    assert len(host_flags.room) == feature_flags.WAITING_AT_MOST, "the room of dropped events is free again"


def test_flush_waits_for_the_first_answer_and_for_delivery(flags: FlagServer) -> None:
    flags.turn(True)
    release = flags.hold()
    telemetry = silent(flags.url)
    assert telemetry.client.flush(0.05) is False
    threading.Timer(0.1, release.set).start()
    assert telemetry.client.flush(20)
    assert flags.operations == [CREATE]
    telemetry.close()
    assert telemetry.client.flush(0)


def test_asyncio_is_not_blocked_by_the_first_answer(flags: FlagServer) -> None:
    flags.turn(True)
    release = flags.hold()

    async def main() -> tuple[bool, bool]:
        async with silent(flags.url) as telemetry:
            async with telemetry.statement():
                pass
            flushing = asyncio.ensure_future(telemetry.client.aflush(20))
            await asyncio.sleep(0.01)
            release.set()
            return await flushing, await telemetry.aclose()

    assert asyncio.run(main()) == (True, True)
    assert flags.operations == [CREATE, EXECUTE, DELETE]


def test_connections_that_wait_in_asyncio_have_no_thread_each(flags: FlagServer) -> None:
    release = flags.hold()
    flags.turn(True)
    telemetries = [silent(flags.url) for _ in range(20)]
    before = threading.active_count()

    async def close_all() -> list[bool]:
        closing = [asyncio.create_task(each.aclose(10)) for each in telemetries[1:]]
        cancelled = asyncio.create_task(telemetries[0].aclose(10))
        await asyncio.sleep(0.05)
        assert threading.active_count() <= before + 2
        cancelled.cancel()
        release.set()
        return await asyncio.gather(*closing)

    assert asyncio.run(close_all()) == [True] * 19
    wait_until(lambda: flags.operations.count(DELETE) == 20)


def test_without_a_thread_asynchronous_calls_wait_for_the_answer_alone(
    flags: FlagServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    release = flags.hold()
    telemetry = silent(flags.url)
    monkeypatch.setattr(asyncio_support, "run_in_thread", none)
    assert asyncio.run(telemetry.client.aflush(0.05)) is False
    assert asyncio.run(telemetry.client.aclose(0.05)) is False
    assert state_of(telemetry) is FlagState.CLOSED
    release.set()


def test_many_connections_ask_once(flags: FlagServer) -> None:
    flags.turn(True)
    release = flags.hold()
    opened: list[ConnectionTelemetry] = []
    run_in_threads(16, lambda _: opened.append(silent(flags.url)))
    release.set()
    run_in_threads(16, lambda index: opened[index].close())
    assert len(flags.asked) == 1
    assert sorted(flags.operations) == 16 * [CREATE] + 16 * [DELETE]


def test_only_so_many_events_of_a_host_wait(flags: FlagServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_flags, "WAITING_AT_MOST", 5)
    flags.turn(True)
    release = flags.hold()
    first, second = silent(flags.url), silent(flags.url)
    for _ in range(10):
        run_statement(first)
    stats = first.client.stats()
    assert (stats.enqueued, stats.queued, stats.dropped_queue_full, stats.closes) == (11, 4, 7, True)
    release.set()
    wait_until(lambda: second.enabled)
    for telemetry in (first, second):
        assert telemetry.close()
    assert sorted(flags.operations) == [CREATE, CREATE, DELETE, DELETE, EXECUTE, EXECUTE, EXECUTE]


@pytest.mark.parametrize("endpoint", ["refused", "silent"])
def test_while_the_endpoint_is_down_nothing_waits_longer_than_the_first_answer_may_take_and_only_once(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_flags, "FIRST_ANSWER_SECONDS", 0.4)
    with raw_endpoint(black_hole) as silent_url:
        url = refused_url() if endpoint == "refused" else silent_url
        first = silent(url)
        assert seconds_of(lambda: run_statement(first)) < 0.2
        assert seconds_of(first.close) < 2
        for _ in range(3):
            assert seconds_of(lambda: use_and_close(silent(url))) < 0.2
        host_flags = FeatureFlagManager.get_instance().known(url)
        assert host_flags is not None
        wait_until(lambda: host_flags.answered, timeout=5)  # the request for flags itself ends, too


def test_an_auth_that_hangs_holds_up_a_close_no_longer_than_the_first_answer_may_take(
    flags: FlagServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_flags, "FIRST_ANSWER_SECONDS", 0.3)
    hanging = threading.Event()

    def auth() -> dict[str, str]:
        hanging.wait(30)
        return {}

    telemetry = ConnectionTelemetry.create(driver_name="tiny", driver_version="1", host=flags.url, auth=auth)
    assert seconds_of(lambda: telemetry.close()) < 2
    hanging.set()


def test_the_events_of_a_connection_that_is_never_closed_are_delivered_once_the_answer_is_there(
    flags: FlagServer,
) -> None:
    flags.turn(True)
    release = flags.hold()
    telemetry: list[ConnectionTelemetry] = [silent(flags.url)]
    start = time.monotonic()
    telemetry.clear()
    gc.collect()
    assert time.monotonic() - start < 1, "a destructor waits for nothing"
    release.set()
    wait_until(lambda: flags.operations == [CREATE, DELETE])
    wait_until(lambda: TelemetryClientManager.get_instance().hosts() == [])


def test_a_connection_that_is_opened_after_the_answer_follows_it_at_once(flags: FlagServer) -> None:
    flags.turn(True)
    first = silent(flags.url)
    wait_until(lambda: first.enabled)
    second = silent(flags.url)
    assert second.enabled
    for telemetry in (first, second):
        assert telemetry.close()
    assert sorted(flags.operations) == [CREATE, CREATE, DELETE, DELETE]
    assert len(flags.asked) == 1


def test_an_event_that_meets_the_answer_halfway_does_not_wait_for_ever(flags: FlagServer) -> None:
    """The answer comes after the event has found that there is none, and before it has joined those that wait."""
    flags.turn(True)
    release = flags.hold()
    telemetry = silent(flags.url)
    host_flags = FeatureFlagManager.get_instance().known(flags.url)
    assert host_flags is not None

    class Room(list[None]):
        def pop(self, index: Any = -1) -> None:
            super().pop(index)
            if not release.is_set():
                release.set()
                wait_until(lambda: telemetry.enabled)

    host_flags.room = Room(host_flags.room)
    run_statement(telemetry)
    assert telemetry.client.flush(20)
    assert flags.operations == [CREATE, EXECUTE]
    telemetry.close()


# Later answers.


def test_an_open_connection_follows_the_flags_in_both_directions(flags: FlagServer) -> None:
    flags.ttl_seconds = 0.05
    flags.turn(True)
    telemetry = silent(flags.url)
    wait_until(lambda: telemetry.enabled)

    def follow(on: bool) -> None:
        flags.turn(on)

        def followed() -> bool:
            run_statement(telemetry)
            return telemetry.enabled is on

        wait_until(followed)

    follow(False)
    wait_until(
        lambda: TelemetryClientManager.get_instance().hosts() == []
    )  # what was recorded before is sent
    before = len(flags.posts)
    flags.ttl_seconds = 900
    host_flags = FeatureFlagManager.get_instance().known(flags.url)
    assert host_flags is not None
    for _ in range(20):
        run_statement(telemetry)
    wait_until(lambda: not host_flags._fetching)
    assert len(flags.posts) == before

    host_flags._fetch_after = 0.0
    follow(True)
    assert telemetry.close()
    assert flags.operations[-1] == DELETE


@pytest.mark.parametrize(
    ("variable", "word"),
    [
        ("DO_NOT_TRACK", "1"),
        ("DATABRICKS_TELEMETRY_ENABLED", "false"),
        ("DATABRICKS_TELEMETRY_MODE", "local"),
    ],
)
def test_a_late_word_of_the_users_beats_the_flags_and_ends_the_questions(
    flags: FlagServer, monkeypatch: pytest.MonkeyPatch, variable: str, word: str
) -> None:
    flags.ttl_seconds = 0.01
    flags.turn(True)
    telemetry = silent(flags.url)
    wait_until(lambda: telemetry.enabled)
    host_flags = FeatureFlagManager.get_instance().known(flags.url)
    assert host_flags is not None
    monkeypatch.setenv(variable, word)
    wait_until(lambda: not host_flags._fetching)
    asked = len(flags.asked)

    def is_off() -> bool:
        run_statement(telemetry)
        return not telemetry.enabled

    wait_until(is_off)
    host_flags._fetch_after = 0.0
    run_statement(telemetry)
    wait_until(lambda: not host_flags._fetching)
    assert len(flags.asked) == asked
    assert telemetry.explain().reason.endswith(f": {variable} says so")
    assert telemetry.close()


def test_a_no_that_comes_before_the_first_answer_beats_it(
    flags: FlagServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = flags.hold()
    flags.turn(True)
    telemetry = silent(flags.url)
    wait_until(lambda: flags.asked)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    release.set()
    wait_until(lambda: state_of(telemetry) is FlagState.OFF)
    assert telemetry.close()
    assert flags.posts == []


def test_a_fetch_that_fails_leaves_telemetry_as_it_is(flags: FlagServer) -> None:
    flags.ttl_seconds = 0.01
    flags.turn(True)
    telemetry = silent(flags.url)
    wait_until(lambda: telemetry.enabled)
    flags.status = 500
    asked = len(flags.asked)

    def asked_again() -> bool:
        run_statement(telemetry)
        return len(flags.asked) > asked

    wait_until(asked_again)
    assert telemetry.enabled
    assert telemetry.close()


# The user's word, and the server's.


def test_a_no_of_the_server_silences_only_those_who_have_said_nothing(flags: FlagServer) -> None:
    flags.turn(False)
    certain = silent(flags.url, enabled="true")
    unsure = silent(flags.url)
    wait_until(lambda: state_of(unsure) is FlagState.OFF)
    run_statement(unsure)
    run_statement(certain)
    assert unsure.close()
    assert certain.close()
    assert flags.operations == [CREATE, EXECUTE, DELETE]
    sessions = {log["entry"]["sql_driver_log"]["session_id"] for post in flags.posts for log in post.logs}
    assert sessions == {certain.session.session_id}


@pytest.mark.parametrize("word", [{"enabled": "true"}, {"enabled": "false"}, {"mode": "off"}])
def test_a_server_is_not_asked_when_the_user_has_decided(flags: FlagServer, word: dict[str, str]) -> None:
    silent(flags.url, **word).close()
    assert flags.asked == []


def test_settings_come_from_flags_in_any_case_and_the_users_own_beat_them(flags: FlagServer) -> None:
    flags.turn(True)
    flags.flags["ADBC.Databricks.Telemetry.Batch_Size"] = "1"
    flags.flags[PREFIX + "flush_interval_ms"] = "1"
    telemetry = silent(flags.url, flush_interval_ms="60000")
    run_statement(telemetry)
    wait_until(lambda: len(flags.posts) == 2)
    assert [len(post.logs) for post in flags.posts] == [1, 1]
    telemetry.close()


def test_a_flag_that_is_named_as_the_property_turns_telemetry_on(flags: FlagServer) -> None:
    flags.flags[PREFIX + "ENABLED"] = "true"
    telemetry = silent(flags.url)
    assert telemetry.close()
    assert flags.operations == [CREATE, DELETE]


@pytest.mark.parametrize("on", [True, False])
def test_an_instrumented_connection_follows_the_flags(flags: FlagServer, on: bool) -> None:
    flags.turn(on)
    connection: Any = instrument(
        sqlite3.connect(":memory:"), flags.url, config=TelemetryConfiguration(max_retries=0)
    )
    connection.execute("SELECT 1").fetchall()
    connection.close()
    assert flags.operations == ([CREATE, EXECUTE, DELETE] if on else [])
    assert len(flags.asked) == 1


def test_so_does_a_connection_opened_after_install(flags: FlagServer) -> None:
    dbapi: Any = pytest.importorskip("adbc_driver_sqlite.dbapi")
    flags.turn(True)
    install(flags.url, config=TelemetryConfiguration(max_retries=0))
    try:
        with dbapi.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]
    finally:
        uninstall()
    assert flags.operations == [CREATE, EXECUTE, DELETE]
    assert len(flags.asked) == 1


def test_a_call_of_instrument_without_a_configuration_is_a_yes(flags: FlagServer) -> None:
    flags.turn(False)
    connection: Any = instrument(sqlite3.connect(":memory:"), flags.url)
    connection.close()
    assert flags.operations == [CREATE, DELETE]
    assert flags.asked == []


def test_a_client_that_cannot_be_had_is_as_if_telemetry_were_off(flags: FlagServer) -> None:
    flags.turn(True)
    telemetry = ConnectionTelemetry.create(
        driver_name="tiny",
        driver_version="1",
        host=flags.url,
        exporter=object(),  # type: ignore[arg-type]
    )
    client = telemetry.client
    assert telemetry.close()
    assert (telemetry.enabled, flags.posts) == (False, [])
    assert client.stats().errors == 1


# Forks.


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("known", [False, True], ids=["undecided", "on"])
def test_a_forked_child_delivers_its_own_events_and_asks_only_if_its_parent_knew_no_flags(
    flags: FlagServer, known: bool
) -> None:
    flags.turn(True)
    release = flags.hold()
    telemetry = silent(flags.url)
    wait_until(lambda: flags.asked)
    if known:
        release.set()
        wait_until(lambda: telemetry.enabled)
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # the end of a child that hangs
            with telemetry.statement(operation_type=None):
                pass
            os._exit(0 if telemetry.client.flush(15) else 2)
        finally:
            os._exit(1)
    if not known:
        wait_until(lambda: len(flags.asked) == 2)
        release.set()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert telemetry.close()
    details = [
        log["entry"]["sql_driver_log"]["sql_operation"]["operation_detail"].get("operation_type")
        for post in flags.posts
        for log in post.logs
    ]
    assert sorted(details, key=str) == [CREATE, DELETE, None]
    assert len(flags.asked) == (1 if known else 2)


def test_an_endpoint_without_flags_takes_no_events_of_a_silent_user(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    telemetry = silent(f"file://{file}")
    use_and_close(telemetry)
    assert (telemetry.enabled, telemetry.explain().enabled, telemetry.errors) == (False, False, 0)
    assert not file.exists()

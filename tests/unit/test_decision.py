"""One decision about telemetry, out of all that the user and the server say; and it says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry import Decision, TelemetryConfiguration, explain
from adbc_telemetry.consent import Mode
from adbc_telemetry.decision import SERVER
from adbc_telemetry.feature_flags import TELEMETRY_FLAG, FeatureFlagManager
from support.decision_table import Case, all_cases, truth_table
from support.server import Reply, TelemetryServer
from support.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "decision.md").read_text(encoding="utf-8")
ENABLED = "adbc.databricks.telemetry.enabled"


@pytest.fixture
def manager() -> Iterator[FeatureFlagManager]:
    instance = FeatureFlagManager.get_instance()
    yield instance
    for host in instance.hosts():
        instance.remove_feature_flags(host)


def expected(case: Case) -> str:
    """The rules, written down a second time."""
    words = [case.environment, case.property, None if case.argument is None else str(case.argument).lower()]
    if case.track == "1" or {"false", "off"} & set(words):
        return "off"
    if "local" in words:
        return "local"
    if {"true", "on"} & set(words):
        return "on"
    return "on" if case.server else "off"


class Unreadable(dict[str, Any]):
    """Properties that are read from elsewhere, which is not there."""

    def get(self, name: str, default: Any = None) -> Any:
        raise OSError(name)


def test_what_cannot_be_read_may_be_a_no() -> None:
    properties = Unreadable()
    decision = explain(properties, {}, enabled=True)
    assert decision.reason == "off: what the user says cannot be read (OSError)"
    assert not decision.user_is_silent
    assert TelemetryConfiguration.from_properties(properties, {}).consent is False
    assert TelemetryConfiguration.from_properties(None, properties).consent is False


def test_every_combination_of_words_follows_the_rules() -> None:
    cases = list(all_cases())
    assert len(cases) > 900
    for case in cases:
        decision = case.decide()
        assert decision.mode.value == expected(case), case
        winners = [voice for voice in decision.voices if voice.won]
        assert [voice.said for voice in winners] == ([decision.mode] if any(_words(case)) else []), case
        assert decision.enabled is (decision.mode is not Mode.OFF)


def _words(case: Case) -> list[bool]:
    return [case.track == "1", *(word is not None for word in case[1:])]


def test_every_combination_makes_a_configuration_that_agrees() -> None:
    for case in all_cases():
        if case.argument is None and case.server is None:
            config = TelemetryConfiguration.from_properties(case.properties(), case.environ())
            decision = case.decide()
            assert config.enabled is decision.enabled, case
            assert config.is_local is (decision.mode is Mode.LOCAL), case
            assert config.consent is (None if decision.user_is_silent else decision.enabled), case


def test_the_truth_table_of_the_documentation_is_what_the_code_decides() -> None:
    assert truth_table() in PAGE, (
        "run: PYTHONPATH=tests python tests/support/decision_table.py docs/decision.md"
    )


def test_the_example_of_the_documentation_prints_what_it_shows() -> None:
    shown = PAGE.partition("```text\n")[2].partition("\n```")[0]
    assert str(explain({ENABLED: "true"}, {"DO_NOT_TRACK": "1"})) == shown


def test_each_voice_is_told_with_what_it_said() -> None:
    decision = explain(
        {ENABLED: "true"},
        {"DATABRICKS_TELEMETRY_ENABLED": "false", "ADBC_TELEMETRY_DEBUG": "1"},
        enabled=True,
    )
    assert isinstance(decision, Decision)
    assert decision.enabled is False
    assert decision.reason == "off: DATABRICKS_TELEMETRY_ENABLED says so"
    said = {voice.name: (voice.said, voice.won) for voice in decision.voices}
    assert said == {
        "DO_NOT_TRACK": (None, False),
        "ADBC_TELEMETRY_DEBUG": (Mode.LOCAL, False),
        "DATABRICKS_TELEMETRY_MODE": (None, False),
        "DATABRICKS_TELEMETRY_ENABLED": (Mode.OFF, True),
        "adbc.databricks.telemetry.mode": (None, False),
        ENABLED: (Mode.ON, False),
        "the argument": (Mode.ON, False),
        SERVER: (None, False),
    }


@pytest.mark.parametrize("properties", [None, 5, "text", [1], {ENABLED: object()}, {ENABLED: float("nan")}])
def test_properties_that_make_no_sense_say_nothing(properties: Any) -> None:
    decision = explain(properties, {})
    assert not decision.enabled
    assert decision.user_is_silent


@pytest.mark.parametrize("host", ["", "no host", "ftp://host", 5])
def test_a_host_that_makes_no_sense_is_one_whose_flags_are_not_known(host: Any) -> None:
    assert explain({}, {}, host=host).reason.endswith("the server's flags are not known yet")


def test_the_server_decides_for_a_silent_user_once_its_flags_are_known(
    server: TelemetryServer, manager: FeatureFlagManager
) -> None:
    server.always = lambda request: Reply(
        body=b'{"flags": [{"name": "%s", "value": "true"}]}' % TELEMETRY_FLAG.encode()
    )
    assert explain({}, {}, host=server.url).reason.endswith("not known yet")
    assert server.requests == [], "to explain asks no server"

    flags = manager.get_feature_flags(server.url, TelemetryConfiguration())
    flags.refresh_if_old()
    wait_until(lambda: explain({}, {}, host=server.url).enabled)

    assert explain({}, {}, host=server.url).reason == "on: the server's flag says so"
    assert not explain({ENABLED: "false"}, {}, host=server.url).enabled


def test_the_reason_tells_a_server_that_says_nothing_from_one_that_was_not_asked(
    server: TelemetryServer, manager: FeatureFlagManager
) -> None:
    server.always = lambda request: Reply(body=b'{"flags": []}')
    flags = manager.get_feature_flags(server.url, TelemetryConfiguration())
    flags.refresh_if_old()
    wait_until(lambda: flags.answered)
    assert explain({}, {}, host=server.url).reason.endswith("the server's flags do not turn it on")
    assert explain({}, {}).reason.endswith("there is no host to ask")


# Modes in a configuration.


@pytest.mark.parametrize(
    ("settings", "enabled", "local"),
    [
        ({"mode": "on"}, True, False),
        ({"mode": "off"}, False, False),
        ({"mode": "local"}, True, True),
        ({"mode": "local", "enabled": False}, False, False),
        ({"mode": "off", "enabled": True}, False, False),
        ({"mode": "on", "enabled": False}, False, False),
    ],
)
def test_of_mode_and_enabled_the_more_private_one_holds(
    settings: dict[str, Any], enabled: bool, local: bool
) -> None:
    config = TelemetryConfiguration(**settings)
    assert (config.enabled, config.is_local, config.consent) == (enabled, local, enabled)
    assert config.validate() == []


def test_a_mode_that_is_none_is_named() -> None:
    config = TelemetryConfiguration(mode="sometimes")  # type: ignore[arg-type]
    assert config.enabled is False
    assert config.validate() == ["mode must be off, local, on or None, not 'sometimes'"]


# Settings that come from flags.


def test_a_setting_may_come_from_a_flag_and_the_users_own_word_beats_it() -> None:
    name = "adbc.databricks.telemetry.batch_size"
    flags = {name: "7", "adbc.databricks.telemetry.compression": "gzip", "another.flag": "true"}
    config = TelemetryConfiguration.from_properties({}, {}, flags=flags)
    assert (config.batch_size, config.compression) == (7, "gzip")
    assert config.consent is None
    assert TelemetryConfiguration.from_properties({name: "100"}, {}, flags=flags).batch_size == 100
    environ = {"DATABRICKS_TELEMETRY_BATCH_SIZE": "100"}
    assert TelemetryConfiguration.from_properties({}, environ, flags=flags).batch_size == 100
    assert TelemetryConfiguration(batch_size=5).with_flags(flags).batch_size == 5
    assert TelemetryConfiguration(max_retries=5).with_flags(flags).batch_size == 7


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch_size", "0"),
        ("batch_size", "many"),
        ("compression", "zip"),
        ("circuit_breaker_enabled", "perhaps"),
        ("enabled", "true"),
        ("mode", "on"),
        ("spool_dir", "/somewhere"),
        ("local_path", "/somewhere"),
        ("close_timeout_ms", "600000"),
        ("max_queue_size", "100000000"),
    ],
)
def test_a_flag_that_a_setting_cannot_follow_is_passed_over(setting: str, value: str) -> None:
    flags = {f"adbc.databricks.telemetry.{setting}": value}
    assert TelemetryConfiguration.from_properties({}, {}, flags=flags) == TelemetryConfiguration()
    with_flags = TelemetryConfiguration().with_flags(flags)
    assert with_flags == TelemetryConfiguration()
    assert with_flags.consent is None

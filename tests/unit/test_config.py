"""Settings: their defaults, where they come from, what a bad one does, and the user's last word."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbc_telemetry import TelemetryConfiguration, normalize_host
from adbc_telemetry.config import opted_out
from adbc_telemetry.core.hosts import base_url, is_loopback, is_secure

PREFIX = "adbc.databricks.telemetry."
OTHER_VALUES = {
    "enabled": ("true", True),
    "batch_size": ("17", 17),
    "flush_interval_ms": ("250", 250),
    "max_retries": ("0", 0),
    "retry_delay_ms": ("5", 5),
    "circuit_breaker_enabled": ("false", False),
    "circuit_breaker_threshold": ("9", 9),
    "circuit_breaker_timeout_ms": ("1234", 1234),
    "max_queue_size": ("77", 77),
    "max_batch_size": ("7", 7),
    "max_request_bytes": ("5000", 5000),
    "request_timeout_ms": ("800", 800),
    "close_timeout_ms": ("900", 900),
    "compression": ("gzip", "gzip"),
    "circuit_open": ("retain", "retain"),
    "spool_dir": ("somewhere", "somewhere"),
    "spool_max_bytes": ("4096", 4096),
}
BAD_VALUES = ["", "rubbish", "-1", "1.5", "9" * 30, None, [], object(), float("nan")]


def test_the_defaults_are_those_of_the_design() -> None:
    config = TelemetryConfiguration()
    assert dataclasses.asdict(config) == {
        "enabled": False,
        "batch_size": 100,
        "flush_interval_ms": 5000,
        "max_retries": 3,
        "retry_delay_ms": 100,
        "circuit_breaker_enabled": True,
        "circuit_breaker_threshold": 5,
        "circuit_breaker_timeout_ms": 60_000,
        "max_batch_size": None,
        "max_queue_size": 10_000,
        "max_request_bytes": 1_000_000,
        "request_timeout_ms": 10_000,
        "close_timeout_ms": 5_000,
        "compression": "none",
        "circuit_open": "drop",
        "spool_dir": None,
        "spool_max_bytes": 64 * 1024 * 1024,
        "mode": None,
        "local_path": None,
        "consent": None,
    }
    assert config.validate() == []


def test_it_is_frozen_and_takes_keywords_only() -> None:
    config = TelemetryConfiguration(batch_size=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch_size = 6  # type: ignore[misc]
    with pytest.raises(TypeError):
        TelemetryConfiguration(True)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_each_setting_comes_from_its_property_or_else_the_environment(name: str) -> None:
    text, value = OTHER_VALUES[name]
    by_property = TelemetryConfiguration.from_properties({PREFIX + name: text}, {})
    by_environment = TelemetryConfiguration.from_properties(
        {}, {"DATABRICKS_TELEMETRY_" + name.upper(): text}
    )
    assert getattr(by_property, name) == value
    assert by_environment == by_property
    assert dataclasses.replace(by_property, **{name: getattr(TelemetryConfiguration(), name)}) == (
        TelemetryConfiguration()
    )


@pytest.mark.parametrize("name", sorted(set(OTHER_VALUES) - {"enabled"}))
def test_a_property_beats_the_environment_and_a_bad_one_falls_back_to_it(name: str) -> None:
    text, value = OTHER_VALUES[name]
    default = getattr(TelemetryConfiguration(), name)
    environ = {"DATABRICKS_TELEMETRY_" + name.upper(): text}
    if default is not None:
        beaten = TelemetryConfiguration.from_properties({PREFIX + name: str(default)}, environ)
        assert getattr(beaten, name) == default
    for bad in ["", None, object()]:
        assert getattr(TelemetryConfiguration.from_properties({PREFIX + name: bad}, environ), name) == value


@pytest.mark.parametrize("name", sorted(set(OTHER_VALUES) - {"spool_dir"}))
@pytest.mark.parametrize("bad", BAD_VALUES)
def test_a_bad_value_is_as_if_it_were_not_there(name: str, bad: Any) -> None:
    config = TelemetryConfiguration.from_properties({PREFIX + name: bad}, {})
    assert config == TelemetryConfiguration()


@given(st.dictionaries(st.sampled_from([PREFIX + name for name in OTHER_VALUES]), st.text() | st.integers()))
def test_whatever_the_properties_the_result_is_sound(properties: dict[str, Any]) -> None:
    assert TelemetryConfiguration.from_properties(properties, {}).validate() == []


@pytest.mark.parametrize("properties", [None, 5, "text", [1]])
def test_properties_that_are_none_are_none(properties: Any) -> None:
    assert TelemetryConfiguration.from_properties(properties, {}) == TelemetryConfiguration()


def test_validate_names_each_problem() -> None:
    bad: Any = {"batch_size": 0, "compression": "zip", "enabled": "yes", "max_retries": True, "spool_dir": 5}
    problems = TelemetryConfiguration(**bad).validate()
    assert len(problems) == 5
    assert all(any(problem.startswith(name) for problem in problems) for name in bad)


@pytest.mark.parametrize(
    ("properties", "environ"),
    [
        ({PREFIX + "enabled": "true"}, {"DO_NOT_TRACK": "1"}),
        ({PREFIX + "enabled": "true"}, {"DO_NOT_TRACK": "true"}),
        ({PREFIX + "enabled": "true"}, {"DATABRICKS_TELEMETRY_ENABLED": "false"}),
        ({PREFIX + "enabled": "false"}, {"DATABRICKS_TELEMETRY_ENABLED": "true"}),
    ],
)
def test_a_no_from_anywhere_wins(properties: dict[str, str], environ: dict[str, str]) -> None:
    config = TelemetryConfiguration.from_properties(properties, environ)
    assert config.enabled is False
    assert config.consent is False


def test_consent_tells_a_no_from_no_word() -> None:
    assert TelemetryConfiguration().consent is None
    assert TelemetryConfiguration(enabled=False).consent is False
    assert TelemetryConfiguration(enabled=True).consent is True


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"DO_NOT_TRACK": "0"}, False),
        ({"DO_NOT_TRACK": ""}, False),
        ({"DO_NOT_TRACK": "false"}, False),
        ({"DO_NOT_TRACK": "1"}, True),
        ({"DATABRICKS_TELEMETRY_ENABLED": "0"}, True),
        ({"DATABRICKS_TELEMETRY_ENABLED": "1"}, False),
    ],
)
def test_opting_out_by_the_environment(environ: dict[str, str], expected: bool) -> None:
    assert opted_out(environ) is expected


# Hosts.


@pytest.mark.parametrize(
    ("spelling", "normalized"),
    [
        ("host.example", "host.example"),
        ("HOST.example", "host.example"),
        ("https://Host.example:443/", "host.example"),
        ("https://user:secret@host.example/path?query#fragment", "host.example"),
        (" host.example. ", "host.example"),
        ("host.example:8443", "host.example:8443"),
        ("http://host.example", "http://host.example"),
        ("http://host.example:80/", "http://host.example"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://[2001:DB8::1]:443", "[2001:db8::1]"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("localhost.example:8080", "localhost.example:8080"),
        # Of this machine.
        ("127.0.0.1:8317", "http://127.0.0.1:8317"),
        ("127.0.0.1:8317/telemetry", "http://127.0.0.1:8317"),
        ("127.8.9.1", "http://127.8.9.1"),
        ("127.0.0.1:80", "http://127.0.0.1"),
        ("127.0.0.1:443", "http://127.0.0.1:443"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("::1", "http://[::1]"),
        ("[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
        ("localhost", "http://localhost"),
        (" LOCALHOST.:8317 ", "http://localhost:8317"),
        ("a.localhost:8317", "http://a.localhost:8317"),
        ("https://127.0.0.1:8317", "https://127.0.0.1:8317"),
        ("https://127.0.0.1:443/", "https://127.0.0.1"),
        ("https://localhost", "https://localhost"),
        ("https://[::1]:8317", "https://[::1]:8317"),
    ],
)
def test_a_host_has_one_spelling(spelling: str, normalized: str) -> None:
    assert normalize_host(spelling) == normalized
    assert normalize_host(normalized) == normalized
    assert normalize_host(base_url(spelling)) == normalized


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("host.example", "https://host.example"),
        ("127.0.0.1:8317", "http://127.0.0.1:8317"),
        ("localhost", "http://localhost"),
        ("https://localhost", "https://localhost"),
        ("https://127.0.0.1:8317/path", "https://127.0.0.1:8317"),
    ],
)
def test_this_machine_is_talked_to_over_plain_http_unless_its_url_says_otherwise(host: str, url: str) -> None:
    assert base_url(host) == url


@pytest.mark.parametrize(
    "bad", ["", " ", "https://", "ftp://host", "host:notaport", "host:99999", "a b", "[::1"]
)
def test_what_is_no_host_is_told(bad: str) -> None:
    with pytest.raises(ValueError):
        normalize_host(bad)


def test_a_password_in_a_bad_url_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ValueError) as caught:
        normalize_host("https://user:sentinel@host:notaport")
    assert "sentinel" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback", "secure"),
    [
        ("http://127.0.0.1:1", True, True),
        ("http://127.8.9.1", True, True),
        ("http://[::1]", True, True),
        ("http://localhost", True, True),
        ("http://a.localhost", True, True),
        ("127.0.0.1:8317", True, True),
        ("localhost", True, True),
        ("https://[::1]:8317", True, True),
        ("http://localhost.example", False, False),
        ("http://10.0.0.1", False, False),
        ("10.0.0.1", False, True),
        ("host.example", False, True),
    ],
)
def test_where_credentials_may_go(host: str, loopback: bool, secure: bool) -> None:
    assert is_loopback(host) is loopback
    assert is_secure(host) is secure

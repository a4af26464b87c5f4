"""Addresses of topics, and what is passed through to librdkafka."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")

from adbc_telemetry.collector.destination import DestinationError
from adbc_telemetry.collector.kafka.address import KafkaAddress, parse_address
from adbc_telemetry.collector.kafka.producer import Producer
from adbc_telemetry.collector.kafka.settings import (
    consumer_settings,
    producer_settings,
    read_settings,
)

ADDRESS = KafkaAddress(("localhost:1",), "t")


@pytest.mark.parametrize(
    ("text", "brokers"),
    [
        ("kafka://one/t.opic-1_x", ("one:9092",)),
        ("kafka://one:1,two.example:9093/t.opic-1_x", ("one:1", "two.example:9093")),
        ("kafka://[::1]:9093/t.opic-1_x", ("[::1]:9093",)),
    ],
)
def test_an_address_names_brokers_and_a_topic(text: str, brokers: tuple[str, ...]) -> None:
    assert parse_address(text) == KafkaAddress(brokers, "t.opic-1_x")


@pytest.mark.parametrize(
    "text",
    [
        "one/t",
        "kafka://one",
        "kafka:///t",
        "kafka://one:0/t",
        "kafka://one:99999/t",
        "kafka://user@one/t",
        "kafka://one/",
        "kafka://one/a/b",
        "kafka://one/..",
        "kafka://one/" + "x" * 250,
    ],
)
def test_what_is_no_address_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(DestinationError, match=r"; (write|take)|take at most"):
        parse_address(text)


def test_settings_come_from_the_command_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("# a comment\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")
    assert read_settings([str(file), "linger.ms=7", "security.protocol=SSL"]) == {
        "security.protocol": "SSL",
        "sasl.password": "a=b",
        "linger.ms": "7",
    }


@pytest.mark.parametrize(
    "name", ["acks", "enable.idempotence", "bootstrap.servers", "group.id", "auto.offset.reset"]
)
def test_settings_that_would_break_a_promise_are_refused(name: str) -> None:
    with pytest.raises(DestinationError, match=f"the setting {name} is not for users"):
        read_settings([f"{name}=1"])


def test_a_file_that_cannot_be_read_is_told_without_its_content(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="cannot be read"):
        read_settings([str(tmp_path / "missing")])
    file = tmp_path / "kafka.properties"
    file.write_text("a secret\n")
    with pytest.raises(DestinationError, match="a line that is not KEY=VALUE") as raised:
        read_settings([str(file)])
    assert "secret" not in str(raised.value)


def test_users_settings_beat_the_defaults_and_not_the_promises() -> None:
    settings = producer_settings(ADDRESS, {"linger.ms": "7", "client.id": "mine"})
    assert (settings["linger.ms"], settings["client.id"]) == ("7", "mine")
    assert (settings["acks"], settings["enable.idempotence"]) == ("all", True)
    settings = consumer_settings(ADDRESS, "g", {"session.timeout.ms": "6000"})
    assert (settings["session.timeout.ms"], settings["group.id"]) == ("6000", "g")
    assert settings["enable.auto.commit"] is False


@pytest.mark.parametrize(
    ("name", "value"), [("no.such.setting", "a secret"), ("security.protocol", "a secret")]
)
def test_a_setting_that_librdkafka_does_not_take_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(DestinationError, match=f"does not take the setting {name}") as raised:
        Producer(ADDRESS, {name: value})
    assert "secret" not in str(raised.value)

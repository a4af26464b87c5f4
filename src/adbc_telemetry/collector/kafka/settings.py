"""What users pass through to librdkafka, as `--kafka-config KEY=VALUE` or a file of such lines.

librdkafka knows its properties, and what they take (its CONFIGURATION.md); they are not checked here. Only those are
refused that would break what a collector or a sink promises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException

from adbc_telemetry.collector.destination import DestinationError
from adbc_telemetry.collector.kafka.address import KafkaAddress

REQUEST_SECONDS: Final = 8.0
"""How long a request waits for Kafka: less than the ten seconds that clients wait for their answer."""
_BUFFER_KILOBYTES: Final = 64 * 1024

_OURS: Final = {
    "bootstrap.servers": "the brokers stand in the address",
    "metadata.broker.list": "the brokers stand in the address",
    "acks": "a 200 means that all in-sync replicas have the events",
    "request.required.acks": "a 200 means that all in-sync replicas have the events",
    "enable.idempotence": "without it a retry may change the order of a session",
    "enable.gapless.guarantee": "one lost event would stop the collector",
    "transactional.id": "the collector is stateless",
    "group.id": "the option --group names it",
    "enable.auto.commit": "the offsets are in the table",
    "enable.auto.offset.store": "the offsets are in the table",
    "auto.offset.reset": "the offsets are in the table",
}


def read_settings(given: Iterable[str]) -> dict[str, str]:
    """Settings as users give them; later ones beat earlier ones.

    Args:
        given: each is `KEY=VALUE`, or the path of a file with a `KEY=VALUE` per line, in which empty lines and lines
            that begin with `#` are passed over.

    Raises:
        DestinationError: one cannot be read, or is not the user's to set. No value is quoted: it may be a password.
    """
    settings: dict[str, str] = {}
    for each in given:
        for line in [each] if "=" in each else _lines(each):
            name, found, value = line.partition("=")
            name = name.strip()
            if not found or not name:
                raise DestinationError(
                    f"{each} has a line that is not KEY=VALUE; write one setting per line."
                )
            if name in _OURS:
                raise DestinationError(
                    f"the setting {name} is not for users, since {_OURS[name]}; leave it out."
                )
            settings[name] = value.strip()
    return settings


def producer_settings(address: KafkaAddress, given: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a collector's producer."""
    return {
        "compression.type": "zstd",
        "linger.ms": "5",
        # Records that are late are given up, as the request is that they belong to.
        "message.timeout.ms": str(int(REQUEST_SECONDS * 1000)),
        "queue.buffering.max.kbytes": str(_BUFFER_KILOBYTES),
        "queue.buffering.max.messages": "200000",
        # A broker that comes back is found within a second.
        "reconnect.backoff.max.ms": "1000",
        "log_level": "4",
        **given,
        "bootstrap.servers": address.servers,
        "acks": "all",
        "enable.idempotence": True,
        "client.id": given.get("client.id", "adbc-telemetry-collector"),
    }


def consumer_settings(address: KafkaAddress, group: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a sink's consumer."""
    return {
        # What is read ahead while a commit is under way.
        "queued.max.messages.kbytes": "32768",
        "fetch.max.bytes": "8388608",
        "reconnect.backoff.max.ms": "1000",
        "log_level": "4",
        **given,
        "bootstrap.servers": address.servers,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Only for a partition whose records were deleted before they were read; the sink says so.
        "auto.offset.reset": "earliest",
        "client.id": given.get("client.id", "adbc-telemetry-sink"),
    }


def explain_bad_settings(error: KafkaException) -> DestinationError:
    """Why librdkafka does not take the settings. Values are not quoted."""
    name = re.search(r'property:? "([A-Za-z0-9._]+)"', str(error))
    what = f"the setting {name[1]}" if name else "a setting"
    return DestinationError(
        f"Kafka's client does not take {what}; see librdkafka's CONFIGURATION.md for what it may be."
    )


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise DestinationError(
            f"{path} cannot be read: {error.strerror}; give KEY=VALUE, or a file of such lines."
        ) from None
    except UnicodeDecodeError:
        raise DestinationError(f"{path} is not text; give KEY=VALUE, or a file of such lines.") from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]

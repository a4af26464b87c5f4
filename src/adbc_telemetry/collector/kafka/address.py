"""`kafka://broker[,broker]/topic`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from adbc_telemetry.collector.destination import DestinationError

SCHEME: Final = "kafka://"
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")
_PORT: Final = 9092


class KafkaAddress(NamedTuple):
    """Brokers to begin with, and a topic."""

    brokers: tuple[str, ...]
    """Host and port of each."""
    topic: str

    @property
    def servers(self) -> str:
        """The brokers, as librdkafka's `bootstrap.servers` has them."""
        return ",".join(self.brokers)

    def __str__(self) -> str:
        return f"{SCHEME}{self.servers}/{self.topic}"


def parse_address(text: str) -> KafkaAddress:
    """The address in a text.

    Args:
        text: such as `kafka://one:9092,two:9092/telemetry`. The port is 9092 where none is given.

    Raises:
        DestinationError: it is none.
    """
    brokers, slash, topic = text.removeprefix(SCHEME).partition("/")
    named = [_broker(each.strip()) for each in brokers.split(",") if each.strip()]
    usable = [each for each in named if each is not None]
    if not text.startswith(SCHEME) or not slash or not usable or len(usable) < len(named):
        raise DestinationError(
            f"{text} is no address of a Kafka topic; write one such as kafka://broker-1:9092,broker-2:9092/telemetry."
        )
    # `.` and `..` are no topics: Kafka makes folders of them.
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise DestinationError(
            f"{text} names no topic that Kafka allows; "
            "take at most 249 letters, digits, dots, hyphens and underscores."
        )
    return KafkaAddress(tuple(usable), topic)


def _broker(text: str) -> str | None:
    match = _BROKER.fullmatch(text)
    if match is None or (match[1] is not None and not 0 < int(match[1]) < 65_536):
        return None
    return text if match[1] is not None else f"{text}:{_PORT}"

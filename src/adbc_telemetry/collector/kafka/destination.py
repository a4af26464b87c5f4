"""The collector's side of Kafka: a request is durable when the brokers have acknowledged all of its events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from adbc_telemetry.collector.destination import AcceptedLog, Added, Gauge, Health, NotDurableError
from adbc_telemetry.collector.kafka.address import KafkaAddress
from adbc_telemetry.collector.kafka.producer import Producer
from adbc_telemetry.collector.kafka.records import headers_of, key_of
from adbc_telemetry.collector.kafka.settings import REQUEST_SECONDS
from adbc_telemetry.collector.rarely import RareLog

MOST_WAITING: Final = 100_000
"""Events that wait for Kafka. librdkafka's buffer takes more: it is never filled half-way through a request."""
STALLED_SECONDS: Final = 3.0
"""When a request has waited for so long, further ones are refused at once."""
_PRODUCED_AT_ONCE: Final = 500
"""Logs of one request that librdkafka is given before the event loop turns to others: some two milliseconds."""
_MESSAGE_BYTES: Final = 1_000_000
"""librdkafka's `message.max.bytes`, and about what brokers take."""
_OVERHEAD: Final = 1024
"""Bytes of a record beside its value, at the most."""

_logger = logging.getLogger(__name__)


class KafkaHealth(Health, frozen=True, kw_only=True):
    """How the way to Kafka is doing."""

    waiting_events: int

    def gauges(self) -> list[Gauge]:
        """What waits."""
        return [Gauge("waiting_events", "Events that Kafka has not acknowledged yet.", self.waiting_events)]

    def details(self) -> dict[str, object]:
        """What waits."""
        return {"waiting_events": self.waiting_events}


class _Request:
    """The events of one request on their way. `delivered` is called on the polling thread, all else on the loop."""

    def __init__(self, events: int) -> None:
        self.began = time.monotonic()
        self._left = events
        self._error: KafkaError | None = None
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[KafkaError | None] = self._loop.create_future()

    def delivered(self, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        """One event was acknowledged, or was not."""
        self._left -= 1
        self._error = self._error or error
        if self._left == 0:
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.done.done():  # it may be given up by now
            self.done.set_result(self._error)


class KafkaDestination:
    """A topic as the place for events. Create it, `await start()`, and `await stop()` on the same event loop.

    Args:
        address: the brokers and the topic.
        settings: the user's, for librdkafka.
    """

    def __init__(self, address: KafkaAddress, settings: Mapping[str, str] | None = None) -> None:
        self.place = str(address)
        """The address."""
        self._address = address
        self._settings = dict(settings or {})
        self._log = RareLog(_logger)
        self._producer: Producer | None = None
        self._requests: dict[_Request, None] = {}  # those that wait, the oldest first
        self._ending: asyncio.Future[None] | None = None
        self._events = 0
        self._failed = 0

    @property
    def largest_log(self) -> int:
        """Bytes of the largest log that a record has room for."""
        given = self._settings.get("message.max.bytes", "")
        return max(0, (int(given) if given.isdigit() else _MESSAGE_BYTES) - _OVERHEAD)

    async def start(self) -> None:
        """Begin to connect. The brokers may be away: then `health` says so, and events are refused.

        Raises:
            DestinationError: librdkafka does not take the settings.
        """
        # Reads certificates, for instance: not on the loop.
        self._producer = await asyncio.get_running_loop().run_in_executor(
            None, partial(Producer, self._address, self._settings)
        )
        self._producer.start()

    async def stop(self, timeout: float = 3.0) -> None:
        """Take no more events, flush within `timeout` seconds, and end the thread. Idempotent."""
        if self._producer is None:
            return
        if self._ending is None:
            self._ending = asyncio.get_running_loop().run_in_executor(
                None, self._producer.end, time.monotonic() + timeout
            )
        await asyncio.shield(self._ending)

    async def add(self, logs: Sequence[AcceptedLog], array: bytes | None = None) -> Added:
        """Produce the events of one request, and wait until the brokers have acknowledged all of them.

        Raises:
            NotDurableError: they have not, or not in time; or too many events wait; or this destination is stopping.
        """
        if not logs:
            return Added(0, 0)
        if self._producer is None or self._ending is not None:
            raise NotDurableError
        if self._producer.waiting + len(logs) > MOST_WAITING or self._is_stalled():
            self._failed += 1
            raise NotDurableError
        request = _Request(len(logs))
        self._requests[request] = None
        try:
            await self._produce(self._producer, logs, request)
            error = await asyncio.wait_for(request.done, REQUEST_SECONDS)
        except (asyncio.TimeoutError, BufferError, KafkaException):
            raise self._explain(self._producer.problem or "no answer in time") from None
        finally:
            del self._requests[request]
        if error is not None:
            raise self._explain(self._producer.problem or "an error")
        self._events += len(logs)
        return Added(len(logs), 0)

    def health(self) -> KafkaHealth:
        """How it is doing now."""
        producer = self._producer
        problem = "it was not started" if producer is None else producer.problem
        succeeded_at = None if producer is None else producer.succeeded_at
        return KafkaHealth(
            problems=[] if problem is None else [f"{self.place} does not take events: {problem}."],
            events=self._events,
            failed_requests=self._failed,
            newest_commit_age_seconds=None if succeeded_at is None else time.monotonic() - succeeded_at,
            waiting_events=0 if producer is None else producer.waiting,
        )

    @staticmethod
    async def _produce(producer: Producer, logs: Sequence[AcceptedLog], request: _Request) -> None:
        received_us = time.time_ns() // 1000
        for number, log in enumerate(logs):
            if number % _PRODUCED_AT_ONCE == _PRODUCED_AT_ONCE - 1:
                await asyncio.sleep(0)  # other requests' turn
            producer.produce(log.text.encode(), key_of(log), headers_of(log, received_us), request.delivered)

    def _is_stalled(self) -> bool:
        oldest = next(iter(self._requests), None)
        return oldest is not None and time.monotonic() - oldest.began > STALLED_SECONDS

    def _explain(self, reason: str) -> NotDurableError:
        self._failed += 1
        self._log.warn(
            "kafka", f"{self.place} has not acknowledged events: {reason}. Senders keep them and try again."
        )
        return NotDurableError()

"""librdkafka's producer, and the thread that polls it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from adbc_telemetry.collector.kafka.address import KafkaAddress
from adbc_telemetry.collector.kafka.records import Headers
from adbc_telemetry.collector.kafka.settings import explain_bad_settings, producer_settings

PROBE_SECONDS: Final = 5.0
"""How often the topic is asked for while no event shows that it can be reached."""
_SHUT_OUT: Final = frozenset(
    {
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
    }
)
"""Errors that are not fatal by librdkafka's word, but after which a producer without transactions never gets on."""
_SOON_SECONDS: Final = 1.0
"""The same while there is a problem."""
_PROBE_TIMEOUT: Final = 1.0
"""The polling thread hears of nothing else meanwhile."""
_POLL_SECONDS: Final = 0.1

Delivered = Callable[["KafkaError | None", confluent_kafka.Message], None]
_logger = logging.getLogger("adbc_telemetry.collector.kafka.librdkafka")


class Producer:
    """Takes records for one topic, and calls back on its own thread for each of them.

        idle      made, no thread
        running   `start` was called; records are taken
        renewing  the brokers have shut this producer out, or its state is lost: librdkafka goes no further with it.
                  Another one takes its place; the records of the first are called back as failed
        ending    `end` was called; the thread flushes until the deadline, gives the rest up, and ends

    Args:
        address: the brokers and the topic.
        given: the user's settings.

    Raises:
        DestinationError: librdkafka does not take the settings.
    """

    def __init__(self, address: KafkaAddress, given: Mapping[str, str]) -> None:
        self._topic = address.topic
        self._settings: dict[str, Any] = producer_settings(address, given)
        try:
            self._producer = self._make()
        except KafkaException as error:
            raise explain_bad_settings(error) from None
        self._retired: list[confluent_kafka.Producer] = []
        self._thread = threading.Thread(target=self._run, name="adbc-telemetry-kafka", daemon=True)
        self._ending = threading.Event()
        self._deadline = 0.0
        # Written by the polling thread alone, read by the event loop.
        self._ended = 0
        self._renew = False
        self._succeeded_at: float | None = None
        self._failed_at: float | None = None
        self._failure = ""
        self._unreachable: str | None = "it has not answered yet"
        # Written by the event loop alone.
        self._taken = 0

    @property
    def waiting(self) -> int:
        """Records that are in the buffer or on their way."""
        return self._taken - self._ended

    @property
    def problem(self) -> str | None:
        """Why events may not be acknowledged at the moment, in a few words; None if all is well.

        A load balancer asks, and sends no events while there is a problem. So a failure counts for as long only as
        the topic was not reached after it.
        """
        if self._unreachable is not None:
            return self._unreachable
        return self._failure or None

    @property
    def succeeded_at(self) -> float | None:
        """When the last record was acknowledged, by `time.monotonic()`."""
        return self._succeeded_at

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def produce(self, value: bytes, key: bytes, headers: Headers, delivered: Delivered) -> None:
        """Take a record. It does not block.

        Raises:
            BufferError: the buffer is full.
            KafkaException: the record is not taken.
        """

        def ended(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            self._ended += 1
            if error is None:
                self._succeeded_at = time.monotonic()
                self._failure = ""
                self._unreachable = None
            else:
                self._failed_at = time.monotonic()
                self._failure = explain_error(error)
                self._renew |= error.fatal() or error.code() in _SHUT_OUT
            delivered(error, message)

        # The polling thread may put another producer in its place, so it is read once.
        producer = self._producer
        producer.produce(self._topic, value, key, headers=headers, on_delivery=ended)
        self._taken += 1

    def end(self, deadline: float) -> None:
        """Flush until `deadline` by `time.monotonic()`, give the rest up, and wait for the thread."""
        self._deadline = deadline
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        next_probe = 0.0
        while not self._ending.is_set():
            self._producer.poll(_POLL_SECONDS)
            self._look_after_retired()
            now = time.monotonic()
            heard_of = self._succeeded_at is not None and now - self._succeeded_at < PROBE_SECONDS
            if now >= next_probe and not heard_of:
                self._probe()
                next_probe = time.monotonic() + (PROBE_SECONDS if self.problem is None else _SOON_SECONDS)
        self._producer.flush(max(0.0, self._deadline - time.monotonic()))
        for each in (self._producer, *self._retired):
            each.purge()
            each.poll(0)  # the callbacks of what was given up

    def _make(self) -> confluent_kafka.Producer:
        return confluent_kafka.Producer(self._settings, logger=_logger)

    def _look_after_retired(self) -> None:
        if self._renew:
            self._renew = False
            self._producer.purge()
            self._retired.append(self._producer)
            self._producer = self._make()
            _logger.warning("Kafka has shut a producer out (%s); another one takes its place.", self._failure)
        for retired in list(self._retired):
            # The event loop may have handed it a record just now: it lives until all of them are called back.
            retired.poll(0)
            if not len(retired):
                self._retired.remove(retired)

    def _probe(self) -> None:
        began = time.monotonic()
        try:
            topics = self._producer.list_topics(self._topic, timeout=_PROBE_TIMEOUT).topics
        except KafkaException as error:
            self._unreachable = explain_error(error.args[0])
            return
        problem = topics[self._topic].error if self._topic in topics else None
        self._unreachable = None if problem is None else explain_error(problem)
        if self._failed_at is not None and self._failed_at < began - PROBE_SECONDS:
            self._failure = ""  # it may be well again; the next event will tell


def explain_error(error: KafkaError) -> str:
    """An error in a few words. Its text is not quoted: it may hold names that are not ours to log."""
    return f"{error.name() or error.code()}"

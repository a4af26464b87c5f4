"""The sink's loop. The package's docstring names its states and its races."""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import confluent_kafka
import duckdb
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from msgspec import Struct

from adbc_telemetry.collector.delta.reading import TableSource, recent_ids_sql
from adbc_telemetry.collector.delta.rows import Log, make_rows
from adbc_telemetry.collector.delta.table import CommitFailed, EventTable, Overtaken
from adbc_telemetry.collector.delta.upkeep import Upkeep
from adbc_telemetry.collector.delta.window import RecentEvents
from adbc_telemetry.collector.destination import DestinationError
from adbc_telemetry.collector.intake import Refused, read_log
from adbc_telemetry.collector.kafka.address import KafkaAddress
from adbc_telemetry.collector.kafka.producer import explain_error
from adbc_telemetry.collector.kafka.records import received_us
from adbc_telemetry.collector.kafka.settings import consumer_settings, explain_bad_settings
from adbc_telemetry.collector.rarely import RareLog
from adbc_telemetry.collector.sink.batch import Batch
from adbc_telemetry.collector.store.compaction import connect
from adbc_telemetry.collector.store.recent_ids import hash_id

_POLL_SECONDS: Final = 0.2
_RECORDS: Final = 2_000
"""Records that are read at once."""
_LONGEST_BACKOFF: Final = 30.0
_FIRST_PARTITION_SECONDS: Final = 60.0
"""With `once`: how long the group may take to assign partitions."""
_WATERMARK_SECONDS: Final = 10.0
_LONGEST_BEHIND: Final = 14 * 86_400.0
"""A clock that was wrong must not make a sink read the ids of years."""
_UPKEEP_SECONDS: Final = 300.0
_REPORT_SECONDS: Final = 60.0
_MEMORY_LIMIT: Final = "1GB"
"""What DuckDB may take to make rows."""
_IDS: Final = 50_000

_logger = logging.getLogger(__name__)
_kafka_logger = logging.getLogger("adbc_telemetry.collector.kafka.librdkafka")


class SinkAccount(Struct):
    """What a sink has done since its start."""

    written: int = 0
    """Events that it added to the table."""
    duplicates: int = 0
    """Records left out because their event was in the table."""
    refused: int = 0
    """Records that are no logs."""
    missing: int = 0
    """Records that Kafka had deleted before they were read."""
    commits: int = 0
    overtaken: int = 0
    """Batches that another sink had written first."""
    failed: int = 0
    """Commits whose end was not known."""


class SinkState(enum.Enum):
    """See the package."""

    JOINING = "joining"
    ASKING = "asking"
    READING = "reading"
    ENDED = "ended"


class Sink:
    """Writes the events of a topic into a table.

    Args:
        address: the brokers and the topic.
        table: where events go; not open yet.
        group: Kafka's consumer group. All sinks of a table are in one.
        settings: the user's, for librdkafka.
        window: seconds in which an id is known again.
        commit_seconds: how old a batch becomes.
        once: end when all is read that is there.
        upkeep: looks after the table; None leaves it alone.
    """

    def __init__(
        self,
        address: KafkaAddress,
        table: EventTable,
        *,
        group: str,
        settings: Mapping[str, str] | None = None,
        window: float = 3600.0,
        commit_seconds: float = 10.0,
        once: bool = False,
        upkeep: Upkeep | None = None,
    ) -> None:
        self._address = address
        self._table = table
        self._settings = consumer_settings(address, group, settings or {})
        self._recent = RecentEvents(window)
        self._commit_seconds = commit_seconds
        self._once = once
        self._upkeep = upkeep
        self._stop = threading.Event()
        self._log = RareLog(_logger)
        self._connection = connect(_MEMORY_LIMIT, threads=1)
        self._state = SinkState.JOINING
        self._assigned: list[int] = []
        self._at_end: set[int] = set()
        self._batch = Batch({})
        self._backoff = 0.0
        self._remembered_since = 0.0
        self._source: TableSource
        self._consumer: confluent_kafka.Consumer
        self.account = SinkAccount()

    def stop(self) -> None:
        """End soon: the batch is committed, and the group left. A signal handler may call it."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop` is called, or with `once` until all is read.

        Raises:
            DestinationError: the table or the settings cannot be used, or no partition was assigned in time.
        """
        self._table.open()
        self._source = TableSource(self._table.uri, self._table.storage_options)
        try:
            self._consumer = confluent_kafka.Consumer(
                {**self._settings, "enable.partition.eof": self._once}, logger=_kafka_logger
            )
        except KafkaException as error:
            raise explain_bad_settings(error) from None
        try:
            self._consumer.subscribe(
                [self._address.topic],
                on_assign=self._partitions_assigned,
                on_revoke=self._partitions_revoked,
                on_lost=self._partitions_lost,
            )
            with self._looked_after():
                self._work()
        finally:
            self._state = SinkState.ENDED
            self._consumer.close()
            self._connection.close()
        if self._once and self._upkeep is not None:
            self._upkeep.run()

    def _work(self) -> None:
        began = time.monotonic()
        next_report = began + _REPORT_SECONDS
        while not self._stop.is_set():
            if self._is_done(began):
                self._commit()
                if self._state is SinkState.READING:
                    return  # else the commit failed, and what it held is read again
            if self._state is SinkState.ASKING:
                self._ask_table()
            # Nothing is consumed before the table has told where to begin; the group is served all the same.
            self._take(self._consumer.consume(_RECORDS, _POLL_SECONDS))
            if self._batch.is_due(self._commit_seconds):
                self._commit()
            if time.monotonic() >= next_report:
                next_report = time.monotonic() + _REPORT_SECONDS
                _logger.info("%s", self.describe())
        self._commit()

    def describe(self) -> str:
        """What was done, in one line."""
        account = self.account
        return (
            f"{account.written} events written, {account.duplicates} duplicates left out, {account.refused} refused, "
            f"{account.missing} missing, {account.commits} commits, {account.overtaken + account.failed} begun again"
        )

    def _is_done(self, began: float) -> bool:
        if not self._once:
            return False
        if self._state is SinkState.JOINING and time.monotonic() - began > _FIRST_PARTITION_SECONDS:
            raise DestinationError(
                f"{self._address} assigned no partition within {_FIRST_PARTITION_SECONDS:.0f} seconds; see whether its "
                "brokers can be reached and the topic exists."
            )
        return self._state is SinkState.READING and self._at_end.issuperset(self._assigned)

    # --- the group; called within `consume` and `close`

    def _partitions_assigned(self, consumer: confluent_kafka.Consumer, given: list[TopicPartition]) -> None:
        self._assigned = sorted(partition.partition for partition in given)
        self._state = SinkState.ASKING
        # Nothing comes until the table has been asked, which may take longer than a callback should.
        consumer.assign([])

    def _partitions_revoked(self, consumer: confluent_kafka.Consumer, given: list[TopicPartition]) -> None:
        self._commit()
        self._let_go(consumer)

    def _partitions_lost(self, consumer: confluent_kafka.Consumer, given: list[TopicPartition]) -> None:
        self._let_go(consumer)

    def _let_go(self, consumer: confluent_kafka.Consumer) -> None:
        self._assigned = []
        self._batch = Batch({})
        self._state = SinkState.JOINING
        consumer.unassign()

    # --- the table

    def _ask_table(self) -> None:
        """Begin where the table ends."""
        if self._backoff and self._stop.wait(self._backoff):
            return
        try:
            self._table.reload()
            begins = {partition: self._table.offset(partition) for partition in self._assigned}
            self._remember_ids(time.time() - self._recent.seconds)
        except CommitFailed as error:
            self._back_off()
            self._log.warn("table", f"{self._table.uri} cannot be read ({error}); it is asked again.")
            return
        self._batch = Batch(begins)
        self._at_end = set()
        self._consumer.assign(
            [
                TopicPartition(
                    self._address.topic,
                    partition,
                    confluent_kafka.OFFSET_BEGINNING if begin is None else begin,
                )
                for partition, begin in begins.items()
            ]
        )
        self._state = SinkState.READING

    def _remember_ids(self, since: float) -> None:
        """Read the ids of the events that the table holds and that were received since a moment.

        Raises:
            CommitFailed: the table cannot be read now.
        """
        snapshot = self._source.snapshot_of(self._table.state, self._connection)
        query = recent_ids_sql(snapshot, since)
        try:
            self._recent.replace(() if query is None else self._pieces(query), time.time())
        except (duckdb.Error, OSError) as error:
            raise CommitFailed(type(error).__name__) from error
        self._remembered_since = since

    def _remember_earlier_ids(self) -> None:
        """For records that came long ago, as after a weekend without sinks: the window before them counts."""
        begin = max(self._batch.oldest - self._recent.seconds, time.time() - _LONGEST_BEHIND)
        if begin < self._remembered_since:
            # A little more, so that the next records, which may be older by a little, do not read it all again.
            self._remember_ids(begin - self._recent.seconds)

    def _pieces(self, query: str) -> Iterator[list[str]]:
        cursor = self._connection.execute(query)
        while rows := cursor.fetchmany(_IDS):
            yield [event_id for (event_id,) in rows]

    def _commit(self) -> None:
        """Write the batch, if there is something in it."""
        batch = self._batch
        if self._state is not SinkState.READING or batch.began is None:
            return
        moves = batch.moves
        try:
            self._table.commit(make_rows(batch.logs, self._connection), moves)
        except Overtaken:
            self.account.overtaken += 1
            _logger.info("Another sink has written the same records of %s first.", self._address)
            self._begin_again()
        except CommitFailed as error:
            self.account.failed += 1
            self._back_off()
            self._log.warn(
                "commit", f"A commit to {self._table.uri} failed ({error}); the table is asked what it holds."
            )
            self._begin_again()
        else:
            self._backoff = 0.0
            self.account.commits += 1
            self.account.written += len(batch.logs)
            self._recent.add(batch.hashes, batch.oldest, batch.newest)
            self._batch = Batch({partition: batch.next_offset(partition) for partition in self._assigned})
            self._tell_kafka({partition: move.end for partition, move in moves.items()})

    def _begin_again(self) -> None:
        """Drop the batch, and ask the table."""
        self._state = SinkState.ASKING
        self._batch = Batch({})
        self._consumer.assign([])

    def _back_off(self) -> None:
        self._backoff = min(_LONGEST_BACKOFF, max(0.5, 2 * self._backoff))

    def _tell_kafka(self, ends: Mapping[int, int]) -> None:
        """For tools that show the lag; whether it arrives does not matter."""
        offsets = [TopicPartition(self._address.topic, partition, end) for partition, end in ends.items()]
        with contextlib.suppress(KafkaException):
            self._consumer.commit(offsets=offsets, asynchronous=True)

    # --- records

    def _take(self, messages: Sequence[confluent_kafka.Message]) -> None:
        found: list[tuple[int, Log]] = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._hear(error, message)
            elif self._is_next(message):
                read = self._read(message)
                if read is not None:
                    found.append(read)
        if not found:
            return
        try:
            self._remember_earlier_ids()
        except CommitFailed as error:
            self._back_off()
            self._log.warn("table", f"{self._table.uri} cannot be read ({error}); it is asked again.")
            self._begin_again()
            return
        known = self._recent.known([number for number, _ in found])
        for number, log in found:
            if number in known or not self._batch.add(number, log):
                self.account.duplicates += 1

    def _hear(self, error: KafkaError, message: confluent_kafka.Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._at_end.add(message.partition() or 0)
        else:
            self._log.warn("kafka", f"{self._address} cannot be read at the moment: {explain_error(error)}.")

    def _is_next(self, message: confluent_kafka.Message) -> bool:
        """Whether a record is to be read now. It is noted as read."""
        partition, offset = message.partition(), message.offset()
        if self._state is not SinkState.READING or partition not in self._assigned or offset is None:
            return False  # it was on its way when the group or the table changed the plan
        expected = self._batch.next_offset(partition)
        if expected is not None and offset != expected:
            if offset < expected or not self._is_deleted(partition, expected):
                return False
            self.account.missing += offset - expected
            self._log.warn(
                "missing",
                f"{offset - expected} records of {self._address} were deleted before they were read; "
                "give the topic a longer retention.",
            )
        self._batch.read(partition, offset, message.timestamp()[1] / 1000)
        return True

    def _is_deleted(self, partition: int, offset: int) -> bool:
        """Whether Kafka has deleted the record at an offset. Else one that comes early is from an earlier plan."""
        try:
            watermarks = self._consumer.get_watermark_offsets(
                TopicPartition(self._address.topic, partition), timeout=_WATERMARK_SECONDS
            )
        except KafkaException:
            watermarks = None
        if watermarks is not None and watermarks[0] > offset:
            return True
        self._begin_again()
        return False

    def _read(self, message: confluent_kafka.Message) -> tuple[int, Log] | None:
        value = message.value()
        try:
            log = read_log(value.decode() if isinstance(value, bytes) else value or "")
        except (Refused, UnicodeDecodeError):
            self.account.refused += 1
            self._log.warn("refused", f"A record of {self._address} is no log, and is passed over.")
            return None
        received = received_us(message.headers())
        if received is None:  # of another program
            received = message.timestamp()[1] * 1000
        return hash_id(log.event_id), Log(received, log.text, log.canonical)

    # --- upkeep

    @contextlib.contextmanager
    def _looked_after(self) -> Iterator[None]:
        """The table's upkeep goes on meanwhile."""
        if self._upkeep is None or self._once:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(
            target=self._look_after, args=(self._upkeep, ended), name="adbc-telemetry-upkeep", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(
                _POLL_SECONDS
            )  # a compaction under way is given up with the process, which is no harm

    def _look_after(self, upkeep: Upkeep, ended: threading.Event) -> None:
        while not ended.wait(_UPKEEP_SECONDS):
            if 0 in self._assigned:
                upkeep.run()

"""The table as one sink writes it: rows and offsets in one transaction.

How an event comes into the table exactly once

    The table holds, for each partition of the topic, the offset of the next record that it lacks: an application
    transaction of Delta's, named `kafka:TOPIC:PARTITION`. A commit adds rows and moves offsets, or does neither. It
    carries where each partition began, and goes through only if

    1. the offset in this handle's snapshot is the one at which the batch began, which `commit` compares, and
    2. no other commit has moved the offset of one of these partitions since that snapshot. Delta's protocol makes it a
       conflict when two concurrent commits name the same application; `deltalake` sees it when it puts the later one
       behind the earlier one.

    So of two sinks that both believe that they own a partition, one writes a range of records, and the other one is
    told. Neither Kafka's group nor a clock has a say in it. Commits of other partitions do not disturb one another.

    When a commit fails, or its answer is lost, its sink does not know whether it went through. It asks the table: reads
    the offsets again, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError

from adbc_telemetry.collector.delta.schema import DAY, SCHEMA
from adbc_telemetry.collector.destination import DestinationError

_CONFIGURATION: Final = {
    # Readers and sinks begin at the last checkpoint.
    "delta.checkpointInterval": "50",
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
    # Files are found by these; statistics of the others only make the log larger.
    "delta.dataSkippingStatsColumns": "timestamp,received_at",
}
WRITER: Final = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=20_480)
"""As the folder's files are written: a reader holds a whole row group."""
_COMMIT_RETRIES: Final = 30
"""Each is one more look at what others have committed; rows are not written again."""


class CommitFailed(Exception):
    """A commit may or may not have gone through: the table has to be asked. The message is the error's class."""


class Overtaken(CommitFailed):
    """Another sink has moved the offset of one of the partitions. Nothing was written."""


class Move(NamedTuple):
    """How far a commit moves a partition."""

    begin: int | None
    """The offset in the table, None if there is none yet."""
    end: int
    """The offset of the record after the last one that the commit holds."""


class EventTable:
    """A table that this process writes. It is used on one thread.

    Args:
        uri: a path, or a URI that `deltalake` knows.
        topic: whose offsets it keeps.
        storage_options: for an object store, as `deltalake` takes them.
    """

    def __init__(self, uri: str, topic: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.uri = uri
        self._topic = topic
        self._storage_options = dict(storage_options or {})
        self._table: DeltaTable

    def open(self) -> None:
        """Read the table's state, and make the table if there is none.

        Raises:
            DestinationError: there is a table with other columns, or none can be made there.
        """
        try:
            if not DeltaTable.is_deltatable(self.uri, self._storage_options):
                self._create()
            self._table = DeltaTable(self.uri, storage_options=self._storage_options)
        except (DeltaError, OSError, ValueError) as error:
            raise DestinationError(
                f"{self.uri} cannot be opened as a Delta table ({type(error).__name__}); give a path or URI that this "
                "user may write, and what its store needs as --storage-option."
            ) from error
        names = {field.name for field in self._table.schema().fields}
        if missing := sorted(set(SCHEMA.names) - names):
            raise DestinationError(
                f"{self.uri} is a table without the column {missing[0]}; give a table that a sink of this version made."
            )
        if self._table.metadata().partition_columns != [DAY]:
            raise DestinationError(f"{self.uri} is not partitioned by {DAY}; give another table.")

    def reload(self) -> None:
        """Read the table's newest state.

        Raises:
            CommitFailed: it cannot be read now.
        """
        try:
            self._table.update_incremental()
        except (DeltaError, OSError) as error:
            raise CommitFailed(type(error).__name__) from error

    @property
    def storage_options(self) -> dict[str, str]:
        """What it was opened with."""
        return self._storage_options

    @property
    def state(self) -> DeltaTable:
        """The state of the last `open`, `reload` or `commit`."""
        return self._table

    def offset(self, partition: int) -> int | None:
        """The next record that the table lacks of a partition; None if it holds none of it."""
        return self._table.transaction_version(self._application(partition))

    def commit(self, rows: pa.Table, moves: Mapping[int, Move]) -> None:
        """Add rows and move offsets, or neither.

        Args:
            rows: with the columns of `SCHEMA`.
            moves: by partition.

        Raises:
            Overtaken: another sink was there first.
            CommitFailed: it is not known whether it went through.
        """
        # Another sink's offsets may be in this snapshot already: one's own last commit brought them along.
        if any(self.offset(partition) != move.begin for partition, move in moves.items()):
            raise Overtaken("Overtaken")
        transactions = [
            Transaction(self._application(partition), move.end) for partition, move in moves.items()
        ]
        try:
            write_deltalake(
                self._table,
                rows,
                mode="append",
                writer_properties=WRITER,
                commit_properties=CommitProperties(
                    app_transactions=transactions, max_commit_retries=_COMMIT_RETRIES
                ),
            )
        except (DeltaError, OSError) as error:
            raise CommitFailed(type(error).__name__) from error

    def _application(self, partition: int) -> str:
        return f"kafka:{self._topic}:{partition}"

    def _create(self) -> None:
        try:
            DeltaTable.create(
                self.uri,
                SCHEMA,
                mode="error",
                partition_by=[DAY],
                name="adbc-telemetry",
                configuration=_CONFIGURATION,
                storage_options=self._storage_options,
                # With retries, a second one would put its metadata behind the table of the first one.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            # Another sink may have made it just now.
            if not DeltaTable.is_deltatable(self.uri, self._storage_options):
                raise

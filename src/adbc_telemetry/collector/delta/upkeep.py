"""The table's upkeep: small files are compacted, old days deleted, files that are gone for a day vacuumed.

It has a handle of its own on the table, and a thread of its own in a sink that runs. Delta's transactions are all that
stands between it and those who write. A compaction never disturbs a commit. A day that is deleted may fail one, which
is made again. Of two that compact the same files one fails, which is no harm. So two sinks may do it at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Final

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from adbc_telemetry.collector.delta.schema import DAY
from adbc_telemetry.collector.delta.table import WRITER

_TARGET_BYTES: Final = 128 * 1024 * 1024
_COMPACTED_DAYS: Final = 2
"""Today's partition and yesterday's: older ones were compacted when they were young."""
_VACUUM_SECONDS: Final = 3600.0

_logger = logging.getLogger(__name__)


class Upkeep:
    """Looks after one table.

    Args:
        uri: the table.
        storage_options: for an object store.
        retention: seconds after which a day's events are deleted; None keeps them all.
    """

    def __init__(
        self,
        uri: str,
        storage_options: Mapping[str, str] | None = None,
        *,
        retention: float | None = None,
    ) -> None:
        self._uri = uri
        self._storage_options = dict(storage_options or {})
        self._retention = retention
        self._vacuumed_at: float | None = None

    def run(self) -> bool:
        """Do what is due; returns whether all of it went through. What did not is done the next time."""
        try:
            table = DeltaTable(self._uri, storage_options=self._storage_options)
            self._compact(table)
            self._delete_old_days(table)
            if self._vacuumed_at is None or time.monotonic() - self._vacuumed_at > _VACUUM_SECONDS:
                # Full: what a sink wrote whose commit failed is in no log.
                table.vacuum(dry_run=False, full=True)
                self._vacuumed_at = time.monotonic()
        except (DeltaError, OSError) as error:
            _logger.warning("%s could not be compacted this time (%s).", self._uri, type(error).__name__)
            return False
        return True

    def _compact(self, table: DeltaTable) -> None:
        days = [_day(ago) for ago in range(_COMPACTED_DAYS)]
        found = table.optimize.compact(
            partition_filters=[(DAY, "in", days)],
            target_size=_TARGET_BYTES,
            max_concurrent_tasks=1,
            writer_properties=WRITER,
        )
        _logger.debug("%s: %s files became %s.", self._uri, found["numFilesRemoved"], found["numFilesAdded"])

    def _delete_old_days(self, table: DeltaTable) -> None:
        if self._retention is None:
            return
        first = (datetime.now(timezone.utc) - timedelta(seconds=self._retention)).date()
        days = {each[DAY] for each in table.partitions()}
        if any(day is not None and day < first.isoformat() for day in map(str, days)):
            table.delete(f"{DAY} < '{first.isoformat()}'")


def _day(ago: int) -> str:
    return (datetime.now(timezone.utc) - timedelta(days=ago)).date().isoformat()

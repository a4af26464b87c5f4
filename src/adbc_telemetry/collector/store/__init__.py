"""The store: a folder that one collector writes, and that other tools read meanwhile.

layout       its folders and names, and the lock of its writer
journal      events become durable: one write and one fdatasync for a group of requests
recent_ids   the ids of the last hour, so that an event that is sent again is kept once
columns      the columns of the Parquet files, and how a log becomes a row
compaction   journal segments become Parquet files, in a process of its own
retention    which files are too old or too many
writer       class `Store`, which does all of it on an event loop
snapshot     what a reader reads, without a lock
"""

from adbc_telemetry.collector.store.layout import StoreError, StoreFolder, is_old_database, open_store

__all__ = ["StoreError", "StoreFolder", "is_old_database", "open_store"]

"""A Delta table as the queries read it: the live files of one version of the table.

DuckDB reads the files; which ones are live says `deltalake`. A version never changes, but files that a later version no
longer holds are deleted a day after. So a query that misses a file is asked again over the newest version.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from adbc_telemetry.collector.destination import DestinationError
from adbc_telemetry.collector.store.columns import NAMES
from adbc_telemetry.collector.store.snapshot import FileState, Snapshot, files_sql

_ATTEMPTS: Final = 3
_READER_VERSION: Final = 1
"""The version of Delta's protocol up to which a table is its Parquet files and nothing else."""
_SCHEME: Final = "adbc-telemetry-table"
T = TypeVar("T")


class TableSource:
    """A table, for questions. It is used on one thread.

    Args:
        uri: a path, or a URI that `deltalake` knows.
        storage_options: for an object store.

    Raises:
        DestinationError: there is no table of events that can be read.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self._uri = uri
        self._storage_options = dict(storage_options or {})
        try:
            self._table = DeltaTable(uri, storage_options=self._storage_options)
        except (DeltaError, OSError, ValueError) as error:
            raise DestinationError(
                f"{uri} is no Delta table that can be read ({type(error).__name__}); give the one that a sink writes, "
                "and what its store needs as --storage-option."
            ) from error
        missing = sorted(set(NAMES) - {field.name for field in self._table.schema().fields})
        if missing:
            raise DestinationError(
                f"{uri} lacks the column {missing[0]}; give the table that a sink of this version writes."
            )
        if self._table.protocol().min_reader_version > _READER_VERSION:
            raise DestinationError(
                f"{uri} was given features of Delta, such as deletion vectors, that only other readers know; read it "
                "with Spark or Databricks."
            )
        self._is_local = "://" not in uri or uri.startswith("file://")
        self._registered: set[int] = set()
        self.rollups = _cache_folder(str(self._table.metadata().id))

    def snapshot(self, connection: duckdb.DuckDBPyConnection) -> Snapshot:
        """The files of the newest version, by when their newest event was received.

        Raises:
            duckdb.IOException: the table cannot be read now.
        """
        try:
            self._table.update_incremental()
        except (DeltaError, OSError) as error:
            raise duckdb.IOException(type(error).__name__) from error
        return self.snapshot_of(self._table, connection)

    def snapshot_of(self, table: DeltaTable, connection: duckdb.DuckDBPyConnection) -> Snapshot:
        """The files of a version of this table."""
        prefix = self._prefix(connection)
        files = [
            FileState(
                path=prefix + file["path"],
                content=os.path.basename(file["path"]),
                newest_us=_microseconds(file.get("max.received_at")),
            )
            for file in pa.table(table.get_add_actions(flatten=True)).to_pylist()
        ]
        return Snapshot(tuple(sorted(files, key=lambda file: (file.newest_us or 0, file.path))), ())

    def read(self, connection: duckdb.DuckDBPyConnection, query: Callable[[Snapshot], T]) -> T:
        """The result of a query over one version of the table.

        Raises:
            duckdb.Error: the query fails, or a file is damaged.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return query(self.snapshot(connection))
            except (duckdb.IOException, FileNotFoundError):
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _prefix(self, connection: duckdb.DuckDBPyConnection) -> str:
        """What stands before the path of a file for DuckDB to open it."""
        if self._is_local:
            return self._table.table_uri.removeprefix("file://").rstrip("/") + "/"
        if id(connection) not in self._registered:
            connection.register_filesystem(_file_system(self._uri, self._storage_options))
            self._registered.add(id(connection))
        return f"{_SCHEME}://"


def recent_ids_sql(snapshot: Snapshot, since: float) -> str | None:
    """A SELECT of the ids of the events that were received since a moment; None if there are none.

    Args:
        snapshot: of a table.
        since: Unix time in seconds.
    """
    since_us = int(since * 1_000_000)
    recent = [file.path for file in snapshot.files if file.newest_us is None or file.newest_us >= since_us]
    if not recent:
        return None
    return (
        f"SELECT event_id FROM ({files_sql(recent)}) "
        f"WHERE received_at >= make_timestamptz({since_us}) AND event_id IS NOT NULL"
    )


def _file_system(uri: str, storage_options: Mapping[str, str]) -> Any:
    """The table's object store, as DuckDB opens files in it. It has no way of its own that needs no download."""
    from deltalake.fs import DeltaStorageHandler
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import PyFileSystem

    def without_scheme(cls: Any, path: Any) -> str:
        return str(path).removeprefix(f"{_SCHEME}://")

    # fsspec has no types to inherit from.
    kind: Any = type(
        "TableFiles",
        (ArrowFSWrapper,),
        {"protocol": _SCHEME, "_strip_protocol": classmethod(without_scheme)},
    )
    return kind(PyFileSystem(DeltaStorageHandler(uri, dict(storage_options))), skip_instance_cache=True)


def _microseconds(moment: Any) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1_000_000) + 1


def _cache_folder(table_id: str) -> Path:
    """A folder of this user's for what is computed from the table's files, which never change."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "adbc-telemetry" / table_id
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return Path(tempfile.gettempdir()) / "adbc-telemetry-does-not-exist"
    return folder

"""`adbc-telemetry export`: all events into one file."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adbc_telemetry.cli.errors import CommandError, write
from adbc_telemetry.cli.fetching import fetch_to_file, is_url
from adbc_telemetry.cli.storage import add_storage_option, parse_storage_options

if TYPE_CHECKING:
    import duckdb

    from adbc_telemetry.collector.queries.answers import FileFormat

_MEMORY_LIMIT: Final = "512MB"
FORMATS: Final[dict[str, FileFormat]] = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl"}


def add_export(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    parser.add_argument(
        "source",
        metavar="STORE|URL|TABLE",
        help="a collector's folder or URL, a Delta table, or a telemetry.duckdb of version 0.1",
    )
    add_storage_option(parser)
    parser.add_argument("--to", required=True, metavar="FILE", help="a new file: .parquet, .csv or .jsonl")


def run_export(options: argparse.Namespace) -> int:
    """Write all events into a file, which appears when it is complete."""
    target = Path(options.to)
    file_format = FORMATS.get(target.suffix.lower())
    if file_format is None:
        raise CommandError(f"{target} has no known ending; name it .parquet, .csv or .jsonl.")
    if target.exists():
        raise CommandError(f"{target} exists already; give the name of a new file.")
    if not target.absolute().parent.is_dir():
        raise CommandError(
            f"cannot write {target}: its folder does not exist; make it, or give another file."
        )
    part = target.with_name(f".{target.name}.part")
    try:
        if is_url(options.source):
            fetch_to_file(options.source, f"/api/export?format={file_format}", part)
        else:
            _export_store(options.source, part, file_format, parse_storage_options(options.storage_option))
        os.replace(part, target)
    except OSError as error:
        raise CommandError(f"cannot write {target}: {error.strerror or error}; give another file.") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    write(f"wrote {target}\n".encode())
    return 0


def _export_store(source: str, part: Path, file_format: FileFormat, storage_options: dict[str, str]) -> None:
    import duckdb

    from adbc_telemetry.collector.destination import DestinationError
    from adbc_telemetry.collector.queries.export import export_events, export_store
    from adbc_telemetry.collector.queries.sources import open_source
    from adbc_telemetry.collector.store import is_old_database
    from adbc_telemetry.collector.store.compaction import connect

    with contextlib.closing(connect(_MEMORY_LIMIT, threads=2)) as connection:
        try:
            if is_old_database(source):
                export_events(_old_events_sql(connection, source), connection, part, file_format)
            else:
                export_store(open_source(source, storage_options), connection, part, file_format)
        except DestinationError as error:
            raise CommandError(str(error)) from error
        except duckdb.Error as error:
            raise CommandError(
                f"{source} could not be exported ({type(error).__name__}); see whether its disk and that of the "
                "new file are in order."
            ) from error


def _old_events_sql(connection: duckdb.DuckDBPyConnection, path: str) -> str:
    """A SELECT of the store's columns over the database of an earlier version."""
    import duckdb

    from adbc_telemetry.collector.store.columns import COLUMNS, quoted

    try:
        connection.execute(f"ATTACH {quoted(path)} AS old (READ_ONLY)")
        found = connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = 'old' AND table_name = 'logs'"
        ).fetchall()
    except duckdb.IOException as error:
        if "Could not set lock" in str(error):
            raise CommandError(f"{path} is in use by another process; stop that one first.") from error
        raise CommandError(f"{path} is damaged, and cannot be read.") from error
    names = {name for (name,) in found}
    if not {"event_id", "log"} <= names:
        raise CommandError(f"{path} is a DuckDB file, but not of a collector; give another one.")
    columns = (
        f'CAST({f"old.logs.{column.name}" if column.name in names else "NULL"} AS {column.sql_type}) AS "{column.name}"'
        for column in COLUMNS
    )
    return f"SELECT {', '.join(columns)} FROM old.logs"

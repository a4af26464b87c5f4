"""What the demo's threads do: ten statements of all kinds, over and over, on databases of their own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import adbc_driver_manager.dbapi
import pyarrow as pa

from adbc_telemetry.config import TelemetryConfiguration
from adbc_telemetry.instrumentation.installation import instrument

ROWS_A_THREAD: Final = 30_000
ROUNDS_A_THREAD: Final = 25
STATEMENTS_A_ROUND: Final = 10
_THINK_SECONDS: Final = 0.02

# DuckDB's driver comes with the collector's extra, SQLite's is taken where it is installed.
_DRIVERS: Final = {"SQLite": "adbc_driver_sqlite", "DuckDB": "adbc_driver_duckdb"}


def databases() -> list[str]:
    """The databases that the threads run on."""
    return [name for name, module in _DRIVERS.items() if importlib.util.find_spec(module)]


def connect(index: int, folder: Path) -> Any:
    """A connection of one thread to a database of its own."""
    names = databases()
    name = names[index % len(names)]
    driver = importlib.import_module(f"{_DRIVERS[name]}.dbapi")
    return driver.connect(str(folder / f"{index}.{name.lower()}"), autocommit=True)


def work(
    index: int, folder: Path, url: str, config: TelemetryConfiguration, advance: Callable[[], object]
) -> None:
    """All that one thread does. `advance` is called after each statement."""
    with instrument(connect(index, folder), url, config=config) as connection:
        _load(connection)
        for round_ in range(ROUNDS_A_THREAD):
            for statement in _statements(connection, round_):
                with contextlib.suppress(adbc_driver_manager.dbapi.Error):
                    statement()
                advance()
                time.sleep(_THINK_SECONDS)


def _load(connection: Any) -> None:
    rows = pa.table(
        {
            "id": pa.array(range(ROWS_A_THREAD), pa.int64()),
            "amount": pa.array([i * 37 % 1000 / 10 for i in range(ROWS_A_THREAD)], pa.float64()),
            "name": pa.array([f"customer {i % 997}" for i in range(ROWS_A_THREAD)], pa.string()),
        }
    )
    with connection.cursor() as cursor:
        cursor.adbc_ingest("orders", rows, mode="create")
        cursor.execute("CREATE UNIQUE INDEX orders_id ON orders (id)")


def _statements(connection: Any, round_: int) -> Iterator[Callable[[], object]]:
    """Ten statements of all kinds; two of them fail, as they do in life."""

    def run(sql: str, parameters: Any = None, fetch: str = "fetchall") -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            if cursor.description:
                getattr(cursor, fetch)()

    def append() -> None:
        ids = range(ROWS_A_THREAD + round_ * 100, ROWS_A_THREAD + round_ * 100 + 20)
        rows = pa.table({"id": ids, "amount": [1.5] * 20, "name": ["new"] * 20})
        with connection.cursor() as cursor:
            cursor.adbc_ingest("orders", rows, mode="append")

    yield lambda: run("SELECT count(*) FROM orders WHERE amount > ?", [round_])
    yield lambda: run("SELECT * FROM orders", fetch="fetch_arrow_table")
    yield lambda: run(
        "SELECT name, sum(amount) AS total FROM orders GROUP BY name ORDER BY total DESC LIMIT 5"
    )
    yield append
    yield lambda: run("UPDATE orders SET amount = amount + 1 WHERE id = ?", [round_])
    yield lambda: run(f"CREATE TABLE scratch_{round_} (id INTEGER)")
    yield lambda: connection.adbc_get_objects(depth="tables").read_all()
    yield lambda: connection.adbc_get_table_schema("orders")
    yield lambda: run("SELEKT 1")
    yield lambda: run("INSERT INTO orders VALUES (1, 0.0, 'there already')")

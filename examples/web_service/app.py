"""A web service whose queries are recorded: gunicorn runs it, with a connection per thread of each worker."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import adbc_driver_sqlite.dbapi

import adbc_telemetry

DATABASE = os.environ.get("DATABASE", "shop.sqlite")
CONFIG = adbc_telemetry.TelemetryConfiguration(enabled=True, flush_interval_ms=500)

_local = threading.local()


def connection() -> Any:
    """The connection of this thread, made at its first request: after gunicorn has forked."""
    if not hasattr(_local, "connection"):
        _local.connection = adbc_telemetry.instrument(
            adbc_driver_sqlite.dbapi.connect(DATABASE, autocommit=True),
            "http://127.0.0.1:8317",
            config=CONFIG,
            client_app_name="shop",
        )
    return _local.connection


def query(sql: str, parameters: list[object]) -> list[Any]:
    with connection().cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[Any] = cursor.fetchall() if cursor.description else []
        return rows


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """`POST /orders/AMOUNT` adds an order, `GET /orders` counts them, and any other page fails."""
    path = environ["PATH_INFO"].strip("/").split("/")
    try:
        if path[0] != "orders":
            query("SELECT * FROM nothing", [])
        if environ["REQUEST_METHOD"] == "POST":
            query("INSERT INTO orders (amount) VALUES (?)", [float(path[1])])
        [(count, total)] = query("SELECT count(*), sum(amount) FROM orders", [])
        status, answer = "200 OK", {"count": count, "total": total}
    except adbc_driver_sqlite.dbapi.Error:
        status, answer = "404 Not Found", {"error": "no such page"}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]

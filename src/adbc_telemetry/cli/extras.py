"""The extras that a command needs. They are found, not imported: a command loads only what it uses."""

from __future__ import annotations

import importlib.util
from typing import Final

from adbc_telemetry.cli.errors import CommandError

_MODULES: Final = {
    "collector": ("duckdb", "numpy", "prometheus_client", "rich", "starlette", "uvicorn", "xxhash"),
    "kafka": ("confluent_kafka",),
    "delta": ("deltalake", "duckdb", "fsspec", "numpy", "pyarrow", "xxhash"),
}


def require_extras(*extras: str) -> None:
    """See whether the packages of some extras are there.

    Raises:
        CommandError: one is missing.
    """
    for extra in extras:
        for name in _MODULES[extra]:
            if importlib.util.find_spec(name) is None:
                wanted = f"adbc-telemetry[{','.join(extras)}]"
                raise CommandError(
                    f"{name} is missing: install {wanted}, for instance with: pip install '{wanted}'"
                )

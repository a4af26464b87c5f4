"""SQLAlchemy over ADBC: an engine whose connections are ADBC's, opened by any function."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


def over_adbc(connect: Callable[[], Any]) -> Any:
    """An engine of SQLAlchemy's SQLite dialect over ADBC connections, as a dialect for ADBC makes one."""
    import sqlalchemy
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect
    from sqlalchemy.pool import StaticPool

    class Dialect(SQLiteDialect):
        driver = "adbc"
        supports_statement_cache = True

        @classmethod
        def import_dbapi(cls) -> Any:
            from adbc_driver_manager import dbapi

            return SimpleNamespace(**vars(dbapi), sqlite_version_info=(3, 40, 0))

        def create_connect_args(self, url: Any) -> Any:
            return [], {}

        def _get_server_version_info(self, connection: Any) -> Any:
            return 3, 40, 0

    sqlalchemy.dialects.registry.impls["sqlite.adbc"] = lambda: Dialect
    return sqlalchemy.create_engine("sqlite+adbc://", creator=connect, poolclass=StaticPool)

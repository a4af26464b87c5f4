"""Which database a connection is to, and where: `db.system.name`, `db.namespace`, `server.address`, `server.port`.

`db.system.name` comes from the driver's own name, by the tables below. Where a name is well known to the conventions
(v1.44, "Notes and well-known identifiers for `db.system.name`"), it is that one; else it is the product's name in lower
case, as they ask. Nothing is asked of the server: an option of ADBC is read only of drivers that know it by heart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from adbc_telemetry.core.guard import never_raises

CATALOG: Final = "adbc.connection.catalog"  # ADBC_CONNECTION_OPTION_CURRENT_CATALOG
SCHEMA: Final = "adbc.connection.db_schema"  # ADBC_CONNECTION_OPTION_CURRENT_DB_SCHEMA


class System(NamedTuple):
    """A kind of database.

    Attributes:
        name: `db.system.name`.
        dialect: sqlglot's name of its SQL; None where it is not known, so that texts are read with more care.
        port: the default port, which is not told; None where there is none.
        options: options of an ADBC connection that name what it is connected to, from the more general to the more
            specific. Only those that the driver answers without the server.
    """

    name: str
    dialect: str | None = None
    port: int | None = None
    options: tuple[str, ...] = ()


OTHER: Final = System("other_sql")
POSTGRESQL: Final = System("postgresql", "postgres", 5432, (CATALOG,))
SQLITE: Final = System("sqlite", "sqlite", None, (CATALOG,))
DUCKDB: Final = System("duckdb", "duckdb", None, (CATALOG, SCHEMA))
_SNOWFLAKE: Final = System("snowflake", "snowflake", 443)
_BIGQUERY: Final = System("bigquery", "bigquery", 443)
_DATABRICKS: Final = System("databricks", "databricks", 443)
_MSSQL: Final = System("microsoft.sql_server", "tsql", 1433)
_MYSQL: Final = System("mysql", "mysql", 3306)
_TRINO: Final = System("trino", "trino", 8080)
_REDSHIFT: Final = System("aws.redshift", "redshift", 5439)
_CLICKHOUSE: Final = System("clickhouse", "clickhouse", 8123)
_SPARK: Final = System("spark", "spark")
_ORACLE: Final = System("oracle.db", "oracle", 1521)

BY_DRIVER: Final[Mapping[str, System]] = {
    "sqlite": SQLITE,
    "duckdb": DUCKDB,
    "redshift": _REDSHIFT,
    "postgres": POSTGRESQL,
    "snowflake": _SNOWFLAKE,
    "bigquery": _BIGQUERY,
    "databricks": _DATABRICKS,
    "sql server": _MSSQL,
    "mssql": _MSSQL,
    "mysql": _MYSQL,
    "trino": _TRINO,
    "clickhouse": _CLICKHOUSE,
    "spark": _SPARK,
    "oracle": _ORACLE,
    "netezza": System("ibm.netezza", None, 5480),
    "spanner": System("gcp.spanner", None, 443),
    "monetdb": System("monetdb", None, 50000),
    "exasol": System("exasol", "exasol", 8563),
    "singlestore": System("singlestore", "singlestore", 3306),
    # A protocol, and any database may stand behind it.
    "flight sql": OTHER,
}
"""By a part of what an ADBC driver calls itself (ADBC_INFO_DRIVER_NAME), in lower case. The first that fits counts."""

BY_PACKAGE: Final[Mapping[str, System]] = {
    "sqlite3": SQLITE,
    "duckdb": DUCKDB,
    "psycopg": POSTGRESQL,
    "psycopg2": POSTGRESQL,
    "pg8000": POSTGRESQL,
    "pymysql": _MYSQL,
    "mysql": _MYSQL,
    "MySQLdb": _MYSQL,
    "pyodbc": OTHER,
    "oracledb": _ORACLE,
    "snowflake": _SNOWFLAKE,
    "databricks": _DATABRICKS,
    "trino": _TRINO,
    "clickhouse_driver": _CLICKHOUSE,
}
"""By the package of a driver of PEP 249 that is not ADBC."""


class Place(NamedTuple):
    """What the options of a database tell before there is a connection.

    Attributes:
        system: as far as the driver's library tells.
        address: of the server: a host's name, an IP address or the folder of a socket.
        port: where it is not the default port.
        namespace: the database that is connected to.
    """

    system: System = OTHER
    address: str | None = None
    port: int | None = None
    namespace: str | None = None


NOWHERE: Final = Place()


def system_of_driver(name: str | None) -> System:
    """The database that an ADBC driver is for, by what it calls itself."""
    driver = (name or "").lower()
    return next((system for part, system in BY_DRIVER.items() if part in driver), OTHER)


def system_of_package(package: str | None) -> System:
    """The database that a driver of PEP 249 is for, by its package."""
    return BY_PACKAGE.get(package or "", OTHER)


# Options of databases that name a server without a URI: of Snowflake's and Databricks' drivers.
_HOSTS: Final = ("adbc.snowflake.sql.uri.host", "databricks.server_hostname")
_PORTS: Final = ("adbc.snowflake.sql.uri.port", "databricks.port")
_NAMESPACES: Final = (
    ("adbc.snowflake.sql.db", "adbc.snowflake.sql.schema"),
    ("databricks.catalog", "databricks.schema"),
    ("adbc.bigquery.sql.project_id", "adbc.bigquery.sql.dataset_id"),
)
# Those of files, whose path is private, and those of one process.
_LOCAL: Final = frozenset({"sqlite", "duckdb"})
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match


def _nowhere(error: Exception, options: Mapping[str, Any]) -> Place:
    return NOWHERE


@never_raises(_nowhere)
def place_of(options: Mapping[str, Any]) -> Place:
    """What the options of an ADBC database tell, and no more: no user, password, path or parameter."""
    uri = str(options.get("uri") or "")
    scheme = uri.partition("://")[0] if _SCHEME(uri) else ""
    driver = str(options.get("driver") or "")
    if _SCHEME(driver) and not uri:  # the driver manager takes a URI there, too
        uri, scheme = driver, driver.partition("://")[0]
    library = f"{driver} {options.get('entrypoint') or ''} {scheme}".lower()
    system = OTHER if "flightsql" in library else system_of_driver(library)
    if system.name in _LOCAL:
        return Place(system)
    address, port, namespace = _of_uri(uri, system) if scheme else (None, None, None)
    address = address or _first(options, _HOSTS)
    port = port or _number(_first(options, _PORTS))
    if namespace is None:
        told = ([options.get(name) for name in names] for names in _NAMESPACES)
        namespace = next(("|".join(map(str, filter(None, parts))) for parts in told if any(parts)), None)
    return Place(system, address, None if port == system.port else port, namespace)


def _of_uri(uri: str, system: System) -> tuple[str | None, int | None, str | None]:
    """Host, port and database of a URI. libpq's may have them among the parameters."""
    parts = urlsplit(uri)
    if "@" in parts.path + parts.query + parts.fragment:
        # A password with `/`, `?` or `#`, which libpq takes: what looks like the host is the user's name.
        return None, None, None
    asked = parse_qs(parts.query) if parts.scheme.startswith("postgres") else {}
    host = parts.hostname or asked.get("host", [None])[0]
    port = parts.port or _number(asked.get("port", [None])[0])
    if "unix" in parts.scheme:
        return parts.path or None, None, None
    database = unquote(parts.path).strip("/") or None
    if system is OTHER and not (parts.hostname and "/" not in (database or "")):
        database = None  # of a database that is not known, it may be the path of a file
    if system is _DATABRICKS or parts.scheme.startswith("grpc"):
        database = None  # it is the path of a warehouse, or of a service
    return host, port, database or asked.get("dbname", [None])[0]


def _first(options: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(options[name]) for name in names if options.get(name)), None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _not_told(error: Exception, *_: object) -> str | None:
    return None


def namespace_of(connection: Any, system: System) -> str | None:
    """The namespace of a connection of ADBC, if its driver knows it by heart."""
    told = [_option(connection, option) for option in system.options]
    return "|".join(filter(None, told)) or None


@never_raises(_not_told)
def _option(connection: Any, option: str) -> str | None:
    value = connection.get_option(option)
    return value if isinstance(value, str) else None


def _no_place(error: Exception, connection: Any, system: System) -> Place:
    return Place(system)


@never_raises(_no_place)
def place_of_pep249(connection: Any, system: System) -> Place:
    """What a connection of psycopg and its like tells of itself."""
    info = getattr(connection, "info", None)
    host, port, database = (getattr(info, name, None) for name in ("host", "port", "dbname"))
    return Place(
        system,
        host if isinstance(host, str) and host else None,
        port if isinstance(port, int) and port != system.port else None,
        database if isinstance(database, str) and database else None,
    )

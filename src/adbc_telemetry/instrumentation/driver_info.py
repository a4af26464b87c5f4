"""What is told of a connection: the driver's name and version, and the settings that `ALLOWED_OPTIONS` lists.

What is not on that list is not even asked for. No text of the user's passes: a setting is told as a number, as yes
or no, or as one of the wire's own words. URIs, hosts, user names, paths, catalogs and schemas are on no list.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, Final, NamedTuple

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.driver_facts import readers
from adbc_telemetry.driver_facts.authentication import authentication
from adbc_telemetry.schema import DriverAuthFlow, DriverAuthMech, DriverConnectionParameters

_DRIVER_NAME, _DRIVER_VERSION = 100, 101  # ADBC_INFO_DRIVER_NAME, ADBC_INFO_DRIVER_VERSION


class AllowedOption(NamedTuple):
    """An option of ADBC that may be told.

    Attributes:
        key: the option's name.
        driver: what the name of a driver that has it contains, in lower case.
        field: of `DriverConnectionParameters`.
        read: the option's value as the field's; None, or an error, where it cannot be one.
    """

    key: str
    driver: str
    field: str
    read: Callable[[str], object]


_MECHANISMS: Final = {
    "auth_snowflake": DriverAuthMech.OTHER,
    "auth_okta": DriverAuthMech.OTHER,
    "auth_jwt": DriverAuthMech.OTHER,
    "auth_mfa": DriverAuthMech.OTHER,
    "auth_ext_browser": DriverAuthMech.OTHER,
    "auth_oauth": DriverAuthMech.OAUTH,
    "auth_pat": DriverAuthMech.PAT,
}
_FLOWS: Final = {
    "auth_oauth": DriverAuthFlow.TOKEN_PASSTHROUGH,
    "auth_pat": DriverAuthFlow.TOKEN_PASSTHROUGH,
    "auth_ext_browser": DriverAuthFlow.BROWSER_BASED_AUTHENTICATION,
}

ALLOWED_OPTIONS: Final[tuple[AllowedOption, ...]] = (
    AllowedOption("adbc.connection.autocommit", "", "auto_commit", readers.flag),
    AllowedOption("adbc.sqlite.query.batch_rows", "sqlite", "rows_fetched_per_block", readers.count),
    AllowedOption(
        "adbc.flight.sql.client_option.tls_skip_verify", "flight", "allow_self_signed_support", readers.flag
    ),
    AllowedOption(
        "adbc.snowflake.sql.client_option.tls_skip_verify",
        "snowflake",
        "allow_self_signed_support",
        readers.flag,
    ),
    AllowedOption("adbc.snowflake.sql.auth_type", "snowflake", "auth_mech", _MECHANISMS.get),
    AllowedOption("adbc.snowflake.sql.auth_type", "snowflake", "auth_flow", _FLOWS.get),
)


def _left_out(error: Exception, *_: object) -> Any:
    return None


class Facts(NamedTuple):
    """What is told of a connection."""

    driver_name: str | None
    driver_version: str | None
    parameters: DriverConnectionParameters

    @property
    def auth_type(self) -> str | None:
        """What follows from the mechanism and the flow, so that the three agree; None where neither is told."""
        told = {"auth_mech": self.parameters.auth_mech, "auth_flow": self.parameters.auth_flow}
        return authentication(told).auth_type


def facts_of_adbc(connection: Any) -> Facts:
    """The facts of an ADBC connection."""
    name, version = driver_name_and_version(connection)
    driver = (name or "").lower()
    settings: dict[str, Any] = {}
    for option in ALLOWED_OPTIONS:
        if option.driver in driver:
            value = _value_of(option, connection)
            if value is not None:
                settings[option.field] = value
    # Autocommit, the driver manager knows itself, also of drivers that do not tell.
    autocommit = getattr(connection, "_autocommit", None)
    if isinstance(autocommit, bool):
        settings["auto_commit"] = autocommit
    return Facts(name, version, DriverConnectionParameters(enable_arrow=True, **settings))


def facts_of_pep249(connection: Any) -> Facts:
    """The facts of any other PEP 249 connection: its package, and whether it commits by itself, if it says so."""
    package = type(connection).__module__.partition(".")[0].removeprefix("_")
    autocommit = _autocommit(connection)
    return Facts(
        package or None,
        _package_version(package),
        DriverConnectionParameters(enable_arrow=False, auto_commit=autocommit),
    )


def _not_told(error: Exception, connection: object) -> tuple[str | None, str | None]:
    return None, None


@never_raises(_not_told)
def driver_name_and_version(connection: Any) -> tuple[str | None, str | None]:
    """What the driver calls itself.

    Asks for these two facts alone and not by `adbc_get_info()`: drivers know them by heart, whereas some ask
    the server for the others, and would do so inside the host program's transaction.
    """
    import pyarrow

    stream = connection.adbc_connection.get_info([_DRIVER_NAME, _DRIVER_VERSION])
    rows = pyarrow.RecordBatchReader._import_from_c(stream.address).read_all().to_pylist()
    told = {row["info_name"]: row["info_value"] for row in rows}
    return _text(told.get(_DRIVER_NAME)), _text(told.get(_DRIVER_VERSION))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _value_of(option: AllowedOption, connection: Any) -> object:
    """The option's value, of the connection or else of its database; None where neither tells."""
    for source in (connection.adbc_connection, connection.adbc_database):
        value = _told_value(option, source)
        if value is not None:
            return value
    return None


@never_raises(_left_out)
def _told_value(option: AllowedOption, source: Any) -> object:
    return option.read(source.get_option(option.key))


@never_raises(_left_out)
def _autocommit(connection: Any) -> bool | None:
    autocommit = getattr(connection, "autocommit", None)  # not of PEP 249: a property, a method, or not there
    return autocommit if isinstance(autocommit, bool) else None


@never_raises(_left_out)
def _package_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # of the standard library
        return None

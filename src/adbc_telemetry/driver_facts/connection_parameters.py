"""A driver's properties as `DriverConnectionParameters`: one table of which property says what.

Numbers, yes or no, and the wire's own words are told as they are. A text that the user wrote (a host, a path, tags)
is told only where the driver's author names its field. Three kinds of text are never told, whatever is named: the
name of a user or of an account, a path in the file system, a credential.

The names of the properties are those of the C# ADBC driver for Databricks (`DatabricksParameters`, `SparkParameters`,
`ApacheParameters`, `HttpProxyOptions`, `HttpTlsOptions`). A driver with other names gives a field under the name that
it has on the wire: `{"rows_fetched_per_block": 10_000, "mode": "SEA"}`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.driver_facts import readers
from adbc_telemetry.driver_facts.authentication import authentication
from adbc_telemetry.driver_facts.readers import Read
from adbc_telemetry.schema import (
    DriverConnectionParameters,
    DriverMode,
    HostDetails,
)

AllowedField = Literal[
    "http_path",
    "host_info",
    "auth_scope",
    "non_proxy_hosts",
    "proxy_host_info",
    "cf_proxy_host_info",
    "discovery_url",
    "azure_workspace_resource_id",
    "azure_tenant_id",
    "token_endpoint",
    "auth_endpoint",
    "query_tags",
]
"""Fields that hold a text of the user's, and are told where the driver's author names them."""

NEVER_TOLD: Final = frozenset(
    {
        "google_service_account",  # an account's name
        "google_credential_file_path",
        "jwt_key_file",
        "allowed_volume_ingestion_paths",
    }
)
"""Fields that would name a user or a path in the file system: no permission opens them."""


class Source(NamedTuple):
    """Where a field comes from.

    Attributes:
        properties: names of properties, the first that is there and can be read wins.
        read: a property's value as the field's.
        by_name: whether it is told only where the driver's author names the field.
    """

    properties: tuple[str, ...]
    read: Read
    by_name: bool = False


_JWT: Final = {
    f"{family.lower()}{bits}": f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)
}
_STORES: Final = {name.lower(): name for name in ("JKS", "PKCS12", "PEM", "BCFKS", "system")}
_MODES: Final = {
    "thrift": DriverMode.THRIFT,
    "rest": DriverMode.SEA,
    "sea": DriverMode.SEA,
}
_DISPOSITIONS: Final = {"inline_or_external_links": True, "inline": False, "external_links": False}

SOURCES: Final[Mapping[str, Source]] = {
    "http_path": Source(("adbc.spark.path", "adbc.hive.path"), readers.path, True),
    "mode": Source(("adbc.databricks.protocol",), readers.word_of(_MODES)),
    "use_proxy": Source(("adbc.proxy_options.use_proxy",), readers.flag),
    "auth_scope": Source(("adbc.databricks.oauth.scope",), readers.text, True),
    "use_system_proxy": Source((), readers.flag),
    "non_proxy_hosts": Source(("adbc.proxy_options.proxy_ignore_list",), readers.texts, True),
    "use_cf_proxy": Source((), readers.flag),
    "discovery_mode_enabled": Source((), readers.flag),
    "discovery_url": Source((), readers.url, True),
    "use_empty_metadata": Source((), readers.flag),
    "support_many_parameters": Source((), readers.flag),
    "ssl_trust_store_type": Source((), readers.word_of(_STORES)),
    "check_certificate_revocation": Source((), readers.flag),
    "accept_undetermined_certificate_revocation": Source((), readers.flag),
    "http_connection_pool_size": Source((), readers.count),
    "enable_sea_hybrid_results": Source(
        ("adbc.databricks.rest.result_disposition",), readers.word_of(_DISPOSITIONS)
    ),
    "enable_complex_datatype_support": Source(
        ("adbc.databricks.enable_complex_datatype_support",), readers.flag
    ),
    "allow_self_signed_support": Source(("adbc.http_options.tls.allow_self_signed",), readers.flag),
    "use_system_trust_store": Source((), readers.flag),
    "rows_fetched_per_block": Source(("adbc.apache.statement.batch_size",), readers.count),
    "azure_workspace_resource_id": Source((), readers.text, True),
    "azure_tenant_id": Source((), readers.text, True),
    "string_column_length": Source((), readers.small),
    "enable_token_cache": Source((), readers.flag),
    "token_endpoint": Source((), readers.url, True),
    "auth_endpoint": Source((), readers.url, True),
    "enable_arrow": Source((), readers.flag),
    "enable_direct_results": Source(("adbc.databricks.enable_direct_results",), readers.flag),
    "enable_jwt_assertion": Source((), readers.flag),
    "jwt_algorithm": Source((), readers.word_of(_JWT)),
    "socket_timeout": Source(("adbc.spark.connect_timeout_ms",), readers.seconds_of_ms),
    "async_poll_interval_millis": Source(("adbc.apache.statement.polltime_ms",), readers.positive),
    "query_tags": Source(("adbc.databricks.query_tags",), readers.text, True),
    "enable_metric_view_metadata": Source((), readers.flag),
    "auto_commit": Source(("adbc.connection.autocommit",), readers.flag),
    "fetch_auto_commit_from_server": Source((), readers.flag),
    "enable_geospatial_support": Source((), readers.flag),
}
"""Each field that is not a host or the authentication; every one of them also by its own name."""

# Under its own name, a field is in the wire's unit and words.
_OWN_READERS: Final[Mapping[str, Read]] = {
    "socket_timeout": readers.count,
    "enable_sea_hybrid_results": readers.flag,
}


class HostSource(NamedTuple):
    """Where the host, the port and the proxy's authentication of a `HostDetails` come from."""

    hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    auth: tuple[str, ...] = ()


HOSTS: Final[Mapping[str, HostSource]] = {
    "host_info": HostSource(
        ("adbc.spark.host", "adbc.hive.host", "uri"), ("adbc.spark.port", "adbc.hive.port", "uri")
    ),
    "proxy_host_info": HostSource(
        ("adbc.proxy_options.proxy_host",),
        ("adbc.proxy_options.proxy_port",),
        ("adbc.proxy_options.proxy_auth",),
    ),
    "cf_proxy_host_info": HostSource(),
}

DATABRICKS_DEFAULTS: Final[Mapping[str, Any]] = {
    "adbc.databricks.protocol": "thrift",
    "adbc.databricks.enable_direct_results": True,
    "adbc.databricks.enable_complex_datatype_support": False,
    "adbc.apache.statement.batch_size": 2_000_000,
    "adbc.apache.statement.polltime_ms": 100,
    "adbc.spark.connect_timeout_ms": 900_000,
    "adbc.spark.port": 443,
    "adbc.connection.autocommit": True,
    "enable_arrow": True,
    "discovery_mode_enabled": False,
    "enable_token_cache": False,
}
"""What the C# driver does where a property is not given, for drivers that do the same.

A property that is not given tells nothing by itself, since a driver's default is the driver's own matter:
`connection_parameters({**DATABRICKS_DEFAULTS, **properties})`.
"""


def _nothing(error: Exception, *_: object, **__: object) -> DriverConnectionParameters:
    return DriverConnectionParameters()


@never_raises(_nothing)
def connection_parameters(
    properties: Mapping[str, Any] | None, *, allowed: Collection[AllowedField] = ()
) -> DriverConnectionParameters:
    """What a connection's properties say. Never raises: a property that cannot be read costs its own field alone.

    Args:
        properties: the driver's, by the names of the C# driver or of the wire's fields. A field's own name beats the
            others. Properties that stand in no table are not looked at.
        allowed: the fields with a text of the user's that may be told. Other names in it open nothing.

    Returns:
        The parameters. Hosts without scheme, user and password, paths and URLs without their query.
    """
    given = properties or {}
    told: dict[str, Any] = {}
    for field, source in SOURCES.items():
        if not source.by_name or field in allowed:
            told[field] = _first(_candidates(given, field, source))
    for field, hosts in HOSTS.items():
        told[field] = _host(given, field, hosts, field in allowed)
    auth = authentication(given)
    told["auth_mech"], told["auth_flow"] = auth.mechanism, auth.flow
    return DriverConnectionParameters(**told)


def _candidates(given: Mapping[str, Any], field: str, source: Source) -> Iterator[tuple[Read, Any]]:
    yield _OWN_READERS.get(field, source.read), given.get(field)
    for name in source.properties:
        yield source.read, given.get(name)


def _first(candidates: Iterator[tuple[Read, Any]]) -> Any:
    values = (_read(read, value) for read, value in candidates if value is not None)
    return next((value for value in values if value is not None), None)


def _not_read(error: Exception, read: Read, value: Any) -> Any:
    return None


@never_raises(_not_read)
def _read(read: Read, value: Any) -> Any:
    return read(value)


def _host(given: Mapping[str, Any], field: str, source: HostSource, allowed: bool) -> HostDetails | None:
    """The parts of a host that may be told; None where that is none of them.

    How a proxy asks who one is, is one of the wire's words. Its host and port are the address of something of the
    user's.
    """
    own = given.get(field)
    if isinstance(own, HostDetails):
        details = HostDetails(
            host_url=_read(readers.host, own.host_url),
            port=_read(readers.port, own.port),
            proxy_auth_type=own.proxy_auth_type,
        )
    else:
        details = HostDetails(
            host_url=_first((readers.host, given.get(name)) for name in (field, *source.hosts)),
            port=_first((readers.port, given.get(name)) for name in (field, *source.ports)),
            proxy_auth_type=_first((readers.proxy_auth, given.get(name)) for name in source.auth),
        )
    if not allowed:
        details = HostDetails(proxy_auth_type=details.proxy_auth_type)
    return None if details == HostDetails() else details


ALL_FIELDS: Final = frozenset({*SOURCES, *HOSTS, "auth_mech", "auth_flow", *NEVER_TOLD})
"""Every field of `DriverConnectionParameters`; a test compares the two."""

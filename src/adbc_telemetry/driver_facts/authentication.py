"""How a connection authenticates: the wire's mechanism, flow and `auth_type`, out of one decision.

The C# driver once took them from different properties, and its events contradicted each other. Here they come
together or not at all. No property's text travels: a word that is not listed here becomes `other`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from adbc_telemetry.config import PROPERTY_PREFIX
from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.schema import DriverAuthFlow, DriverAuthMech


class Authentication(NamedTuple):
    """How a connection authenticates.

    Attributes:
        mechanism: `auth_mech` of the connection's parameters; None where nothing is known.
        flow: `auth_flow` of the connection's parameters.
        auth_type: of the log: `pat`, `oauth-` and the grant's name, or `other`.
    """

    mechanism: DriverAuthMech | None = None
    flow: DriverAuthFlow | None = None
    auth_type: str | None = None


AUTH_TYPES: Final = ("adbc.spark.auth_type", "adbc.hive.auth_type")
GRANT_TYPE: Final = "adbc.databricks.oauth.grant_type"
CLIENT_SECRET: Final = "adbc.databricks.oauth.client_secret"
TOKENS: Final = ("adbc.spark.token", "adbc.databricks.token")
ACCESS_TOKENS: Final = ("adbc.spark.access_token", "adbc.spark.oauth.access_token")
_PASSWORDS: Final = ("password", "adbc.spark.password", "adbc.hive.password")

_FLOWS: Final[Mapping[str, DriverAuthFlow]] = {
    "access_token": DriverAuthFlow.TOKEN_PASSTHROUGH,
    "refresh_token": DriverAuthFlow.TOKEN_PASSTHROUGH,
    "client_credentials": DriverAuthFlow.CLIENT_CREDENTIALS,
    "authorization_code": DriverAuthFlow.BROWSER_BASED_AUTHENTICATION,
    "browser": DriverAuthFlow.BROWSER_BASED_AUTHENTICATION,
}
"""OAuth's grants, and the flow that each is."""

_PAT: Final = Authentication(DriverAuthMech.PAT, DriverAuthFlow.TOKEN_PASSTHROUGH, "pat")
_OTHER: Final = Authentication(DriverAuthMech.OTHER, None, "other")


def _unknown(error: Exception, properties: Mapping[str, Any]) -> Authentication:
    return Authentication()


@never_raises(_unknown)
def authentication(properties: Mapping[str, Any]) -> Authentication:
    """How a connection with these properties authenticates. Never raises.

    Args:
        properties: those of the C# ADBC driver for Databricks, or `auth_mech` and `auth_flow` in the wire's words,
            which beat them.

    Returns:
        OAuth with the grant's flow where the type of authentication is `oauth` or a grant is named; a personal access
        token where there is one; else `other`. All three None where the properties are none that are known.
    """
    told = _as_told(properties)
    if told is not None:
        return told
    kind = _word(properties, *AUTH_TYPES)
    grant = _word(properties, GRANT_TYPE)
    if kind == "oauth" or (kind is None and (grant or _has(properties, CLIENT_SECRET, *ACCESS_TOKENS))):
        return _oauth(grant or ("client_credentials" if _has(properties, CLIENT_SECRET) else "access_token"))
    if kind == "token" or (kind is None and _has(properties, *TOKENS)):
        return _PAT
    if kind is not None or _has(properties, *_PASSWORDS) or any(map(_is_known, properties)):
        return _OTHER
    return Authentication()


def _as_told(properties: Mapping[str, Any]) -> Authentication | None:
    mechanism = _member(DriverAuthMech, properties.get("auth_mech"))
    flow = _member(DriverAuthFlow, properties.get("auth_flow"))
    if mechanism is DriverAuthMech.OAUTH:
        grants = (grant for grant, its_flow in _FLOWS.items() if its_flow is flow)
        return Authentication(mechanism, flow, f"oauth-{next(grants, 'other')}")
    if mechanism is DriverAuthMech.PAT:
        return Authentication(mechanism, flow or DriverAuthFlow.TOKEN_PASSTHROUGH, "pat")
    if mechanism is DriverAuthMech.OTHER:
        return Authentication(mechanism, flow, "other")
    return None


def _oauth(grant: str) -> Authentication:
    flow = _FLOWS.get(grant)
    return Authentication(DriverAuthMech.OAUTH, flow, f"oauth-{grant if flow else 'other'}")


def _is_known(name: object) -> bool:
    """Whether it is a property of the connection, and not one of its telemetry alone."""
    known = isinstance(name, str) and name.startswith(("adbc.databricks.", "adbc.spark.", "adbc.hive."))
    return known and not str(name).startswith(PROPERTY_PREFIX)


def _has(properties: Mapping[str, Any], *names: str) -> bool:
    return any(properties.get(name) not in (None, "") for name in names)


def _word(properties: Mapping[str, Any], *names: str) -> str | None:
    values = (properties.get(name) for name in names)
    return next((value.strip().lower() for value in values if isinstance(value, str) and value.strip()), None)


def _member(kind: Any, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    return kind.__members__.get(value.strip().upper()) if isinstance(value, str) else None

"""A driver's properties as the connection's parameters: what is told, and what never is."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbc_telemetry.driver_facts.authentication import authentication
from adbc_telemetry.driver_facts.connection_parameters import (
    ALL_FIELDS,
    DATABRICKS_DEFAULTS,
    HOSTS,
    NEVER_TOLD,
    SOURCES,
    AllowedField,
    connection_parameters,
)
from adbc_telemetry.events.session import TelemetrySessionContext
from adbc_telemetry.schema import (
    DriverAuthFlow,
    DriverAuthMech,
    DriverConnectionParameters,
    DriverMode,
    DriverProxyAuth,
    HostDetails,
)

ALLOWED = get_args(AllowedField)
NOTHING = DriverConnectionParameters()


def one(name: str, value: object, *, allowed: Any = ()) -> dict[str, Any]:
    """What a property tells, without what follows from it about the authentication."""
    told: dict[str, Any] = msgspec.to_builtins(connection_parameters({name: value}, allowed=allowed))
    return {field: told[field] for field in told if field not in ("auth_mech", "auth_flow")}


def test_each_field_of_the_wire_has_a_source_or_is_never_told() -> None:
    assert {field.name for field in msgspec.structs.fields(DriverConnectionParameters)} == ALL_FIELDS
    assert not NEVER_TOLD & {*SOURCES, *HOSTS, *ALLOWED}


def test_what_is_told_by_name_only_is_what_may_be_allowed() -> None:
    assert {*ALLOWED} == {field for field, source in SOURCES.items() if source.by_name} | {*HOSTS}


@pytest.mark.parametrize("properties", [None, {}, {"user": "alice", "unheard.of": "1"}])
def test_no_known_property_tells_nothing(properties: Any) -> None:
    assert connection_parameters(properties, allowed=ALLOWED) == NOTHING


@pytest.mark.parametrize(
    ("name", "value", "field", "told"),
    [
        ("adbc.databricks.protocol", "thrift", "mode", "THRIFT"),
        ("adbc.databricks.protocol", "REST", "mode", "SEA"),
        ("adbc.spark.connect_timeout_ms", "30000", "socket_timeout", 30),
        ("adbc.apache.statement.batch_size", "50000", "rows_fetched_per_block", 50_000),
        ("adbc.apache.statement.polltime_ms", 250, "async_poll_interval_millis", 250),
        ("adbc.databricks.enable_direct_results", "False", "enable_direct_results", False),
        ("adbc.databricks.enable_complex_datatype_support", "true", "enable_complex_datatype_support", True),
        (
            "adbc.databricks.rest.result_disposition",
            "inline_or_external_links",
            "enable_sea_hybrid_results",
            True,
        ),
        ("adbc.http_options.tls.allow_self_signed", "true", "allow_self_signed_support", True),
        ("adbc.proxy_options.use_proxy", "true", "use_proxy", True),
        ("adbc.connection.autocommit", True, "auto_commit", True),
        ("mode", DriverMode.SEA, "mode", "SEA"),
        ("mode", "sea", "mode", "SEA"),
        ("socket_timeout", 900, "socket_timeout", 900),
        ("http_connection_pool_size", "10", "http_connection_pool_size", 10),
        ("enable_arrow", True, "enable_arrow", True),
        ("use_system_proxy", False, "use_system_proxy", False),
        ("jwt_algorithm", "rs256", "jwt_algorithm", "RS256"),
        ("ssl_trust_store_type", "jks", "ssl_trust_store_type", "JKS"),
    ],
)
def test_a_setting_is_told_by_the_driver_s_name_for_it_and_by_the_wire_s(
    name: str, value: object, field: str, told: object
) -> None:
    assert one(name, value) == {field: told}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adbc.apache.statement.batch_size", "many"),
        ("adbc.apache.statement.batch_size", "-1"),
        ("adbc.apache.statement.batch_size", "9" * 5000),
        ("adbc.apache.statement.batch_size", 2.5),
        ("adbc.apache.statement.batch_size", True),
        ("adbc.apache.statement.polltime_ms", "0"),
        ("string_column_length", 2**31),
        ("adbc.databricks.protocol", "carrier pigeon"),
        ("adbc.databricks.enable_direct_results", "perhaps"),
        ("adbc.databricks.enable_direct_results", object()),
        ("jwt_algorithm", "my own secret one"),
        ("ssl_trust_store_type", "/home/alice/store"),
    ],
)
def test_a_value_that_is_none_costs_its_own_field_alone(name: str, value: object) -> None:
    assert one(name, value) == {}
    both = connection_parameters({name: value, "adbc.connection.autocommit": "true"})
    assert both.auto_commit is True


def test_a_field_s_own_name_beats_the_driver_s_name_for_it() -> None:
    both = {"rows_fetched_per_block": 7, "adbc.apache.statement.batch_size": "8"}
    assert connection_parameters(both).rows_fetched_per_block == 7
    odd = {**both, "rows_fetched_per_block": "seven"}
    assert connection_parameters(odd).rows_fetched_per_block == 8


def test_a_value_that_raises_whatever_it_is_asked_costs_its_own_field_alone() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("sentinel")

        def __str__(self) -> str:
            raise RuntimeError("sentinel")

    assert connection_parameters({"mode": Hostile(), "auto_commit": True}).auto_commit is True


@given(
    st.dictionaries(st.sampled_from([*SOURCES, *HOSTS]), st.text() | st.integers() | st.none() | st.binary())
)
def test_whatever_stands_in_the_properties_the_parameters_are_of_the_wire_s_types(
    properties: dict[str, Any],
) -> None:
    told = connection_parameters(properties, allowed=ALLOWED)
    assert TelemetrySessionContext(driver_connection_params=told).errors == 0


# What the user wrote

WRITTEN: dict[str, tuple[str, str, Any]] = {
    "http_path": ("adbc.spark.path", "/sql/1.0/warehouses/abc?o=123", "/sql/1.0/warehouses/abc"),
    "auth_scope": ("adbc.databricks.oauth.scope", "all-apis", "all-apis"),
    "non_proxy_hosts": (
        "adbc.proxy_options.proxy_ignore_list",
        "localhost, .corp.example",
        ["localhost", ".corp.example"],
    ),
    "query_tags": ("adbc.databricks.query_tags", "team:x,env:test", "team:x,env:test"),
    "azure_tenant_id": ("azure_tenant_id", "0123", "0123"),
    "azure_workspace_resource_id": ("azure_workspace_resource_id", "4567", "4567"),
    "token_endpoint": ("token_endpoint", "https://u:p@idp.example/token?k=1", "https://idp.example/token"),
    "auth_endpoint": ("auth_endpoint", "https://idp.example:8443/auth", "https://idp.example:8443/auth"),
    "discovery_url": (
        "discovery_url",
        "https://idp.example/.well-known#x",
        "https://idp.example/.well-known",
    ),
    "host_info": (
        "adbc.spark.host",
        "https://alice:secret@Host.example:8443/sql?token=1",
        {"host_url": "host.example"},
    ),
    "proxy_host_info": ("adbc.proxy_options.proxy_host", "proxy.internal", {"host_url": "proxy.internal"}),
    "cf_proxy_host_info": ("cf_proxy_host_info", "proxy.internal", {"host_url": "proxy.internal"}),
}


def test_there_is_an_example_of_each_text_of_the_user_s() -> None:
    assert set(WRITTEN) == set(ALLOWED)


@pytest.mark.parametrize("field", WRITTEN)
def test_a_text_of_the_user_s_is_told_where_its_field_is_named_and_only_there(field: str) -> None:
    name, value, told = WRITTEN[field]
    others = [each for each in ALLOWED if each != field]
    assert one(name, value) == {}
    assert one(name, value, allowed=others) == {}
    assert one(name, value, allowed=[field]) == {field: told}


@pytest.mark.parametrize("field", sorted(NEVER_TOLD))
def test_the_name_of_an_account_and_paths_of_files_are_never_told(field: str) -> None:
    assert one(field, "/home/alice/key", allowed=[field, *ALLOWED]) == {}


def test_of_secrets_no_trace_is_left() -> None:
    secrets = {
        "adbc.spark.token": "SECRET",
        "adbc.spark.access_token": "SECRET",
        "adbc.databricks.oauth.client_secret": "SECRET",
        "adbc.databricks.oauth.client_id": "SECRET",
        "adbc.databricks.oauth.grant_type": "SECRET",
        "adbc.spark.auth_type": "SECRET",
        "adbc.proxy_options.proxy_uid": "SECRET",
        "adbc.proxy_options.proxy_pwd": "SECRET",
        "adbc.proxy_options.proxy_auth": "true",
        "adbc.spark.host": "https://u:SECRET@host.example",
        "adbc.spark.path": "/sql?token=SECRET",
        "adbc.hive.path": "https://u:SECRET@host.example/sql",
        "adbc.proxy_options.proxy_ignore_list": "u:SECRET@host.example,other.example",
        "password": "SECRET",
        "username": "SECRET",
        "adbc.databricks.ssp_secret": "SECRET",
    }
    assert b"SECRET" not in msgspec.json.encode(connection_parameters(secrets, allowed=ALLOWED))
    assert "SECRET" not in repr(authentication(secrets))
    a_url = one("adbc.spark.path", "https://u:SECRET@host.example/sql?x=1", allowed=ALLOWED)
    assert a_url == {"http_path": "/sql"}


def test_a_proxy_is_told_as_yes_or_no_and_its_address_only_where_it_is_allowed() -> None:
    proxy = {
        "adbc.proxy_options.use_proxy": "true",
        "adbc.proxy_options.proxy_host": "proxy.internal",
        "adbc.proxy_options.proxy_port": "8080",
        "adbc.proxy_options.proxy_auth": "true",
    }
    closed = connection_parameters(proxy)
    assert closed.use_proxy is True
    assert closed.proxy_host_info == HostDetails(proxy_auth_type=DriverProxyAuth.BASIC)
    opened = connection_parameters(proxy, allowed=["proxy_host_info"])
    assert opened.proxy_host_info == HostDetails("proxy.internal", 8080, DriverProxyAuth.BASIC)


def test_the_port_comes_from_its_own_property_or_from_the_uri() -> None:
    allowed: Any = ["host_info"]
    assert connection_parameters(
        {"uri": "https://h.example:8443/x"}, allowed=allowed
    ).host_info == HostDetails("h.example", 8443)
    both = {"uri": "https://h.example:8443", "adbc.spark.port": "9443"}
    told = connection_parameters(both, allowed=allowed).host_info
    assert told is not None
    assert told.port == 9443


def test_a_message_of_the_wire_is_taken_as_well_and_cleaned() -> None:
    given_host = HostDetails("https://alice:secret@host.example:1", 443)
    told = connection_parameters({"host_info": given_host}, allowed=["host_info"])
    assert told.host_info == HostDetails("host.example", 443)


def test_the_defaults_of_the_c_sharp_driver_are_told_only_where_they_are_asked_for() -> None:
    told = connection_parameters(DATABRICKS_DEFAULTS)
    assert (told.mode, told.rows_fetched_per_block, told.async_poll_interval_millis) == (
        DriverMode.THRIFT,
        2_000_000,
        100,
    )
    own = connection_parameters({**DATABRICKS_DEFAULTS, "adbc.databricks.protocol": "rest"})
    assert own.mode is DriverMode.SEA


# How it authenticates: one decision

_OAUTH = {"adbc.spark.auth_type": "oauth"}
_GRANT = "adbc.databricks.oauth.grant_type"


@pytest.mark.parametrize(
    ("properties", "mechanism", "flow", "auth_type"),
    [
        ({"adbc.spark.token": "t"}, "PAT", "TOKEN_PASSTHROUGH", "pat"),
        ({"adbc.spark.auth_type": "Token", "adbc.spark.token": "t"}, "PAT", "TOKEN_PASSTHROUGH", "pat"),
        ({**_OAUTH, _GRANT: "client_credentials"}, "OAUTH", "CLIENT_CREDENTIALS", "oauth-client_credentials"),
        ({_GRANT: "client_credentials"}, "OAUTH", "CLIENT_CREDENTIALS", "oauth-client_credentials"),
        ({**_OAUTH, _GRANT: "access_token"}, "OAUTH", "TOKEN_PASSTHROUGH", "oauth-access_token"),
        (_OAUTH, "OAUTH", "TOKEN_PASSTHROUGH", "oauth-access_token"),
        ({**_OAUTH, "adbc.spark.token": "t"}, "OAUTH", "TOKEN_PASSTHROUGH", "oauth-access_token"),
        ({**_OAUTH, _GRANT: "browser"}, "OAUTH", "BROWSER_BASED_AUTHENTICATION", "oauth-browser"),
        ({**_OAUTH, _GRANT: "of my own"}, "OAUTH", None, "oauth-other"),
        ({"adbc.spark.auth_type": "basic", "adbc.spark.token": "t"}, "OTHER", None, "other"),
        ({"adbc.spark.path": "/sql"}, "OTHER", None, "other"),
        ({"password": "secret"}, "OTHER", None, "other"),
        ({"auth_mech": "PAT"}, "PAT", "TOKEN_PASSTHROUGH", "pat"),
        (
            {"auth_mech": DriverAuthMech.OAUTH, "auth_flow": DriverAuthFlow.CLIENT_CREDENTIALS},
            "OAUTH",
            "CLIENT_CREDENTIALS",
            "oauth-client_credentials",
        ),
        ({}, None, None, None),
        ({"adbc.databricks.telemetry.enabled": "true"}, None, None, None),
    ],
)
def test_mechanism_flow_and_auth_type_come_from_one_decision(
    properties: dict[str, Any], mechanism: str | None, flow: str | None, auth_type: str | None
) -> None:
    told = authentication(properties)
    assert told == (
        mechanism and DriverAuthMech[mechanism],
        flow and DriverAuthFlow[flow],
        auth_type,
    )
    parameters = connection_parameters(properties)
    assert (parameters.auth_mech, parameters.auth_flow) == told[:2]


_WORDS = st.sampled_from(
    ["oauth", "token", "basic", "none", "access_token", "client_credentials", "x", "", " OAuth"]
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "adbc.spark.auth_type",
                _GRANT,
                "adbc.spark.token",
                "adbc.spark.access_token",
                "adbc.databricks.oauth.client_secret",
                "auth_mech",
                "auth_flow",
            ]
        ),
        _WORDS | st.sampled_from([*DriverAuthMech, *DriverAuthFlow]) | st.integers(),
    )
)
def test_the_three_never_contradict_each_other(properties: dict[str, Any]) -> None:
    told = authentication(properties)
    expected = {
        DriverAuthMech.PAT: ("pat",),
        DriverAuthMech.OTHER: ("other",),
        None: (None,),
    }
    if told.mechanism is DriverAuthMech.OAUTH:
        assert str(told.auth_type).startswith("oauth-")
        if told.flow is DriverAuthFlow.CLIENT_CREDENTIALS:
            assert told.auth_type == "oauth-client_credentials"
    else:
        assert told.auth_type in expected[told.mechanism]

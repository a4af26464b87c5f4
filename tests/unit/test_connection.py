"""ConnectionTelemetry: all that a driver needs, in one call."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from adbc_telemetry import (
    ConnectionTelemetry,
    NoopTelemetryClient,
    TelemetryClientManager,
    connection,
    notice,
)
from adbc_telemetry.consent import Mode
from adbc_telemetry.feature_flags import FeatureFlagManager
from adbc_telemetry.pipeline import asyncio_support
from adbc_telemetry.schema import (
    DriverConnectionParameters,
    ExecutionResultFormat,
    OperationType,
    StatementType,
)
from adbc_telemetry.testing import BrokenExporter, CapturingExporter, Event, FakeClock, GatedExporter
from support.server import TelemetryServer, refused_url
from support.waiting import wait_until

PREFIX = "adbc.databricks.telemetry."
YES = {PREFIX + "enabled": "true", PREFIX + "batch_size": "1"}
NO = {PREFIX + "enabled": "false"}
HOST = "workspace.example"

CREATE = Event("CREATE_SESSION")
DELETE = Event("DELETE_SESSION")
SELECT = Event("EXECUTE_STATEMENT", "QUERY")


@pytest.fixture(autouse=True)
def nothing_of_earlier_tests() -> Iterator[None]:
    yield
    notice._given.clear()
    manager = FeatureFlagManager.get_instance()
    for host in manager.hosts():
        manager.remove_feature_flags(host)


@pytest.fixture
def captured() -> CapturingExporter:
    return CapturingExporter()


def create(exporter: Any = None, properties: Any = YES, **arguments: Any) -> ConnectionTelemetry:
    told = {"driver_name": "tiny", "driver_version": "1.0", "host": HOST, **arguments}
    return ConnectionTelemetry.create(properties, exporter=exporter, **told)


def execute(telemetry: ConnectionTelemetry) -> None:
    with telemetry.statement(statement_type=StatementType.QUERY):
        pass


# From one end to the other.


def test_one_call_starts_a_session_and_close_ends_it(captured: CapturingExporter) -> None:
    parameters = DriverConnectionParameters(enable_arrow=True)
    telemetry = create(
        captured,
        session_id="a session",
        workspace_id=7,
        auth_type="pat",
        client_app_name="an application",
        default_result_format=ExecutionResultFormat.INLINE_ARROW,
        default_compression_enabled=True,
        connection_parameters=parameters,
    )
    assert telemetry.enabled
    execute(telemetry)
    assert telemetry.close()
    assert captured.events == [CREATE, SELECT, DELETE]
    for log in captured.logs:
        assert log.workspace_id == 7
        assert log.context is not None
        assert log.context.client_context is not None
        assert str(log.context.client_context.user_agent).endswith("(tiny 1.0)")
    for driver_log in captured.driver_logs:
        assert driver_log.session_id == "a session"
        assert driver_log.auth_type == "pat"
        assert driver_log.driver_connection_params == parameters
        system = driver_log.system_configuration
        assert system is not None
        assert (system.driver_name, system.driver_version, system.client_app_name) == (
            "tiny",
            "1.0",
            "an application",
        )
        assert driver_log.sql_operation is not None
        assert driver_log.sql_operation.execution_result is ExecutionResultFormat.INLINE_ARROW
        assert driver_log.sql_operation.is_compressed is True
    assert TelemetryClientManager.get_instance().hosts() == []


def test_it_delivers_over_http_with_the_connections_credentials(server: TelemetryServer) -> None:
    with create(host=server.url, auth=lambda: {"Authorization": "Bearer mine"}) as telemetry:
        execute(telemetry)
    assert len(server.accepted) == 3
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer mine"}
    assert {request.path for request in server.requests} == {"/telemetry-ext"}


def test_connections_of_a_host_share_its_client(captured: CapturingExporter) -> None:
    first, second = create(captured), create(captured, host=f"https://{HOST.upper()}:443/")
    assert first.client is second.client
    assert first.client.host == HOST
    assert TelemetryClientManager.get_instance().ref_count(HOST) == 2
    assert first.session.session_id != second.session.session_id
    first.close()
    execute(second)
    second.close()
    assert sorted(captured.events, key=str) == sorted(2 * [CREATE, DELETE] + [SELECT], key=str)


# Times.


def test_create_session_lasts_as_long_as_connecting_took(captured: CapturingExporter) -> None:
    with FakeClock() as clock:
        telemetry = create(captured, opened_in_ms=1234.9)
        clock.advance_ms(500)
        telemetry.close(closed_in_ms=17)
    assert [log.operation_latency_ms for log in captured.driver_logs] == [1234, 17]


def test_a_close_event_does_not_last_as_long_as_the_session(captured: CapturingExporter) -> None:
    with FakeClock() as clock:
        telemetry = create(captured)
        clock.advance_ms(3_600_000)
        telemetry.close()
    assert [log.operation_latency_ms for log in captured.driver_logs] == [0, 0]


def test_an_operation_that_was_timed_elsewhere_is_recorded(captured: CapturingExporter) -> None:
    with FakeClock(), create(captured) as telemetry:
        telemetry.record_operation(OperationType.LIST_TABLES, 42, statement_type=StatementType.METADATA)
        telemetry.record_operation(OperationType.CANCEL_STATEMENT, 0.5, error=TimeoutError("a secret"))
    tables, cancel = captured.driver_logs[1:-1]
    assert (tables.operation_latency_ms, cancel.operation_latency_ms) == (42, 0)
    assert captured.events[1:-1] == [
        Event("LIST_TABLES", "METADATA"),
        Event("CANCEL_STATEMENT", None, "TimeoutError"),
    ]
    assert telemetry.errors == 0


@pytest.mark.parametrize("elapsed", ["soon", None, -1, math.nan, math.inf, 1e30, object()])
def test_a_time_that_is_none_is_left_out_and_counted(captured: CapturingExporter, elapsed: Any) -> None:
    with FakeClock(), create(captured, opened_in_ms=elapsed or "soon") as telemetry:
        telemetry.record_operation(OperationType.LIST_TABLES, elapsed)
    assert [log.operation_latency_ms for log in captured.driver_logs] == [0, 0, 0]
    assert telemetry.errors == 2


# Statements: context manager and decorator, synchronous and not.


def test_a_statement_is_a_context_manager_and_a_decorator(captured: CapturingExporter) -> None:
    telemetry = create(captured)

    with pytest.raises(ValueError, match="secret"), telemetry.statement(statement_type=StatementType.UPDATE):
        raise ValueError("a secret")

    @telemetry.statement(statement_type=StatementType.QUERY)
    def add(one: int, *, other: int) -> int:
        """Adds."""
        return one + other

    assert (add(1, other=2), add(3, other=4)) == (3, 7)
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    telemetry.close()
    assert captured.events == [
        CREATE,
        Event("EXECUTE_STATEMENT", "UPDATE", "ValueError"),
        SELECT,
        SELECT,
        DELETE,
    ]
    ids = [log.sql_statement_id for log in captured.driver_logs]
    assert len(set(ids[1:-1])) == 3, "each call is a statement of its own"


def test_both_work_with_asyncio(captured: CapturingExporter) -> None:
    async def main() -> None:
        async with create(captured) as telemetry:
            async with telemetry.statement(statement_type=StatementType.QUERY) as statement:
                await asyncio.sleep(0)
                statement.record_execute_complete()

            @telemetry.statement(statement_type=StatementType.QUERY, is_internal_call=True)
            async def fail() -> None:
                await asyncio.sleep(0)
                raise KeyError("a secret")

            with pytest.raises(KeyError):
                await fail()

    asyncio.run(main())
    assert captured.events == [CREATE, SELECT, Event("EXECUTE_STATEMENT", "QUERY", "KeyError"), DELETE]


def test_a_decorated_coroutine_is_timed_to_its_end(captured: CapturingExporter) -> None:
    with FakeClock() as clock, create(captured) as telemetry:

        @telemetry.statement()
        async def wait() -> None:
            await asyncio.sleep(0)
            clock.advance_ms(30)

        asyncio.run(wait())
    assert captured.driver_logs[1].operation_latency_ms == 30


# The end.


def test_close_is_idempotent_and_use_after_it_does_nothing(captured: CapturingExporter) -> None:
    other = create(captured)  # keeps the host's client open
    telemetry = create(captured)
    assert telemetry.close()
    assert telemetry.close()
    execute(telemetry)
    telemetry.record_operation(OperationType.LIST_TABLES, 1)
    assert not telemetry.enabled
    assert telemetry.session.client is None
    other.close()
    assert captured.events.count(DELETE) == 2
    assert SELECT not in captured.events


def test_close_ends_by_its_timeout() -> None:
    gated = GatedExporter()
    telemetry = create(gated)
    assert gated.entered.wait(20)
    assert telemetry.close(timeout=0.05) is False
    assert telemetry.close() is True


def test_without_a_thread_an_asynchronous_close_does_not_wait(
    captured: CapturingExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    telemetry = create(captured)
    captured.wait_for(1)
    monkeypatch.setattr(asyncio_support, "run_in_thread", none)
    assert asyncio.run(telemetry.aclose()) in (True, False)
    assert TelemetryClientManager.get_instance().hosts() == []
    assert asyncio.run(telemetry.aclose()) is True


def test_a_connection_that_is_dropped_is_closed(captured: CapturingExporter) -> None:
    held = [create(captured)]
    held.clear()
    gc.collect()
    captured.wait_for(2)
    assert captured.events == [CREATE, DELETE]
    wait_until(lambda: TelemetryClientManager.get_instance().hosts() == [])


def test_nothing_of_a_connection_outlives_it(captured: CapturingExporter) -> None:
    class Tracked(dict[str, str]):
        pass

    class Auth:
        def __call__(self) -> dict[str, str]:
            return {"Authorization": "Bearer secret"}

    other = create(captured, auth=Auth())
    properties, auth = Tracked(YES, password="secret"), Auth()
    telemetry = create(captured, properties, auth=auth)
    references: list[weakref.ref[Any]] = [weakref.ref(properties), weakref.ref(auth)]
    telemetry.close()
    del properties, auth
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert "secret" not in repr(vars(telemetry))
    other.close()


# Telemetry that is off, and parts that fail.


def off(telemetry: ConnectionTelemetry) -> None:
    """Assert that all calls do nothing."""
    assert not telemetry.enabled
    assert isinstance(telemetry.client, NoopTelemetryClient)
    execute(telemetry)

    @telemetry.statement()
    def call() -> int:
        return 1

    assert call() == 1
    telemetry.record_operation(OperationType.LIST_TABLES, 1)
    assert telemetry.close()
    assert asyncio.run(telemetry.aclose())
    assert TelemetryClientManager.get_instance().hosts() == []


@pytest.mark.parametrize(
    "name", ["DO_NOT_TRACK", "DATABRICKS_TELEMETRY_ENABLED", "DATABRICKS_TELEMETRY_MODE"]
)
def test_a_no_of_the_user_makes_a_twin_that_does_nothing(
    captured: CapturingExporter, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, {"DO_NOT_TRACK": "1", "DATABRICKS_TELEMETRY_MODE": "off"}.get(name, "false"))
    telemetry = create(captured)
    off(telemetry)
    assert captured.events == []
    assert telemetry.explain().reason == f"off: {name} says so"


def test_so_does_a_no_in_the_properties(captured: CapturingExporter) -> None:
    telemetry = create(captured, NO)
    off(telemetry)
    assert telemetry.explain().mode is Mode.OFF


BAD: dict[str, dict[str, Any]] = {
    "a host that is none": {"host": "no host"},
    "a host of the wrong type": {"host": None},
    "credentials over plain HTTP": {"host": "http://workspace.example", "auth": dict},
    "an auth that cannot be called": {"auth": {"Authorization": "Bearer token"}},
    "an exporter that is none": {"exporter": object()},
    "an exporter class": {"exporter": CapturingExporter},
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_a_client_that_cannot_be_had_makes_the_same_twin_and_says_why(arguments: dict[str, Any]) -> None:
    telemetry = create(**arguments)
    reason = telemetry.explain().reason
    off(telemetry)
    assert reason.startswith("off: telemetry could not be set up (")
    assert "token" not in reason


@pytest.mark.parametrize("properties", [5, "text", [1], {5: 6}, {PREFIX + "batch_size": "many", **YES}])
def test_properties_that_make_no_sense_are_none(captured: CapturingExporter, properties: Any) -> None:
    with create(captured, properties, host=refused_url()) as telemetry:
        execute(telemetry)
    assert captured.events == (
        [CREATE, SELECT, DELETE] if isinstance(properties, dict) and len(properties) > 1 else []
    )


class Unreadable(Mapping[str, Any]):
    """Properties that are read from elsewhere, which is not there."""

    def __getitem__(self, name: str) -> Any:
        raise OSError(name)

    def __iter__(self) -> Iterator[str]:
        raise OSError

    def __len__(self) -> int:
        return 1


class NeitherTrueNorFalse:
    def __bool__(self) -> bool:
        raise TypeError


def test_properties_that_cannot_be_read_may_hold_a_no(captured: CapturingExporter) -> None:
    telemetry = create(captured, Unreadable())
    assert telemetry.explain().reason == "off: telemetry could not be set up (OSError)"
    off(telemetry)
    assert captured.events == []


def test_a_fact_that_raises_gives_the_lease_back(captured: CapturingExporter) -> None:
    telemetry = create(captured, session_id=NeitherTrueNorFalse())
    # It goes back on the sender's side.
    wait_until(lambda: TelemetryClientManager.get_instance().ref_count(HOST) == 0)
    off(telemetry)
    assert captured.events == []


@pytest.mark.parametrize("part", ["detect_system_configuration", "user_agent"])
def test_a_part_that_fails_takes_no_other_with_it(
    captured: CapturingExporter, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a broken part")

    monkeypatch.setattr(connection, part, fail)
    with create(captured) as telemetry:
        execute(telemetry)
    assert captured.events == [CREATE, SELECT, DELETE]
    assert telemetry.errors == 1


@pytest.mark.parametrize("field", ["session_id", "workspace_id", "auth_type", "connection_parameters"])
def test_a_fact_of_the_wrong_type_is_left_out(captured: CapturingExporter, field: str) -> None:
    with create(captured, **{field: object()}) as telemetry:
        execute(telemetry)
    assert captured.events == [CREATE, SELECT, DELETE]
    assert telemetry.errors == 1


def test_an_exporter_that_fails_is_not_noticed() -> None:
    broken = BrokenExporter()
    with create(broken) as telemetry:
        execute(telemetry)
    assert broken.calls


# The notice.


def test_the_user_is_told_once_before_the_first_byte(server: TelemetryServer) -> None:
    told: list[tuple[str, int]] = []

    def tell(text: str) -> None:
        told.append((text, len(server.connections)))

    for properties in (YES, YES, {}):
        create(None, properties, host=server.url, notice=tell).close()
    [(text, connections)] = told
    assert connections == 0
    assert "tiny" in text
    assert server.url in text
    assert "DO_NOT_TRACK=1" in text
    create(None, {}, driver_name="another", host=server.url, notice=tell).close()
    assert len(told) == 2, "before flags are asked for, too"


@pytest.mark.parametrize(
    "properties", [NO, {PREFIX + "mode": "local", PREFIX + "local_path": "/nowhere/file"}]
)
def test_nothing_is_told_if_nothing_is_sent(properties: dict[str, str]) -> None:
    told: list[str] = []
    create(None, properties, notice=told.append).close()
    assert told == []


def test_a_notice_that_cannot_be_shown_harms_nothing(captured: CapturingExporter) -> None:
    def fail(text: str) -> None:
        raise OSError("no terminal")

    with create(captured, notice=fail) as telemetry:
        execute(telemetry)
    assert captured.events == [CREATE, SELECT, DELETE]
    assert telemetry.errors == 1

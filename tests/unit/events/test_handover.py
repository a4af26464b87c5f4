"""The hand-over of a statement: a client that takes statements gets it as it is, any other gets its log."""

from __future__ import annotations

from typing import Any

import pytest

from adbc_telemetry import (
    NoopTelemetryClient,
    TelemetryClient,
    TelemetryConfiguration,
    TelemetrySessionContext,
)
from adbc_telemetry.events.handover import hand_over, receiver_of
from adbc_telemetry.schema import TelemetryFrontendLog
from adbc_telemetry.testing import CapturedClient, CapturingExporter

LOG = TelemetryFrontendLog(workspace_id=1)


class Finished:
    """A statement that is over."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.logs_built = 0

    def frontend_log(self) -> TelemetryFrontendLog:
        self.logs_built += 1
        if self.error is not None:
            raise self.error
        return LOG


class Receiver(NoopTelemetryClient):
    """A client that takes statements."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[object] = []

    def enqueue(self, log: object) -> None:
        self.taken.append(log)

    enqueue_statement = enqueue


class Override(Receiver):
    """A client that takes statements, with an `enqueue` of its own."""

    def enqueue(self, log: object) -> None:
        self.taken.append(log)


def test_a_client_that_takes_statements_gets_the_statement_and_no_log_is_built() -> None:
    client, statement = Receiver(), Finished()
    assert hand_over(TelemetrySessionContext(client=client), statement) is True
    assert client.taken == [statement]
    assert statement.logs_built == 0


def test_our_own_client_takes_statements() -> None:
    config = TelemetryConfiguration(enabled=True)
    with TelemetryClient("host", config, exporter=CapturingExporter()) as client:
        receive: Any = receiver_of(client)
        assert receive == client.enqueue


def test_any_other_client_gets_the_log() -> None:
    client = CapturedClient()
    assert hand_over(TelemetrySessionContext(client=client), Finished()) is True
    assert client.logs == [LOG]


def test_a_subclass_with_an_enqueue_of_its_own_gets_the_log() -> None:
    client = Override()
    assert hand_over(TelemetrySessionContext(client=client), Finished()) is True
    assert client.taken == [LOG]


@pytest.mark.parametrize("owner", ["instance", "class"])
def test_an_enqueue_that_is_replaced_later_gets_the_log_until_it_is_put_back(
    owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, seen, statement = Receiver(), list[object](), Finished()
    session = TelemetrySessionContext(client=client)
    if owner == "instance":
        monkeypatch.setattr(client, "enqueue", seen.append)
    else:
        monkeypatch.setattr(Receiver, "enqueue", lambda self, log: seen.append(log))
    assert hand_over(session, statement) is True
    monkeypatch.undo()
    assert hand_over(session, statement) is True
    assert (seen, client.taken) == ([LOG], [statement])


def test_without_a_client_there_is_nothing_to_do() -> None:
    statement = Finished()
    assert hand_over(TelemetrySessionContext(), statement) is False
    assert statement.logs_built == 0


def test_a_log_that_cannot_be_built_is_not_sent() -> None:
    client = CapturedClient()
    assert hand_over(TelemetrySessionContext(client=client), Finished(ZeroDivisionError())) is False
    assert client.logs == []


def test_a_client_that_raises_has_not_taken_the_event() -> None:
    class Broken(NoopTelemetryClient):
        def enqueue(self, log: TelemetryFrontendLog) -> None:
            raise ZeroDivisionError

    assert hand_over(TelemetrySessionContext(client=Broken()), Finished()) is False


def test_a_client_that_fails_when_it_is_asked_for_its_methods_takes_no_statements() -> None:
    class Odd(CapturedClient):
        def __getattr__(self, name: str) -> object:
            raise ZeroDivisionError(name)

    client = Odd()
    session = TelemetrySessionContext(client=client)
    assert hand_over(session, Finished()) is True
    assert client.logs == [LOG]


def test_sessions_of_the_same_client_are_equal() -> None:
    client = Receiver()
    assert TelemetrySessionContext(client=client) == TelemetrySessionContext(client=client)

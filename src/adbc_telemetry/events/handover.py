"""How a statement that is over reaches its session's client.

To build a statement's log takes longer than all the rest of recording it. The package's own client therefore takes
the statement itself, and the log is built on the sender's side. Every other client gets the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

from adbc_telemetry.core.guard import never_raises
from adbc_telemetry.protocols import TelemetryClientProtocol
from adbc_telemetry.schema import TelemetryFrontendLog


class Statement(Protocol):
    """A statement that is over: nothing changes it any more."""

    def frontend_log(self) -> TelemetryFrontendLog:
        """The statement's log."""
        ...


@runtime_checkable
class StatementReceiver(Protocol):
    """A client that takes statements as well as logs.

    `enqueue_statement` and `enqueue` are the same function under two names. `hand_over` compares them, so that a test
    that replaces `enqueue`, at any time, and a subclass that overrides it, see every event, and as a log.
    """

    def enqueue_statement(self, statement: Statement) -> None:
        """Take a statement that is over; never blocks, never raises."""
        ...


Receive: TypeAlias = Callable[[Statement], None]


class Session(Protocol):
    """The part of a session's context that says where its statements go."""

    @property
    def client(self) -> TelemetryClientProtocol | None:
        """Where the events go, if anywhere."""
        ...

    @property
    def _receive(self) -> Receive | None:
        """See `receiver_of`."""
        ...


def _no_receiver(error: Exception, client: object) -> Receive | None:
    return None


@never_raises(_no_receiver)  # a client may be anything, and fail when it is asked for its attributes
def receiver_of(client: object) -> Receive | None:
    """`enqueue_statement` of a client that takes statements, else None: what a session keeps of its client."""
    return client.enqueue_statement if isinstance(client, StatementReceiver) else None


def hand_over(session: Session, statement: Statement) -> bool:
    """Give a statement that is over to the session's client.

    Returns:
        False where the session has no client, or where building the log or the client's `enqueue` failed.
    """
    receive = session._receive
    if receive is not None and receive == session.client.enqueue:  # type: ignore[union-attr]
        receive(statement)
        return True
    return _send_log(session.client, statement)


def _not_sent(error: Exception, client: TelemetryClientProtocol | None, statement: Statement) -> bool:
    return False


@never_raises(_not_sent)
def _send_log(client: TelemetryClientProtocol | None, statement: Statement) -> bool:
    if client is None:
        return False
    client.enqueue(statement.frontend_log())
    return True

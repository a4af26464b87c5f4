"""What else may be told of a connection: the two protocols of a second listener, beside our own events.

A connection has one recorder, and the recorder has two listeners: the session, which makes events, and the observer,
which `adbc_telemetry.otel` makes spans with. Each may be there without the other. No import of OpenTelemetry is
needed for that: the core knows these protocols only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from adbc_telemetry.instrumentation.operations import Operation


class Outcome(NamedTuple):
    """How an operation ended.

    Attributes:
        statement_id: of the event of the same operation; None where there is no event.
        error: what the operation failed with.
        first_batch_ns: the monotonic time of the first row or batch; None where none was read.
        last_batch_ns: the monotonic time of the end of the results; None where they were not read to their end.
        ended_ns: the monotonic time of the last thing that the driver did for the operation.
        rows: how many rows were read; None where that is not known, or where there are none to be read.
    """

    statement_id: str | None
    error: BaseException | None
    first_batch_ns: int | None
    last_batch_ns: int | None
    ended_ns: int
    rows: int | None


class OperationObserver(Protocol):
    """One operation under way, from its call to the end of its results."""

    def returned(self) -> None:
        """The call that began the operation is over. Called on the thread of the call, perhaps after `ended`."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """The operation is over. Called once, on any thread, also by the garbage collector."""
        ...


class ConnectionObserver(Protocol):
    """The second listener of a connection. Its `begin` raises nothing; what its operations raise is contained."""

    def begin(
        self, operation: Operation, sql: object, thing: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> OperationObserver | None:
        """A method of the connection or of one of its cursors is called.

        Args:
            operation: what the method counts as.
            sql: the statement's text; None of a method that takes none.
            thing: the connection or the cursor.
            args, kwargs: the arguments of the call, where the operation needs them; empty of `execute`.

        Returns:
            What follows the operation; None where it is not to be followed.
        """
        ...

    def follow_clone(self, connection: Any) -> None:
        """Observe another connection in the same way."""
        ...


class ConnectObserver(Protocol):
    """What is told of a connection in the making; see `connecting`."""

    def place_of(self, options: Mapping[str, Any]) -> object:
        """What is to be kept of a database's options, as the program gave them. They may hold credentials."""
        ...

    def begin_connect(self, place: object, started_ns: int) -> OperationObserver | None:
        """A connection is being made.

        Args:
            place: what `place_of` has returned; None of a database that was made before there was an observer.
            started_ns: the monotonic time at which the driver began to work on it.
        """
        ...

    def connected(self, observer: OperationObserver | None, connection: Any) -> None:
        """The connection, an `AdbcConnection`, is there."""
        ...

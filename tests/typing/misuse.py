"""What type checkers must refuse. They read this file, in `make lint`; nothing runs it.

Each comment is an error that mypy and basedpyright find. Where one of them stops finding it, it reports the comment.
"""

from __future__ import annotations

from collections.abc import Sequence

from adbc_telemetry import (
    StatementTelemetryContext,
    TelemetryClient,
    TelemetryClientManager,
    TelemetryConfiguration,
    TelemetrySessionContext,
    instrument,
)
from adbc_telemetry.schema import TelemetryFrontendLog


class OnlyExports:
    """It cannot be closed, and does not say what became of the logs."""

    def export(self, logs: Sequence[TelemetryFrontendLog], *, deadline: float | None = None) -> None: ...


def configurations(config: TelemetryConfiguration) -> None:
    TelemetryConfiguration(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TelemetryConfiguration(batch_size="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TelemetryConfiguration(batchsize=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    config.enabled = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def clients(config: TelemetryConfiguration, client: TelemetryClient) -> None:
    TelemetryClient("host")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TelemetryClient("host", {"enabled": True})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TelemetryClient("host", config, exporter=OnlyExports())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TelemetryClient("host", config, auth="a token")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.enqueue("an event")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.host = "another"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    client.flush("soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def sessions_and_statements(session: TelemetrySessionContext) -> None:
    session.session_id = "another"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    TelemetrySessionContext("a session")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    statement = StatementTelemetryContext(session, statement_type="QUERY")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    statement.record_error("failed")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    statement.set_chunk_details(4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def leases(config: TelemetryConfiguration) -> None:
    TelemetryClientManager.get_instance().acquire("host", config, token)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def connections(connection: object) -> None:
    instrument(connection, "host", auth={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    instrument(connection).execute("SELECT 1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def token() -> dict[str, str]:
    return {"Authorization": "Bearer a-token"}

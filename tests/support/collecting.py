"""Helpers of the collector's tests: logs, and a sender."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import urllib3

from adbc_telemetry import schema
from adbc_telemetry.collector.queries.answers import Report

TIMEOUT = 20.0


def a_log(**fields: Any) -> schema.TelemetryFrontendLog:
    """A complete log; `fields` replace fields of the driver's log."""
    driver_log: dict[str, Any] = {
        "session_id": "session-1",
        "sql_statement_id": "statement-1",
        "auth_type": "pat",
        "operation_latency_ms": 12,
        "system_configuration": schema.DriverSystemConfiguration(
            driver_name="a driver", driver_version="1.2", runtime_version="3.11", os_name="Linux"
        ),
        "sql_operation": schema.SqlExecutionEvent(
            statement_type=schema.StatementType.QUERY,
            execution_result=schema.ExecutionResultFormat.INLINE_ARROW,
            is_compressed=True,
            retry_count=2,
            result_latency=schema.ResultLatency(
                result_set_ready_latency_millis=7, result_set_consumption_latency_millis=30
            ),
            operation_detail=schema.OperationDetail(
                operation_type=schema.OperationType.EXECUTE_STATEMENT, is_internal_call=False
            ),
        ),
        **fields,
    }
    return schema.TelemetryFrontendLog(
        workspace_id=2**63 - 1,
        frontend_log_event_id=str(uuid.uuid4()),
        context=schema.FrontendLogContext(
            client_context=schema.TelemetryClientContext(
                timestamp_millis=1_764_000_000_123, user_agent="test/1"
            )
        ),
        entry=schema.FrontendLogEntry(sql_driver_log=schema.OssSqlDriverTelemetryLog(**driver_log)),
    )


def encoded(log: schema.TelemetryFrontendLog) -> str:
    return msgspec.json.encode(log).decode()


def altered(path: str, value: object) -> str:
    """A valid log's JSON with the value at `path` replaced, or removed for `...`."""
    log: dict[str, Any] = json.loads(encoded(a_log()))
    *parents, name = path.split(".")
    inner = log
    for parent in parents:
        inner = inner.setdefault(parent, {})
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return json.dumps(log)


def request_body(*logs: str) -> bytes:
    return json.dumps({"uploadTime": 1_764_000_000_000, "items": [], "protoLogs": logs}).encode()


class Sender:
    """A kept-alive connection to a collector that never repeats a request."""

    def __init__(self, url: str) -> None:
        parsed = urllib3.util.parse_url(url)
        self.pool = urllib3.HTTPConnectionPool(
            parsed.hostname or "", parsed.port, maxsize=1, timeout=TIMEOUT, retries=False
        )

    def post(
        self, body: bytes, path: str = "/telemetry-ext", **headers: str
    ) -> tuple[int, schema.TelemetryResponse]:
        answer = self.pool.request(
            "POST",
            path,
            body=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        return answer.status, msgspec.json.decode(answer.data, type=schema.TelemetryResponse)

    def send(self, *logs: str) -> schema.TelemetryResponse:
        status, response = self.post(request_body(*logs))
        assert status == 200
        return response

    def get(self, path: str) -> tuple[int, bytes]:
        answer = self.pool.request("GET", path)
        return answer.status, answer.data


def report_of(sender: Sender) -> Report:
    status, content = sender.get("/api/report")
    assert status == 200
    return msgspec.json.decode(content, type=Report)

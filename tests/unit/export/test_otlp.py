"""Events as OpenTelemetry log records: what a collector gets to see, and that the promises hold on the way."""

from __future__ import annotations

import gzip
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.logs import make_log, make_logs
from support.server import Reply, Request, TelemetryServer, black_hole, raw_endpoint, refused_url
from support.waiting import TIMEOUT, wait_until

pytest.importorskip("opentelemetry.proto")

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, SEVERITY_NUMBER_WARN

from adbc_telemetry import ExportOutcome, OtlpTelemetryExporter, schema
from adbc_telemetry.export import otlp_mapping


@pytest.fixture(autouse=True)
def nothing_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector(server: TelemetryServer) -> TelemetryServer:
    server.always = lambda request: Reply(body=b"")
    return server


@pytest.fixture
def exporter(collector: TelemetryServer) -> Iterator[OtlpTelemetryExporter]:
    exporter = OtlpTelemetryExporter(collector.url, retry_delay_ms=1)
    yield exporter
    exporter.close()


def decoded(request: Request) -> ExportLogsServiceRequest:
    return ExportLogsServiceRequest.FromString(request.body)


def values(attributes: Any) -> dict[str, object]:
    found = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}
    assert len(found) == len(attributes), "an attribute comes twice"
    return found


def only_record(server: TelemetryServer) -> tuple[dict[str, object], Any]:
    """The resource's attributes and the record of the only log that has arrived."""
    (request,) = server.requests
    (resource_logs,) = decoded(request).resource_logs
    (scope_logs,) = resource_logs.scope_logs
    (record,) = scope_logs.log_records
    assert scope_logs.scope.name == "adbc_telemetry"
    return values(resource_logs.resource.attributes), record


def uids(request: Request) -> list[object]:
    return [
        values(record.attributes)["log.record.uid"]
        for resource_logs in decoded(request).resource_logs
        for record in resource_logs.scope_logs[0].log_records
    ]


STATEMENT = schema.SqlExecutionEvent(
    statement_type=schema.StatementType.QUERY,
    is_compressed=False,
    execution_result=schema.ExecutionResultFormat.INLINE_ARROW,
    retry_count=0,
    chunk_details=schema.ChunkDetails(total_chunks_present=3, slowest_chunk_latency_millis=70),
    result_latency=schema.ResultLatency(
        result_set_ready_latency_millis=12, result_set_consumption_latency_millis=345
    ),
    operation_detail=schema.OperationDetail(
        n_operation_status_calls=4,
        operation_status_latency_millis=56,
        operation_type=schema.OperationType.EXECUTE_STATEMENT,
        is_internal_call=False,
    ),
)
SYSTEM = schema.DriverSystemConfiguration(
    driver_name="adbc-telemetry",
    driver_version="1.2.3",
    runtime_name="CPython 3.12.1",
    runtime_version="3.12.1",
    runtime_vendor="CPython",
    os_name="Linux",
    os_version="Debian GNU/Linux 12 (bookworm)",
    os_arch="x86_64",
    client_app_name="billing",
    process_name="worker.py",
    locale_name="en_US",
    char_set_encoding="UTF-8",
)


def test_a_statement_becomes_an_event_with_the_attributes_of_the_conventions(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer
) -> None:
    before = time.time_ns()
    log = make_log(
        "an-id",
        session_id="a-session",
        sql_statement_id="a-statement",
        auth_type="oauth-m2m",
        sql_operation=STATEMENT,
        operation_latency_ms=2**40,
        driver_connection_params=schema.DriverConnectionParameters(
            mode=schema.DriverMode.THRIFT, auto_commit=True
        ),
    )

    result = exporter.export([log])

    assert (result.outcome, result.delivered, result.reason) == (ExportOutcome.DELIVERED, 1, None)
    (request,) = collector.requests
    assert request.path == "/v1/logs"
    assert request.headers["Content-Type"] == "application/x-protobuf"
    _, record = only_record(collector)
    assert record.event_name == "adbc.statement"
    assert record.time_unix_nano == 1_764_000_000_000 * 1_000_000
    assert before <= record.observed_time_unix_nano <= time.time_ns()
    assert (record.severity_number, record.severity_text) == (SEVERITY_NUMBER_INFO, "INFO")
    assert values(record.attributes) == {
        "log.record.uid": "an-id",
        "user_agent.original": "test",
        "db.operation.name": "EXECUTE_STATEMENT",
        "adbc.telemetry.workspace_id": 1,
        "adbc.telemetry.session_id": "a-session",
        "adbc.telemetry.statement_id": "a-statement",
        "adbc.telemetry.auth_type": "oauth-m2m",
        "adbc.telemetry.latency_ms": 2**40,
        "adbc.telemetry.statement_type": "QUERY",
        "adbc.telemetry.result_format": "INLINE_ARROW",
        "adbc.telemetry.is_compressed": False,
        "adbc.telemetry.retry_count": 0,
        "adbc.telemetry.is_internal_call": False,
        "adbc.telemetry.poll.count": 4,
        "adbc.telemetry.poll.latency_ms": 56,
        "adbc.telemetry.result.ready_latency_ms": 12,
        "adbc.telemetry.result.consumption_latency_ms": 345,
        "adbc.telemetry.chunks.present": 3,
        "adbc.telemetry.chunks.slowest_latency_ms": 70,
        "adbc.telemetry.connection.mode": "THRIFT",
        "adbc.telemetry.connection.auto_commit": True,
    }


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (schema.OperationType.CREATE_SESSION, "adbc.session"),
        (schema.OperationType.DELETE_SESSION, "adbc.session"),
        (schema.OperationType.EXECUTE_STATEMENT, "adbc.statement"),
        (None, "adbc.statement"),
    ],
)
def test_an_event_is_named_after_what_it_is_about(
    exporter: OtlpTelemetryExporter,
    collector: TelemetryServer,
    operation: schema.OperationType | None,
    name: str,
) -> None:
    detail = schema.OperationDetail(operation_type=operation)
    event = schema.SqlExecutionEvent(operation_detail=detail)

    assert exporter.export([make_log(sql_operation=event)])

    _, record = only_record(collector)
    assert (record.event_name, record.severity_text) == (name, "INFO")


def test_the_environment_adds_to_the_resource(
    collector: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=no,deployment.environment.name=a%20b,host.arch=own,telemetry.sdk.name=no,nonsense, =x",
    )
    monkeypatch.setenv("OTEL_SERVICE_NAME", "the service")
    exporter = OtlpTelemetryExporter(collector.url)

    assert exporter.export([make_log(system_configuration=SYSTEM)])

    exporter.close()
    resource, _ = only_record(collector)
    assert resource["service.name"] == "the service"
    assert resource["deployment.environment.name"] == "a b"
    assert resource["host.arch"] == "own"  # the user has the last word about what the user names
    assert resource["telemetry.sdk.name"] == "adbc-telemetry"
    assert resource["adbc.telemetry.client_app_name"] == "billing"


def test_the_process_becomes_the_resource(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer
) -> None:
    assert exporter.export([make_log(system_configuration=SYSTEM)])

    resource, _ = only_record(collector)
    version = resource.pop("telemetry.sdk.version")
    assert isinstance(version, str)
    assert resource == {
        "service.name": "billing",
        "telemetry.sdk.name": "adbc-telemetry",
        "telemetry.sdk.language": "python",
        "process.runtime.name": "CPython 3.12.1",
        "process.runtime.version": "3.12.1",
        "process.runtime.description": "CPython",
        "os.type": "linux",
        "os.name": "Linux",
        "os.version": "Debian GNU/Linux 12 (bookworm)",
        "host.arch": "amd64",
        "adbc.telemetry.driver_name": "adbc-telemetry",
        "adbc.telemetry.driver_version": "1.2.3",
        "adbc.telemetry.client_app_name": "billing",
        "adbc.telemetry.process_name": "worker.py",
        "adbc.telemetry.locale_name": "en_US",
        "adbc.telemetry.char_set_encoding": "UTF-8",
    }


@pytest.mark.parametrize(
    ("system", "service"),
    [
        (schema.DriverSystemConfiguration(process_name="worker.py"), "worker.py"),
        (schema.DriverSystemConfiguration(), "unknown_service"),
        (None, "unknown_service"),
    ],
)
def test_a_service_without_an_application_name_is_the_process(
    exporter: OtlpTelemetryExporter,
    collector: TelemetryServer,
    system: schema.DriverSystemConfiguration | None,
    service: str,
) -> None:
    assert exporter.export([make_log(system_configuration=system)])

    assert only_record(collector)[0]["service.name"] == service


def test_a_failed_statement_is_an_error_of_its_class_and_nothing_more(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer
) -> None:
    error = schema.DriverErrorInfo(error_name="ProgrammingError", stack_trace="/home/alice/secret.py")

    assert exporter.export([make_log(error_info=error)])

    _, record = only_record(collector)
    assert record.event_name == "db.client.operation.exception"
    assert (record.severity_number, record.severity_text) == (SEVERITY_NUMBER_WARN, "WARN")
    attributes = values(record.attributes)
    assert (attributes["error.type"], attributes["exception.type"]) == (
        "ProgrammingError",
        "ProgrammingError",
    )
    assert b"alice" not in collector.requests[0].body


def leaves(struct: type[Any], path: str = "") -> Iterator[str]:
    """The paths of all fields of a message of the wire that are no messages themselves."""
    for field in msgspec.structs.fields(struct):
        kinds = getattr(field.type, "__args__", (field.type,))
        message = next((k for k in kinds if isinstance(k, type) and issubclass(k, msgspec.Struct)), None)
        if message is None:
            yield path + field.name
        else:
            yield from leaves(message, f"{path}{field.name}.")


# Paths, addresses, ids of accounts and whatever else is the user's own.
WITHHELD = {
    "error_info.stack_trace",
    "vol_operation.volume_path",
    "vol_operation.local_file",
    "sql_operation.java_uses_patched_arrow",
    *(
        f"driver_connection_params.{name}"
        for name in (
            *(
                f"{host}.{part}"
                for host in ("host_info", "proxy_host_info", "cf_proxy_host_info")
                for part in ("host_url", "port", "proxy_auth_type")
            ),
            "http_path",
            "auth_scope",
            "non_proxy_hosts",
            "discovery_url",
            "ssl_trust_store_type",
            "google_service_account",
            "google_credential_file_path",
            "azure_workspace_resource_id",
            "azure_tenant_id",
            "token_endpoint",
            "auth_endpoint",
            "jwt_key_file",
            "allowed_volume_ingestion_paths",
            "query_tags",
        )
    ),
}


def test_every_field_of_the_wire_has_an_attribute_or_is_withheld_on_purpose() -> None:
    driver_log = {
        path
        for path in leaves(schema.OssSqlDriverTelemetryLog)
        if not path.startswith("system_configuration.")
    }
    assert set(otlp_mapping.DRIVER_LOG_ATTRIBUTES) == driver_log - WITHHELD
    assert driver_log >= WITHHELD
    assert set(otlp_mapping.RESOURCE_ATTRIBUTES) == set(leaves(schema.DriverSystemConfiguration))
    envelope = {path for path in leaves(schema.TelemetryFrontendLog) if not path.startswith("entry.")}
    assert {*otlp_mapping.LOG_ATTRIBUTES, "context.client_context.timestamp_millis"} == envelope


def test_logs_of_one_system_share_a_resource(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer
) -> None:
    other = msgspec.structs.replace(SYSTEM, client_app_name="shop")
    logs = [make_log(str(n), system_configuration=(SYSTEM, other)[n % 2]) for n in range(6)]

    assert exporter.export(logs)

    (request,) = collector.requests
    services = {
        values(one.resource.attributes)["service.name"]: len(one.scope_logs[0].log_records)
        for one in decoded(request).resource_logs
    }
    assert services == {"billing": 3, "shop": 3}


@pytest.mark.parametrize(
    "broken",
    [
        "no log",
        make_log(operation_latency_ms=2**63),
        make_log(session_id=["no text"]),
        make_log(system_configuration=schema.DriverSystemConfiguration(os_name=[])),  # type: ignore[arg-type]
        make_log(system_configuration="no message"),
    ],
)
def test_a_log_that_cannot_be_encoded_is_rejected_alone(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer, broken: Any
) -> None:
    result = exporter.export([make_log("first"), broken, make_log("last")])

    assert (result.outcome, result.delivered, result.rejected) == (ExportOutcome.DELIVERED, 2, 1)
    assert uids(collector.requests[0]) == ["first", "last"]


def test_nothing_is_sent_of_a_batch_without_a_log(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer
) -> None:
    result = exporter.export(["no log"])  # type: ignore[list-item]

    assert (result.outcome, result.rejected) == (ExportOutcome.REJECTED, 1)
    assert collector.requests == []


def test_a_lone_surrogate_is_replaced(exporter: OtlpTelemetryExporter, collector: TelemetryServer) -> None:
    assert exporter.export([make_log(session_id="a\ud800b")])

    assert values(only_record(collector)[1].attributes)["adbc.telemetry.session_id"] == "a\ufffdb"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_collector_that_is_busy_is_asked_again(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer, status: int
) -> None:
    collector.replies.extend([Reply(status), Reply(status)])

    result = exporter.export(make_logs(2))

    assert (result.outcome, result.delivered) == (ExportOutcome.DELIVERED, 2)
    assert len(collector.requests) == 3
    assert len({request.body for request in collector.requests}) == 1


def test_a_refusal_is_final(exporter: OtlpTelemetryExporter, collector: TelemetryServer) -> None:
    collector.replies.append(Reply(400))

    result = exporter.export(make_logs(2))

    assert (result.outcome, result.reason) == (ExportOutcome.REJECTED, "HTTP 400")
    assert len(collector.requests) == 1


def test_retries_end_after_max_retries(collector: TelemetryServer) -> None:
    collector.always = lambda request: Reply(503)
    exporter = OtlpTelemetryExporter(collector.url, max_retries=2, retry_delay_ms=1)

    result = exporter.export(make_logs(1))

    exporter.close()
    assert (result.outcome, len(collector.requests)) == (ExportOutcome.FAILED, 3)


def test_a_batch_that_is_too_large_is_split(collector: TelemetryServer) -> None:
    limit = 4_000
    exporter = OtlpTelemetryExporter(collector.url, max_request_bytes=limit)
    ids = [str(n) for n in range(100)]

    result = exporter.export([make_log(event_id) for event_id in ids])

    exporter.close()
    assert (result.outcome, result.delivered) == (ExportOutcome.DELIVERED, 100)
    assert all(len(request.body) <= limit for request in collector.requests)
    assert [uid for request in collector.requests for uid in uids(request)] == ids


def test_after_a_refusal_the_rest_of_a_batch_is_not_sent(collector: TelemetryServer) -> None:
    collector.always = lambda request: Reply(401)
    exporter = OtlpTelemetryExporter(collector.url, max_request_bytes=4_000)

    result = exporter.export(make_logs(100))

    exporter.close()
    assert (result.outcome, result.delivered) == (ExportOutcome.REJECTED, 0)
    assert len(collector.requests) == 1


def test_a_batch_that_the_collector_finds_too_large_is_split(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer
) -> None:
    collector.always = lambda request: Reply(413 if len(uids(request)) > 3 else 200, body=b"")

    result = exporter.export(make_logs(8))

    assert (result.outcome, result.delivered) == (ExportOutcome.DELIVERED, 8)


def test_a_log_that_is_too_large_alone_is_rejected(collector: TelemetryServer) -> None:
    exporter = OtlpTelemetryExporter(collector.url, max_request_bytes=1_000)

    result = exporter.export([make_log(session_id="x" * 2_000), make_log()])

    exporter.close()
    assert (result.outcome, result.delivered, result.rejected) == (ExportOutcome.DELIVERED, 1, 1)


PARTIAL = ExportLogsServiceResponse()
PARTIAL.partial_success.rejected_log_records = 2
PARTIAL.partial_success.error_message = "two of them"


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (b"", 5),
        (PARTIAL.SerializeToString(), 3),
        (b"{}", 5),
        (b'{"partialSuccess": {"rejectedLogRecords": "2"}}', 3),
        (b"<html>Log in to this network</html>", 0),
        (b"\xff\xfe\xfd", 0),
        (b"x" * 1_100_000, 0),
    ],
)
def test_only_what_the_answer_accepts_counts_as_delivered(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer, answer: bytes, accepted: int
) -> None:
    collector.replies.append(Reply(body=answer))

    result = exporter.export(make_logs(5))

    assert (result.delivered, result.rejected) == (accepted, 5 - accepted)
    assert bool(result) is (accepted > 0)


def test_a_body_may_travel_compressed(collector: TelemetryServer) -> None:
    exporter = OtlpTelemetryExporter(collector.url, compression="gzip")

    assert exporter.export([make_log("an-id")])

    exporter.close()
    (request,) = collector.requests
    assert gzip.decompress(request.raw) == request.body
    assert uids(request) == ["an-id"]


def test_a_black_hole_ends_by_the_deadline() -> None:
    with raw_endpoint(black_hole) as url:
        exporter = OtlpTelemetryExporter(url)
        start = time.monotonic()

        result = exporter.export(make_logs(1), deadline=start + 0.2)

        assert time.monotonic() - start < 1
        assert result.outcome is ExportOutcome.CANCELLED
        exporter.close()


def test_a_request_ends_by_its_timeout() -> None:
    with raw_endpoint(black_hole) as url:
        exporter = OtlpTelemetryExporter(url, timeout_ms=100, max_retries=0)
        start = time.monotonic()

        result = exporter.export(make_logs(1))

        assert time.monotonic() - start < 2
        assert result.outcome is ExportOutcome.FAILED
        exporter.close()


def test_a_retry_after_beyond_the_deadline_ends_the_export_at_once(collector: TelemetryServer) -> None:
    collector.always = lambda request: Reply(503, {"Retry-After": "60"})
    exporter = OtlpTelemetryExporter(collector.url)
    start = time.monotonic()

    result = exporter.export(make_logs(1), deadline=start + 10)

    assert time.monotonic() - start < 2
    assert result.outcome is ExportOutcome.FAILED
    exporter.close()


@pytest.mark.parametrize("end", ["close", "expire"])
def test_an_export_that_backs_off_ends_when_it_is_told_to(collector: TelemetryServer, end: str) -> None:
    collector.always = lambda request: Reply(503, {"Retry-After": "60"})
    exporter = OtlpTelemetryExporter(collector.url)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(exporter.export(make_logs(1))))
    thread.start()
    wait_until(lambda: exporter._transport._changed._waiting)
    start = time.monotonic()

    if end == "close":
        exporter.close()
    else:
        exporter.expire(start)

    thread.join(TIMEOUT)
    assert time.monotonic() - start < 5
    assert not results[0]
    exporter.close()


def test_after_close_exports_are_cancelled(
    exporter: OtlpTelemetryExporter, collector: TelemetryServer
) -> None:
    exporter.close()
    exporter.close()

    assert exporter.export(make_logs(1)).outcome is ExportOutcome.CANCELLED
    assert collector.requests == []


def test_nothing_is_logged_above_debug(
    collector: TelemetryServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    collector.replies.extend([Reply(503), Reply(400), Reply(body=b"nonsense")])
    for url in (collector.url, collector.url, refused_url()):
        exporter = OtlpTelemetryExporter(
            url, headers={"Authorization": "Bearer s3cret"}, max_retries=1, retry_delay_ms=1
        )
        exporter.export(make_logs(2))
        exporter.export(["no log"])  # type: ignore[list-item]
        exporter.close()
        exporter.export(make_logs(1))
        assert "s3cret" not in repr(exporter)

    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert "s3cret" not in caplog.text
    assert capfd.readouterr() == ("", "")

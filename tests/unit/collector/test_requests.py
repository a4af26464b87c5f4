"""What the collector keeps and what it answers, over real sockets. `intake/` tests what it can read."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("starlette")

pytestmark = pytest.mark.slow  # each test stops a collector, which takes a fifth of a second


from adbc_telemetry import schema  # noqa: E402
from adbc_telemetry.collector.bodies import MAX_BODY_BYTES  # noqa: E402
from adbc_telemetry.collector.server import Collector  # noqa: E402
from adbc_telemetry.collector.store import journal  # noqa: E402
from adbc_telemetry.core import zstd  # noqa: E402
from support.collecting import (  # noqa: E402
    Sender,
    a_log,
    altered,
    encoded,
    report_of,
    request_body,
)
from support.stores import events_in  # noqa: E402

# What is kept


def test_a_log_is_kept_whole_and_in_columns(collector: Collector, sender: Sender, store: Path) -> None:
    log = a_log(error_info=schema.DriverErrorInfo(error_name="OperationalError"))
    before = datetime.now(timezone.utc)
    assert sender.send(encoded(log)).numProtoSuccess == 1
    collector.stop()
    ((text, received_at, *columns),) = events_in(
        store,
        """log, received_at, event_id, workspace_id, session_id, sql_statement_id, "timestamp", user_agent,
        driver_name, driver_version, runtime_version, os_name, statement_type, operation_type, execution_result,
        is_compressed, error_name, operation_latency_ms, result_set_ready_latency_ms,
        result_set_consumption_latency_ms, retry_count, is_internal_call""",
    )
    assert text == encoded(log)
    assert before <= received_at <= datetime.now(timezone.utc)
    assert log.frontend_log_event_id is not None
    assert columns == [
        log.frontend_log_event_id,
        2**63 - 1,
        "session-1",
        "statement-1",
        datetime(2025, 11, 24, 16, 0, 0, 123_000, timezone.utc),
        "test/1",
        "a driver",
        "1.2",
        "3.11",
        "Linux",
        "QUERY",
        "EXECUTE_STATEMENT",
        "INLINE_ARROW",
        True,
        "OperationalError",
        12,
        7,
        30,
        2,
        False,
    ]


def test_the_least_log_is_kept(collector: Collector, sender: Sender, store: Path) -> None:
    least = schema.TelemetryFrontendLog(
        frontend_log_event_id=str(uuid.uuid4()),
        entry=schema.FrontendLogEntry(sql_driver_log=schema.OssSqlDriverTelemetryLog()),
    )
    text = json.dumps({"frontend_log_event_id": least.frontend_log_event_id, "entry": {"sql_driver_log": {}}})
    assert sender.send(text).numProtoSuccess == 1
    collector.stop()
    assert events_in(store, "log, operation_type, workspace_id") == [(text, None, None)]


@pytest.mark.parametrize("path", ["/telemetry-ext", "/telemetry-unauth"])
def test_both_endpoints_take_logs_with_any_headers(sender: Sender, path: str) -> None:
    assert sender.post(request_body(encoded(a_log())), path, Authorization="Bearer token")[0] == 200
    assert report_of(sender).events == 1


def test_a_gzipped_body_is_read(sender: Sender) -> None:
    status, response = sender.post(gzip.compress(request_body(encoded(a_log()))), Content_Encoding="gzip")
    assert (status, response.numProtoSuccess) == (200, 1)


def test_an_event_that_comes_twice_is_kept_once_and_counts_as_kept(sender: Sender) -> None:
    text = encoded(a_log())
    assert sender.send(text, text).numProtoSuccess == 2
    assert sender.send(text).numProtoSuccess == 1
    assert report_of(sender).events == 1


def test_logs_from_many_senders_are_each_kept_once(collector: Collector, sender: Sender) -> None:
    def send(_: int) -> int:
        one = Sender(collector.url)
        kept = sum(one.send(*(encoded(a_log()) for _ in range(10))).numProtoSuccess for _ in range(10))
        one.pool.close()
        return kept

    with ThreadPoolExecutor(8) as senders:
        assert sum(senders.map(send, range(8))) == 800
    assert report_of(sender).events == 800


def test_a_clock_that_no_calendar_knows_costs_the_column_not_the_log(
    collector: Collector, sender: Sender, store: Path
) -> None:
    path = "context.client_context.timestamp_millis"
    assert sender.send(altered(path, 2**63 - 1), altered(path, -1), encoded(a_log())).numProtoSuccess == 3
    assert report_of(sender).events == 3
    collector.stop()
    assert events_in(store, 'count(*), count("timestamp")') == [(3, 1)]


# What is refused


def test_a_bad_log_is_answered_and_the_good_ones_are_kept(sender: Sender) -> None:
    response = sender.send(encoded(a_log()), '["SECRET"]', encoded(a_log()))
    assert response.numProtoSuccess == 2
    assert response.errors == ["protoLogs[1] was refused: not a JSON object."]
    assert report_of(sender).events == 2


def test_a_body_that_is_no_request_is_a_bad_request(sender: Sender) -> None:
    status, response = sender.post(b"SECRET")
    assert (status, response.numProtoSuccess) == (400, 0)
    assert response.errors == ["The body is not JSON."]


@pytest.mark.skipif(not zstd.is_available(), reason="needs zstd")
def test_a_body_in_zstd_is_read(sender: Sender) -> None:
    body = zstd.zstd().compress(request_body(encoded(a_log())))
    status, response = sender.post(body, Content_Encoding="zstd")
    assert (status, response.numProtoSuccess) == (200, 1)


def test_a_body_that_is_not_gzip_or_torn_is_a_bad_request(sender: Sender) -> None:
    whole = gzip.compress(request_body(encoded(a_log())))
    for body in (b"not gzip", whole[:-1], whole[:20], whole[:-8] + bytes(8)):
        assert sender.post(body, Content_Encoding="gzip")[0] == 400


def test_an_unknown_encoding_is_refused(sender: Sender) -> None:
    assert sender.post(request_body(), Content_Encoding="br")[0] == 415


def test_a_body_that_is_too_large_is_refused(sender: Sender) -> None:
    assert sender.post(b" " * (MAX_BODY_BYTES + 1))[0] == 413
    assert sender.post(b" " * (MAX_BODY_BYTES - len(request_body())) + request_body())[0] == 200


def test_a_body_that_unpacks_to_too_much_is_refused(sender: Sender) -> None:
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
    assert len(bomb) < 64 * 1024
    assert sender.post(bomb, Content_Encoding="gzip")[0] == 413


def test_too_many_logs_are_refused(sender: Sender) -> None:
    assert sender.post(request_body(*[""] * 10_001))[0] == 413


def test_logs_that_cannot_be_stored_are_answered_503_and_nothing_leaks(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken, caplog.at_level(logging.DEBUG):
        broken.setattr(journal, "_write", full)
        status, response = sender.post(request_body(encoded(a_log(session_id="SECRET"))))
        assert sender.get("/healthz")[0] == 503
    assert (status, response.numProtoSuccess) == (503, 0)
    assert "No space left on device" in caplog.text
    assert "SECRET" not in caplog.text + "".join(response.errors)
    assert sender.send(encoded(a_log())).numProtoSuccess == 1, "the writer must live on"
    assert sender.get("/healthz")[0] == 200


def test_events_of_all_kinds_show_in_the_metrics_and_the_status(sender: Sender) -> None:
    text = altered("entry.sql_driver_log.new_field", 1)
    sender.send(encoded(a_log()), text, "not JSON")
    sender.send(text)
    status = json.loads(sender.get("/api/status")[1])
    assert status["refused"] == {"not JSON": 1}
    assert status["unknown_fields"] == {"entry.sql_driver_log.new_field": 2}
    assert (status["store"]["events"], status["store"]["duplicates"]) == (2, 1)
    metrics = sender.get("/metrics")[1].decode()
    for line in (
        "adbc_telemetry_collector_events_total 2.0",
        "adbc_telemetry_collector_duplicate_events_total 1.0",
        'adbc_telemetry_collector_refused_events_total{reason="not JSON"} 1.0',
        'adbc_telemetry_collector_unknown_names_total{name="entry.sql_driver_log.new_field"} 2.0',
        'adbc_telemetry_collector_requests_total{status="200"} 2.0',
        "adbc_telemetry_collector_up 1.0",
    ):
        assert line in metrics.splitlines()


def test_flags_come_from_the_file(tmp_path: Path, store: Path) -> None:
    flags = tmp_path / "flags.json"
    flags.write_text('{"a": true}')
    with Collector(store, flags=flags) as collector:
        sender = Sender(collector.url)
        status, content = sender.get("/api/2.0/connector-service/feature-flags/ADBC/1.0")
        sender.pool.close()
    assert (status, json.loads(content)) == (
        200,
        {"flags": [{"name": "a", "value": "true"}], "ttl_seconds": 900},
    )


def test_a_page_over_a_store_takes_no_events(collector: Collector, sender: Sender, store: Path) -> None:
    sender.send(encoded(a_log()))
    with Collector(store, read_only=True) as reading:
        reader = Sender(reading.url)
        assert reader.post(request_body(encoded(a_log())))[0] == 503
        assert report_of(reader).events == 1
        reader.pool.close()

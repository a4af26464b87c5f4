"""A collector over Kafka: a 200 means that the brokers have all events of the request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("starlette")

import urllib3

from adbc_telemetry.collector.kafka import destination as module
from adbc_telemetry.collector.kafka import settings as settings_module
from adbc_telemetry.collector.kafka.address import parse_address
from adbc_telemetry.collector.kafka.destination import KafkaDestination
from adbc_telemetry.collector.server import Collector
from support.collector_process import log_text, request_of
from support.waiting import wait_until

if TYPE_CHECKING:
    from support.kafka import Broker


class Sending:
    """A collector over a topic, and a sender."""

    def __init__(self, url: str, topic: str) -> None:
        self.url = url
        self.topic = topic

    def post(self, *texts: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            "POST", f"{self.url}/telemetry-unauth", body=request_of(list(texts)), retries=False, timeout=30.0
        )

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("GET", self.url + path, retries=False, timeout=30.0)

    def is_well(self) -> bool:
        return self.get("/healthz").status == 200


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return f"topic-{abs(hash(request.node.nodeid))}"


@pytest.fixture
def collector(kafka: Broker, topic: str) -> Iterator[Sending]:
    address = kafka.create_topic(topic)
    with Collector(lambda: KafkaDestination(parse_address(address))) as running:
        yield Sending(running.url, topic)
    kafka.proxy.mend()


def test_a_record_is_the_log_as_it_came_keyed_by_its_session(collector: Sending, kafka: Broker) -> None:
    before = time.time()
    camel = '{ "frontendLogEventId": "e2", "entry": {"sqlDriverLog": {"sessionId": "s2"}} }'
    texts = [log_text("e1", session_id="s1"), camel, log_text("e3", session_id="")]
    assert collector.post(*texts).status == 200
    records = {record.headers["event_id"]: record for record in kafka.records(collector.topic, 3)}
    assert [records[event_id].value.decode() for event_id in (b"e1", b"e2", b"e3")] == texts
    assert [records[event_id].key for event_id in (b"e1", b"e2", b"e3")] == [b"s1", b"s2", b"e3"]
    assert before <= int(records[b"e1"].headers["received_at"]) / 1e6 <= time.time()


def test_a_session_stays_in_one_partition_and_in_order(collector: Sending, kafka: Broker) -> None:
    for start in range(0, 200, 20):
        logs = [log_text(f"{number}", session_id=f"s{number % 7}") for number in range(start, start + 20)]
        assert collector.post(*logs).status == 200
    partitions: dict[bytes, set[int]] = {}
    numbers: dict[bytes, list[int]] = {}
    for record in kafka.records(collector.topic, 200):
        partitions.setdefault(record.key, set()).add(record.partition)
        numbers.setdefault(record.key, []).append(int(record.headers["event_id"]))
    assert all(len(each) == 1 for each in partitions.values())
    assert all(each == sorted(each) for each in numbers.values())
    assert sum(map(len, numbers.values())) == 200


def test_without_a_broker_senders_get_503_in_time_and_the_loop_goes_on(
    collector: Sending, kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(settings_module, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(module, "STALLED_SECONDS", 0.5)
    wait_until(collector.is_well)
    kafka.proxy.cut()
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        first = pool.submit(collector.post, log_text())
        slowest = 0.0
        while not first.done():
            asked = time.monotonic()
            assert collector.get("/openapi.json").status == 200
            slowest = max(slowest, time.monotonic() - asked)
        answer = first.result()
        assert time.monotonic() - began < 10
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert json.loads(answer.data)["numProtoSuccess"] == 0
    assert slowest < 0.9, "the event loop was held up"
    wait_until(lambda: not collector.is_well())
    assert "does not take events" in collector.get("/healthz").json()["problems"][0]
    kafka.proxy.mend()
    wait_until(lambda: collector.post(log_text()).status == 200)
    wait_until(collector.is_well)


def test_while_one_request_has_waited_for_long_others_are_refused_at_once(
    collector: Sending, kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 2.0)
    monkeypatch.setattr(module, "STALLED_SECONDS", 0.0)
    kafka.proxy.cut()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(collector.post, log_text())
        wait_until(lambda: "waiting_events 1.0" in collector.get("/metrics").data.decode())
        assert collector.post(log_text()).status == 503
        assert not first.done()
        kafka.proxy.mend()


def test_more_events_than_may_wait_are_refused_at_once(
    collector: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    assert collector.post(*(log_text() for _ in range(6))).status == 503
    assert collector.post(*(log_text() for _ in range(5))).status == 200


def test_a_log_that_no_record_has_room_for_is_refused_alone(kafka: Broker, topic: str) -> None:
    address = kafka.create_topic(topic)
    settings = {"message.max.bytes": "3000"}
    with Collector(lambda: KafkaDestination(parse_address(address), settings)) as running:
        sending = Sending(running.url, topic)
        answer = sending.post(log_text("a"), "no log", log_text("b", auth_type="x" * 3000), log_text("c"))
    assert answer.status == 200
    told = json.loads(answer.data)
    assert told["numProtoSuccess"] == 2
    assert told["errors"] == [
        "protoLogs[1] was refused: not JSON.",
        "protoLogs[2] was refused: larger than 1976 bytes.",
    ]
    assert [record.headers["event_id"] for record in kafka.records(topic, 2)] in (
        [b"a", b"c"],
        [b"c", b"a"],
    )


def test_the_page_and_the_api_say_where_the_events_are(collector: Sending) -> None:
    assert "keeps no events" in collector.get("/").data.decode()
    for name in ("summary", "newest", "report", "event", "export"):
        answer = collector.get(f"/api/{name}")
        assert (answer.status, "adbc-telemetry sink" in answer.json()["error"]) == (404, True)
    status: dict[str, Any] = collector.get("/api/status").json()
    assert status["store"]["path"].startswith("kafka://")
    assert collector.get("/openapi.json").status == 200


def test_the_metrics_are_those_of_the_way_to_kafka(collector: Sending) -> None:
    assert collector.post(log_text(), log_text()).status == 200
    metrics = collector.get("/metrics").data.decode()
    assert "adbc_telemetry_collector_events_total 2.0" in metrics
    assert "adbc_telemetry_collector_waiting_events 0.0" in metrics
    assert "store_bytes" not in metrics


def test_a_collector_starts_while_there_is_no_broker_and_says_so(kafka: Broker, topic: str) -> None:
    address = kafka.create_topic(topic)
    kafka.proxy.cut()
    try:
        with Collector(lambda: KafkaDestination(parse_address(address))) as running:
            sending = Sending(running.url, topic)
            assert not sending.is_well()
            kafka.proxy.mend()
            wait_until(sending.is_well)
            assert sending.post(log_text()).status == 200
    finally:
        kafka.proxy.mend()


def test_the_end_flushes_what_a_sender_waits_for(kafka: Broker, topic: str) -> None:
    address = kafka.create_topic(topic)
    # It lingers longer than the test takes to stop the collector.
    destination_settings = {"linger.ms": "1000"}
    collector = Collector(lambda: KafkaDestination(parse_address(address), destination_settings))
    with ThreadPoolExecutor(1) as pool:
        with collector as running:
            sending = Sending(running.url, topic)
            wait_until(sending.is_well)
            posted = pool.submit(sending.post, log_text("the-last"))
            wait_until(lambda: "waiting_events 1.0" in sending.get("/metrics").data.decode())
        assert posted.result(30).status == 200
    assert kafka.records(topic, 1)[0].headers["event_id"] == b"the-last"


def test_a_producer_that_is_shut_out_is_replaced(
    kafka: Broker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After records were given up, this broker answers each further one of the producer with PRODUCER_FENCED.
    monkeypatch.setattr(settings_module, "REQUEST_SECONDS", 1.0)
    address = kafka.create_topic(topic)
    try:
        with Collector(lambda: KafkaDestination(parse_address(address))) as running:
            sending = Sending(running.url, topic)
            assert sending.post(log_text()).status == 200
            kafka.proxy.cut()
            assert sending.post(log_text()).status == 503
            kafka.proxy.mend()
            wait_until(lambda: sending.post(log_text()).status == 200)
            assert sending.post(log_text()).status == 200
    finally:
        kafka.proxy.mend()

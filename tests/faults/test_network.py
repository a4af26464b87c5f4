"""The network as it is."""

from __future__ import annotations

from adbc_telemetry import TelemetryClient, TelemetryConfiguration
from faults.scenario import Scenario
from support.logs import make_logs
from support.server import TelemetryServer, refused_url


def test_nobody_listens(fault: Scenario) -> None:
    """The port refuses connections."""
    config = TelemetryConfiguration(enabled=True, max_retries=1, retry_delay_ms=1)
    with TelemetryClient(refused_url(), config) as client:
        for log in make_logs(50):
            client.enqueue(log)
        assert client.flush(10)
    fault.settled(client.stats(), sent=50, arrived=[])
    assert fault.lost == {"failed": 50}


def test_the_endpoint_is_well(fault: Scenario, server: TelemetryServer) -> None:
    """Nothing: the healthy case, to compare with."""
    with TelemetryClient(server.url, TelemetryConfiguration(enabled=True)) as client:
        for log in make_logs(250):
            client.enqueue(log)
    fault.settled(client.stats(), sent=250, arrived=server.accepted)
    assert fault.delivered == 250

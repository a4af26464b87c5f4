"""Connections that come and go while the server's flag flips. To run it longer:

PYTHONPATH=tests python tests/support/flag_stress.py SEED SECONDS
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from typing import NamedTuple

from adbc_telemetry import ConnectionTelemetry, TelemetryClientManager
from adbc_telemetry.feature_flags import FeatureFlagManager, FeatureFlags
from support.flags import FlagServer
from support.server import TelemetryServer
from support.waiting import wait_until

THREADS = 6
PROPERTIES = {"adbc.databricks.telemetry.flush_interval_ms": "5"}


class Seen(NamedTuple):
    """What the stress came to."""

    connections: int
    accepted: list[str]
    flags: list[FeatureFlags]
    longest_close: float


def stress(server: TelemetryServer, seed: int, seconds: float) -> Seen:
    """Open, use, close and drop connections for a while; wait until nothing of them is left."""
    answers = FlagServer(server)
    answers.ttl_seconds = 0.05
    manager = FeatureFlagManager.get_instance()
    forgotten: list[FeatureFlags] = []
    closes: list[float] = []
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        while time.monotonic() < end:
            telemetry = ConnectionTelemetry.create(
                PROPERTIES, driver_name="tiny", driver_version="1", host=server.url
            )
            for _ in range(chance.randrange(30)):
                with telemetry.statement():
                    pass
                if chance.random() < 0.05:
                    time.sleep(chance.random() * 0.05)
            if chance.random() < 0.2:
                telemetry.client.flush(0.1)
            if chance.random() < 0.7:  # else it is dropped
                began = time.monotonic()
                telemetry.close(chance.choice([None, 0.01, 0.0]))
                closes.append(time.monotonic() - began)
            del telemetry

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    chance = random.Random(seed)
    while time.monotonic() < end:
        answers.turn(chance.choice([True, True, False, None]))
        answers.status = chance.choice([200, 200, 200, 500])
        known = manager.known(server.url)
        if known is not None and chance.random() < 0.5:
            forgotten.append(known)
            manager.remove_feature_flags(server.url)  # so that there is a first answer again and again
        time.sleep(chance.random() * 0.1)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"
    gc.collect()
    wait_until(lambda: TelemetryClientManager.get_instance().hosts() == [])
    known = manager.known(server.url)
    if known is not None:
        forgotten.append(known)
        manager.remove_feature_flags(server.url)
    wait_until(lambda: all(each.answered for each in forgotten))
    return Seen(len(closes), list(server.accepted), forgotten, max(closes))


if __name__ == "__main__":
    with TelemetryServer() as running:
        seen = stress(running, int(sys.argv[1]), float(sys.argv[2]))
    rooms = {len(flags.room) for flags in seen.flags}
    print(
        f"{seen.connections} closed, the longest took {seen.longest_close:.3f} s; {len(seen.accepted)} events"
    )
    print(f"twice: {len(seen.accepted) - len(set(seen.accepted))}; room for events left: {rooms}")

"""Connections that come and go, in many threads, while the server's flag flips."""

from __future__ import annotations

import pytest

from adbc_telemetry.feature_flags import WAITING_AT_MOST
from support.flag_stress import stress
from support.server import TelemetryServer


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_no_event_comes_twice_or_waits_for_ever_and_all_room_is_given_back(
    server: TelemetryServer, seed: int
) -> None:
    """To run it for longer, with other seeds: see `support.flag_stress`."""
    seen = stress(server, seed, seconds=2)
    assert seen.connections > 20
    assert len(seen.accepted) > 100
    assert len(set(seen.accepted)) == len(seen.accepted)
    assert len(seen.flags) > 3
    assert {len(flags.room) for flags in seen.flags} == {WAITING_AT_MOST}
    assert [flags.when_answered for flags in seen.flags if flags.when_answered] == []
    assert seen.longest_close < 20

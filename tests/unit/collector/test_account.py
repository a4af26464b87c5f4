"""What came in, counted by name: names from outside are bounded."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("starlette")

from adbc_telemetry.collector.account import IntakeAccount


def test_names_from_outside_do_not_grow_without_bound() -> None:
    account = IntakeAccount()
    for number in range(10_000):
        account.see_unknown({f"field_{number}": 1})
    assert len(account.unknown) == 501
    assert account.unknown["(other)"] == 9_500
    account.see_unknown({"field_0": 2})
    assert account.unknown["field_0"] == 3


def test_refusals_are_told_of_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    account = IntakeAccount()
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            account.refuse(["no event id", "not JSON"])
        account.refuse([])
    assert account.refused == {"no event id": 100, "not JSON": 100}
    assert [record.getMessage() for record in caplog.records] == [
        "2 events refused; the last one for: not JSON."
    ]

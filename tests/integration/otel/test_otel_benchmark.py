"""A short run of `benchmarks/otel_spans.py`: what a span adds, beside what OpenTelemetry's own `dbapi` does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("adbc_driver_sqlite.dbapi")

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
ATTEMPTS = 3
# The claims are 1 and 0.25, for the medians of a whole run. A short one on a busy machine is less precise.
MOST = 1.3
MOST_NOT_SAMPLED = 0.4


@pytest.fixture
def otel_spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("otel_spans")
    sys.modules.pop("otel_spans", None)


def test_a_span_costs_no_more_than_dbapi_s_and_a_no_a_fraction_of_it(otel_spans: ModuleType) -> None:
    for _ in range(ATTEMPTS):
        found = otel_spans.report(otel_spans.run(7, 300))
        print(found)
        if found.ratio <= MOST and found.ratio_not_sampled <= MOST_NOT_SAMPLED:
            return
    pytest.fail(f"each of {ATTEMPTS} runs was above the limits: {found}")

"""How many examples the models run: few by default, more on request.

    MODEL_SCALE=10 python -m pytest tests/models

runs ten times the examples, with random ones in each run (`--hypothesis-seed N` repeats a run).
"""

from __future__ import annotations

import os

from hypothesis import settings

_SCALE = int(os.environ.get("MODEL_SCALE", "1"))


def scaled(examples: int, steps: int = 50) -> settings:
    """Settings for `examples` examples of at most `steps` steps, times `MODEL_SCALE`."""
    return settings(
        max_examples=examples * _SCALE, stateful_step_count=steps, derandomize=_SCALE == 1, deadline=None
    )

"""How far the models are run: a little in each run, by hand as far as one likes.

    MODEL_SCALE=10 python -m pytest tests/models

has ten times the examples, which are then also others each time (`--hypothesis-seed N` repeats a run).
"""

from __future__ import annotations

import os

from hypothesis import settings

_SCALE = int(os.environ.get("MODEL_SCALE", "1"))


def scaled(examples: int, steps: int = 50) -> settings:
    """Settings for `examples` examples of at most `steps` steps, or for as many more as are asked for."""
    return settings(
        max_examples=examples * _SCALE, stateful_step_count=steps, derandomize=_SCALE == 1, deadline=None
    )

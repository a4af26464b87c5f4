"""What stands in for a recorder where there is nothing to record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final


class _NullRecorder:
    """Records nothing. What stands in for the recorder of a connection or cursor that has none of its own: because
    it is still being made, or the program has made it of its class and not by the driver manager."""

    under_way = script = ()
    awaits_rows = False

    @property
    def connection(self) -> _NullRecorder:
        return self

    def __setattr__(self, name: str, value: object) -> None:
        """Nothing is kept."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return _do_nothing


def _do_nothing(*args: object, **kwargs: object) -> None:
    """Stands for every method of a recorder."""


NULL_RECORDER: Final[Any] = _NullRecorder()

"""The border to the host program, in both its forms."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from adbc_telemetry.core.guard import never_raises, never_raises_of_four

EACH_FORM = pytest.mark.parametrize("guard", [never_raises, never_raises_of_four])


def failing(error: BaseException) -> Callable[[Any, Any, Any, Any], Any]:
    def fail(first: object, second: object, third: object, fourth: object) -> object:
        raise error

    return fail


@EACH_FORM
def test_a_function_that_succeeds_is_as_it_was(guard: Any) -> None:
    def together(first: int, second: int, third: int, fourth: int) -> list[int]:
        """All four."""
        return [first, second, third, fourth]

    guarded = guard(pytest.fail)(together)
    assert guarded(1, 2, 3, 4) == [1, 2, 3, 4]
    assert (guarded.__name__, guarded.__doc__) == ("together", "All four.")


@EACH_FORM
def test_an_error_goes_to_the_fallback_with_what_the_function_got(guard: Any) -> None:
    error = ZeroDivisionError()
    assert guard(lambda *told: told)(failing(error))(1, 2, 3, 4) == (error, 1, 2, 3, 4)


@EACH_FORM
def test_only_the_class_of_an_error_is_logged(guard: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "adbc_telemetry"):
        guard(lambda *told: None)(failing(ValueError("secret")))("private", 2, 3, 4)
    assert caplog.messages == ["telemetry error swallowed: ValueError"]


@EACH_FORM
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_belongs_to_the_program_passes_through(guard: Any, error: BaseException) -> None:
    with pytest.raises(type(error)):
        guard(pytest.fail)(failing(error))(1, 2, 3, 4)

"""What a driver may tell its user before the first byte of telemetry, once per process."""

from __future__ import annotations

from collections.abc import Callable

from adbc_telemetry.consent import Decision, Mode

_given: set[str] = set()  # the drivers whose users have been told in this process


def notice_text(driver_name: str, host: str) -> str:
    """The notice, in one paragraph.

    Args:
        driver_name: the driver, as it calls itself.
        host: where its events go.
    """
    return (
        f"{driver_name} may send telemetry to {host}: which operations run, how long they take, and the class of an "
        "error. It never sends SQL, data, names of tables, messages or credentials. "
        "DO_NOT_TRACK=1 turns it off. ADBC_TELEMETRY_DEBUG=1 prints the events instead of sending them."
    )


def give_notice(tell: Callable[[str], object], decision: Decision, driver_name: str, host: str) -> bool:
    """Tell the user about a driver's telemetry, unless nothing will be sent or the user has been told.

    Args:
        tell: shows the text, such as `print`. What it raises, this raises.
        decision: of the connection. A silent user is told, too: the server's flags are asked for next.
        driver_name, host: see `notice_text`.

    Returns:
        Whether the user was told now.
    """
    may_send = decision.mode is Mode.ON or decision.user_is_silent
    if not may_send or driver_name in _given:
        return False
    _given.add(driver_name)
    tell(notice_text(driver_name, host))
    return True

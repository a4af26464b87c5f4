"""Asks a running collector."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from adbc_telemetry.cli.collect import TOKEN_VARIABLE
from adbc_telemetry.cli.errors import CommandError

_SECONDS: Final = 30.0
_PIECE: Final = 1 << 20


def is_url(source: str) -> bool:
    """Whether a source is a collector's URL and not a path.

    Raises:
        CommandError: it is an address without its scheme.
    """
    if source.startswith(("http://", "https://")):
        return True
    if re.fullmatch(r"[\w.-]+:\d{1,5}/?", source) and not os.path.exists(source):
        raise CommandError(f"{source} has no scheme; write http://{source} for a collector's URL.")
    return False


def fetch(url: str, path: str) -> bytes:
    """What a collector answers.

    Args:
        url: of the collector.
        path: with its query.

    Raises:
        CommandError: no collector answers there, or it refuses.
    """
    answer = _ask(url, path, preload=True)
    data: bytes = answer.data
    return data


def fetch_to_file(url: str, path: str, target: Path) -> None:
    """Write what a collector answers into a file.

    Raises:
        CommandError: no collector answers there, or it refuses.
        OSError: the file cannot be written.
    """
    import urllib3

    answer = _ask(url, path, preload=False)
    try:
        with open(target, "xb") as file:
            for piece in answer.stream(_PIECE):
                file.write(piece)
    except urllib3.exceptions.HTTPError as error:
        raise CommandError(f"the collector at {url} broke off; try again.") from error
    finally:
        answer.close()


def _ask(url: str, path: str, *, preload: bool):  # type: ignore[no-untyped-def]
    import urllib3

    headers = {"Accept": "application/json"}
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        answer = urllib3.request(
            "GET",
            f"{url.rstrip('/')}{path}",
            headers=headers,
            timeout=urllib3.Timeout(connect=_SECONDS / 3, read=_SECONDS),
            retries=False,
            preload_content=preload,
        )
    except urllib3.exceptions.LocationValueError as error:
        raise CommandError(f"{url} is no URL; write one such as http://127.0.0.1:8317.") from error
    except urllib3.exceptions.HTTPError as error:
        raise CommandError(_explain(url, error)) from error
    if answer.status == 401:
        raise CommandError(f"the collector at {url} wants its token; set {TOKEN_VARIABLE}.")
    if answer.status == 404:
        raise CommandError(
            f"the collector at {url} keeps no events; give the table into which `adbc-telemetry sink` writes them."
        )
    if answer.status != 200:
        raise CommandError(f"the collector at {url} answered {answer.status}; see its log.")
    return answer


def _explain(url: str, error: Exception) -> str:
    name = type(error).__name__
    reasons = {
        "NameResolutionError": "its host is not known; see whether the name is right",
        "ConnectTimeoutError": "it does not answer; see whether it runs, and whether a firewall is between",
        "ReadTimeoutError": "it takes the connection but does not answer; see its log",
        "NewConnectionError": "nothing listens there; start one with: adbc-telemetry collect",
        "SSLError": "its certificate is not accepted; see whether the URL should begin with http://",
    }
    return f"no collector answers at {url}: {reasons.get(name, name)}."

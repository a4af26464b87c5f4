"""What counts as the same host, and how to talk to it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"https": 443, "http": 80}


def normalize_host(host: str) -> str:
    """The one spelling of a host or URL that clients, breakers and leases are shared under.

    Without a scheme, another machine is talked to over HTTPS, and this machine over plain HTTP. The default port is
    left out:

        HOST.example, https://Host.example:443/     host.example
        http://host.example                         http://host.example
        127.0.0.1:8317, http://127.0.0.1:8317/      http://127.0.0.1:8317
        localhost, localhost:80                     http://localhost
        https://127.0.0.1:8317                      https://127.0.0.1:8317

    This machine is `localhost`, a name that ends in `.localhost`, and every loopback address. Paths, queries and
    user information are dropped; IPv6 literals keep their brackets.

    Returns:
        That spelling of `host`.

    Since 0.1.

    Raises:
        TypeError: `host` is not a string.
        ValueError: `host` names no host, has a bad port, or a scheme other than `http` and `https`.
    """
    scheme, name, port = _split(host)
    authority = f"[{name}]" if ":" in name else name
    if port != _DEFAULT_PORTS[scheme]:
        authority = f"{authority}:{port}"
    # The scheme is left out where it goes without saying, and nowhere else: the result means the same endpoint.
    return authority if scheme == _default_scheme(name) == "https" else f"{scheme}://{authority}"


def base_url(host: str) -> str:
    """The URL, without a trailing slash, that requests to a host (in any spelling) start with."""
    normalized = normalize_host(host)
    return normalized if "://" in normalized else f"https://{normalized}"


def is_loopback(host: str) -> bool:
    """Whether requests to `host` stay on this machine, by its name or address alone (no look-up)."""
    return _is_loopback_name(_split(host)[1])


def _default_scheme(name: str) -> str:
    """What a host without a scheme means. A collector on this machine has no certificate."""
    return "http" if _is_loopback_name(name) else "https"


def _is_loopback_name(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_secure(host: str) -> bool:
    """Whether credentials may be sent to `host`: over TLS, or without leaving the machine."""
    return _split(host)[0] == "https" or is_loopback(host)


def _split(host: str) -> tuple[str, str, int]:
    if not isinstance(host, str):
        raise TypeError(f"host must be a string, not {type(host).__name__}")
    text = host.strip()
    if text.count(":") > 1 and "://" not in text and not text.startswith("["):
        text = f"[{text}]"  # a bare IPv6 address
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        name = _canonical((parts.hostname or "").rstrip("."))
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a host or an http(s) URL: {_printable(host)}") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"endpoint must be a host or an http(s) URL, not {parts.scheme}://")
    if not name or any(c.isspace() or ord(c) < 32 for c in name) or any(c in "\\%<>^`{|}" for c in name):
        raise ValueError(f"not a host or an http(s) URL: {_printable(host)}")
    scheme = parts.scheme if "://" in text else _default_scheme(name)
    return scheme, name, _DEFAULT_PORTS[scheme] if port is None else port


def _canonical(name: str) -> str:
    """One spelling of an address or of a name beyond ASCII. Raises ValueError (UnicodeError) for an impossible name."""
    if ":" in name:
        return ipaddress.ip_address(name).compressed
    return name if name.isascii() else name.encode("idna").decode("ascii")


def _printable(host: str) -> str:
    """The text for an error message, without what may be a password before an @."""
    return repr(host.rpartition("@")[2][:200])

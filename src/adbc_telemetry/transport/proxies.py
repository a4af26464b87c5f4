"""The proxy for a request, as the environment names it."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from adbc_telemetry.core.hosts import is_loopback


def proxy_for(url: str) -> str | None:
    """The URL of the proxy that the environment names for `url`, or None; always None for this machine itself."""
    scheme, _, authority = url.partition("://")
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or is_loopback(url) or proxy_bypass(authority):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_credentials(proxy: str) -> str | None:
    """`name:password` in a proxy's URL, or None."""
    user = urlsplit(proxy)
    return None if user.username is None else f"{unquote(user.username)}:{unquote(user.password or '')}"

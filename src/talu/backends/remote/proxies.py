"""Finds the proxy through which the environment wants an endpoint to be reached."""

import os
from importlib.util import find_spec
from urllib.request import getproxies, proxy_bypass

import httpx2

from talu.backends.remote.endpoint import Endpoint
from talu.exceptions import EndpointError

__all__ = ["proxy_of", "shown_proxy"]

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def proxy_of(endpoint: Endpoint) -> httpx2.Proxy | None:
    """The proxy for the requests to an endpoint; None for a direct connection.

    A server on this machine has none: the proxy would see the requests to it, with their key.

    Raises:
        EndpointError: a variable names something that cannot be used as a proxy.
    """
    if endpoint.is_local:
        return None
    try:
        return _named(httpx2.URL(endpoint.url))
    except (ValueError, httpx2.InvalidURL):
        pass  # its text may hold the password of a proxy
    spelled = [name for both in VARIABLES for name in (both, both.upper()) if os.environ.get(name)]
    raise EndpointError(
        f"the proxy in {' or '.join(spelled) or 'the system'} cannot be used for {endpoint.url}: "
        "it must be the address of an HTTP proxy, http://host:port; add hosts that need no proxy "
        "to NO_PROXY",
        "ENDPOINT_UNREACHABLE",
    )


def _named(url: httpx2.URL) -> httpx2.Proxy | None:
    """The proxy that the environment or the system names for an address.

    Raises:
        ValueError: it is not the address of a proxy, or one of a kind that is not supported.
    """
    named = getproxies()
    address = named.get(url.scheme) or named.get("all")
    if not address or proxy_bypass(url.netloc.decode()):
        return None
    proxy = httpx2.Proxy(address if "://" in address else f"http://{address}")
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ValueError("a SOCKS proxy needs the package socksio")
    return proxy


def shown_proxy(proxy: httpx2.Proxy) -> str:
    """The address of a proxy, without its user and password."""
    return f"{proxy.url.scheme}://{proxy.url.netloc.decode()}"

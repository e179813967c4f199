"""Defines the options of a server, and checks them before anything listens. This module is pure."""

import ipaddress
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from talu.error_text import kind_of, shown
from talu.exceptions import ValidationError

__all__ = ["ServerOptions", "address_of", "is_loopback"]

MAX_KEYS = 10_000
MIN_KEY = 16  # characters
WHOLE = {
    "port": (0, 65_535),
    "max_body": (1_000, 2**32),
    "max_requests": (1, 1_000_000),
    "requests_per_minute": (1, 1_000_000),
    "memory": (1, 2**62),
}
SECONDS = ("timeout", "body_timeout", "shutdown_timeout", "keep_alive")
OPTIONAL = ("keep_alive", "memory", "requests_per_minute")
MAX_SECONDS = 1e6


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where a server listens, whom it answers, and what it allows a request.

    Attributes:
        host: the address to listen on. One that other machines reach needs ``api_keys``.
        port: 0 takes a free one.
        api_keys: each request except for ``/health`` and the documentation needs one of them, as
            ``Authorization: Bearer KEY`` or ``x-api-key: KEY``. At least 16 characters each. The
            prompts of two keys never share the prefix cache.
        allowed_hosts: host names by which the server is called, besides ``localhost``, ``host``
            and any IP address.
        cors_origins: web pages of other origins that may call the server, such as
            ``https://chat.example.org``; none by default.
        max_body: the largest body of a request, in bytes.
        max_requests: how many answers may run or wait at a time, each choice of ``n`` counted. A
            request beyond it gets the status 429.
        requests_per_minute: how many requests each key may begin within any minute, all of them
            without keys; more get the status 429. None, the default, is no limit.
        timeout: seconds for a whole request, after which its answer ends with an error.
        body_timeout: seconds in which the head and the body of a request have to arrive.
        keep_alive: seconds after its last request after which a local model is closed; None, the
            default, keeps it open.
        memory: bytes that weights and caches of all local models may take together. The cache of
            each is sized by its share; a model for which there is no room takes the place of those
            used longest ago. None, the default, is no limit.
        shutdown_timeout: seconds that running answers have when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body: int = 16 * 2**20
    max_requests: int = 256
    requests_per_minute: int | None = None
    timeout: float = 600.0
    body_timeout: float = 30.0
    shutdown_timeout: float = 30.0
    keep_alive: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValidationError: a value is wrong, or the host can be reached from other machines and
                there is no key.
        """
        for name in ("api_keys", "allowed_hosts", "cors_origins"):
            if not _are_texts(getattr(self, name)):
                raise _wrong(name, "must be a tuple of texts that are not empty")
        for name, value in self._given(WHOLE):
            low, high = WHOLE[name]
            if type(value) is not int or not low <= value <= high:
                wrong = f"must be a whole number from {low} to {high}, got {shown(value)}"
                raise _wrong(name, wrong)
        for name, value in self._given(SECONDS):
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            if not fits or not math.isfinite(value) or not 0 < value <= MAX_SECONDS:
                raise _wrong(name, f"must be seconds above 0, got {shown(value)}")
        self._check_keys()
        for origin in self.cors_origins:
            _check_origin(origin)
        if not isinstance(self.host, str) or not self.host:
            raise _wrong(
                "host", f"must be the name or address of an interface, got {shown(self.host)}"
            )
        if not self.api_keys and not is_loopback(self.host):
            raise _wrong(
                "host",
                f"{self.host!r} can be reached from other machines, so that the server needs a key "
                "(TALU_API_KEY, or --api-key-file); without one it listens on 127.0.0.1 only",
            )

    def _given(self, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """These options and their values, without those that are None where that is allowed."""
        for name in names:
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                yield name, value

    def _check_keys(self) -> None:
        if len(self.api_keys) > MAX_KEYS:
            raise _wrong("api_keys", f"has at most {MAX_KEYS:,} keys, got {len(self.api_keys):,}")
        for key in self.api_keys:
            if len(key) < MIN_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise _wrong(
                    "api_keys",
                    f"must be keys of {MIN_KEY} or more printable ASCII characters without spaces, "
                    f"got {kind_of(key)} with {len(key)} characters",
                )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is written as, also in brackets; None for a name."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(v, str) and v for v in values)


def _check_origin(origin: str) -> None:
    parts = urlsplit(origin)
    plain = parts.scheme in ("http", "https") and parts.netloc
    if not plain or f"{parts.scheme}://{parts.netloc}" != origin or origin != origin.lower():
        wanted = "must be origins such as 'https://chat.example.org', in lower case, without a path"
        raise _wrong("cors_origins", f"{wanted}, got {shown(origin)}")


def _wrong(name: str, problem: str) -> ValidationError:
    return ValidationError(f"{name} {problem}", details={"param": name})

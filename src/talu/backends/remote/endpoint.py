"""Decides where the requests of a remote model go, and which key goes with them.

A key belongs to one scheme, host and port. The key of an environment variable is the provider's: it
goes to the provider's own address, or to the address that its other variable names, and to no
other. See ``docs/decisions/0016-keys-and-hosts.md``.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from talu.backends.remote.options import RemoteBackend, Secret
from talu.backends.remote.providers import PLAIN, PROVIDERS, Provider
from talu.backends.remote.urls import without_secrets
from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["Endpoint", "endpoint_of", "is_loopback", "provider_at"]

MAX_URL = 2_000  # characters
MAX_KEY = 10_000
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go, and the key that goes with them.

    Attributes:
        url: the address, without a slash at its end.
        key: None when no key is sent.
    """

    provider: Provider
    url: str
    key: Secret | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return _origin(urlsplit(self.url))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(self.origin[1])


def endpoint_of(
    provider: Provider, options: RemoteBackend, environment: Mapping[str, str]
) -> Endpoint:
    """The endpoint of a model.

    Args:
        provider: the row that the reference or the address names.
        options: what the user gave.
        environment: the variables of the process.

    Raises:
        ValidationError: the address is not one, no key is known, or a key must not go there. The
            message names the variable, never the key.
    """
    from_variable = environment.get(provider.url_variable) if provider.key_variable else None
    own = from_variable or provider.base_url
    url = options.base_url if options.base_url is not None else own
    if url is None:
        wrong = "give the address of the model's server: base_url='http://localhost:8000/v1'"
        raise ValidationError(wrong, details={"param": "base_url"})
    given = options.base_url is not None
    parts = _checked(url, "base_url" if given else provider.url_variable if from_variable else "")
    variable = provider.key_variable
    stored = environment.get(variable, "").strip() if variable else ""
    is_own = not given or (own is not None and _origin(parts) == _origin(urlsplit(own)))
    key = options.api_key if options.api_key is not None else stored if is_own else None
    key = _checked_key(key, "api_key" if options.api_key is not None else str(variable))
    if options.api_key is None and stored and not is_own:
        _refuse_elsewhere(str(variable), parts, own)
    if key is None and provider.needs_key and options.api_key is None:
        raise ValidationError(
            f"a key for {provider.name} is missing: set the variable {variable}, or give api_key=",
            "MISSING_KEY",
            {"param": "api_key", "variable": variable},
        )
    host = parts.hostname or ""
    if key and parts.scheme == "http" and not is_loopback(host) and not options.allow_insecure:
        raise ValidationError(
            f"the key would travel in plain text to {shown(without_secrets(url))}: use https, or "
            "allow it with allow_insecure=True in the model's backend",
            "INSECURE_KEY",
            {"param": "base_url"},
        )
    return Endpoint(
        provider=provider,
        url=url.rstrip("/"),
        key=key,
    )


def _refuse_elsewhere(variable: str, parts: SplitResult, own: str | None) -> None:
    address = f"{parts.scheme}://{parts.netloc}"
    raise ValidationError(
        f"the key in {variable} belongs to {shown(without_secrets(str(own)))} and is not sent to "
        f"{shown(address)}: give api_key= for that address, or api_key='' if it needs none",
        "KEY_FOR_ANOTHER_HOST",
        {"param": "api_key", "variable": variable},
    )


def provider_at(url: object) -> Provider:
    """The provider whose address has the same scheme, host and port, else the plain one.

    Without an address it is OpenAI.
    """
    if url is None:
        return PROVIDERS["openai"]
    if isinstance(url, str):
        try:
            parts = urlsplit(url)
            origin = _origin(parts)
        except ValueError:
            return PLAIN
        for row in PROVIDERS.values():
            hosted = row.base_url is not None and row.base_url.startswith("https://")
            if hosted and _origin(urlsplit(str(row.base_url))) == origin:
                return row
    return PLAIN


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address; nothing is looked up."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").rstrip(".")
    return scheme, host, parts.port or PORTS.get(scheme, 0)


def _checked(url: object, source: str) -> SplitResult:
    wanted = "the address of a server, such as 'http://localhost:8000/v1'"
    if not isinstance(url, str) or len(url) > MAX_URL:
        got = shown(without_secrets(url)) if isinstance(url, str) else f"a {type(url).__name__}"
        raise _wrong_url(f"must be {wanted}, got {got}", source)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        reason = str(error) if "port" in str(error).lower() else "it is malformed"
        raise _wrong_url(
            f"must be {wanted}, got {shown(without_secrets(url))} ({reason})", source
        ) from None
    if "@" in parts.netloc:
        raise _wrong_url(
            f"must not contain a user or a password: {shown(without_secrets(url))}; give the key "
            "as api_key=, or a header in headers= of the model's backend",
            source,
        )
    text = url.strip() == url and url.isprintable() and " " not in url and "\\" not in url
    if parts.scheme not in PORTS or not parts.hostname or not text:
        raise _wrong_url(f"must be {wanted}, got {shown(without_secrets(url))}", source)
    if parts.query or parts.fragment or ";" in url:
        raise _wrong_url(
            f"must end with a path, without ?, # and ;: {shown(without_secrets(url))}", source
        )
    return parts


def _wrong_url(wrong: str, source: str) -> ValidationError:
    return ValidationError(f"{source or 'base_url'} {wrong}", details={"param": "base_url"})


def _checked_key(key: str | None, source: str) -> Secret | None:
    """The key; None for no key and an empty one."""
    if not key:
        return None
    if len(key) > MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        wrong = f"{source} must be a key: at most {MAX_KEY:,} ASCII characters without spaces"
        raise ValidationError(wrong, details={"param": "api_key"})
    return Secret(key)

"""Decides where the requests of a remote model go, and which key goes with them.

A key belongs to one scheme, host and port. The key of an environment variable is the provider's: it
goes to the provider's own address, or to the address that its other variable names, and to no
other. See ``docs/decisions/0016-keys-and-hosts.md``.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from talu.backends.remote.options import RemoteBackend, Secret
from talu.backends.remote.providers import PLAIN, PROVIDERS, Provider
from talu.error_text import kind_of, shown
from talu.exceptions import ValidationError
from talu.urls import Address, shown_address

__all__ = ["Endpoint", "endpoint_of", "is_loopback", "provider_at"]

MAX_URL = 2_000  # characters
MAX_KEY = 10_000
MAX_HOST = 254
MIN_KEY = 4  # characters of a key that is replaced in messages
MIN_SECRET = 8  # of another text that may be a secret
DEPTH = 20  # of nested values in ``extra_params``
PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
IPV4 = re.compile(r"[0-9]+(\.[0-9]+){3}")
CREDENTIAL = re.compile(
    r"authori[sz]ation|authentication|cookie|credential|password|secret|token|key$|(^|-)auth(-|$)"
)
NO_CREDENTIALS = ("idempotency-key",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go, and the key that goes with them.

    Attributes:
        url: the address, without a slash at its end.
        key: None when no key is sent.
        secrets: texts that messages must not show, the longest first.
    """

    provider: Provider
    url: str
    key: Secret | None
    secrets: tuple[Secret, ...] = ()

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
    own, from_variable, stored = _of_environment(provider, environment)
    del environment  # a traceback that shows variables would show all keys
    _check_types(options)
    url = options.base_url if options.base_url is not None else own
    if url is None:
        wrong = "give the address of the model's server: base_url='http://localhost:8000/v1'"
        raise ValidationError(wrong, details={"param": "base_url"})
    given = options.base_url is not None
    url = Address(url)
    parts = _checked(url, "base_url" if given else provider.url_variable if from_variable else "")
    is_own = not given or (own is not None and _has_origin(own, parts))
    key = _key(options, provider, stored if is_own else None)
    if options.api_key is None and stored and not is_own:
        _refuse_elsewhere(str(provider.key_variable), parts, own)
    if key is None and provider.needs_key and options.api_key is None:
        variable = provider.key_variable
        raise ValidationError(
            f"a key for {provider.name} is missing: set the variable {variable}, or give api_key=",
            "MISSING_KEY",
            {"param": "api_key", "variable": variable},
        )
    if key or _credential_headers(options):
        _refuse_plain_text(parts, options)
    return Endpoint(
        provider=provider, url=_base(url, provider), key=key, secrets=_secrets(options, key)
    )


def _check_types(options: RemoteBackend) -> None:
    """Refuse keys of a wrong type, before they are variables that a traceback shows."""
    for name in ("api_key", "org_id"):
        if not isinstance(getattr(options, name), str | None):
            wrong = f"{name} must be a text, got {kind_of(getattr(options, name))}"
            raise ValidationError(wrong, details={"param": name})


def _of_environment(
    provider: Provider, environment: Mapping[str, str]
) -> tuple[str | None, bool, Secret]:
    """The provider's address, whether it is a variable's, and the variable's key, perhaps ""."""
    found = environment.get(provider.url_variable) if provider.key_variable else None
    variable = provider.key_variable
    stored = environment.get(variable, "").strip() if variable else ""
    own = found or provider.base_url
    return None if own is None else Address(own), bool(found), Secret(stored)


def _has_origin(url: str, parts: SplitResult) -> bool:
    """Whether an address, perhaps a malformed one, has the same scheme, host and port."""
    try:
        return _origin(urlsplit(url)) == _origin(parts)
    except ValueError:
        return False


def _base(url: str, provider: Provider) -> str:
    """The address to which the paths of the protocol are added."""
    base = re.sub(r"^(https?://[^/:]+)\.(?=[:/]|$)", r"\1", url.rstrip("/"))
    # The paths of Anthropic's protocol begin with /v1, and many write it at the end as well.
    return base.removesuffix("/v1").rstrip("/") if provider.protocol == "anthropic" else base


def _refuse_plain_text(parts: SplitResult, options: RemoteBackend) -> None:
    host = parts.hostname or ""
    if parts.scheme != "http" or is_loopback(host) or options.allow_insecure:
        return
    address = shown(f"http://{parts.netloc}{parts.path}")
    here = "; localhost is the name of this machine" if host in ("0.0.0.0", "::") else ""
    raise ValidationError(
        f"the key would travel in plain text to {address}: use https, or allow it with "
        f"allow_insecure=True{here}",
        "INSECURE_KEY",
        {"param": "base_url"},
    )


def _credential_headers(options: RemoteBackend) -> list[str]:
    """The names of headers that hold a key by their names."""
    names = options.headers if isinstance(options.headers, Mapping) else ()
    texts = [name.lower() for name in names if isinstance(name, str)]
    return [name for name in texts if CREDENTIAL.search(name) and name not in NO_CREDENTIALS]


def _secrets(options: RemoteBackend, key: Secret | None) -> tuple[Secret, ...]:
    """All texts that must not be shown, the longest first."""
    found = {key} if key and len(key) >= MIN_KEY else set()
    for value in _texts((options.headers, options.org_id, options.extra_params), DEPTH):
        found |= {Secret(part) for part in (value, *value.split()) if len(part) >= MIN_SECRET}
    return tuple(sorted(found, key=len, reverse=True))


def _texts(value: object, depth: int) -> Iterator[str]:
    """All texts among the values of nested dictionaries, lists and tuples."""
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(entry, depth - 1)


def _refuse_elsewhere(variable: str, parts: SplitResult, own: str | None) -> None:
    address = f"{parts.scheme}://{parts.netloc}"
    raise ValidationError(
        f"the key in {variable} belongs to {shown_address(own)} and is not sent to "
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


def _checked(url: str, source: str) -> SplitResult:
    """The parts of an address.

    Raises:
        ValidationError: it is not the address of a server.
    """
    wrong = _fault(url)  # whose variables hold parts with secrets, and are not in the traceback
    if wrong is not None:
        raise ValidationError(f"{source or 'base_url'} {wrong}", details={"param": "base_url"})
    return urlsplit(url)


def _fault(url: str) -> str | None:
    """What is wrong with an address; None when it is one."""
    wrong = f"must be the address of a server, such as 'http://localhost:8000/v1', got {url!r}"
    if len(url) > MAX_URL:
        return wrong
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        reason = str(error) if "port" in str(error).lower() else "it is malformed"
        return f"{wrong} ({reason})"
    if "@" in parts.netloc:
        return (
            f"must not contain a user or a password: {url!r}; give the key as api_key=, or a "
            "header in headers= of the model's backend"
        )
    if not url.isascii():
        return f"{wrong} (it has characters that are not ASCII)"
    text = url.strip() == url and url.isprintable() and " " not in url and "\\" not in url
    if parts.scheme not in PORTS or port == 0 or not text or not _is_host(parts.hostname or ""):
        return wrong
    if any(mark in url for mark in "?#;"):
        return f"must end with a path, without ?, # and ;: {url!r}"
    return None


def _is_host(host: str) -> bool:
    """Whether it is a name or an address of a host."""
    if ":" in host or IPV4.fullmatch(host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return "%" not in host
    return len(host) <= MAX_HOST and HOST.fullmatch(host) is not None


def _key(options: RemoteBackend, provider: Provider, stored: Secret | None) -> Secret | None:
    """The given key, else the stored one that may be sent; None for no key and an empty one."""
    given = options.api_key is not None
    key = Secret(options.api_key) if options.api_key is not None else stored
    if not key:
        return None
    if len(key) > MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        source = "api_key" if given else str(provider.key_variable)
        wrong = f"{source} must be a key: at most {MAX_KEY:,} ASCII characters without spaces"
        raise ValidationError(wrong, details={"param": "api_key"})
    return key

"""Parses a model reference into provider and model name."""

import os

from talu.backends.remote.options import AnthropicBackend, RemoteBackend
from talu.backends.remote.providers import (
    ALIASES,
    PLAIN_ANTHROPIC,
    PROVIDERS,
    Provider,
    provider_named,
)
from talu.error_text import nearest, shown
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.urls import without_secrets

__all__ = [
    "PATH_STARTS",
    "check_not_local",
    "protocol_of",
    "remote_reference",
    "split_reference",
]

PATH_STARTS = ("/", "./", "../", "~")  # a reference with one of these prefixes is always a path
LOCAL = "native"
MAX_SHOWN = 80  # characters of a reference in an example
PLACELESS = ("on_unsupported", "allow_insecure")  # arguments that do not say where a model runs
URLS = ("openai",)  # prefixes that may be written as a scheme, ``openai://model``


def split_reference(ref: str) -> tuple[str | None, str]:
    """The provider of a reference, None for a model in this process, and the model's name.

    A reference with ``/`` before ``::`` or ``://`` is a path.

    Raises:
        ValidationError: an unknown provider or scheme, or no name after it.
    """
    for mark in ("::", "://"):
        prefix, found, name = ref.partition(mark)
        if found and "/" not in prefix and not ref.startswith(PATH_STARTS):
            return _provider(ref, prefix, mark), _name(ref, name)
    return None, ref


def remote_reference(ref: str, backend: RemoteBackend) -> tuple[Provider, str]:
    """Provider and model name of a reference whose backend is an endpoint.

    Raises:
        ValidationError: the provider has another protocol than the backend, or is unknown.
    """
    prefix, name = split_reference(ref)
    provider = _provider_at(backend.base_url) if prefix is None else provider_named(prefix)
    theirs = "anthropic" if isinstance(backend, AnthropicBackend) else "openai"
    if prefix is None and theirs == "anthropic":
        official = backend.base_url is None or provider.protocol == "anthropic"
        provider = PROVIDERS["anthropic"] if official else PLAIN_ANTHROPIC
    if provider.protocol != theirs or (prefix is None and ref.startswith(f"{LOCAL}::")):
        raise ValidationError(
            f"model reference {shown(ref)} and its backend exclude each other: the backend is an "
            f"endpoint with the protocol of {PROTOCOLS[theirs]}; leave out the backend, or the "
            "provider",
            "AMBIGUOUS_BACKEND",
            {"param": "backend", "value": ref},
        )
    return provider, name


def check_not_local(ref: str, backend: RemoteBackend, *, is_path: bool = False) -> None:
    """Refuse a reference that may mean a local model, with remote arguments that name no server.

    With ``base_url``, it is the name of the model there. Otherwise a name without a provider is one
    of OpenAI's if it has no slash and nothing of that name is on the disk.

    Args:
        ref: the reference.
        backend: the arguments.
        is_path: it was given as a path.

    Raises:
        ValidationError: the arguments and the reference exclude each other.
    """
    provider, _ = split_reference(ref)
    if provider is not None or (backend.base_url is not None and not is_path):
        return
    given = [name for name in backend.given if name != "base_url"] or list(backend.given)
    placed = any(name not in PLACELESS for name in given)
    if placed and not (is_path or _may_be_local(ref)):
        return
    arguments = ", ".join(f"{name}=" for name in given) or "the backend"
    raise ValidationError(
        f"{shown(ref)} {'is' if is_path else 'may be'} a model on this machine, and {arguments} "
        "can only be used for a model behind an endpoint: name the provider, as in "
        f"{shown(f'openai::{ref[:MAX_SHOWN]}')}, or the server (base_url=), or leave the arguments "
        "out",
        "AMBIGUOUS_BACKEND",
        {"param": next(iter(given), "backend"), "value": ref},
    )


def _may_be_local(ref: str) -> bool:
    """Whether a reference without a provider has the form of a path or hub id, or is a file."""
    starts = (*PATH_STARTS, f"{LOCAL}::")
    has_form = "/" in ref or os.sep in ref or ref in (".", "..") or ref.startswith(starts)
    try:
        return has_form or ref.lower().endswith(".gguf") or os.path.lexists(ref)
    except ValueError:  # characters that no path has
        return False


PROTOCOLS = {"openai": "OpenAI", "anthropic": "Anthropic"}


def protocol_of(ref: str, backend: RemoteBackend) -> str:
    """The protocol of the provider that a reference or the backend's address names."""
    prefix = ref.partition("::")[0] if "::" in ref else None
    row = PROVIDERS.get(str(prefix))
    return (row or _provider_at(backend.base_url)).protocol


def _provider(ref: str, prefix: str, mark: str) -> str | None:
    if prefix == LOCAL:
        return None
    if prefix.lower() in ("http", "https"):
        raise ValidationError(
            f"{shown(without_secrets(ref))} is an address, not the name of a model: give it as "
            "base_url=, as in Client('name', base_url='http://localhost:8000/v1')",
            "AMBIGUOUS_BACKEND",
            {"param": "model", "value": without_secrets(ref)},
        )
    remote = (*PROVIDERS, *ALIASES)
    if prefix in remote and (mark == "::" or prefix in URLS):
        return provider_named(prefix).name
    known = [LOCAL, *remote]
    hint = nearest(prefix, known) or f"; known are {', '.join(known)}"
    ref = without_secrets(ref)
    raise ValidationError(
        f"model reference {shown(ref)} has the unknown provider {shown(prefix + mark)}{hint}"
        f"{' ' if hint.endswith('?') else '; '}write ./ in front of the name of a folder",
        "AMBIGUOUS_BACKEND",
        {"param": "model", "value": ref},
    )


def _name(ref: str, name: str) -> str:
    if not name:
        wrong = f"model reference {shown(ref)} names a provider but no model"
        raise ValidationError(wrong, "AMBIGUOUS_BACKEND", {"param": "model", "value": ref})
    return name


def _provider_at(url: str | None) -> Provider:
    """The provider whose servers an address names; see ``talu.backends.remote.endpoint``."""
    provider: Provider = loaded("talu.backends.remote.endpoint", "provider_at")(url)
    return provider

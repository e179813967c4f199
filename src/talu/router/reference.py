"""Parses a model reference into provider and model name."""

import re

from talu.error_text import nearest, shown
from talu.exceptions import ValidationError

__all__ = ["PATH_STARTS", "SECRET", "compatible_reference", "split_reference", "without_secrets"]

SECRET = "***"

PATH_STARTS = ("/", "./", "../", "~")  # a reference with one of these prefixes is always a path

LOCAL = "native"
REMOTE = (  # prefixes of models behind an endpoint
    "anthropic",
    "llamacpp",
    "lmstudio",
    "localai",
    "oaic",
    "ollama",
    "openai",
    "openrouter",
    "vllm",
)


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


def compatible_reference(ref: str) -> tuple[str, str]:
    """Provider and model name of a reference whose backend has OpenAI's protocol.

    Raises:
        ValidationError: the provider has another protocol, or is unknown.
    """
    provider, name = split_reference(ref)
    if provider == "anthropic" or (provider is None and ref.startswith(f"{LOCAL}::")):
        raise ValidationError(
            f"model reference {shown(ref)} and its backend exclude each other: the backend is an "
            "endpoint with OpenAI's protocol; leave out the backend, or the provider",
            "AMBIGUOUS_BACKEND",
            {"param": "backend", "value": ref},
        )
    return provider or "openai", name


def _provider(ref: str, prefix: str, mark: str) -> str | None:
    if prefix == LOCAL:
        return None
    if prefix in REMOTE and (mark == "::" or prefix == "openai"):
        return "openai" if prefix == "oaic" else prefix
    known = [LOCAL, *REMOTE]
    hint = nearest(prefix, known) or f"; known are {', '.join(known)}"
    ref = without_secrets(ref)
    raise ValidationError(
        f"model reference {shown(ref)} has the unknown provider {shown(prefix + mark)}{hint}; "
        "write ./ in front of the name of a folder",
        "AMBIGUOUS_BACKEND",
        {"param": "model", "value": ref},
    )


def _name(ref: str, name: str) -> str:
    if not name:
        wrong = f"model reference {shown(ref)} names a provider but no model"
        raise ValidationError(wrong, "AMBIGUOUS_BACKEND", {"param": "model", "value": ref})
    return name


def without_secrets(url: str) -> str:
    """A URL, possibly malformed, with user, password, query and fragment replaced by ``***``."""
    address = re.split("[?#]", url, maxsplit=1)[0]
    mark = url[len(address) : len(address) + 1]
    before, at, host = address.rpartition("@")
    if at:
        scheme = re.match(r"[\w+.-]+:/+", before)
        address = f"{scheme[0] if scheme else ''}{SECRET}@{host}"
    return address + (mark and mark + SECRET)

"""Asks an endpoint which models it has, and recognizes what kind of server it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from os import environ
from typing import Any
from urllib.parse import urlsplit

from talu.backends.remote.endpoint import Endpoint, endpoint_of, provider_at
from talu.backends.remote.options import OpenAICompatibleBackend, RemoteBackend
from talu.backends.remote.providers import PROVIDERS, Provider
from talu.bridge import run_in_background
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import EndpointError, IOError, ValidationError
from talu.forks import import_whole
from talu.types import Capabilities

__all__ = [
    "RemoteModelInfo",
    "capabilities_of",
    "check_endpoint",
    "get_model_ids",
    "list_endpoint_models",
    "recognized",
]

LISTING = "talu.backends.remote.listing"  # imported on first use, with the HTTP library
MAX_MODELS = 100_000
MAX_TEXT = 1_000  # characters of an id
UNREACHABLE = ("ENDPOINT_UNREACHABLE", "ENDPOINT_TLS", "ENDPOINT_TIMEOUT")
RECOGNIZING_S = 5.0


@dataclass(frozen=True, slots=True)
class RemoteModelInfo:
    """A model of an endpoint.

    Attributes:
        id: the name to ask for it.
        object: the kind that the server names.
        created: seconds since 1970, as the server says.
        owned_by: the owner that the server names.
    """

    id: str
    object: str = "model"
    created: int | None = None
    owned_by: str = ""


def list_endpoint_models(
    base_url: str, api_key: str | None = None, timeout: float = 10.0
) -> list[RemoteModelInfo]:
    """The models of an endpoint, as it lists them; entries without an id are left out.

    Args:
        base_url: its address; ``/v1`` is added to one without a path.
        api_key: None reads the variable of the provider at this address.
        timeout: seconds to wait.

    Raises:
        IOError: the endpoint cannot be reached (code ``CONNECTION_ERROR``).
        EndpointError: it refuses.
        ValidationError: the address is not one, or the answer is not a list of models.
    """
    if not isinstance(base_url, str):
        wrong = f"base_url must be the address of a server, got a {type(base_url).__name__}"
        raise ValidationError(wrong, details={"param": "base_url"})
    row = provider_at(base_url)
    options = OpenAICompatibleBackend(base_url=base_url, api_key=api_key)
    endpoint_of(row, options, environ)  # checks the address
    if row.protocol == "openai" and not urlsplit(base_url).path.strip("/"):
        options = OpenAICompatibleBackend(base_url=base_url.rstrip("/") + "/v1", api_key=api_key)
    return _listed(endpoint_of(row, options, environ), options, timeout)


def _listed(endpoint: Endpoint, options: RemoteBackend, timeout: float) -> list[RemoteModelInfo]:
    limit = Deadline.after(timeout)
    if limit is None:
        wrong = "timeout must be a number of seconds"
        raise ValidationError(wrong, details={"param": "timeout"})
    work = partial(import_whole(LISTING).models_at, endpoint, options, limit.seconds)
    try:
        answer = run_in_background(work)
    except EndpointError as error:
        if error.code in UNREACHABLE:
            raise IOError(str(error), "CONNECTION_ERROR", {"endpoint": endpoint.url}) from error
        if error.code == "ENDPOINT_BAD_ANSWER":
            raise ValidationError(str(error), details={"param": "base_url"}) from error
        raise
    return _models_in(answer, endpoint)


def _models_in(answer: object, endpoint: Endpoint) -> list[RemoteModelInfo]:
    entries = answer.get("data") if isinstance(answer, Mapping) else answer
    if not isinstance(entries, list) or len(entries) > MAX_MODELS:
        raise ValidationError(
            f"{endpoint.url} does not answer with a list of models, but with {shown(answer)}",
            details={"param": "base_url"},
        )
    return [
        RemoteModelInfo(
            id=entry["id"],
            object=_text(entry, "object") or "model",
            created=created if isinstance(created := entry.get("created"), int) else None,
            owned_by=_text(entry, "owned_by"),
        )
        for entry in entries
        if isinstance(entry, Mapping) and 0 < len(_text(entry, "id")) <= MAX_TEXT
    ]


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def check_endpoint(base_url: str, api_key: str | None = None, timeout: float = 5.0) -> bool:
    """Whether an endpoint lists its models; one that does not, for any reason, is False.

    Raises:
        ValidationError: ``timeout`` is not a number of seconds.
    """
    Deadline.after(timeout)
    try:
        list_endpoint_models(base_url, api_key, timeout)
    except (EndpointError, IOError, ValidationError):
        return False
    return True


def get_model_ids(base_url: str, api_key: str | None = None, timeout: float = 10.0) -> list[str]:
    """The names of the models of an endpoint; see ``list_endpoint_models``."""
    return [model.id for model in list_endpoint_models(base_url, api_key, timeout)]


def capabilities_of(row: Provider, options: RemoteBackend) -> Capabilities:
    """What a model behind an endpoint supports.

    An endpoint of which only the address is known is asked for its models, whose owner tells what
    kind of server it is; nothing is sent for all others. One that does not list its models is taken
    for a plain server with OpenAI's protocol.
    """
    known = recognized(options) if row.name not in PROVIDERS and row.protocol == "openai" else row
    return known.capabilities


def recognized(options: RemoteBackend) -> Provider:
    """The row of the server at the options' address, as its list of models shows, else the plain.

    A server that does not list its models, for any reason, is taken for a plain one.
    """
    row = provider_at(options.base_url)
    endpoint = endpoint_of(row, options, environ)
    try:
        models = _listed(endpoint, options, RECOGNIZING_S)
    except (EndpointError, IOError, ValidationError):
        return row
    owners = {model.owned_by for model in models}
    return next((each for each in PROVIDERS.values() if owners & set(each.owned_by)), row)

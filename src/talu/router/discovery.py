"""Asks an endpoint which models it has, and recognizes what kind of server it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import environ
from typing import Any
from urllib.parse import urlsplit

from talu.backends.remote.endpoint import Endpoint, endpoint_of, provider_at
from talu.backends.remote.options import OpenAICompatibleBackend, RemoteBackend
from talu.backends.remote.providers import PROVIDERS, Provider
from talu.bridge import run_in_background
from talu.callers import warn
from talu.checks import check_boolean
from talu.deadline import Deadline
from talu.exceptions import EndpointError, IOError, ValidationError
from talu.forks import import_whole
from talu.types import Capabilities
from talu.urls import Address

__all__ = [
    "RemoteModelInfo",
    "capabilities_of",
    "check_endpoint",
    "get_model_ids",
    "list_endpoint_models",
    "recognized",
]

LISTING = "talu.backends.remote.listing"  # imported on first use, with the HTTP library
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
    base_url: str,
    api_key: str | None = None,
    timeout: float | None = 10.0,
    *,
    allow_insecure: bool = False,
) -> list[RemoteModelInfo]:
    """The models of an endpoint, as it lists them; warns of entries without an id, left out.

    Args:
        base_url: its address; ``/v1`` is added to one without a path.
        api_key: None reads the variable of the provider at this address.
        timeout: seconds to wait for the list, or each page of it; None for no limit.
        allow_insecure: let the key travel over plain ``http`` to another machine.

    Raises:
        IOError: the endpoint cannot be reached (code ``CONNECTION_ERROR``).
        EndpointError: it refuses.
        ValidationError: the address is not one, or the answer is not a list of models.
    """
    options = _options(base_url, api_key, allow_insecure)
    del base_url, api_key  # a traceback that shows variables would show the key
    return _models(options, timeout)


def _models(options: OpenAICompatibleBackend, timeout: float | None) -> list[RemoteModelInfo]:
    """The models at an address; warns of the entries of its list that are left out."""
    endpoint, options = _checked(options)
    models, left_out = _listed(endpoint, options, timeout)
    if left_out:
        entries = "1 entry" if left_out == 1 else f"{left_out:,} entries"
        warn(f"{entries} in the list of models of {endpoint.url} left out: they have no id")
    return models


def _checked(options: OpenAICompatibleBackend) -> tuple[Endpoint, OpenAICompatibleBackend]:
    """The endpoint, and the options with ``/v1`` added to an address without a path.

    Raises:
        ValidationError: the address is not one, or a key is missing or must not be sent.
    """
    row, url = provider_at(options.base_url), str(options.base_url)
    url = Address(url)
    endpoint_of(row, options, environ)  # checks the address
    if row.protocol == "openai" and not urlsplit(url).path.strip("/"):
        options = replace(options, base_url=url.rstrip("/") + "/v1")
    return endpoint_of(row, options, environ), options


def _options(base_url: str, api_key: str | None, allow_insecure: bool) -> OpenAICompatibleBackend:
    options = OpenAICompatibleBackend(base_url, api_key, allow_insecure=allow_insecure)
    del api_key
    check_boolean("allow_insecure", allow_insecure)
    if not isinstance(base_url, str):
        kind = type(base_url).__name__
        wrong = f"base_url must be the address of a server, got a value of type {kind}"
        raise ValidationError(wrong, details={"param": "base_url"})
    return options


def _listed(
    endpoint: Endpoint,
    options: RemoteBackend,
    timeout: float | None,
    *,
    first_page: bool = False,
) -> tuple[list[RemoteModelInfo], int]:
    """The models, and the number of entries that are none."""
    limit = Deadline.after(timeout)
    seconds = math.inf if limit is None else limit.seconds
    models_at = import_whole(LISTING).models_at
    work = partial(models_at, endpoint, options, seconds, first_page=first_page)
    try:
        answer = run_in_background(work)
    except EndpointError as error:
        if error.code in UNREACHABLE:
            raise IOError(str(error), "CONNECTION_ERROR", {"endpoint": endpoint.url}) from error
        if error.code == "ENDPOINT_BAD_ANSWER":
            raise ValidationError(str(error), details={"param": "base_url"}) from error
        raise
    models = _models_in(answer)
    entries = len(answer) if isinstance(answer, list) else 0
    del answer  # a server may repeat the key in it
    if models is None:
        raise ValidationError(
            f"{endpoint.url} does not answer with a list of models, but with JSON of another form",
            details={"param": "base_url"},
        )
    return models, entries - len(models)


def _models_in(answer: object) -> list[RemoteModelInfo] | None:
    """The models of a list; None for an answer that is not one."""
    if not isinstance(answer, list):
        return None
    return [
        RemoteModelInfo(
            id=entry["id"],
            object=_text(entry, "object") or "model",
            created=created if isinstance(created := entry.get("created"), int) else None,
            owned_by=_text(entry, "owned_by"),
        )
        for entry in answer
        if isinstance(entry, Mapping) and 0 < len(_text(entry, "id")) <= MAX_TEXT
    ]


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def check_endpoint(
    base_url: str,
    api_key: str | None = None,
    timeout: float | None = 5.0,
    *,
    allow_insecure: bool = False,
) -> bool:
    """Whether an endpoint lists its models; one that does not, for any reason, is False.

    Raises:
        ValidationError: an argument is wrong, or the key must not be sent.
    """
    options = _options(base_url, api_key, allow_insecure)
    del base_url, api_key
    Deadline.after(timeout)
    try:
        endpoint, options = _checked(options)
    except ValidationError as error:
        if error.code != "MISSING_KEY":
            raise
        return False
    try:
        _listed(endpoint, options, timeout, first_page=True)
    except (EndpointError, IOError, ValidationError):
        return False
    return True


def get_model_ids(
    base_url: str,
    api_key: str | None = None,
    timeout: float | None = 10.0,
    *,
    allow_insecure: bool = False,
) -> list[str]:
    """The names of the models of an endpoint; see ``list_endpoint_models``."""
    options = _options(base_url, api_key, allow_insecure)
    del base_url, api_key
    return [model.id for model in _models(options, timeout)]


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
        models, _ = _listed(endpoint, options, RECOGNIZING_S, first_page=True)
    except (EndpointError, IOError, ValidationError):
        return row
    owners = {model.owned_by for model in models}
    return next((each for each in PROVIDERS.values() if owners & set(each.owned_by)), row)

"""Which model is meant and where it runs, as values; and the flat arguments of a client.

Refuses to open anything: a spec is made without a look at disk or network.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from talu.exceptions import ValidationError
from talu.protocols import Backend
from talu.types import LocalBackend

__all__ = [
    "BackendSpec",
    "CompletionOptions",
    "LocalBackend",
    "ModelInput",
    "ModelSpec",
    "ModelTarget",
    "OpenAICompatibleBackend",
    "backend_from",
    "specs_from",
]


@dataclass(frozen=True, slots=True)
class OpenAICompatibleBackend:
    """The model runs behind an endpoint that speaks OpenAI's protocol.

    This version of talu does not have remote models yet: using one raises ``ValidationError``.

    Attributes:
        base_url: None is OpenAI's own.
        api_key: None is looked up in the environment; never shown by ``repr``.
        org_id: sent as ``OpenAI-Organization``.
        timeout_ms: None is 60,000.
        max_retries: None is 2, 0 is none.
        extra_params: fields added to the body of each request.
        headers: headers added to each request; never shown by ``repr``.
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    org_id: str | None = None
    timeout_ms: int | None = None
    max_retries: int | None = None
    extra_params: Mapping[str, object] | None = field(default=None, hash=False)
    headers: Mapping[str, str] | None = field(default=None, hash=False, repr=False)


BackendSpec = LocalBackend | OpenAICompatibleBackend | Backend


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model reference, and where the model runs.

    Attributes:
        ref: folder, hub id, ``talu/pocket``, or a name with a provider (``openai::gpt-4o``).
        backend: None is told by ``ref``. An object that is a backend itself, such as
            ``ScriptedModel``, is used as it is and closed by the client.
    """

    ref: str
    backend: BackendSpec | None = None


ModelInput = str | ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTarget:
    """What a name of a router stands for.

    Attributes:
        model: the name.
        backend: where it runs and with which options.
        provider: who runs it behind an endpoint, ``openai`` for everybody who speaks its protocol;
            None in this process.
        name: what it is called there: the reference without provider.
        location: its folder, known while it is open, or its address; None when unknown.
        is_open: it has been used, and the router is not closed.
    """

    model: str
    backend: BackendSpec
    provider: str | None
    name: str
    location: str | None
    is_open: bool


@dataclass(frozen=True, slots=True)
class CompletionOptions:
    """What a raw completion can do and a chat cannot.

    Attributes:
        token_ids: replaces the tokenization of the prompt.
        continue_from_token_id: appended to the prompt's tokens before the first is sampled.
        echo_prompt: the answer's text begins with the prompt.
    """

    token_ids: list[int] | None = None
    continue_from_token_id: int | None = None
    echo_prompt: bool = False


def backend_from(
    local: Mapping[str, Any], remote: Mapping[str, Any]
) -> LocalBackend | OpenAICompatibleBackend | None:
    """The backend that the flat arguments of a client describe, None if none is given.

    Args:
        local: fields of ``LocalBackend``; None is not given.
        remote: fields of ``OpenAICompatibleBackend``; None is not given.

    Raises:
        ValidationError: local and remote arguments together.
    """
    local = {name: value for name, value in local.items() if value is not None}
    remote = {name: value for name, value in remote.items() if value is not None}
    if local and remote:
        raise ValidationError(
            f"local arguments ({', '.join(local)}) and remote ones ({', '.join(remote)}) exclude "
            "each other: a model runs here or behind an endpoint",
            details={"param": next(iter(remote)), "local": list(local), "remote": list(remote)},
        )
    if local:
        return LocalBackend(**local)
    return OpenAICompatibleBackend(**remote) if remote else None


def specs_from(
    model: ModelInput | Sequence[ModelInput],
    backend: LocalBackend | OpenAICompatibleBackend | None = None,
) -> list[ModelSpec]:
    """The specs of a client's models.

    Args:
        model: one model or several.
        backend: of all models that have none of their own.

    Raises:
        ValidationError: no model, or something that is not a model.
    """
    models = [model] if isinstance(model, str | ModelSpec) else model
    if not isinstance(models, Sequence):
        raise _not_a_model(models)
    if not models:
        raise ValidationError("give at least one model", details={"param": "model"})
    specs = []
    for one in models:
        spec = _spec(one)
        if backend is not None and spec.backend is not None:
            warnings.warn(
                f"{spec.ref!r} has its own backend: the client's {type(backend).__name__} "
                "arguments are ignored for it",
                UserWarning,
                stacklevel=4,  # who makes the client that makes the router
            )
        specs.append(spec if spec.backend is not None else replace(spec, backend=backend))
    return specs


def _spec(model: ModelInput) -> ModelSpec:
    spec = ModelSpec(model) if isinstance(model, str) else model
    if not isinstance(spec, ModelSpec):
        raise _not_a_model(spec)
    if not isinstance(spec.ref, str) or not spec.ref.strip():
        wrong = f"a model reference must be text that is not empty, got {spec.ref!r}"
        raise ValidationError(wrong, details={"param": "model"})
    return spec


def _not_a_model(value: object) -> ValidationError:
    wrong = f"a model must be a name or a ModelSpec, got {value!r}"
    return ValidationError(wrong, details={"param": "model", "value": value})

"""Defines which model a client uses and where it runs, from the client's arguments.

Creating a spec does not access disk or network. With remote arguments, a client looks whether a
model's name is that of a local file.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from talu.backends.remote.options import AnthropicBackend, OpenAICompatibleBackend, RemoteBackend
from talu.callers import warn
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.protocols import Backend
from talu.router.limits import Limits
from talu.router.reference import PATH_STARTS, check_not_local, protocol_of
from talu.types import LocalBackend

__all__ = [
    "AnthropicBackend",
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


MAX_NAME = 200  # characters

BackendSpec = LocalBackend | RemoteBackend | Backend


@dataclass(frozen=True, slots=True, init=False)
class ModelSpec:
    """A model reference, and where the model runs.

    Attributes:
        ref: folder, GGUF file, hub id, possibly with the quantisation or the file of a GGUF model
            (``org/name-GGUF:Q4_K_M``), ``talu/pocket``, or a name with a provider
            (``openai::gpt-4o``). A ``Path`` is always a folder or file; here it is text, ``./`` in
            front of it if it is relative.
        backend: None is derived from ``ref``. A backend object, such as ``ScriptedModel``, is used
            directly and closed by the client.
        name: the name of the model in its client; ``ref`` if it is not given. One model in two
            places needs two names.
        limits: limits of its requests; None for none.
    """

    ref: str
    backend: BackendSpec | None
    name: str
    limits: Limits | None

    def __init__(
        self,
        ref: str | os.PathLike[str],
        backend: BackendSpec | None = None,
        *,
        name: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        text = path_reference(ref) if isinstance(ref, os.PathLike) else ref
        object.__setattr__(self, "ref", text)
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "name", text if name is None else name)
        object.__setattr__(self, "limits", limits)


ModelInput = str | os.PathLike[str] | ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTarget:
    """The target of a model name of a router.

    Attributes:
        model: the name in the client.
        backend: where it runs and with which options.
        provider: provider of the endpoint, ``compatible`` for an unknown one with OpenAI's
            protocol; None in this process.
        name: name at the provider: the reference without the provider.
        location: its folder, known while it is open, or its URL; None if unknown.
        is_open: whether it has been used and the router is not closed.
    """

    model: str
    backend: BackendSpec
    provider: str | None
    name: str
    location: str | None
    is_open: bool


@dataclass(frozen=True, slots=True)
class CompletionOptions:
    """Options of raw completions that chats do not have.

    Attributes:
        token_ids: replaces the tokenization of the prompt.
        continue_from_token_id: appended to the prompt's tokens before the first is sampled.
        echo_prompt: the answer's text starts with the prompt.
    """

    token_ids: list[int] | None = None
    continue_from_token_id: int | None = None
    echo_prompt: bool = False


def backend_from(
    local: Mapping[str, Any], remote: Mapping[str, Any]
) -> LocalBackend | OpenAICompatibleBackend | None:
    """The backend that a client's keyword arguments describe; None if none is given.

    Args:
        local: fields of ``LocalBackend``; None means not given.
        remote: fields of ``RemoteBackend``; None means not given.

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
        backend: for all models without an explicit backend.

    Raises:
        ValidationError: there is no model, a value is not a model, or a remote ``backend`` does not
            say where to find a model that may be local.
    """
    models = [model] if isinstance(model, str | os.PathLike | ModelSpec) else model
    if not isinstance(models, Sequence) or isinstance(models, bytes | bytearray | memoryview):
        raise _not_a_model(models)
    if not models:
        raise ValidationError("give at least one model", details={"param": "model"})
    specs = []
    for one in models:
        spec = _spec(one)
        if backend is not None and spec.backend is not None:
            warn(
                f"{shown(spec.ref)} has its own backend: the client's {type(backend).__name__} "
                "arguments are ignored for it"
            )
        if spec.backend is None and isinstance(backend, RemoteBackend):
            check_not_local(spec.ref, backend, is_path=isinstance(one, os.PathLike))
        specs.append(spec if spec.backend is not None else _with(spec, backend))
    return specs


def _with(spec: ModelSpec, backend: LocalBackend | RemoteBackend | None) -> ModelSpec:
    """The spec with the backend of the client's arguments, in the protocol of its reference."""
    if isinstance(backend, RemoteBackend) and protocol_of(spec.ref, backend) == "anthropic":
        values = {each.name: getattr(backend, each.name) for each in fields(backend)}
        backend = AnthropicBackend(**values)
    return ModelSpec(spec.ref, backend, name=spec.name, limits=spec.limits)


def _spec(model: ModelInput) -> ModelSpec:
    spec = ModelSpec(model) if isinstance(model, str | os.PathLike) else model
    if not isinstance(spec, ModelSpec):
        raise _not_a_model(spec)
    if not isinstance(spec.ref, str) or not spec.ref.strip():
        wrong = f"a model reference must be text that is not empty, got {shown(spec.ref)}"
        raise ValidationError(wrong, details={"param": "model"})
    if spec.name != spec.ref:
        _check_name(spec.name)
    if spec.limits is not None and not isinstance(spec.limits, Limits):
        wrong = f"limits must be Limits, as in Limits(concurrency=4), got {shown(spec.limits)}"
        raise ValidationError(wrong, details={"param": "limits"})
    return spec


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_NAME or not name.isprintable():
        wrong = f"the name of a model must be text of 1 to {MAX_NAME} characters, got {shown(name)}"
        raise ValidationError(wrong, details={"param": "name"})


def _not_a_model(value: object) -> ValidationError:
    got = f"an object of type {type(value).__name__}"  # its content may be secret
    wrong = f"a model must be a name, a path or a ModelSpec, got {got}"
    return ValidationError(wrong, details={"param": "model"})


def path_reference(path: os.PathLike[str]) -> str:
    """The reference that means the folder at ``path`` and nothing else.

    Raises:
        ValidationError: the path is made of bytes.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise ValidationError("a path must be text, not bytes", details={"param": "model"})
    return text if text.startswith(PATH_STARTS) or text in (".", "..") else f"./{text}"

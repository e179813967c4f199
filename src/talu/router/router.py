"""Opens the backends of a client's models on first use, shares them, and closes them together."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Self

from talu.backends.remote.options import AnthropicBackend, OpenAICompatibleBackend, RemoteBackend
from talu.backends.remote.providers import PROVIDERS
from talu.deadline import Deadline
from talu.descriptors import descriptor_opens
from talu.error_text import nearest, shown
from talu.exceptions import StateError, ValidationError
from talu.first_use import loaded
from talu.forks import ForkSafeLock
from talu.protocols import Backend
from talu.router.limits import Limits
from talu.router.opening import await_opening, wait_for_opening
from talu.router.reference import remote_reference, split_reference
from talu.router.spec import ModelInput, ModelSpec, ModelTarget, path_reference, specs_from
from talu.router.unrouted import Unrouted
from talu.threads import beside_loop, thread_starts
from talu.types import Handle, LocalBackend, StopFlag
from talu.urls import without_secrets

if TYPE_CHECKING:
    from talu.router.policies import Policy
    from talu.router.routing import Routing
    from talu.router.status import RouterStatus

__all__ = ["Router"]

SHOWN_MODELS = 10  # in an error
BACKENDS: dict[type, tuple[str, str]] = {  # options: module and class, imported on first use
    LocalBackend: ("talu.backends.local", "LocalModel"),
    OpenAICompatibleBackend: ("talu.backends.remote.model", "RemoteModel"),
    AnthropicBackend: ("talu.backends.remote.model", "RemoteModel"),
}


class Router(Handle):
    """The models of a client by name; usable from any thread.

    A name is that of the model's ``ModelSpec``, by default the reference of the model.

    Attributes:
        closing: signalled by ``close``, which cancels the running requests.
    """

    _instead = "make another one, or a client, of the same models"

    def __init__(
        self,
        models: ModelInput | Sequence[ModelInput],
        default_model: str | None = None,
        *,
        backend: LocalBackend | OpenAICompatibleBackend | None = None,
        policy: "Policy | None" = None,
    ) -> None:
        """Register the models; none is opened.

        Args:
            models: one or several; the first is the default.
            default_model: another default.
            backend: for all models without an explicit backend.
            policy: decides which model answers; it is the default model, under its own name.

        Raises:
            ValidationError: something is not a model, or is given twice; the policy names a model
                that is not here.
        """
        specs = specs_from(models, backend)
        self._models: dict[str, _Model] = {}
        for spec in specs:
            if spec.name in self._models:
                raise ValidationError(
                    f"model {shown(spec.name)} is given twice: give one of them another name, as "
                    "in ModelSpec(ref, backend, name='second')",
                    details={"param": "model", "value": spec.name},
                )
            self._models[spec.name] = _Model(spec)
        self._default = specs[0].name
        self._closed = False
        self.closing = StopFlag()
        self._routing = self._routed(policy, {spec.name: spec.limits for spec in specs})
        if policy is not None:
            self._default = policy.name
        self._starts = ForkSafeLock(reentrant=True)
        if default_model is not None:
            self.default_model = default_model

    def _routed(
        self, policy: "Policy | None", limits: dict[str, Limits | None]
    ) -> "Routing | Unrouted":
        if policy is None and not any(limits.values()):
            return Unrouted(list(limits))
        routing: Routing = loaded("talu.router.routing", "Routing")(
            policy, limits, self._aopened, lambda name: self._models[name].backend
        )
        return routing

    @property
    def models(self) -> list[str]:
        """The names of all models, in the order in which they were given."""
        return list(self._models)

    @property
    def names(self) -> list[str]:
        """The names that can be asked: ``models``, and that of the policy."""
        return self.models if self.policy is None else [*self.models, self.policy.name]

    @property
    def policy(self) -> "Policy | None":
        """The policy; None without one."""
        return self._routing.policy

    def models_of(self, model: ModelInput | None) -> list[str]:
        """The models among which the policy chooses, if that is what ``model`` names; else none."""
        return [] if self.name_of(model) in self._models else self._routing.models

    def status(self) -> "RouterStatus":
        """The state of the models of the policy, and of those with limits.

        It shows how many requests run, wait and failed, and for how long a model is not asked.
        """
        return self._routing.status()

    @property
    def default_model(self) -> str:
        """The model that is used by default; can be set to another of ``names``."""
        return self._default

    @default_model.setter
    def default_model(self, model: str) -> None:
        self._check_open()
        self._default = self._known(model)

    @property
    def targets(self) -> list[ModelTarget]:
        """The target of each of ``models``; see ``resolve``."""
        return [self.resolve(name) for name in self._models]

    def resolve(self, model: str | None = None) -> ModelTarget:
        """The target of a name; opens nothing.

        Args:
            model: one of ``models``, None for the default one.

        Raises:
            ValidationError: an unknown name, or a reference with an unknown provider.
        """
        if (name := self.name_of(model)) not in self._models:
            return self._policy_target(name)
        entry = self._models[name]
        spec, opened = entry.spec, entry.backend
        backend, provider = spec.backend, None
        name = spec.ref
        if backend is None or isinstance(backend, LocalBackend):
            provider, name = split_reference(spec.ref)
            backend = backend or _default_options(provider)
        location = opened.location if opened else None
        if isinstance(backend, RemoteBackend):
            row, name = remote_reference(spec.ref, backend)
            provider = row.name
            location = location or backend.shown_url or row.base_url
        return ModelTarget(
            model=spec.name,
            backend=backend,
            provider=provider,
            name=name,
            location=location,
            is_open=opened is not None,
        )

    def _policy_target(self, name: str) -> ModelTarget:
        return ModelTarget(
            model=name,
            backend=self._policy_backend(offline=False),
            provider=None,
            name=name,
            location=None,
            is_open=any(model.backend is not None for model in self._models.values()),
        )

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def name_of(self, model: ModelInput | None) -> str:
        """The name of ``model`` if it is one of ``models``; the default one for None.

        Raises:
            ValidationError: there is no such model here.
        """
        return self._default if model is None else self._known(model)

    def _known(self, model: ModelInput) -> str:
        if isinstance(model, os.PathLike):
            model = path_reference(model)
        names = self.names
        if not isinstance(model, str) or model not in names:
            hint = nearest(model, names) if isinstance(model, str) else ""
            known = ", ".join(map(shown, names[:SHOWN_MODELS]))
            known += ", …" if len(names) > SHOWN_MODELS else ""
            asked = without_secrets(model) if isinstance(model, str) and "://" in model else model
            raise ValidationError(
                f"model {shown(asked)} is not available here{hint}; the models are {known}",
                details={"param": "model"} | ({"value": asked} if isinstance(asked, str) else {}),
            )
        return model

    def backend(
        self,
        model: str | None = None,
        *,
        offline: bool = False,
        deadline: Deadline | None = None,
        stop: StopFlag | None = None,
    ) -> Backend:
        """The opened backend of a model; the first call opens it, and blocks while it does.

        Args:
            model: one of ``models``, None for the default one.
            offline: opening the model must not use the network.
            deadline: time until which to wait; the opening goes on in a thread after it.
            stop: ends the wait when it is signalled, like the deadline.

        Raises:
            StateError: the router is closed.
            ValidationError: an unknown name, or a backend that does not exist yet.
            ModelError: the model is missing or cannot be used.
            GenerationError: the deadline has passed.
            Stopped: the flag was signalled.
        """
        name = self.name_of(model)
        if name not in self._models:
            return self._policy_backend(offline=offline)
        with self._routing.opening(name):
            opened = self._opened_by(name, deadline, stop, offline=offline)
        return self._routing.counted(name, opened)

    def _opened_by(
        self, name: str, deadline: Deadline | None, stop: StopFlag | None, *, offline: bool
    ) -> Backend:
        if (deadline is None and stop is None) or not self._models[name].takes_time:
            return self._opened(name, offline=offline)
        return wait_for_opening(self._opening(name, offline=offline), deadline, stop)

    def _policy_backend(self, *, offline: bool) -> Backend:
        self._check_open()
        return self._routing.backend(offline=offline)

    def _opened(self, name: str, *, offline: bool) -> Backend:
        """Open the model unless it is open."""
        model = self._models[name]
        with model.gate.lock:
            self._check_open()
            if model.backend is None:
                backend = _open(self.resolve(name), offline=offline)
                if self._closed:  # while it was opened
                    backend.close()
                self._check_open()
                model.backend = backend
            return model.backend

    def _opening(self, name: str, *, offline: bool) -> "Future[Backend]":
        """The opening of a model in a thread, which all callers with a deadline share."""
        self._check_open()
        openings = self._models[name].openings
        with self._starts.lock:
            opening = openings.get(offline)
            if opening is not None and opening.under_way:
                return opening.future
            openings[offline] = opening = _Opening()
            work = partial(self._open_in_thread, name, opening, offline=offline)
            try:
                with thread_starts():
                    threading.Thread(target=work, name="talu-opening").start()
            except BaseException:
                del openings[offline]
                raise
            return opening.future

    def _open_in_thread(self, name: str, opening: "_Opening", *, offline: bool) -> None:
        try:
            opening.future.set_result(self._opened(name, offline=offline))
        except BaseException as error:  # noqa: BLE001 - the waiting callers raise it
            opening.future.set_exception(error)
        openings = self._models[name].openings
        with self._starts.lock:
            if openings.get(offline) is opening:  # not a later one
                del openings[offline]  # it keeps the model in memory
        if self._closed:  # ``close`` did not wait for this thread
            self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the client has been closed", "STATE_CLOSED")

    async def abackend(
        self,
        model: str | None = None,
        *,
        offline: bool = False,
        deadline: Deadline | None = None,
        stop: StopFlag | None = None,
    ) -> Backend:
        """Like ``backend``, awaited; a thread opens the model if necessary."""
        name = self.name_of(model)
        if name not in self._models:
            return self._policy_backend(offline=offline)
        with self._routing.opening(name):
            opened = await self._aopened(name, offline=offline, deadline=deadline, stop=stop)
        return self._routing.counted(name, opened)

    async def _aopened(
        self, name: str, *, offline: bool, deadline: Deadline | None, stop: StopFlag | None = None
    ) -> Backend:
        opened = self._models[name].backend
        if opened is not None:
            return opened
        if (deadline is None and stop is None) or not self._models[name].takes_time:
            return await beside_loop(self._opened, name, offline=offline)
        return await await_opening(self._opening(name, offline=offline), deadline, stop)

    def close(self) -> None:
        """Close every model that was opened; idempotent.

        A model that is being opened for a call with a time limit closes when it is open.
        """
        self._closed = True
        self.closing.signal()
        self._routing.close()
        for model in self._models.values():
            if any(opening.under_way for opening in list(model.openings.values())):
                continue
            with model.gate.lock:
                if model.backend is not None:
                    model.backend.close()
                    model.backend = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"Router({self.models}, default_model={self._default!r}{state})"


class _Model:
    """A model of the router, opened or not."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.gate = ForkSafeLock(reentrant=True)  # a signal handler may call in
        self.backend: Backend | None = None
        self.openings: dict[bool, _Opening] = {}  # by ``offline``

    @property
    def takes_time(self) -> bool:
        """Whether it has to be opened, and is not a backend object."""
        kind = self.spec.backend
        return self.backend is None and (kind is None or type(kind) in BACKENDS)


class _Opening:
    """A model that is being opened in a thread."""

    def __init__(self) -> None:
        self.future: Future[Backend] = Future()
        self.future.set_running_or_notify_cancel()  # no caller cancels it for the others
        self._process = os.getpid()

    @property
    def under_way(self) -> bool:
        """Whether the thread works on it; never in a forked child, which lacks the thread."""
        return not self.future.done() and self._process == os.getpid()


def _default_options(provider: str | None) -> LocalBackend | RemoteBackend:
    if provider is None:
        return LocalBackend()
    anthropic = PROVIDERS[provider].protocol == "anthropic"
    return AnthropicBackend() if anthropic else OpenAICompatibleBackend()


def _open(target: ModelTarget, *, offline: bool) -> Backend:
    options = target.backend
    kind = BACKENDS.get(type(options))
    if kind is None:
        return _checked_backend(target)
    if target.provider is not None and isinstance(options, LocalBackend):
        raise ValidationError(
            f"model reference {shown(target.model)} names the provider {target.provider}, and its "
            "backend is LocalBackend: leave out one of them",
            "AMBIGUOUS_BACKEND",
            {"param": "backend", "value": target.model},
        )
    with descriptor_opens():
        return _made(target, options, *kind, offline=offline)


def _made(
    target: ModelTarget, options: object, module: str, name: str, *, offline: bool
) -> Backend:
    """The backend that a class of talu makes."""
    opener = loaded(module, name)
    at = {} if target.provider is None else {"provider": target.provider}
    opened: Backend = opener(target.name, options, name=target.model, offline=offline, **at)
    return opened


def _checked_backend(target: ModelTarget) -> Backend:
    backend = target.backend
    if isinstance(backend, LocalBackend | RemoteBackend) or not callable(
        getattr(backend, "generate", None)
    ):
        kind = type(backend).__name__
        wrong = f"the backend of {shown(target.model)} is not a backend: it is a {kind}"
        raise ValidationError(wrong, details={"param": "backend"})
    return backend

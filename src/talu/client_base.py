"""What the sync and the async client share: their arguments, their models and their hooks."""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from talu.backends.remote.options import OnUnsupported
from talu.chat.observers import Hook, HookManager
from talu.chat.requests import raw_request
from talu.config import GenerationConfig, merged
from talu.deadline import Deadline
from talu.error_text import kind_of, shown
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.router.router import Router
from talu.router.scoring_methods import ScoringMethods
from talu.router.spec import CompletionOptions, ModelInput, backend_from
from talu.types import Handle, LocalBackend, Request

if TYPE_CHECKING:
    from talu.profile import Profile
    from talu.router.policies import Policy

__all__ = ["BaseClient"]

OPTIONS: dict[str, type] = {
    "base_url": str,
    "api_key": str,
    "org_id": str,
    "timeout_ms": int,
    "max_retries": int,
    "gpu_layers": int,
    "use_mmap": bool,
    "num_threads": int,
    "on_unsupported": str,
    "allow_insecure": bool,
}
NAMES = {str: "text", int: "a whole number", bool: "True or False"}


class BaseClient(ScoringMethods, Handle):
    """Base of both clients."""

    _instead = "make another one with the same models; clients in one process share open models"
    _async_hooks: bool

    def __init__(
        self,
        model: ModelInput | Sequence[ModelInput],
        profile: "Profile | None" = None,
        hooks: Iterable[Hook] | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        org_id: str | None = None,
        timeout_ms: int | None = None,
        max_retries: int | None = None,
        gpu_layers: int | None = None,
        use_mmap: bool | None = None,
        num_threads: int | None = None,
        *,
        on_unsupported: OnUnsupported | None = None,
        allow_insecure: bool | None = None,
        policy: "Policy | None" = None,
    ) -> None:
        if profile is not None and not isinstance(profile, loaded("talu.profile", "Profile")):
            wrong = f"profile must be a Profile, such as Profile('work'), got {kind_of(profile)}"
            raise ValidationError(wrong, details={"param": "profile"})
        local = {"gpu_layers": gpu_layers, "use_mmap": use_mmap, "num_threads": num_threads}
        remote = {
            "base_url": base_url,
            "api_key": api_key,
            "org_id": org_id,
            "timeout_ms": timeout_ms,
            "max_retries": max_retries,
            "on_unsupported": on_unsupported,
            "allow_insecure": allow_insecure,
        }
        _check_types({**local, **remote})
        self._profile = profile
        self._router = Router(model, backend=backend_from(local, remote), policy=policy)
        self._hooks = HookManager(hooks, allow_async=self._async_hooks)
        self._close = weakref.finalize(self, self._router.close)

    @property
    def models(self) -> list[str]:
        """The names of all models, in the given order."""
        return self._router.models

    @property
    def default_model(self) -> str:
        """The model to use when none is named; initially the policy, or the first model."""
        return self._router.default_model

    @default_model.setter
    def default_model(self, model: str) -> None:
        self._router.default_model = model

    @property
    def hooks(self) -> HookManager:
        """The hooks of every generation; they can be added and removed at any time."""
        return self._hooks

    @property
    def profile(self) -> "Profile | None":
        """The profile that stores the chats; None stores nothing."""
        return self._profile

    @property
    def router(self) -> Router:
        """The router that opens models by name; for advanced use."""
        return self._router

    def __repr__(self) -> str:
        if "_router" not in vars(self):  # the constructor failed, and a traceback shows it
            return f"{type(self).__name__}(not made)"
        state = "closed" if self._router.closed else "open"
        return f"{type(self).__name__}({self.models}, default={self.default_model!r}, {state})"

    def _raw(
        self,
        prompt: str,
        system: str | None,
        config: GenerationConfig | None,
        options: CompletionOptions | None,
        settings: Mapping[str, object],
        timeout: float | None,
    ) -> Request:
        self._check_open()
        deadline = Deadline.after(timeout)
        options = CompletionOptions() if options is None else options
        if not isinstance(options, CompletionOptions):
            wrong = f"completion_opts must be CompletionOptions, got {shown(options)}"
            raise ValidationError(wrong, details={"param": "completion_opts"})
        request = raw_request(
            prompt,
            system,
            merged(config, settings=settings),
            token_ids=options.token_ids,
            continue_from_token_id=options.continue_from_token_id,
            echo_prompt=options.echo_prompt,
        )
        return replace(request, deadline=deadline)


def _check_types(options: Mapping[str, object]) -> None:
    """Check the types of backend options; their ranges are checked when a model opens."""
    for name, value in options.items():
        kind = OPTIONS[name]
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if value is not None and not fits:
            local = name in LocalBackend.__dataclass_fields__
            # A value of a remote option may be the key in a wrong place.
            given = shown(value) if local else kind_of(value)
            wrong = f"{name} must be {NAMES[kind]} or None, got {given}"
            raise ValidationError(wrong, details={"param": name})

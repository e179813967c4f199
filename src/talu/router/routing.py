"""Connects a policy with the models of its router."""

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from talu.deadline import Deadline
from talu.error_text import kind_of, shown
from talu.exceptions import TaluError, ValidationError
from talu.protocols import Backend
from talu.router.hedging import Hedging
from talu.router.limits import Limits
from talu.router.policies import Policy
from talu.router.policy_backend import DirectBackend, PolicyBackend
from talu.router.policy_calls import PolicyCalls, checked_models
from talu.router.routed_generation import Choices
from talu.router.status import RouterStatus
from talu.router.targets import Target
from talu.types import Request

__all__ = ["Opener", "Routing"]


class Opener(Protocol):
    """Opens a model of the router."""

    def __call__(
        self, name: str, *, offline: bool, deadline: Deadline | None
    ) -> Awaitable[Backend]:
        """The opened backend."""


class Routing:
    """A policy, if there is one, and the state of the models that it asks or that have limits.

    Attributes:
        policy: the policy; None without one.
        models: the names of the policy's models; all models without a policy.
    """

    def __init__(
        self,
        policy: Policy | None,
        limits: Mapping[str, Limits | None],
        opener: Opener,
        opened: Callable[[str], Backend | None],
    ) -> None:
        """Check the policy against the models of the router.

        Args:
            policy: the policy.
            limits: the limits of each model of the router.
            opener: opens a model.
            opened: the backend of a model if it is open.

        Raises:
            ValidationError: it is not a policy, or names a model that the router does not have.
        """
        self.policy = policy
        self.models = list(limits) if policy is None else _checked(policy, list(limits))
        limited = {name for name, each in limits.items() if each is not None}
        asked = limited if policy is None else {*limited, *self.models}
        self._targets = {name: Target(name, limits[name]) for name in limits if name in asked}
        self._opener = opener
        self._opened = opened
        self._hedging = Hedging()
        self._calls = None if policy is None else PolicyCalls(policy)

    def backend(self, *, offline: bool) -> Backend:
        """The policy as a backend.

        Args:
            offline: opening a model must not use the network.
        """
        if self._calls is None:
            raise RuntimeError("there is no policy")
        targets = [self._targets[name] for name in self.models]
        opener = partial(self._open, offline=offline)
        return PolicyBackend(Choices(self._calls, targets, opener, self._hedging, self._opened))

    def close(self) -> None:
        """Wake the requests that wait for their turn; they fail, as later ones do."""
        for target in self._targets.values():
            target.close()

    def counted(self, name: str, backend: Backend) -> Backend:
        """The backend of a model, with generations that count if the model has a state here."""
        if (target := self._targets.get(name)) is None:
            return backend
        wait = target.limits.wait if self.policy is None else self.policy.wait
        return DirectBackend(backend, target, wait)

    @contextmanager
    def opening(self, name: str) -> Generator[None]:
        """Count a failure to open a model that is asked directly."""
        try:
            yield
        except TaluError as error:
            if (target := self._targets.get(name)) is not None:
                target.not_opened(error)
            raise

    def _open(self, name: str, request: Request, *, offline: bool) -> Awaitable[Backend]:
        return self._opener(name, offline=offline, deadline=request.deadline)

    def status(self) -> RouterStatus:
        """The state of the models."""
        for target in self._targets.values():
            target.sweep()
        return RouterStatus(
            policy=None if self.policy is None else self.policy.name,
            requests=self._hedging.requests,
            hedged=self._hedging.hedged,
            targets=tuple(target.status() for target in self._targets.values()),
        )


def _checked(policy: object, known: list[str]) -> list[str]:
    """The names of the policy's models; ``ValidationError`` for a policy that cannot be used."""
    wrong = None
    if isinstance(policy, type) and issubclass(policy, Policy):
        wrong = f"policy is the class {policy.__name__}: create a policy, as in {policy.__name__}()"
    elif not isinstance(policy, Policy):
        wrong = f"policy must be a policy of talu.router, as in Fallback(), got {kind_of(policy)}"
    elif not all(hasattr(policy, name) for name in ("name", "models", "hedge", "wait")):
        wrong = f"{type(policy).__name__}.__init__ must call super().__init__()"
    if wrong is not None or not isinstance(policy, Policy):
        raise ValidationError(wrong or "", details={"param": "policy"})
    chosen = checked_models(policy, known)
    if policy.hedge and len(chosen) == 1:
        raise ValidationError(
            f"hedge=True needs a second model, and the policy has only {shown(chosen[0])}: leave "
            "it out, or add a model",
            details={"param": "hedge"},
        )
    return chosen

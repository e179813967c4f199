"""Connects a policy with the models of its router."""

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Protocol

from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.protocols import Backend
from talu.router.hedging import Hedging
from talu.router.policies import Policy
from talu.router.status import RouterStatus
from talu.router.targets import Target
from talu.router.virtual import PolicyBackend
from talu.types import Request

__all__ = ["Opener", "Routing"]


class Opener(Protocol):
    """Opens a model of the router."""

    def __call__(
        self, name: str, *, offline: bool, deadline: Deadline | None
    ) -> Awaitable[Backend]:
        """The opened backend."""


class Routing:
    """A policy and the state of its models.

    Attributes:
        policy: the policy.
        name: its name as a model.
    """

    def __init__(self, policy: Policy, models: Sequence[str], opener: Opener) -> None:
        """Check the policy against the models of the router.

        Raises:
            ValidationError: it is not a policy, or names a model that the router does not have.
        """
        if not isinstance(policy, Policy):
            wrong = f"policy must be a policy of talu.router, as in Fallback(), got {shown(policy)}"
            raise ValidationError(wrong, details={"param": "policy"})
        self.policy = policy
        self.name = policy.name
        self._targets = [Target(name) for name in policy.check(models)]
        self._opener = opener
        self._hedging = Hedging()

    @property
    def models(self) -> list[str]:
        """The names of its models."""
        return [target.name for target in self._targets]

    def backend(self, *, offline: bool) -> Backend:
        """The policy as a backend.

        Args:
            offline: opening a model must not use the network.
        """
        return PolicyBackend(
            self.policy, self._targets, partial(self._open, offline=offline), self._hedging
        )

    def _open(self, name: str, request: Request, *, offline: bool) -> Awaitable[Backend]:
        return self._opener(name, offline=offline, deadline=request.deadline)

    def status(self) -> RouterStatus:
        """The state of the models."""
        return RouterStatus(
            policy=self.name,
            requests=self._hedging.requests,
            hedged=self._hedging.hedged,
            targets=tuple(target.status() for target in self._targets),
        )

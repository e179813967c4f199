"""The backend of a policy: a model that lets one of several models answer."""

from collections.abc import Collection
from typing import Any

from talu.bridge import Bridged
from talu.config import FIELDS
from talu.protocols import AsyncGeneration, Backend, Generation
from talu.router.hedging import Hedging
from talu.router.policies import First
from talu.router.policy_calls import PolicyCalls
from talu.router.routed_generation import Choices, RoutedGeneration
from talu.router.targets import Target
from talu.types import Capabilities, Request

__all__ = ["DirectBackend", "PolicyBackend"]


class PolicyBackend:
    """See ``talu.protocols.Backend``. Whether a model can do what is asked is seen when it opens.

    Attributes:
        asked: the policy, its models, and what their generations share.
    """

    def __init__(self, asked: Choices) -> None:
        """Make the backend of a policy and its models."""
        self.asked = asked

    @property
    def model(self) -> str:
        """The policy's name."""
        return self.asked.calls.policy.name

    @property
    def choices(self) -> list[str]:
        """The names of the models that the policy chooses from."""
        return [target.name for target in self.asked.targets]

    @property
    def location(self) -> str | None:
        """None: its models have their own."""
        return None

    @property
    def max_context_length(self) -> int | None:
        """None: that of its models may differ."""
        return None

    @property
    def settings(self) -> Collection[str]:
        """All; a model that does not honour one of those that are set is passed over."""
        return FIELDS

    @property
    def capabilities(self) -> Capabilities:
        """Text; ``Client.capabilities`` asks the models for the rest."""
        return Capabilities.of(())

    def generate(self, request: Request) -> Generation:
        """A generation by one of the models, on the background event loop."""
        return Bridged(lambda: self.agenerate(request))

    def agenerate(self, request: Request) -> AsyncGeneration:
        """A generation by one of the models."""
        return RoutedGeneration(self.asked, request, self.model)

    def close(self) -> None:
        """Do nothing: the router closes its models."""


class DirectBackend(PolicyBackend):
    """A backend that is asked without the policy; its generations count for its model as well."""

    def __init__(self, backend: Backend, target: Target, wait: float) -> None:
        """Make it of an open backend.

        Args:
            backend: the backend, which does everything but generate.
            target: the state of its model.
            wait: seconds for which a request without a time limit waits for its turn.
        """
        self._backend = backend
        first = PolicyCalls(First(wait=wait))
        super().__init__(Choices(first, [target], self._opened, Hedging()))

    async def _opened(self, name: str, request: Request) -> Backend:
        return self._backend

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._backend.model

    @property
    def choices(self) -> list[str]:
        """Nothing: it is one model."""
        return []

    @property
    def location(self) -> str | None:
        """The location of the backend."""
        return self._backend.location

    @property
    def max_context_length(self) -> int | None:
        """The backend's."""
        return self._backend.max_context_length

    @property
    def settings(self) -> Collection[str]:
        """The backend's."""
        return self._backend.settings

    @property
    def capabilities(self) -> Capabilities:
        """The backend's."""
        return self._backend.capabilities

    def __getattr__(self, name: str) -> Any:
        """What else the backend can do."""
        if name == "_backend":  # of an object that ``__init__`` has not made
            raise AttributeError(name)
        return getattr(self._backend, name)

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()

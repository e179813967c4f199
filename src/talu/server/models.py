"""Holds the models of a server by name."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from talu.chat.observers import Hook
from talu.client import AsyncClient
from talu.error_text import nearest, shown
from talu.router.policies import Policy
from talu.router.spec import ModelInput
from talu.server.failures import Failure

__all__ = ["Models"]


class Models:
    """The models that a server offers; each is opened by its first request."""

    def __init__(
        self, models: Sequence[ModelInput], hooks: Sequence[Hook], policy: Policy | None = None
    ) -> None:
        """Register the models; none is opened.

        Raises:
            ValidationError: something is not a model, or is given twice.
        """
        self._client = AsyncClient(list(models), hooks=hooks, policy=policy)

    @property
    def names(self) -> list[str]:
        """The names that a request may ask for."""
        return self._client.router.names

    def name_of(self, name: str | None) -> str:
        """The name of a model; the default one for None.

        Raises:
            Failure: there is no such model.
        """
        if name is None:
            return self._client.router.default_model
        self.check(name)
        return name

    def check(self, name: str) -> None:
        """``Failure`` if no model has this name: a request never names a file or an address."""
        if name not in self.names:
            text = f"there is no model {shown(name)} here{nearest(name, self.names)}"
            raise Failure(404, "MODEL_NOT_FOUND", f"{text}; /v1/models lists them", param="model")

    @asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[AsyncClient]:
        """The client of a model, which stays open meanwhile.

        Raises:
            Failure: there is no such model.
        """
        self.check(name)
        yield self._client

    async def close(self) -> None:
        """Close all models."""
        await self._client.close()

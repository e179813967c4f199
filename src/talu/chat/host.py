"""What a chat needs of the client that it came from, so that it need not know one."""

from typing import Protocol

from talu.chat.hooks import HookManager
from talu.protocols import Backend

__all__ = ["Host", "ModelSource"]


class ModelSource(Protocol):
    """Where a chat finds its backend."""

    @property
    def default_model(self) -> str:
        """The model of chats that name none."""

    @property
    def models(self) -> list[str]:
        """The names of all models."""

    def name_of(self, model: str | None) -> str:
        """The name of a known model, of the default one for None."""

    def backend(self, model: str | None = None, *, offline: bool = False) -> Backend:
        """The opened model; blocks while it opens."""


class Host(Protocol):
    """What a chat needs of its client."""

    @property
    def router(self) -> ModelSource:
        """Source of backends."""

    @property
    def hooks(self) -> HookManager:
        """Observers of every generation."""

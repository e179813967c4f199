"""What a chat needs of the client that it came from, and what it has in place of one.

Knows routers and hooks. Refuses to know clients: they are made of chats.
"""

import weakref
from typing import Protocol

from talu.chat.observers import HookManager
from talu.router.router import Router
from talu.router.spec import ModelInput

__all__ = ["Host", "OwnHost"]


class Host(Protocol):
    """What a chat needs of its client."""

    @property
    def router(self) -> Router:
        """Source of backends."""

    @property
    def hooks(self) -> HookManager:
        """Observers of every generation."""


class OwnHost:
    """The small client of a chat that was made of a model's name; the chat closes it.

    Attributes:
        router: the one model, opened on first use and shared by all that use it.
        hooks: observers of the chat's generations.
    """

    def __init__(self, model: ModelInput, *, allow_async: bool) -> None:
        self.router = Router([model])
        self.hooks = HookManager(allow_async=allow_async)
        self._close = weakref.finalize(self, self.router.close)

    def close(self) -> None:
        """Give back the model; idempotent."""
        self._close()

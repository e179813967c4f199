"""The source of a chat's models and hooks: a client, or a minimal one that the chat owns."""

import weakref
from typing import Protocol

from talu.chat.observers import HookManager
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.router.router import Router
from talu.router.spec import ModelInput

__all__ = ["Host", "OwnHost", "check_host"]


class Host(Protocol):
    """The parts of a client that a chat uses."""

    @property
    def router(self) -> Router:
        """The router that opens backends."""

    @property
    def hooks(self) -> HookManager:
        """The hooks of every generation."""


class OwnHost:
    """The minimal client of a chat that was created from a model's name; the chat closes it.

    Attributes:
        router: a router with this one model, opened on first use.
        hooks: the hooks of the chat's generations.
    """

    def __init__(self, model: ModelInput, *, allow_async: bool) -> None:
        self.router = Router([model])
        self.hooks = HookManager(allow_async=allow_async)
        self._close = weakref.finalize(self, self.router.close)

    def close(self) -> None:
        """Release the model; idempotent."""
        self._close()


def check_host(client: object) -> None:
    """``ValidationError`` if this is neither a client nor None."""
    if client is not None and not hasattr(client, "router"):
        wrong = f"client must be a Client, got {shown(client)}"
        raise ValidationError(wrong, details={"param": "client"})

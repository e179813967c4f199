"""Observers of generations: who they are, and calling them without being disturbed by them."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from talu.config import GenerationConfig
from talu.exceptions import ValidationError

if TYPE_CHECKING:
    from talu.chat.answer import Answer
    from talu.chat.conversation import Conversation

__all__ = ["Hook", "HookManager"]

LOGGER = logging.getLogger("talu.hooks")


class Hook:
    """Base of observers: override what you need.

    Every generation has exactly one start and one end, and one first token if any token came,
    streamed or not. On async clients the methods may be ``async def``. An exception in a hook is
    logged (logger ``talu.hooks``) and disturbs nothing.
    """

    def on_generation_start(
        self,
        chat: "Conversation | None",
        input_text: str,
        *,
        config: GenerationConfig | None = None,
    ) -> Awaitable[None] | None:
        """Called before a generation; ``chat`` is None for a raw completion."""
        return None

    def on_first_token(self, chat: "Conversation | None", time_ms: float) -> Awaitable[None] | None:
        """Called once, ``time_ms`` after the start."""
        return None

    def on_generation_end(
        self,
        chat: "Conversation | None",
        response: "Answer[Any] | None",
        *,
        error: BaseException | None = None,
    ) -> Awaitable[None] | None:
        """Called at the end; ``response`` is None when ``error`` is given."""
        return None


CALLBACKS = ("on_generation_start", "on_first_token", "on_generation_end")


class HookManager:
    """The hooks of a client, in the order in which they are called."""

    def __init__(self, hooks: Iterable[Hook] | None = None, *, allow_async: bool = True) -> None:
        self._hooks: list[Hook] = []
        self._allow_async = allow_async
        for hook in hooks or ():
            self.add(hook)

    @property
    def hooks(self) -> list[Hook]:
        """A copy of the list."""
        return list(self._hooks)

    def add(self, hook: Hook) -> None:
        """Call this hook from the next generation on, those of existing chats included.

        Raises:
            ValidationError: not a ``Hook``, or an async one given to a sync client.
        """
        if not isinstance(hook, Hook):
            wrong = f"a hook must be an instance of a subclass of talu.chat.Hook, got {hook!r}"
            raise ValidationError(wrong, details={"param": "hook"})
        for name in CALLBACKS:
            if not self._allow_async and inspect.iscoroutinefunction(getattr(hook, name)):
                wrong = f"{type(hook).__name__}.{name} is async: give it to AsyncClient"
                raise ValidationError(
                    f"{wrong}, or make it a plain function", details={"param": "hook"}
                )
        self._hooks.append(hook)

    def remove(self, hook: Hook) -> None:
        """Stop calling this hook; ``ValueError`` when it is not there."""
        self._hooks.remove(hook)

    async def dispatch(
        self,
        call: Callable[..., Awaitable[None]],
        name: str,
        *args: object,
        **kwargs: object,
    ) -> None:
        """Call one method of every hook through ``call``, whatever the ones before it did."""
        for hook in self.hooks:
            try:
                await call(getattr(hook, name), *args, **kwargs)
            except Exception:
                LOGGER.warning("%s.%s failed", type(hook).__name__, name, exc_info=True)

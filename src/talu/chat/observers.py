"""Observers of generations: who they are, and calling them without being disturbed by them.

It decides when a hook is called, and makes sure that each call happens once.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from talu.chat.answer import Answer
from talu.config import GenerationConfig
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.forks import ForkSafeLock
from talu.types import Handle

__all__ = ["Generation", "Hook", "HookManager", "Observation", "is_async"]

LOGGER = logging.getLogger("talu.hooks")
T = TypeVar("T")
Call = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What is known of a generation when it starts.

    Attributes:
        operation: ``"text_completion"`` for a raw completion, ``"chat"`` otherwise.
        model: the name by which the client knows the model.
        chat: the ``Chat`` or ``AsyncChat`` whose turn it is, None for a raw completion.
        input_text: the user's message, or the raw prompt.
        messages: all that the model is shown, as OpenAI-style dictionaries; None for a raw
            completion.
        config: the settings of call and chat, merged; what is unset is the model's to fill.
        stream: the answer is read while it is generated.
    """

    operation: Literal["chat", "text_completion"]
    model: str
    chat: Any
    input_text: str
    messages: tuple[Mapping[str, Any], ...] | None
    config: GenerationConfig
    stream: bool


class Hook:
    """Base of observers: override what you need.

    Every generation has exactly one start and one end, and exactly one first token if a token
    came, streamed or not, even if it fails, is cancelled, or its stream is closed, left or dropped.
    Embeddings are not generations.

    A hook is called where the answer is read, and is waited for, so it should be quick. The end of
    a stream that was dropped comes soon after it: on the stream's event loop, or in a thread of its
    own, because Python may notice the drop in the middle of any code.

    ``chat`` is a ``Chat`` or ``AsyncChat``, None for a raw completion; ``response`` is any of the
    classes of answers. Both are typed ``Any``, so that an override can name the class that its
    client has.

    On async clients the methods may be ``async def``; ``for_generation`` is always a plain one. An
    exception in a hook disturbs nothing: it is logged by the logger ``talu.hooks``, as a warning
    the first time and at debug level when the same method fails in the same way again.
    """

    def for_generation(self, generation: Generation) -> "Hook":
        """The hook that is told of this one generation: this one, unless overridden.

        Called right before the start. Give a new object to keep what belongs to one generation
        from its start to its end; the callbacks themselves do not say which one they speak of.
        """
        return self

    def on_generation_start(
        self,
        chat: Any,
        input_text: str,
        *,
        config: GenerationConfig | None = None,
    ) -> Awaitable[None] | None:
        """Called before a generation.

        Args:
            chat: whose turn it is, None for a raw completion.
            input_text: the user's message, or the raw prompt.
            config: the settings of call and chat, merged.
        """
        return None

    def on_first_token(self, chat: Any, time_ms: float) -> Awaitable[None] | None:
        """Called when the first token is read, of reasoning or of a tool call too.

        Args:
            chat: as at the start.
            time_ms: milliseconds since the start. A stream that is read late has a late one; what
                the model needed is in ``response.timings``.
        """
        return None

    def on_generation_end(
        self,
        chat: Any,
        response: Any,
        *,
        error: BaseException | None = None,
    ) -> Awaitable[None] | None:
        """Called at the end.

        Args:
            chat: as at the start.
            response: the answer, also one that was cut short: its ``finish_reason`` is
                ``cancelled`` then. None when ``error`` is given.
            error: what failed; ``asyncio.CancelledError`` or ``KeyboardInterrupt`` when the caller
                was stopped before the model began.
        """
        return None


CALLBACKS = ("for_generation", "on_generation_start", "on_first_token", "on_generation_end")


class _Registered:
    """A hook, and which of its failures have been reported."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self._reported: set[tuple[str, type[Exception]]] = set()

    async def contain(self, name: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Make a call, and log its failure: loudly a new one, so that a log is not flooded."""
        try:
            return await call()
        except Exception as error:
            known = (name, type(error)) in self._reported
            self._reported.add((name, type(error)))
            level = logging.DEBUG if known else logging.WARNING
            LOGGER.log(level, "%s.%s failed", type(self.hook).__name__, name, exc_info=True)
            return None


class HookManager(Handle):
    """The hooks of a client, in the order in which they are called; for any threads."""

    _instead = "make another one of the same hooks, HookManager(manager.hooks)"

    def __init__(self, hooks: Iterable[Hook] | None = None, *, allow_async: bool = True) -> None:
        self._registered: list[_Registered] = []
        self._gate = ForkSafeLock(reentrant=True)  # for a signal handler that asks
        self._allow_async = allow_async
        if hooks is not None and not isinstance(hooks, Iterable):
            wrong = f"hooks must be a list of hooks, got {shown(hooks)}"
            raise ValidationError(wrong, details={"param": "hooks"})
        for hook in hooks or ():
            self.add(hook)

    @property
    def hooks(self) -> list[Hook]:
        """A copy of the list."""
        return [registered.hook for registered in self._registered]

    def add(self, hook: Hook) -> None:
        """Call this hook from the next generation on, those of existing chats included.

        Raises:
            ValidationError: not a ``Hook``, or an async one given to a sync client.
        """
        if not isinstance(hook, Hook):
            wrong = f"a hook must be an instance of a subclass of talu.chat.Hook, got {shown(hook)}"
            raise ValidationError(wrong, details={"param": "hook"})
        for name in CALLBACKS:
            if not is_async(getattr(hook, name)):
                continue
            wrong = f"{type(hook).__name__}.{name} is async"
            if name == "for_generation":
                wrong += ": make it a plain function, only the callbacks can be awaited"
            elif self._allow_async:
                continue
            else:
                wrong += ": give it to AsyncClient, or make it a plain function"
            raise ValidationError(wrong, details={"param": "hook"})
        with self._gate.lock:
            self._registered.append(_Registered(hook))

    def remove(self, hook: Hook) -> None:
        """Call it no more from the next generation on.

        Raises:
            ValidationError: it is not there.
        """
        with self._gate.lock:
            hooks = self.hooks
            if hook not in hooks:
                wrong = f"there is no hook {shown(hook)} to remove; there are {shown(hooks)}"
                raise ValidationError(wrong, details={"param": "hook"})
            del self._registered[hooks.index(hook)]

    def observe(self, generation: Generation, call: Call) -> "Observation":
        """Let the hooks of this moment observe a generation, through ``call``."""
        return Observation(list(self._registered), generation, call)


class _News(NamedTuple):
    """A call of one method of every hook."""

    callback: str
    arguments: tuple[object, ...]
    named: Mapping[str, object] = MappingProxyType({})


class _Observer:
    """A hook that is told of one generation, and how far it has been told."""

    def __init__(self, registered: _Registered, hook: Hook) -> None:
        self._registered = registered
        self._hook = hook
        self._told = 0

    async def hear(self, news: Sequence[_News], call: Call) -> None:
        """Be told what is new of all the news so far."""
        for number in range(self._told, len(news)):
            made = partial(call, self._make, number, news[number])
            await self._registered.contain(news[number].callback, made)

    def _make(self, number: int, news: _News) -> object:
        method = getattr(self._hook, news.callback)
        if self._told != number:  # another thread or an interrupted call has made it
            return None
        self._told += 1  # right before the call: an interrupt after it is the hook's own
        return method(*news.arguments, **news.named)


class Observation:
    """One generation, told to its hooks: one start, at most one first token, one end.

    The events are stored first and delivered afterwards. An interrupt (Ctrl-C) in between or during
    delivery leaves the rest to the next delivery, so that no event is lost or delivered twice.

    Attributes:
        first_token_ms: milliseconds from the start to the first token; None before it came.
        ending: the answer, and the error in its place; None before the end.
    """

    def __init__(self, hooks: list[_Registered], generation: Generation, call: Call) -> None:
        self._hooks = hooks
        self._generation = generation
        self._call = call
        self._observers: list[_Observer] = []
        self.first_token_ms: float | None = None
        self.ending: tuple[Answer[Any] | None, BaseException | None] | None = None

    async def start(self) -> None:
        """Tell the start."""
        observers = []
        for registered in self._hooks:
            opened = partial(_observer, registered.hook, self._generation)
            if (observer := await registered.contain("for_generation", opened)) is not None:
                observers.append(_Observer(registered, observer))
        self._observers = observers
        await self.tell()

    async def tell(self) -> None:
        """Tell every hook what it has not been told, also when one before it was interrupted."""
        if not self._observers:
            self.ending = None
            return
        ending, news = self.ending, self._news()
        try:
            for observer in self._observers:
                await observer.hear(news, self._call)
        except BaseException:
            await self.tell()
            raise
        if ending is not None:  # its error keeps alive whatever was at work on it
            self._observers, self.ending = [], None

    def _news(self) -> list[_News]:
        chat = self._generation.chat
        text, config = self._generation.input_text, self._generation.config
        news = [_News("on_generation_start", (chat, text), {"config": config})]
        if self.first_token_ms is not None:
            news.append(_News("on_first_token", (chat, self.first_token_ms)))
        if self.ending is not None:
            response, error = self.ending
            news.append(_News("on_generation_end", (chat, response), {"error": error}))
        return news


async def _observer(hook: Hook, generation: Generation) -> Hook:
    observer = hook.for_generation(generation)
    if not isinstance(observer, Hook):
        raise TypeError(f"for_generation must give a Hook, got {shown(observer)}")
    return observer


def is_async(method: Callable[..., object]) -> bool:
    """Whether a call of it has to be awaited, as far as it says so."""
    return any(map(inspect.iscoroutinefunction, (method, type(method).__call__)))

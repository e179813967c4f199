"""The hook interface, and the delivery of generation events to hooks.

Each event reaches each hook once, and a failing hook does not affect the generation.
"""

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar, cast

from talu.chat.answer import Answer
from talu.config import GenerationConfig
from talu.error_text import kind_of, shown
from talu.exceptions import ValidationError
from talu.forks import ForkSafeLock
from talu.tools.calls import ToolRun
from talu.types import Attempt, Handle, is_iterable

__all__ = ["Generation", "Hook", "HookManager", "Observation", "is_async"]

LOGGER = logging.getLogger("talu.hooks")
T = TypeVar("T")
Call = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A description of a generation at its start.

    Attributes:
        operation: ``"text_completion"`` for a raw completion, ``"chat"`` otherwise.
        model: the client's name of the model.
        chat: the ``Chat`` or ``AsyncChat`` of the turn, None for a raw completion.
        input_text: the user's message, or the raw prompt.
        messages: the whole conversation sent to the model, as OpenAI-style dictionaries; None for
            a raw completion. Without the ``provider_data`` of remote models.
        config: the merged settings of call and chat; the model supplies those that are unset.
        stream: the answer is read while it is generated.
        began_at: the value of ``time.perf_counter()`` at the start, from which times count.
    """

    operation: Literal["chat", "text_completion"]
    model: str
    chat: Any
    input_text: str
    messages: tuple[Mapping[str, Any], ...] | None
    config: GenerationConfig
    stream: bool
    began_at: float = field(default_factory=time.perf_counter)


class Hook:
    """Base class of hooks, which observe generations; override the methods you need.

    Every generation has exactly one start and one end, and exactly one first token if there was a
    token, streamed or not, even if it fails, is cancelled, or its stream is closed or dropped.
    Opening the model, where it is not open yet, is part of the generation, and may fail.
    Embedding a text is not a generation.

    A hook runs where the answer is read and blocks the reader, so it should be quick. The end of a
    dropped stream is reported soon afterwards: on the stream's event loop, or in a separate thread,
    because Python may finalize the stream in the middle of any code.

    ``chat`` is a ``Chat`` or ``AsyncChat``, None for a raw completion; ``response`` is any of the
    response classes. Both are typed ``Any``, so that an override can use the class of its client.

    On async clients the methods may be ``async def``, except ``for_generation``. An exception in a
    hook does not affect the generation: the logger ``talu.hooks`` logs it, as a warning the first
    time and at debug level when the same method raises the same type again.
    """

    def for_generation(self, generation: Generation) -> "Hook":
        """The hook that observes this generation: this one, unless overridden.

        Called right before the start. Return a new object to keep state for one generation; the
        callbacks themselves do not say which generation they belong to.
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
            chat: the chat of the turn, None for a raw completion.
            input_text: the user's message, or the raw prompt.
            config: the merged settings of call and chat.
        """
        return None

    def on_first_token(self, chat: Any, time_ms: float) -> Awaitable[None] | None:
        """Called when the first token is read, which may belong to reasoning or a tool call.

        Args:
            chat: as at the start.
            time_ms: milliseconds since the start, including the time to open the model and the
                time before a stream was read;
                ``response.timings`` has the model's own time.
        """
        return None

    def on_tool_run(self, chat: Any, run: ToolRun) -> Awaitable[None] | None:
        """Called when a tool call has been carried out, or has failed, between two requests.

        Args:
            chat: as at the start.
            run: the call, the result that the model gets, its duration and its failure.
        """
        return None

    def on_attempt(self, chat: Any, attempt: Attempt) -> Awaitable[None] | None:
        """Called at the end for each model that a router has asked, in order.

        Without a policy, called for each request to a remote model if it was repeated, and for
        each model of a race, at its own end: one that was slower is ``SLOWER``.

        Args:
            chat: as at the start.
            attempt: which model it was, how long it took, and why it failed if it did.
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
            response: the answer; its ``finish_reason`` is ``cancelled`` if it was cut short. None
                when ``error`` is given.
            error: the failure; ``asyncio.CancelledError`` or ``KeyboardInterrupt`` when the caller
                was stopped before the model started.
        """
        return None


CALLBACKS = (
    "for_generation",
    "on_generation_start",
    "on_first_token",
    "on_tool_run",
    "on_attempt",
    "on_generation_end",
)


class _Registered:
    """A registered hook, and the failures of it that have been logged."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self._reported: set[tuple[str, type[Exception]]] = set()

    async def contain(self, name: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Make a call and log its failure, a repeated one at debug level only."""
        try:
            return await call()
        except Exception as error:
            known = (name, type(error)) in self._reported
            self._reported.add((name, type(error)))
            level = logging.DEBUG if known else logging.WARNING
            LOGGER.log(level, "%s.%s failed", type(self.hook).__name__, name, exc_info=True)
            return None


class HookManager(Handle):
    """The hooks of a client, in the order in which they are called; thread-safe."""

    _instead = "make a new one with the same hooks, HookManager(manager.hooks)"

    def __init__(self, hooks: Iterable[Hook] | None = None, *, allow_async: bool = True) -> None:
        self._registered: list[_Registered] = []
        self._gate = ForkSafeLock(reentrant=True)  # a signal handler may add or remove hooks
        self._allow_async = allow_async
        if hooks is None:
            return
        if not is_iterable(hooks) or isinstance(hooks, str | bytes | Mapping):
            wrong = f"hooks must be a list of hooks, got {kind_of(hooks)}"
            raise ValidationError(wrong, details={"param": "hooks"})
        for hook in hooks:
            self.add(hook)

    @property
    def hooks(self) -> list[Hook]:
        """A copy of the list."""
        return [registered.hook for registered in self._registered]

    def add(self, hook: Hook) -> None:
        """Call this hook from the next generation on, including those of existing chats.

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
        """Stop calling this hook from the next generation on.

        Raises:
            ValidationError: it is not registered.
        """
        with self._gate.lock:
            hooks = self.hooks
            if hook not in hooks:
                wrong = f"there is no hook {shown(hook)} to remove; there are {shown(hooks)}"
                raise ValidationError(wrong, details={"param": "hook"})
            del self._registered[hooks.index(hook)]

    def observe(self, generation: Generation, call: Call) -> "Observation":
        """Let the current hooks observe a generation; ``call`` calls their methods."""
        return Observation(list(self._registered), generation, call)


class _Notification(NamedTuple):
    """A notification: the method to call on every hook, and its arguments."""

    callback: str
    arguments: tuple[object, ...]
    named: Mapping[str, object] = MappingProxyType({})


class _Observer:
    """A hook that observes one generation, and the number of events it has received."""

    def __init__(self, registered: _Registered, hook: Hook) -> None:
        self._registered = registered
        self._hook = hook
        self._delivered = 0

    async def deliver(self, notifications: Sequence[_Notification], call: Call) -> None:
        """Call the hook for each of these notifications that it has not received."""
        for number in range(self._delivered, len(notifications)):
            made = partial(call, self._make, number, notifications[number])
            await self._registered.contain(notifications[number].callback, made)

    def _make(self, number: int, notification: _Notification) -> object:
        method = getattr(self._hook, notification.callback)
        if self._delivered != number:  # another thread or an interrupted call has delivered it
            return None
        self._delivered += 1  # right before the call: a later interrupt hits the hook itself
        return method(*notification.arguments, **notification.named)


class Observation:
    """Reports one generation to its hooks: one start, at most one first token, one end.

    The events are recorded first and delivered afterwards. An interrupt (Ctrl-C) in between or
    during delivery leaves the rest to the next delivery, so no event is lost or delivered twice.

    Attributes:
        attempts: those of the answer or the error; set before ``ending``.
        ending: the answer or the error; None before the end.
    """

    def __init__(self, hooks: list[_Registered], generation: Generation, call: Call) -> None:
        self._hooks = hooks
        self._generation = generation
        self._call = call
        self._observers: list[_Observer] = []
        self._noted: list[_Notification] = []  # between start and end; it only grows
        self.attempts: tuple[Attempt, ...] = ()
        self.ending: tuple[Answer[Any] | None, BaseException | None] | None = None

    async def start(self) -> None:
        """Report the start."""
        self._generation = replace(self._generation, began_at=time.perf_counter())
        observers = []
        for registered in self._hooks:
            opened = partial(_observer, registered.hook, self._generation)
            if (observer := await registered.contain("for_generation", opened)) is not None:
                observers.append(_Observer(registered, observer))
        self._observers = observers
        await self.deliver()

    @property
    def first_token_ms(self) -> float | None:
        """Milliseconds from the start to the first token; None before it."""
        for notification in self._noted:
            if notification.callback == "on_first_token":
                return cast("float", notification.arguments[1])
        return None

    def note_first_token(self) -> None:
        """Record the first token, now."""
        self._note("on_first_token", self.elapsed_ms())

    def note_tool_runs(self, runs: Sequence[ToolRun]) -> None:
        """Record the tool calls that have ended so far, each once."""
        noted = sum(notification.callback == "on_tool_run" for notification in self._noted)
        for run in runs[noted:]:
            self._note("on_tool_run", run)

    def _note(self, callback: str, value: object) -> None:
        self._noted.append(_Notification(callback, (self._generation.chat, value)))

    def elapsed_ms(self) -> float:
        """Milliseconds since the start."""
        return (time.perf_counter() - self._generation.began_at) * 1000

    async def deliver(self) -> None:
        """Deliver pending events to every hook, even if an earlier hook is interrupted."""
        if not self._observers:
            self.ending = None
            return
        ending, notifications = self.ending, self._notifications()
        try:
            for observer in self._observers:
                await observer.deliver(notifications, self._call)
        except BaseException:
            await self.deliver()
            raise
        if ending is not None:  # the traceback of the error would keep its frames alive
            self._observers, self.ending = [], None

    def _notifications(self) -> list[_Notification]:
        chat = self._generation.chat
        text, config = self._generation.input_text, self._generation.config
        notifications = [_Notification("on_generation_start", (chat, text), {"config": config})]
        notifications += self._noted
        if self.ending is not None:
            response, error = self.ending
            notifications += [_Notification("on_attempt", (chat, each)) for each in self.attempts]
            notifications.append(
                _Notification("on_generation_end", (chat, response), {"error": error})
            )
        return notifications


async def _observer(hook: Hook, generation: Generation) -> Hook:
    observer = hook.for_generation(generation)
    if not isinstance(observer, Hook):
        raise TypeError(f"for_generation must return a Hook, got {shown(observer)}")
    return observer


def is_async(method: Callable[..., object]) -> bool:
    """Whether it is declared ``async``, so that a call has to be awaited."""
    return any(map(inspect.iscoroutinefunction, (method, type(method).__call__)))

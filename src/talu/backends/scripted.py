"""A backend with scripted answers, for testing programs that use talu without a model.

It ignores the settings of a request. It records the requests, so that a test can check what would
have reached a model.
"""

import inspect
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Self

from talu.config import FIELDS
from talu.exceptions import GenerationError, StateError, ValidationError
from talu.protocols import AsyncGeneration, Generation
from talu.types import (
    Capabilities,
    Done,
    Event,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    Request,
    TextDelta,
    Timings,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
)

__all__ = ["ScriptedModel", "Step"]

Step = str | Event | Exception | Callable[[], Any]


class ScriptedModel:
    """Answers the first request with the first script, the second with the second, and so on.

    A script is a text, streamed word by word, or a list of steps. A step is a text (one piece,
    one token), an event (``ReasoningDelta``, ``ToolCallEvent``, ``Done`` …), an exception to
    raise, or a function to call, whose result is awaited if it is awaitable: ``event.wait`` of a
    ``threading.Event`` or an ``asyncio.Event`` pauses the script until the test sets the event. A
    script without ``Done`` ends with one that counts the script's tokens.

    Use it as ``Client(ModelSpec("any name", ScriptedModel("Hello there.")))``.

    Attributes:
        requests: the requests so far.
        active: number of generations that are being read.
        closed: whether ``close`` was called.
    """

    def __init__(
        self,
        *scripts: str | Iterable[Step],
        model: str = "scripted",
        max_context_length: int | None = None,
    ) -> None:
        self._scripts = [_steps(script) for script in scripts]
        self._model = model
        self._max_context_length = max_context_length
        self.requests: list[Request] = []
        self.active = 0
        self.closed = False

    @property
    def model(self) -> str:
        """The model name in answers."""
        return self._model

    @property
    def location(self) -> None:
        """None: it has no folder and no URL."""
        return None

    @property
    def max_context_length(self) -> int | None:
        """The value given to the constructor."""
        return self._max_context_length

    def generate(self, request: Request) -> Generation:
        """Plays the next script."""
        return _Playing(self, request)

    def agenerate(self, request: Request) -> AsyncGeneration:
        """Plays the next script, awaiting the results of its functions."""
        return _AsyncPlaying(self, request)

    def render(self, request: Request) -> tuple[str, list[int]]:
        """The messages as lines of ``role: content``; every word is a token."""
        if request.messages is None:
            text = request.prompt or ""
        else:
            lines = [f"{message['role']}: {message['content']}" for message in request.messages]
            text = "\n".join(lines)
        return text, list(request.token_ids or range(len(text.split())))

    def count(self, request: Request) -> int:
        """The number of words of the prompt."""
        return len(self.render(request)[1])

    @property
    def settings(self) -> Collection[str]:
        """All, and those of tools: they are ignored, and recorded in ``requests``."""
        return (*FIELDS, "tools", "tool_choice", "parallel_tool_calls")

    @property
    def capabilities(self) -> Capabilities:
        """What a script can contain: text, tool calls and log-probabilities."""
        return Capabilities.of(self.settings)

    def close(self) -> None:
        """Refuse further requests."""
        self.closed = True

    def _next_script(self, request: Request) -> list[Step]:
        if self.closed:
            raise StateError("the scripted model has been closed", "STATE_CLOSED")
        number = len(self.requests)
        self.requests.append(request)
        if number >= len(self._scripts):
            known = len(self._scripts)
            raise GenerationError(f"the scripted model has {known} answers, this is one more")
        return self._scripts[number]


class _Play:
    """One script being played: turns steps into events and counts the tokens."""

    def __init__(self, model: ScriptedModel, request: Request) -> None:
        self.cancelled = False
        self._model = model
        self._request = request
        self._script: list[Step] = []
        self._prompt, self._prompt_ids = model.render(request)
        self._tokens = 0
        self._calls = 0
        self._done = False

    def start(self) -> None:
        """Take the next script."""
        self._script = self._model._next_script(self._request)

    @contextmanager
    def playing(self) -> Generator[Iterator[Step]]:
        """The steps until the end or a cancellation."""
        self._model.active += 1
        try:
            yield takewhile(self._goes_on, self._script)
        finally:
            self._model.active -= 1

    def _goes_on(self, _: Step) -> bool:
        if self._request.deadline is not None and not self.cancelled:
            self._request.deadline.check()
        return not self.cancelled

    def events(self, step: Step) -> Generator[Event]:
        """The events of a step: none for a function."""
        match step:
            case Exception():
                raise step
            case str():
                self._tokens += 1
                yield TextDelta(step, (self._tokens - 1,))
            case (
                TextDelta()
                | ReasoningDelta()
                | ReasoningEnd()
                | ToolCallDelta()
                | ToolCallEvent()
                | Done()
            ):
                self._tokens += len(getattr(step, "tokens", ()))
                self._calls += isinstance(step, ToolCallEvent)
                self._done = isinstance(step, Done)
                yield step

    def end(self) -> Generator[Event]:
        """The last event, if the script had none."""
        if not self._done:
            reason = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
            yield self.done(FinishReason.CANCELLED if self.cancelled else reason)

    def done(self, reason: FinishReason) -> Done:
        """A last event with the counts so far."""
        usage = Usage(len(self._prompt_ids), self._tokens)
        notes = self._request.notes
        return Done(reason, usage, Timings(), self._model.model, prompt=self._prompt, notes=notes)


class _Played:
    """A script as a generation: what the readers of both kinds share."""

    def __init__(self, model: ScriptedModel, request: Request) -> None:
        self._play = _Play(model, request)

    def cancel(self) -> None:
        self._play.cancelled = True

    def so_far(self) -> Done:
        return self._play.done(FinishReason.CANCELLED)


class _Playing(_Played):
    def __init__(self, model: ScriptedModel, request: Request) -> None:
        super().__init__(model, request)
        self._events = _events(self._play)  # does not refer to this object: no cycle

    def start(self) -> None:
        self._play.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        self._events.close()


class _AsyncPlaying(_Played):
    def __init__(self, model: ScriptedModel, request: Request) -> None:
        super().__init__(model, request)
        self._events = _async_events(self._play)

    async def start(self) -> None:
        self._play.start()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def aclose(self) -> None:
        await self._events.aclose()


def _events(play: _Play) -> Generator[Event]:
    with play.playing() as steps:
        for step in steps:
            result = step() if callable(step) else None
            if inspect.isawaitable(result):
                if inspect.iscoroutine(result):
                    result.close()
                raise ValidationError(f"{step!r} is async: use it with AsyncClient")
            yield from play.events(step)
        yield from play.end()


async def _async_events(play: _Play) -> AsyncGenerator[Event]:
    with play.playing() as steps:
        for step in steps:
            result: Awaitable[object] | None = step() if callable(step) else None
            if inspect.isawaitable(result):
                await result
            for event in play.events(step):
                yield event
        for event in play.end():
            yield event


def _steps(script: str | Iterable[Step]) -> list[Step]:
    if not isinstance(script, str):
        return list(script)
    words = script.split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)]

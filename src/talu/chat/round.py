"""One request of a turn to a model: the request, its events, and what they build."""

from typing import Self

from talu.chat.builder import Builder
from talu.chat.io import IO
from talu.exceptions import GenerationError
from talu.protocols import AsyncGeneration
from talu.types import Done, Event, FinishReason, Request, Stopped, Timings, Usage

__all__ = ["NoRequest", "Round"]


class Round:
    """One request to a model.

    Attributes:
        request: the request.
        builder: builds the answer from the events.
        events: the generation; None before the model is open, and after the end of the turn.
    """

    def __init__(self, model: str, request: Request, builder: Builder) -> None:
        """Prepare it; ``model`` is the name, in the client, of the model that is asked."""
        self.request = request
        self.builder = builder
        self.events: AsyncGeneration | None = None
        self._model = model

    async def open(self, io: IO) -> AsyncGeneration:
        """Open the model; returns a generation that has not started."""
        try:
            self.events = await io.open(self.request)
        except Stopped:
            return self.cancel_unopened("it was stopped while its model was being opened")
        return self.events

    def cancel_unopened(self, *notes: str) -> AsyncGeneration:
        """Let the round be a cancelled one; returns its generation."""
        self.events = _NeverStarted(self._model, (*self.request.notes, *notes))
        return self.events

    def cancel(self) -> None:
        """Let the generation end soon, from any thread."""
        if self.events is not None:
            self.events.cancel()

    def check_done(self) -> None:
        """``GenerationError`` if the events have ended without the last one."""
        if self.builder.done is None:
            raise GenerationError("the backend's stream ended without its last event")

    def end(self) -> Done | None:
        """The last event, as it would be if the generation was cancelled now; None before it."""
        if self.builder.done is None and self.events is not None:
            self.builder.add(self.events.so_far())
        return self.builder.done


class NoRequest:
    """A generation that has ended before: the round begins with calls of the history."""

    async def start(self) -> None:
        """Do nothing."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Do nothing: it has ended."""

    def so_far(self) -> Done:
        """A last event that is not asked for."""
        return Done(FinishReason.CANCELLED, Usage(), Timings(), "")

    async def aclose(self) -> None:
        """Do nothing."""


class _NeverStarted:
    """A generation that was cancelled before its model was open."""

    def __init__(self, model: str, notes: tuple[str, ...]) -> None:
        self._done = Done(FinishReason.CANCELLED, Usage(), Timings(), model, notes=notes)
        self._ended = False

    async def start(self) -> None:
        """Do nothing."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        self._ended = True
        return self._done

    def cancel(self) -> None:
        """Do nothing: it is cancelled."""

    def so_far(self) -> Done:
        """Its only event."""
        return self._done

    async def aclose(self) -> None:
        """Give no event any more."""
        self._ended = True

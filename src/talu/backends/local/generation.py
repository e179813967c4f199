"""Reads a generation of a local model as events, from a thread or from an event loop."""

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Self

from talu.backends.reply import ChatReply, RawReply
from talu.engine.ticket import Piece, Result, Ticket
from talu.exceptions import GenerationError
from talu.threads import InTurn
from talu.types import Done, Event, FinishReason, TextDelta, Timings, Usage

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.structured.report import SchemaReport

__all__ = ["AsyncLocalGeneration", "LocalGeneration", "Submitted"]

PROMPTS = InTurn()


class Submitted(NamedTuple):
    """A request that the engine has accepted, with the state that its events need.

    Attributes:
        reply: converts text to events.
        echo: a text before the first piece.
        model, prompt, seed, notes, schema_report, tool_reports: values of ``Done``.
        demanded: the ``tool_choice`` that demands a call; None for none.
    """

    ticket: Ticket
    reply: ChatReply | RawReply
    echo: str
    model: str
    prompt: str
    seed: int
    notes: tuple[str, ...]
    schema_report: "SchemaReport | None" = None
    tool_reports: "Mapping[str, SchemaReport]" = MappingProxyType({})
    demanded: str | None = None

    def done(self, result: Result) -> Done:
        """The last event of a generation with this result."""
        reason = result.finish_reason
        if reason is FinishReason.STOP and self.reply.called:
            reason = FinishReason.TOOL_CALLS
        missing: list[str] = []
        if reason is FinishReason.STOP and self.demanded is not None:
            missing = [f"the model called no tool although tool_choice is {self.demanded!r}"]
        return Done(
            finish_reason=reason,
            usage=result.usage,
            timings=result.timings,
            model=self.model,
            prompt=self.prompt,
            stop_sequence=result.stop_sequence,
            notes=(*self.notes, *result.notes, *self.reply.notes, *missing),
            seed=self.seed,
            schema_report=self.schema_report,
            tool_reports=dict(self.tool_reports),
        )


class _Generation:
    """What both kinds of readers share.

    Args:
        submit: renders, tokenizes and submits the request, and blocks. The function refers to the
            backend, so that the model is not dropped while the answer is read.
        model: the model's name.
    """

    _submitted: Submitted | None = None  # also if an interrupt hits the constructor

    def __init__(self, submit: Callable[[], Submitted], model: str) -> None:
        self._submit = submit
        self._model = model
        self._cancelled = False
        self._ended = False
        self._events: deque[Event] = deque()

    def cancel(self) -> None:
        """End it soon, with the text so far."""
        self._cancelled = True
        if self._submitted is not None:
            self._submitted.ticket.cancel()

    def so_far(self) -> Done:
        """The last event as if the generation was cancelled now."""
        if self._submitted is None:
            return Done(FinishReason.CANCELLED, Usage(), Timings(), self._model)
        return self._submitted.done(self._submitted.ticket.so_far())

    def __del__(self) -> None:
        self.cancel()

    def _started(self, submitted: Submitted) -> None:
        self._submitted = submitted
        if self._cancelled:
            submitted.ticket.cancel()
        if submitted.echo:
            self._events.append(TextDelta(submitted.echo, echo=True))

    @property
    def _ticket(self) -> Ticket:
        if self._submitted is None:
            raise RuntimeError("the generation has not been started")
        return self._submitted.ticket

    def _add(self, piece: Piece | None) -> None:
        """Queue the events of a piece; those of the end for None."""
        if (submitted := self._submitted) is None:
            return
        if piece is not None:
            self._events += submitted.reply.add(piece)
            return
        self._ended = True
        result = submitted.ticket.result
        if result is None:
            raise GenerationError("the generation was closed while it was being read")
        cut = result.finish_reason is not FinishReason.STOP or result.stop_sequence is not None
        self._events += submitted.reply.finish(cut=cut)
        self._events.append(submitted.done(result))

    def _close(self) -> None:
        self._cancelled = self._ended = True
        self._events.clear()
        if self._submitted is not None:
            self._submitted.ticket.close()


class LocalGeneration(_Generation):
    """See ``talu.protocols.Generation``."""

    def start(self) -> None:
        """Render the prompt and submit it; an invalid request raises."""
        self._started(self._submit())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            while not self._events:
                if self._ended:
                    raise StopIteration
                self._add(next(self._ticket, None))
        except BaseException:  # an error of the engine, or an interrupt
            self._close()
            raise
        return self._events.popleft()

    def close(self) -> None:
        """Cancel it and read no more."""
        self._close()


class AsyncLocalGeneration(_Generation):
    """See ``talu.protocols.AsyncGeneration``."""

    async def start(self) -> None:
        """Like ``LocalGeneration.start``; template and tokenizer run in a thread."""
        self._started(await PROMPTS.call(self._submit))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            while not self._events:
                if self._ended:
                    raise StopAsyncIteration
                self._add(await anext(self._ticket, None))
        except BaseException:  # an error of the engine, or a cancelled task
            self._close()
            raise
        return self._events.popleft()

    async def aclose(self) -> None:
        """Cancel it and read no more."""
        self._close()

"""One user turn, written once for sync and async chats.

A turn is a transaction on the history: committed whole at its end, committed as incomplete when
it is cancelled, without a trace when it fails. A store has the question before the generation
begins. It knows no backend, no store and no event loop: they are behind ``IO`` and ``save``.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

from talu.chat.answer import Answer, ChatT, Outcome
from talu.chat.builder import Token
from talu.chat.history import History
from talu.chat.io import IO, Reading, run
from talu.chat.items import Item, ItemStatus, MessageItem
from talu.chat.observers import Generation, HookManager, Observation
from talu.exceptions import GenerationError, StorageError
from talu.types import Done, Event, FinishReason, Request

__all__ = ["OnToken", "Turn", "answer", "drain"]

OnToken = Callable[[Token], object]


@dataclass(slots=True, kw_only=True, eq=False)
class Turn(Outcome[ChatT]):
    """A generation from the claim on its history, which is taken already, to the commit.

    Attributes:
        keep: how many items of the history stay before the turn.
        asked: items of the user, committed together with the answer's.
        save: saves a history in place of the one that was; None for a chat without a profile.
        stream: the answer is read while it is generated.
        make_answer: makes the answer when the text is complete; None for a stream, which has one.
        superseded: its pieces were never asked for, and its chat was asked or edited again.
        on_end: called when the turn has ended and every observer has been told.
        reading: how the answer is read, once it was handed out as a stream without an event loop.
    """

    history: History
    keep: int = 0
    asked: tuple[MessageItem, ...] = ()
    save: Callable[[Sequence[Item]], None] | None = None
    input_text: str
    request: Request
    io: IO
    hooks: HookManager
    stream: bool = False
    on_token: OnToken | None = None
    make_answer: Callable[[Outcome[ChatT]], Answer[ChatT]] | None = None
    on_end: Callable[[], None] = lambda: None
    reading: Reading | None = None
    superseded: bool = False
    _events: AsyncGenerator[Event] | None = None
    _began_at: float = 0.0
    _observation: Observation = field(init=False)
    _asked_is_saved: bool = False
    _error: BaseException | None = None

    def __post_init__(self) -> None:
        self._observation = self.hooks.observe(self._generation(), self.io.call)

    async def begin(self) -> Self:
        """Hand the request to the backend, which raises what is wrong with it."""
        self._began_at = time.perf_counter()
        try:
            await self._observation.start()
            await self._save_asked()
            self._events = await self.io.open(replace(self.request, left=self.builder.add))
        except BaseException as error:
            await self._fail(error)
            raise
        return self

    async def pieces(self) -> AsyncGenerator[Token]:
        """Generate; the last piece is empty and has the finish reason."""
        events, self._events = self._events, None
        if events is None:
            return
        try:
            async with aclosing(events):
                async for event in events:
                    piece = self.builder.add(event)
                    if self.on_token is not None or self._observation.first_token_ms is None:
                        await self._observe(event, piece)
                    if piece is not None:
                        yield piece
            if self.builder.done is None:
                raise GenerationError("the backend's stream ended without its last event")
        except Exception as error:
            await self._fail(error)
            raise
        except BaseException as stop:  # closed, dropped, interrupted: what has come stays
            try:
                await self._commit()
            except StorageError as failure:
                if isinstance(stop, GeneratorExit):
                    raise
                raise stop from failure
            raise
        await self._commit()

    @property
    def unread(self) -> bool:
        """Whether it has begun and its pieces were never asked for."""
        return self._events is not None

    async def abandon(self) -> None:
        """Give up a turn whose pieces were never asked for; it leaves no trace."""
        events, self._events = self._events, None
        if events is not None:
            self.finish_reason = FinishReason.CANCELLED
            try:
                await events.aclose()
                await self._remove_asked()
            finally:
                await self._end()

    @property
    def lasts(self) -> bool:
        """Whether it is being generated or read, or may still be read."""
        return not self.ended and self._attended

    @property
    def holds_chat(self) -> bool:
        """Whether the chat has to wait for it, because it is being read or was begun to be read."""
        return self.lasts and (self.io.working or not self.unread)

    async def supersede(self) -> None:
        """Cancel an answer that was not begun to be read, because its chat is used again."""
        if self.unread:
            self.request.stop.signal()
            await self.abandon()
            self.superseded = True

    @property
    def _attended(self) -> bool:
        return self.io.working or (self.reading is not None and self.reading.waited_for)

    def settle(self) -> None:
        """End it if an interrupt has left it without a reader."""
        if not self.lasts:
            self.wind_up()

    def wind_up(self) -> None:
        """End a turn that was interrupted or not begun to be read, so that the next can begin."""
        if self.ended:
            if not self._attended:  # perhaps it hit the telling of the end
                run(self._observation.tell())
            return
        self.request.stop.signal()
        unread = self.unread
        with suppress(StorageError):  # the next turn or edit saves it as well
            if self.reading is not None:
                self.reading.close(unread=lambda: None)
        run(self._wind_up())
        self.superseded = unread and self.stream

    async def _wind_up(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            await events.aclose()
            with suppress(StorageError):
                await self._remove_asked()
        if self.ended:
            return
        if self._error is None and not self.past:
            if self.builder.begun:
                self._put()
            else:
                self.finish_reason = FinishReason.CANCELLED
        await self._end()

    def _generation(self) -> Generation:
        request = self.request
        return Generation(
            operation="text_completion" if request.messages is None else "chat",
            model=self.model,
            chat=self.chat,
            input_text=self.input_text,
            messages=request.messages,
            config=request.config,
            stream=self.stream,
        )

    async def _observe(self, event: Event, piece: Token | None) -> None:
        sampled = isinstance(event, Done) and event.usage.completion_tokens > 0
        if self._notice_first_token(sampled=sampled):
            await self._observation.tell()
        if piece and self.on_token is not None:
            await self.io.call(self.on_token, piece)

    def _notice_first_token(self, *, sampled: bool = False) -> bool:
        """Whether the first token has come just now: an echo of the prompt has no tokens."""
        if self._observation.first_token_ms is not None:
            return False
        builder = self.builder
        text = not self.request.echo_prompt and (builder.text or builder.reasoning)
        if not (sampled or builder.tokens or builder.calls or text):
            return False
        self._observation.first_token_ms = (time.perf_counter() - self._began_at) * 1000
        return True

    async def _end(self) -> None:
        """Tell the end; before it the first token, if an interrupt came between both."""
        self._notice_first_token()
        answer = self._made_answer() if self._error is None else None
        self._observation.ending = answer, self._error
        self.ended = True
        self._error = None
        await self._observation.tell()
        if self.stream:  # the answer refers to the turn
            self.answer = None
        self.on_end()

    def _made_answer(self) -> Answer[ChatT] | None:
        if self.answer is None and self.make_answer is not None:
            self.answer = self.make_answer(self)
        return self.answer

    def _put(self) -> None:
        """Put question and answer, as far as it has come, into the history."""
        done = self.builder.done
        self.finish_reason = done.finish_reason if done else FinishReason.CANCELLED
        cancelled = self.finish_reason is FinishReason.CANCELLED
        status = ItemStatus.INCOMPLETE if cancelled else ItemStatus.COMPLETED
        generation: dict[str, object] = {
            "model": done.model if done else self.model,
            "finish_reason": self.finish_reason,
            "config": self.request.config.to_dict(only_given=True),
        }
        if done is not None and done.seed is not None:
            generation["seed"] = done.seed
        items = self.asked + self.builder.items(status, generation)
        self.history.items[self.keep :] = items
        self.past = tuple(self.history.items)

    async def _commit(self) -> None:
        if self.ended:  # it was wound up, and its pieces are closed only now
            return
        self._put()
        try:
            await self._save_items(self.past)
        except StorageError as error:  # the answer is not lost with the space on the disk
            error.details["response"] = self._made_answer()
            raise
        finally:
            await self._end()

    async def _fail(self, error: BaseException) -> None:
        if self.ended:
            return
        self._error = error
        try:
            await self._remove_asked()
        except StorageError as failure:
            error.add_note(f"The question stays stored without an answer: {failure}")
        finally:
            await self._end()

    async def _save_asked(self) -> None:
        """Store the question after what is there: an answer that is replaced stays until the end.

        A question that is there is not stored twice, but whoever else changed the session is
        noticed. A store that cannot be written now is tried again at the end of the turn, and
        raises then, when the answer is there.
        """
        replaced = self.history.items[self.keep : self.keep + 1]
        same = [item for item in replaced if isinstance(item, MessageItem)]
        again = [item.content for item in same] == [item.content for item in self.asked]
        new = () if again else self.asked
        self._asked_is_saved = bool(new)
        try:
            await self._save_items((*self.history.items, *new))
        except StorageError as error:
            self._asked_is_saved = False
            if error.code != StorageError.default_code:
                raise

    async def _remove_asked(self) -> None:
        if self._asked_is_saved:
            await self._save_items(self.history.items)

    async def _save_items(self, items: Sequence[Item]) -> None:
        if self.save is not None:
            await self.io.save(partial(self.save, tuple(items)))


async def drain(turn: Turn[ChatT]) -> None:
    """Run a turn to its end."""
    async with aclosing(turn.pieces()) as pieces:
        async for _ in pieces:
            pass


async def answer(turn: Turn[ChatT]) -> None:
    """Run a turn from its beginning to its end."""
    await turn.begin()
    await drain(turn)

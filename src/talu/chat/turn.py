"""Runs one user turn, for sync and async chats alike.

A turn is a transaction on the history: it is committed at its end, committed as incomplete when
it is cancelled, runs out of time or the connection to a remote model breaks, and rolled back when
it fails otherwise.
The store gets the question before the generation starts.
Backend, store and event loop are accessed through ``IO`` and ``save`` only.
"""

import os
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

from talu.chat.answer import Answer, ChatT, Outcome
from talu.chat.builder import Token
from talu.chat.fields import answered_by
from talu.chat.history import History
from talu.chat.io import IO, NeverStarted, Reading, run
from talu.chat.items import Item, ItemStatus, MessageItem
from talu.chat.messages import without_provider_data
from talu.chat.observers import Generation, HookManager, Observation
from talu.exceptions import EndpointError, GenerationError, StateError, StorageError, TaluError
from talu.protocols import AsyncGeneration
from talu.types import (
    Attempt,
    Done,
    Event,
    FinishReason,
    Request,
    StopFlag,
    Stopped,
    check_stop_flag,
)

__all__ = ["OnToken", "Racer", "Turn", "answer", "drain"]

CLOSED = "its client was closed while it ran"
OnToken = Callable[[Token], object]


@dataclass(slots=True, eq=False)
class Racer:
    """A model that takes part in a race.

    Attributes:
        locate: finds its location.
        turn: the turn that asks it, once there is one.
        lost: another model was faster, which is why this one is cancelled.
    """

    locate: Callable[[], str | None]
    turn: "Turn[Any] | None" = None
    lost: bool = False

    def told(self, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        """The attempts; the last one of a model that lost says that another one was faster."""
        if not self.lost or not attempts or attempts[-1].error not in (None, "CANCELLED"):
            return attempts
        slower = replace(attempts[-1], error="SLOWER", reason="another model was faster")
        return (*attempts[:-1], slower)


@dataclass(slots=True, kw_only=True, eq=False)
class Turn(Outcome[ChatT]):
    """A generation whose claim on the history is already held, up to the commit.

    Attributes:
        keep: number of items of the history that stay before the turn.
        question: the user's items, committed together with the answer's.
        save: replaces the stored history; None for a chat without a profile.
        stream: the answer is read while it is generated.
        make_answer: creates the answer when the text is complete; None for a stream, which has one.
        closing: signalled when the client is closed, which cancels the turn.
        stop: cancels the generation when it is signalled, also before the start.
        superseded: it was cancelled unread, because its chat was used or edited again.
        racer: set in a race of models, where a turn reports its attempt even without a router.
        on_end: called when the turn has ended and the hooks have been notified.
        reading: the reader of a sync stream, once the stream was returned.
    """

    history: History
    keep: int = 0
    question: tuple[MessageItem, ...] = ()
    save: Callable[[Sequence[Item]], None] | None = None
    input_text: str
    request: Request
    io: IO
    hooks: HookManager
    closing: StopFlag = field(default_factory=StopFlag)
    stream: bool = False
    on_token: OnToken | None = None
    make_answer: Callable[[Outcome[ChatT]], Answer[ChatT]] | None = None
    racer: Racer | None = None
    on_end: Callable[[], None] = lambda: None
    reading: Reading | None = None
    stop: StopFlag = field(default_factory=StopFlag)
    superseded: bool = False
    _running: AsyncGeneration | None = None
    _unread: AsyncGeneration | None = None
    _process: int = field(default_factory=os.getpid)
    _observation: Observation = field(init=False)
    _question_is_saved: bool = False
    _client_closed: bool = False
    _error: BaseException | None = None

    def __post_init__(self) -> None:
        if self.racer is not None:
            self.racer.turn = self
        if not self.closing.is_set():  # a turn of a closed client fails when it opens its model
            self.closing.when_signalled(self._end_with_client)
        self._observation = self.hooks.observe(self._generation(), self.io.call)

    async def begin(self) -> Self:
        """Open the model and start the generation; an invalid request raises."""
        unseen = not self.stream and self.on_token is None
        self.request = replace(self.request, unseen=unseen)
        try:
            await self._observation.start()
            try:
                await self._submit()
            except StateError as error:
                if not self._client_closed or error.code != "STATE_CLOSED":
                    raise
                self._running = NeverStarted(self.model, self.request.notes)
            self._unread = self._running
        except BaseException as error:
            await self._fail(error)
            raise
        return self

    async def _submit(self) -> None:
        """Open the model, and start the generation."""
        self._running = generation = await self._opened()
        await self._save_question()
        self.stop.when_signalled(self._cancel)
        await generation.start()

    async def _opened(self) -> AsyncGeneration:
        try:
            return await self.io.open(self.request)
        except Stopped:
            note = "it was stopped while its model was being opened"
            return NeverStarted(self.model, (*self.request.notes, note))

    async def pieces(self) -> AsyncGenerator[Token]:
        """Yield the generated pieces; the last one is empty and has the finish reason."""
        generation, self._unread = self._unread, None
        if generation is None:
            return
        try:
            async with aclosing(generation):
                async for event in generation:
                    piece = self.builder.add(event)
                    if self.on_token is not None or self._observation.first_token_ms is None:
                        await self._observe(event, piece)
                    if piece is not None:
                        yield piece
            if self.builder.done is None:
                raise GenerationError("the backend's stream ended without its last event")
        except Exception as error:
            if isinstance(error, TaluError) and self._is_cut_short(error):
                await self._break_off(error)
            else:
                await self._fail(error)
            raise
        except BaseException as stop:  # closed, dropped or interrupted: keep the text so far
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
        """Whether it has started and no piece was read."""
        return self._unread is not None

    def stop_with(self, flag: StopFlag | None) -> None:
        """Let the caller's flag stop this turn; several turns may share a flag.

        Raises:
            ValidationError: it is not a ``StopFlag``.
        """
        check_stop_flag(flag)
        if flag is not None:
            flag.when_signalled(self.stop.signal)

    def _end_with_client(self) -> None:
        """Cancel the turn because its client is being closed."""
        self._client_closed = True
        self.stop.signal()

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def abandon(self) -> None:
        """Cancel and roll back a turn of which no piece was read."""
        generation, self._unread = self._unread, None
        if generation is not None:
            self.finish_reason = FinishReason.CANCELLED
            try:
                await generation.aclose()
                await self._remove_question()
            finally:
                await self._end()

    @property
    def active(self) -> bool:
        """Whether it is being generated or read, or can still be read."""
        return not self.ended and self._has_reader

    @property
    def holds_chat(self) -> bool:
        """Whether it blocks the next turn, because reading or a blocking call is in progress."""
        return self.active and (self.io.working or not self.unread)

    async def supersede(self) -> None:
        """Cancel an unread answer, because its chat is used again."""
        if self.unread:
            self.stop.signal()
            await self.abandon()
            self.superseded = True

    @property
    def _has_reader(self) -> bool:
        return self.io.working or (self.reading is not None and self.reading.has_reader)

    def settle(self) -> None:
        """End the turn if an interrupt has left it without a reader."""
        if not self.active:
            self.clean_up()

    def clean_up(self) -> None:
        """End a turn that was interrupted or never read, so that the next one can start."""
        if self.ended:
            if not self._has_reader:  # the interrupt may have hit the hooks' end event
                run(self._observation.deliver())
            return
        self.stop.signal()
        unread = self.unread
        with suppress(StorageError):  # the next turn or edit saves it again
            if self.reading is not None:
                self.reading.close(unread=lambda: None)
        run(self._clean_up())
        self.superseded = unread and self.stream

    async def _clean_up(self) -> None:
        generation, self._unread = self._unread, None
        if generation is not None:
            await generation.aclose()
            with suppress(StorageError):
                await self._remove_question()
        if self.ended:
            return
        if self._error is None and not self.past:
            if self.builder.started:
                self._add_to_history()
            else:
                self.finish_reason = FinishReason.CANCELLED
        await self._end()

    def _generation(self) -> Generation:
        request = self.request
        messages = request.messages
        shown = None if messages is None else tuple(map(without_provider_data, messages))
        return Generation(
            operation="text_completion" if request.messages is None else "chat",
            model=self.model,
            chat=self.chat,
            input_text=self.input_text,
            messages=shown,
            config=request.config,
            stream=self.stream,
        )

    async def _observe(self, event: Event, piece: Token | None) -> None:
        sampled = isinstance(event, Done) and bool(event.usage.completion_tokens)
        if self._notice_first_token(sampled=sampled):
            await self._observation.deliver()
        if piece and self.on_token is not None:
            await self.io.call(self.on_token, piece)

    def _notice_first_token(self, *, sampled: bool = False) -> bool:
        """Whether this is the first token; an echo of the prompt does not count."""
        if self._observation.first_token_ms is not None:
            return False
        builder = self.builder
        text = builder.has_text or builder.reasoning
        if not (sampled or builder.tokens or builder.calls or text):
            return False
        self._observation.first_token_ms = self._observation.elapsed_ms()
        return True

    async def _end(self) -> None:
        """Report the end, after the first token if an interrupt prevented its report."""
        self._notice_first_token()
        answer = self._made_answer() if self._error is None else None
        self._observation.attempts = self.attempts
        self._observation.ending = answer, self._error
        self.ended = True
        self._error = self._running = None
        await self._observation.deliver()
        if self.stream:  # the answer refers to the turn
            self.answer = None
        self.on_end()

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The models that a router asked; in a race this model."""
        if self.ended:
            return self._observation.attempts
        known = self.builder.done.attempts if self.builder.done else ()
        if isinstance(self._error, TaluError) and self._error.attempts:
            known = self._error.attempts
        if self.racer is None:
            return known
        return self.racer.told(known or self._own_attempt(self.racer))

    def _own_attempt(self, racer: Racer) -> tuple[Attempt, ...]:
        """The attempt at this model so far, in a race."""
        error = self._error
        code = error.code if isinstance(error, TaluError) else type(error).__name__
        if self.finish_reason is FinishReason.CANCELLED or isinstance(error, CancelledError):
            code, reason = "CANCELLED", "the request was cancelled"
        else:
            reason = str(error)
        failed = error is not None or self.finish_reason is FinishReason.CANCELLED
        attempt = Attempt(
            model=self.model,
            location=racer.locate(),
            duration_ms=self._observation.elapsed_ms(),
            first_token_ms=self._observation.first_token_ms,
            error=code if failed else None,
            reason=reason if failed else None,
        )
        return (attempt,)

    def _made_answer(self) -> Answer[ChatT] | None:
        if self.answer is None and self.make_answer is not None:
            self.answer = self.make_answer(self)
        return self.answer

    def _add_to_history(self, reason: FinishReason | None = None) -> None:
        """Put the question and the answer so far into the history; None keeps its own reason."""
        done = self._ensure_done()
        self.finish_reason = reason or (done.finish_reason if done else FinishReason.CANCELLED)
        cut_short = self.finish_reason in (FinishReason.CANCELLED, FinishReason.ERROR)
        status = ItemStatus.INCOMPLETE if cut_short else ItemStatus.COMPLETED
        generation: dict[str, object] = {
            "model": answered_by(self),
            "finish_reason": self.finish_reason,
            "config": self.request.config.to_dict(only_given=True),
        }
        if done is not None and done.seed is not None:
            generation["seed"] = done.seed
        items = self.question + self.builder.items(status, generation)
        self.history.items[self.keep :] = items
        self.past = tuple(self.history.items)

    def _ensure_done(self) -> Done | None:
        """The last event, as it would be if the generation was cancelled now."""
        if self.builder.done is None and self._running is not None:
            self.builder.add(self._running.so_far())
        done = self.builder.done
        if done is None or not self._client_closed:
            return done
        if done.finish_reason is FinishReason.CANCELLED and CLOSED not in done.notes:
            self.builder.done = replace(done, notes=(*done.notes, CLOSED))
        return self.builder.done

    async def _commit(self) -> None:
        if self.ended:  # cleaned up before its pieces were closed
            return
        self._add_to_history()
        try:
            await self._save_items(self.past)
        except StorageError as error:  # the error carries the answer, so that it is not lost
            error.details["response"] = self._made_answer()
            raise
        finally:
            await self._end()

    def _is_cut_short(self, error: TaluError) -> bool:
        """Whether the connection broke, or the time ran out, after the first piece."""
        ran_out = error.code == "GENERATION_TIMEOUT"
        return (ran_out or isinstance(error, EndpointError)) and self.builder.has_content

    async def _break_off(self, error: TaluError) -> None:
        """End a turn that was cut short.

        The partial answer is in the error, and as incomplete in the history. An answer that it
        would have replaced stays there instead.
        """
        if self.ended:
            return
        if self.keep == len(self.history.items):
            self._add_to_history(FinishReason.ERROR)
        else:
            self._ensure_done()
            self.finish_reason = FinishReason.ERROR
        self._error = error
        error.details["response"] = self._made_answer()
        try:
            await (self._save_items(self.past) if self.past else self._remove_question())
        except StorageError as failure:
            error.add_note(f"What had arrived of the answer could not be stored: {failure}")
        finally:
            await self._end()

    async def _fail(self, error: BaseException) -> None:
        if self.ended:
            return
        self._error = error
        try:
            await self._remove_question()
        except StorageError as failure:
            error.add_note(f"The question stays stored without an answer: {failure}")
        finally:
            await self._end()

    async def _save_question(self) -> None:
        """Store the question after the current items; a replaced answer stays until the end.

        A regenerated question is not stored twice, but concurrent changes of the session are still
        detected. If the store cannot be written, the turn goes on: the write is repeated at its
        end, and an error raised then carries the answer.
        """
        replaced = self.history.items[self.keep : self.keep + 1]
        same = [item for item in replaced if isinstance(item, MessageItem)]
        repeated = [item.content for item in same] == [item.content for item in self.question]
        new = () if repeated else self.question
        self._question_is_saved = bool(new)
        try:
            await self._save_items((*self.history.items, *new))
        except StorageError as error:
            self._question_is_saved = False
            if error.code != StorageError.default_code:
                raise

    async def _remove_question(self) -> None:
        if self._question_is_saved:
            await self._save_items(self.history.items)

    async def _save_items(self, items: Sequence[Item]) -> None:
        """Store the history, unless this is a forked child: the turn is its parent's."""
        if self.save is not None and self._process == os.getpid():
            await self.io.save(partial(self.save, tuple(items)))


async def drain(turn: Turn[ChatT]) -> None:
    """Run a started turn to its end."""
    async with aclosing(turn.pieces()) as pieces:
        async for _ in pieces:
            pass


async def answer(turn: Turn[ChatT]) -> None:
    """Run a turn from start to end."""
    await turn.begin()
    await drain(turn)

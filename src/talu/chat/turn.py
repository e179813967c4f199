"""Runs one turn, for sync and async callers alike.

A turn is a transaction on the history. It ends in one of three ways: it finishes with the answer or
with the part of it that was read; it is cancelled unread, which leaves no trace; or it fails, which
rolls it back, except that a partial answer is kept when the time is up or the connection to a
remote model breaks. The store gets the question before the generation starts.
Backend, store and event loop are accessed through ``IO`` and ``save`` only.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, cast

from talu.chat.answer import Answer
from talu.chat.builder import Builder, Token, ToolRunPiece
from talu.chat.form_checks import FormChecks, without_form
from talu.chat.interrupts import Claim
from talu.chat.io import IO
from talu.chat.items import Item, ItemStatus
from talu.chat.messages import without_provider_data
from talu.chat.observers import Generation, HookManager, Observation
from talu.chat.outcome import ChatT, Outcome, State
from talu.chat.racer import Racer
from talu.chat.round import NoRequest, Round
from talu.chat.tool_rounds import ToolRounds
from talu.chat.transaction import Transaction
from talu.exceptions import EndpointError, StateError, StorageError, TaluError
from talu.protocols import AsyncGeneration
from talu.tools.calls import ToolRun
from talu.tools.use import ToolUse
from talu.types import (
    Attempt,
    Done,
    Event,
    FinishReason,
    Request,
    StopFlag,
    Timings,
    ToolCallEvent,
    Usage,
)

__all__ = ["OnToken", "Present", "Turn"]

NOTHING = Usage(0, 0, 0, 0, 0, 0)
CLOSED = "its client was closed while it ran"
ENDINGS = {FinishReason.CANCELLED: State.CANCELLED, FinishReason.ERROR: State.FAILED}
OnToken = Callable[[Token], object]
Present = Callable[["Turn[Any]"], Answer[Any]]


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Turn(Generic[ChatT]):
    """A request and its answer, up to the commit; its claim on the history is already held.

    Attributes:
        outcome: what it has produced so far.
        request: the request of its first round.
        changes: what it changes in the history.
        closing: signalled when the client is closed, which stops the turn.
        stop_flag: the caller's, which several turns may share.
        stream: the answer is read while it is generated.
        present: creates the response: of a stream after the start, a whole one at the end.
        racer: set in a race of models, where a turn reports its attempt even without a router.
        tools: what the model may call, and how that is carried out.
        open_calls: the calls at the end of the history, which are carried out first.
        again: makes the request that goes on after a history; None if tools are not carried out.
        on_end: called when the turn has ended and the hooks have been notified.
        stop: stops the generation when it is signalled, also before the start.
        answer: the response that presents it; a whole one once the text is complete.
    """

    outcome: Outcome[ChatT]
    request: Request
    input_text: str
    io: IO
    hooks: HookManager
    claim: Claim
    closing: StopFlag
    present: Present
    stream: bool
    changes: Transaction = field(default_factory=Transaction)
    on_token: OnToken | None = None
    stop_flag: StopFlag | None = None
    racer: Racer | None = None
    tools: ToolUse = field(default_factory=ToolUse)
    open_calls: tuple[ToolCallEvent, ...] = ()
    again: Callable[[Sequence[Item]], Request] | None = None
    on_end: Callable[[], object] = lambda: None
    stop: StopFlag = field(default_factory=StopFlag)
    answer: Answer[ChatT] | None = None
    _round: Round = field(init=False)
    _checks: FormChecks = field(init=False)
    _tools: ToolRounds = field(init=False)
    _observation: Observation = field(init=False)
    _client_closed: bool = False
    _error: BaseException | None = None
    _ending: State = State.FAILED

    def __post_init__(self) -> None:
        unseen = not self.stream and self.on_token is None
        self._checks = FormChecks.of(self.request.config, whole=unseen)
        request = replace(self._checks.without_retries(self.request), unseen=unseen)
        self.outcome.form = request.config.response_format
        for note in without_form(self.request.config):
            self.outcome.note(note)
        self.outcome.config, self.outcome.use = self.request.config, self.tools
        self._tools = ToolRounds(self.tools)
        self.stop.when_signalled(self._tools.cancel)
        if self.open_calls:
            builder = self.outcome.builder
            builder.calls = list(self.open_calls)
            builder.done = Done(FinishReason.TOOL_CALLS, NOTHING, Timings(), self.outcome.model)
            self.changes.resume(builder)
        self._round = Round(self.outcome.model, request, self.outcome.builder)
        self._observation = self.hooks.observe(self._generation(), self.io.call)
        if self.racer is not None:
            self.racer.attempts = lambda: self.attempts
        if self.stop_flag is not None:
            self.stop_flag.when_signalled(self.stop.signal)
        if not self.closing.is_set():  # a turn of a closed client fails when it opens its model
            self.closing.when_signalled(self._stop_with_client)
        self.claim.turn = self

    async def start(self) -> None:
        """Open the model and start the generation; an invalid request raises."""
        try:
            await self._observation.start()
            await self._tools.prepare(self.io, self.outcome, self.closing)
            self._round.request = self._tools.offered(self._round.request)
            try:
                generation = await self._round.open(self.io)
                await self.changes.store_question(self.io)
                if self.open_calls:  # the model is open and takes the request: they come first
                    await generation.aclose()
                    self._round.events = NoRequest()
                    self.outcome.state = State.UNREAD
                    return
                self._tools.requests += 1
                self.stop.when_signalled(self._round.cancel)
                await generation.start()
            except StateError as error:
                if not self._client_closed or error.code != "STATE_CLOSED":
                    raise
                self._round.cancel_unopened()
            self.outcome.state = State.UNREAD
        except BaseException as error:
            await self.fail(error)
            raise

    async def respond(self) -> Answer[ChatT]:
        """The stream of a turn that has started, or its answer when that is complete."""
        if self.stream:
            self.answer = stream = self.present(self)
            return stream
        async with aclosing(self.pieces()) as pieces:
            async for _ in pieces:
                pass
        return cast("Answer[ChatT]", self.presented())

    async def pieces(self) -> AsyncGenerator[Token]:
        """Yield the generated pieces; the last one is empty and has the finish reason."""
        generation = self._round.events
        # A reader and ``cancel`` may come from two threads: no call between check and change.
        if generation is None or self.outcome.state is not State.UNREAD:
            return
        self.outcome.state = State.READING
        try:
            while True:
                builder = self._round.builder
                async with aclosing(generation):
                    async for event in generation:
                        piece = builder.add(event)
                        if self.on_token is not None or self._observation.first_token_ms is None:
                            await self._observe(event, piece)
                        if piece is not None and piece.finish_reason is None:
                            yield piece
                self._round.check_done()
                async with aclosing(self._carry_out()) as runs:
                    async for run in runs:
                        yield ToolRunPiece.of(run)
                if (request := self._next_request()) is None:
                    break
                generation = await self._begin_round(request)
            yield self._last_piece()
        except Exception as error:
            await self.fail(error)
            raise
        except BaseException as stop:  # closed, dropped or interrupted: keep the text so far
            try:
                await self.finish()
            except StorageError as failure:
                if isinstance(stop, GeneratorExit):
                    raise
                raise stop from failure
            raise
        await self.finish()

    def _last_piece(self) -> Token:
        """The piece with the finish reason, which comes once no other request follows."""
        done = self.outcome.builder.done
        if done is None or self._tools.is_cut_short(self.outcome):
            return Token(finish_reason=FinishReason.CANCELLED)
        return Token(finish_reason=done.finish_reason)

    async def _carry_out(self) -> AsyncGenerator[ToolRun]:
        """Carry out the calls of a round; its items and each result are stored at once."""
        if not (calls := self._tools.to_carry_out(self.outcome)):
            return
        if self.changes.committed is not self.outcome.builder:
            self._end_round()
            self.changes.put_round(self.outcome, ItemStatus.COMPLETED, self._config)
            await self.changes.store_for_now(self.io)
        deadline = self.request.deadline
        async with aclosing(self._tools.run(calls, self.io, self.outcome, deadline)) as runs:
            async for run in runs:
                self.outcome.runs.append(run)
                self._take_runs()
                await self.changes.store_for_now(self.io)
                await self._observation.deliver()
                yield run

    def _take_runs(self) -> None:
        """Put the results of calls into the history, and note them for the hooks, each once."""
        self.changes.put_runs(self.outcome)
        self._observation.note_tool_runs(self.outcome.runs)

    def _next_request(self) -> Request | None:
        """The request for a corrected answer, or with the results of all calls; None at the end."""
        if not self.outcome.builder.calls:
            return self._checks.repeated(self._round.request, self.outcome)
        if self.again is None or self.outcome.calls:
            return None
        request = self.again(self.changes.items)
        request = self._tools.offered(self._checks.without_retries(request))
        return replace(request, unseen=self._round.request.unseen)

    async def _begin_round(self, request: Request) -> AsyncGeneration:
        """Start another round: after tools, or to take the place of the last answer."""
        self.changes.go_on(self.outcome)
        self._tools.requests += 1
        builder = Builder()
        self._round = Round(self.outcome.model, request, builder)
        self.outcome.rounds.append(builder)  # until here, an interrupt keeps the last answer
        generation = await self._round.open(self.io)
        self.stop.when_signalled(self._round.cancel)
        await generation.start()
        return generation

    async def finish(self) -> None:
        """End with what has arrived; continues an end that was interrupted."""
        if self.outcome.state is not State.READING:
            await self._report()
            return
        self._commit()
        try:
            await self.changes.store(self.io, self.outcome.past)
        except StorageError as error:  # the error carries the answer, so that it is not lost
            error.details["response"] = self.presented()
            raise
        finally:
            await self._report()

    async def cancel(self, state: State = State.CANCELLED) -> None:
        """Stop the generation, and end an unread turn; the reader of another one finishes it."""
        self.stop.signal()
        outcome = self.outcome
        if outcome.state is not State.UNREAD:  # no call from here to the change, as in ``pieces``
            return
        outcome.state, outcome.finish_reason = State.ENDING, FinishReason.CANCELLED
        self._ending = state
        try:
            if self._round.events is not None:
                await self._round.events.aclose()
            if self.changes.question_is_saved:
                await self.changes.store(self.io, self.changes.items)
        finally:
            await self._report()

    async def fail(self, error: BaseException) -> None:
        """End with an error.

        A partial answer that was cut short is in the error, and as incomplete in the history. An
        answer that it would have replaced stays there instead.
        """
        if self.outcome.state not in (State.STARTING, State.READING):
            return
        unsaved = "The question stays stored without an answer"
        if isinstance(error, TaluError) and self._is_cut_short(error):
            unsaved = "What had arrived of the answer could not be stored"
            self._keep_partial_answer()
            error.details["response"] = self.presented()
        elif self.changes.committed is self.outcome.builder:  # calls that had not begun stay open
            self._tools.end(self.outcome, only_begun=True)
            self._take_runs()
        self._error, self._ending, self.outcome.state = error, State.FAILED, State.ENDING
        try:
            if self.outcome.past or self.changes.question_is_saved:
                await self.changes.store(self.io, self.outcome.past or self.changes.items)
        except StorageError as failure:
            error.add_note(f"{unsaved}: {failure}")
        finally:
            await self._report()

    def _is_cut_short(self, error: TaluError) -> bool:
        """Whether the connection broke, or the time ran out, after the first piece."""
        ran_out = error.code == "GENERATION_TIMEOUT"
        return (ran_out or isinstance(error, EndpointError)) and self._round.builder.has_content

    def _keep_partial_answer(self) -> None:
        if self.changes.committed is not None or self.changes.keep == len(self.changes.items):
            self._commit(FinishReason.ERROR)
        else:
            self._end_round()
            self.outcome.finish_reason = FinishReason.ERROR

    def _commit(self, reason: FinishReason | None = None) -> None:
        """Put the question and the answer so far into the history; None keeps its own reason."""
        done = self._end_round()
        calls_end = self._tools.is_cut_short(self.outcome)  # stopped before or while tools ran
        if calls_end:
            reason = reason or FinishReason.CANCELLED
            if self._client_closed:
                self.outcome.note(CLOSED)
        reason = reason or (done.finish_reason if done else FinishReason.CANCELLED)
        self.outcome.finish_reason = reason
        cut_short = reason in (FinishReason.CANCELLED, FinishReason.ERROR) and not calls_end
        status = ItemStatus.INCOMPLETE if cut_short else ItemStatus.COMPLETED
        self.changes.put_round(self.outcome, status, self._config)
        self._tools.end(self.outcome)
        self._take_runs()
        self._ending = ENDINGS.get(reason, State.FINISHED)
        # In one step: after an interrupt before it, the commit is made again.
        self.outcome.past, self.outcome.state = tuple(self.changes.items), State.ENDING

    @property
    def _config(self) -> dict[str, Any]:
        return self.request.config.to_dict(only_given=True)

    def _end_round(self) -> Done | None:
        """The last event of the round, with a note if the client was closed."""
        done = self._round.end()
        if done is None or not self._client_closed:
            return done
        if done.finish_reason is FinishReason.CANCELLED and CLOSED not in done.notes:
            done = self._round.builder.done = replace(done, notes=(*done.notes, CLOSED))
        return done

    async def _report(self) -> None:
        """Report the end, after the first token if an interrupt prevented its report."""
        if not self.outcome.ended:
            self._notice_first_token()
            answer = self.presented() if self._error is None else None
            self._observation.attempts = self.attempts
            self._observation.ending = answer, self._error
            superseded = self._ending is State.SUPERSEDED  # the hooks may read its empty text
            self.outcome.state = State.CANCELLED if superseded else self._ending
        self._error = self._round.events = None
        self._tools.cancel()
        await self._observation.deliver()
        self.outcome.state = self._ending
        if self.stream:  # the answer refers to the turn
            self.answer = None
        self.claim.release()
        self.on_end()

    def presented(self) -> Answer[ChatT] | None:
        """The response that presents the turn; None if an interrupt prevented that of a stream."""
        if self.answer is None and not self.stream:
            self.answer = self.present(self)
        return self.answer

    def _stop_with_client(self) -> None:
        """Stop the generation because its client is being closed."""
        self._client_closed = True
        self.stop.signal()

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
        if not sampled and not self._round.builder.has_output:
            return False
        self._observation.note_first_token()
        return True

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The models that a router asked; in a race this model."""
        if self.outcome.ended:
            return self._observation.attempts
        done, error = self.outcome.builder.done, self._error
        known = done.attempts if done else ()
        if isinstance(error, TaluError) and error.attempts:
            known = error.attempts
        if self.racer is None:
            return known
        own = self.racer.attempt(self.outcome, error, self._observation)
        return self.racer.told(known or (own,))

    def _generation(self) -> Generation:
        request = self.request
        messages = request.messages
        shown = None if messages is None else tuple(map(without_provider_data, messages))
        return Generation(
            operation="text_completion" if messages is None else "chat",
            model=self.outcome.model,
            chat=self.outcome.chat,
            input_text=self.input_text,
            messages=shown,
            config=request.config,
            stream=self.stream,
        )

"""Defines the client methods that ask one question to several models at once."""

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, Unpack, cast

from talu.chat.async_chat import AsyncChat, AsyncResponse
from talu.chat.conversation import Conversation, Draft
from talu.chat.questions import conversation_of, draft_of, single
from talu.chat.sync_chat import Chat, Response
from talu.chat.turn import Racer
from talu.chat.user_message import Message, user_items
from talu.config import GenerationConfig, GenerationSettings, merged
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import GenerationError, StateError, TaluError, ValidationError
from talu.router.failures import no_answer
from talu.router.router import Router
from talu.threads import thread_starts
from talu.types import Attempt, FinishReason, StopFlag, check_stop_flag

__all__ = ["AsyncFanOut", "FanOut"]

MAX_MODELS = 1000


class _Questions:
    """One question to several models, each in a chat that is used for nothing else.

    Attributes:
        models: the names of the models.
        config: the settings of the call.
    """

    def __init__(
        self,
        client: Any,
        method: str,
        prompt: Message,
        models: Sequence[str] | None,
        config: GenerationConfig,
        system: str | None,
        timeout: float | None,
    ) -> None:
        """Check the arguments.

        Raises:
            ValidationError: one is wrong.
            StateError: the client is closed.
        """
        self._router: Router = client._router
        if self._router.closed:
            raise StateError("the client has been closed", "STATE_CLOSED")
        names = self._router.models if models is None else models
        many = not isinstance(names, str) and isinstance(names, Sequence)
        if not many or not 0 < len(names) <= MAX_MODELS:
            wrong = f"models must be a list of 1 to {MAX_MODELS:,} names of models, got "
            raise ValidationError(wrong + shown(models), details={"param": "models"})
        question = single(prompt, method)
        if conversation_of(question) is None:
            user_items(question)  # a wrong one is an error here, and not the answer of every model
        self.models = [self._router.name_of(name) for name in names]
        self.config = config
        self._is_race = method == "race"
        self._client, self._question, self._system = client, question, system
        self._deadline = Deadline.after(timeout)
        self._racers: dict[int, Racer] = {}

    def ask(self, number: int, stop_flag: StopFlag | None) -> Response:
        """The answer of one of the models."""
        chat = Chat(**self._arguments(number))
        return chat._whole(self._draft(chat, number, stop_flag))

    async def aask(self, number: int, stop_flag: StopFlag | None) -> AsyncResponse:
        """Like ``ask``, awaited."""
        chat = AsyncChat(**self._arguments(number))
        return await chat._whole(self._draft(chat, number, stop_flag))

    def attempts(self, number: int) -> tuple[Attempt, ...]:
        """The attempts at one of the models so far."""
        racer = self._racers.get(number)
        return () if racer is None or racer.turn is None else racer.turn.attempts

    def lost(self, winner: int) -> None:
        """The other models are cancelled because this one was faster."""
        for number, racer in self._racers.items():
            racer.lost = number != winner

    def _arguments(self, number: int) -> dict[str, Any]:
        messages = conversation_of(self._question, self._deadline)
        return {
            "model": self.models[number],
            "client": self._client,
            "system": self._system,
            "messages": messages,
        }

    def _draft(self, chat: Conversation, number: int, stop_flag: StopFlag | None) -> Draft:
        draft = draft_of(
            chat, self._question, self.config, stop_flag=stop_flag, timeout=self._deadline
        )
        if not self._is_race:
            return draft
        racer = self._racers[number] = Racer(partial(self._location, self.models[number]))
        return replace(draft, racer=racer)

    def _location(self, model: str) -> str | None:
        return self._router.resolve(model).location


class _Contest:
    """The models that answer one question, and what has become of each."""

    def __init__(self, asked: _Questions) -> None:
        """Begin; an answer of ``max_tokens`` tokens is complete if the call has set it."""
        self.models = asked.models
        self._asked = asked
        self._may_be_cut = asked.config.given.get("max_tokens") is not None
        self._began_at = perf_counter()
        self._results: dict[int, Any] = {}
        self._times_ms: dict[int, float] = {}
        self._winner: int | None = None
        self._unfinished = ("SLOWER", "another model was faster")

    def add(self, number: int, result: Any) -> bool:
        """Record an answer or an error; returns whether it is a complete answer."""
        self._results[number] = result
        self._times_ms[number] = (perf_counter() - self._began_at) * 1000
        return not isinstance(result, BaseException) and self._flaw(result) is None

    def _flaw(self, answer: Any) -> str | None:
        """What an answer lacks; None for a complete one."""
        reason = answer.finish_reason
        if reason is FinishReason.CANCELLED:  # the caller has stopped all of them
            return None
        if reason is FinishReason.LENGTH and not self._may_be_cut:
            return "its answer was cut, and max_tokens was not set"
        if reason not in (FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.LENGTH):
            return f"its answer ended with the finish reason {str(reason)!r}"
        if not answer.text.strip() and not answer.tool_calls:
            return "its answer is empty"
        return None

    def result(self) -> Any:
        """The first answer when none is complete, one with text if there is any.

        Raises:
            TaluError: no model answered.
        """
        numbers = [n for n, one in self._results.items() if not isinstance(one, BaseException)]
        if not numbers:
            raise self._failure()
        best = next((n for n in numbers if self._results[n].text.strip()), numbers[0])
        answer = self.winner(best)
        answer._add_note(f"no model gave a complete answer: {self._flaw(answer)}")
        return answer

    def winner(self, number: int) -> Any:
        """The answer of this model, with the attempts of all."""
        self._winner = number
        answer = self._results[number]
        if answer.finish_reason is FinishReason.CANCELLED:
            self._unfinished = ("CANCELLED", "the request was cancelled")
        else:
            self._asked.lost(number)
        answer._set_attempts(self._attempts())
        return answer

    def _failure(self) -> TaluError:
        """The error when no model answered."""
        errors = [self._results[number] for number in range(len(self.models))]
        return no_answer(self._attempts(), errors)

    def _attempts(self) -> tuple[Attempt, ...]:
        """The attempts at all models; those of a policy are several."""
        each = [self._attempts_of(number) for number in range(len(self.models))]
        return tuple(attempt for attempts in each for attempt in attempts)

    def _attempts_of(self, number: int) -> list[Attempt]:
        ended = (perf_counter() - self._began_at) * 1000
        known = self._asked.attempts(number)
        *before, last = known or [
            Attempt(model=self.models[number], duration_ms=self._times_ms.get(number, ended))
        ]
        if last.error not in (None, "CANCELLED"):  # it has failed, whoever has won since
            return [*before, last]
        error, reason = self._ending(number)
        return [*before, replace(last, error=error, reason=reason)]

    def _ending(self, number: int) -> tuple[str | None, str | None]:
        """The error and the reason of the last attempt at a model."""
        result = self._results.get(number)
        error, reason = self._unfinished
        if isinstance(result, BaseException):
            error = result.code if isinstance(result, TaluError) else type(result).__name__
            reason = str(result)
        elif result is not None:
            flaw = None if number == self._winner else self._flaw(result)
            return (None, None) if flaw is None else ("INCOMPLETE", flaw)
        return error, reason


class FanOut:
    """Methods of ``Client`` that ask several models."""

    _router: Router

    def ask_all(
        self,
        prompt: Message,
        models: Sequence[str] | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> list[Response | Exception]:
        """Ask several models the same question at once.

        Args:
            prompt: as in ``ask``, but one question.
            models: names of the client's models; None for all.
            config: as in ``ask``.
            system: as in ``ask``.
            stop_flag: as in ``ask``.
            timeout: as in ``ask``, for all models together.
            settings: as in ``ask``.

        Returns:
            The answers in the order of ``models``; in the place of an answer that failed, its
            exception.

        Raises:
            ValidationError: an argument is wrong, or there is no such model.
            StateError: the client is closed.
        """
        check_stop_flag(stop_flag)
        full = merged(config, settings=settings)
        asked = _Questions(self, "ask_all", prompt, models, full, system, timeout)
        with _threads(asked, stop_flag) as futures:
            wait(futures)
            return [_result(future) for future in futures]

    def race(
        self,
        prompt: Message,
        models: Sequence[str] | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response:
        """Ask several models the same question at once, and return the first complete answer.

        An answer is complete if it has text or tool calls and ended by itself, or was cut at a
        ``max_tokens`` that the call has set. One that was filtered or cut otherwise, or is empty,
        is only returned when no model gave a complete one, with a note. The other models are
        cancelled. The answer's ``attempts`` show all models. A stop flag that is signalled, also
        before the call, gives an answer that is cut short (``CANCELLED``) as in ``ask``. See
        ``ask_all`` for the arguments.

        Raises:
            GenerationError: no model answered; the message says what each of them said.
            ValidationError: an argument is wrong, or there is no such model.
            StateError: the client is closed.
        """
        check_stop_flag(stop_flag)
        full = merged(config, settings=settings)
        asked = _Questions(self, "race", prompt, models, full, system, timeout)
        contest = _Contest(asked)
        with _threads(asked, stop_flag) as futures:
            running = set(futures)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=futures.index):
                    number = futures.index(future)
                    if contest.add(number, _result(future)):
                        return cast("Response", contest.winner(number))
            return cast("Response", contest.result())


class AsyncFanOut:
    """Methods of ``AsyncClient`` that ask several models."""

    _router: Router

    async def ask_all(
        self,
        prompt: Message,
        models: Sequence[str] | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> list[AsyncResponse | Exception]:
        """Like ``Client.ask_all``, awaited."""
        check_stop_flag(stop_flag)
        full = merged(config, settings=settings)
        asked = _Questions(self, "ask_all", prompt, models, full, system, timeout)
        tasks = _tasks(asked, stop_flag)
        try:
            await asyncio.wait(tasks)
            return [_outcome(task) for task in tasks]
        finally:
            await _cancelled(tasks)

    async def race(
        self,
        prompt: Message,
        models: Sequence[str] | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse:
        """Like ``Client.race``, awaited."""
        check_stop_flag(stop_flag)
        full = merged(config, settings=settings)
        asked = _Questions(self, "race", prompt, models, full, system, timeout)
        contest = _Contest(asked)
        tasks = _tasks(asked, stop_flag)
        running = set(tasks)
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=tasks.index):
                    number = tasks.index(task)
                    if contest.add(number, _outcome(task)):
                        return cast("AsyncResponse", contest.winner(number))
            return cast("AsyncResponse", contest.result())
        finally:
            await _cancelled(tasks)


@contextmanager
def _threads(asked: _Questions, stop_flag: StopFlag | None) -> Generator[list["Future[Response]"]]:
    """A thread for each model; those that are still running at the end are told to stop."""
    stop = StopFlag()
    if stop_flag is not None:
        stop_flag.when_signalled(stop.signal)
    pool = ThreadPoolExecutor(len(asked.models), "talu-ask")
    futures: list[Future[Response]] = []
    try:
        with thread_starts():
            for number in range(len(asked.models)):
                futures.append(pool.submit(asked.ask, number, stop))
        yield futures
    finally:
        stop.signal()
        pool.shutdown(wait=False, cancel_futures=True)  # a model may still be opening


def _tasks(asked: _Questions, stop_flag: StopFlag | None) -> list["asyncio.Task[AsyncResponse]"]:
    numbers = range(len(asked.models))
    return [asyncio.create_task(asked.aask(number, stop_flag)) for number in numbers]


async def _cancelled(tasks: Sequence["asyncio.Task[AsyncResponse]"]) -> None:
    """Cancel the tasks that are still running, and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _result(future: "Future[Response]") -> Response | Exception:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, asyncio.CancelledError):
        return _cancelled_itself()
    if isinstance(error, Exception):
        return error
    raise error


def _cancelled_itself() -> GenerationError:
    """The error of a request that was cancelled by its backend, and not by the caller."""
    return GenerationError("the request was cancelled by the code that ran it")


def _outcome(task: "asyncio.Task[AsyncResponse]") -> AsyncResponse | Exception:
    if task.cancelled():
        return _cancelled_itself()
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, Exception):
        return error
    raise error

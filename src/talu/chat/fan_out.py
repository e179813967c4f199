"""Defines the client methods that ask one question to several models at once."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, Unpack, cast

from talu.chat.async_chat import AsyncResponse
from talu.chat.questions import conversation_of, single
from talu.chat.sync_chat import Response
from talu.chat.user_message import Message, user_items
from talu.config import GenerationConfig, GenerationSettings, merged
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import StateError, TaluError, ValidationError
from talu.router.failures import no_answer
from talu.router.router import Router
from talu.threads import thread_starts
from talu.types import Attempt, FinishReason, StopFlag, check_stop_flag

__all__ = ["AsyncFanOut", "FanOut"]

MAX_MODELS = 1000


class _Contest:
    """The models that answer one question, and what has become of each."""

    def __init__(self, models: Sequence[str], *, may_be_cut: bool) -> None:
        """Begin; ``may_be_cut`` means that an answer of ``max_tokens`` tokens is complete."""
        self.models = models
        self._may_be_cut = may_be_cut
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
        answer._set_attempts(tuple(map(self._attempt, range(len(self.models)))))
        return answer

    def _failure(self) -> TaluError:
        """The error when no model answered."""
        errors = [self._results[number] for number in range(len(self.models))]
        attempts = [self._attempt(number) for number in range(len(self.models))]
        return no_answer(attempts, errors)

    def _attempt(self, number: int) -> Attempt:
        ended = (perf_counter() - self._began_at) * 1000
        error, reason = self._unfinished
        result = self._results.get(number)
        attempt = Attempt(model=self.models[number], duration_ms=self._times_ms.get(number, ended))
        if isinstance(result, BaseException):
            error = result.code if isinstance(result, TaluError) else type(result).__name__
            reason = str(result)
        elif result is not None:
            flaw = None if number == self._winner else self._flaw(result)
            return attempt if flaw is None else replace(attempt, error="INCOMPLETE", reason=flaw)
        return replace(attempt, error=error, reason=reason)


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
        names, ask = _prepared(
            self,
            "ask_all",
            prompt,
            models,
            config,
            system=system,
            timeout=timeout,
            settings=settings,
        )
        stop = _stop_like(stop_flag)
        with _threads(names, ask, stop) as futures:
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
        names, ask = _prepared(
            self, "race", prompt, models, config, system=system, timeout=timeout, settings=settings
        )
        stop = _stop_like(stop_flag)
        contest = _Contest(names, may_be_cut=_may_be_cut(config, settings))
        with _threads(names, ask, stop) as futures:
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
        names, ask = _prepared(
            self,
            "ask_all",
            prompt,
            models,
            config,
            system=system,
            timeout=timeout,
            settings=settings,
        )
        tasks = _tasks(names, partial(ask, stop_flag=stop_flag))
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
        names, ask = _prepared(
            self, "race", prompt, models, config, system=system, timeout=timeout, settings=settings
        )
        contest = _Contest(names, may_be_cut=_may_be_cut(config, settings))
        tasks = _tasks(names, partial(ask, stop_flag=stop_flag))
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


def _prepared(
    client: Any,
    method: str,
    prompt: Message,
    models: Sequence[str] | None,
    config: GenerationConfig | None,
    *,
    system: str | None,
    timeout: float | None,
    settings: GenerationSettings,
) -> tuple[list[str], Callable[..., Any]]:
    """The checked names of the models, and the function to ask one of them."""
    router: Router = client._router
    if router.closed:
        raise StateError("the client has been closed", "STATE_CLOSED")
    names = router.models if models is None else models
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or not 0 < len(names) <= MAX_MODELS
    ):
        wrong = f"models must be a list of 1 to {MAX_MODELS:,} names of models, got {shown(models)}"
        raise ValidationError(wrong, details={"param": "models"})
    question = single(prompt, method)
    if conversation_of(question) is None:
        user_items(question)  # a wrong one is an error here, and not the answer of every model
    ask = partial(
        client.ask,
        question,
        config=merged(config, settings=settings),
        system=system,
        timeout=Deadline.after(timeout),
    )
    return [router.name_of(name) for name in names], ask


def _may_be_cut(config: GenerationConfig | None, settings: GenerationSettings) -> bool:
    """Whether the call sets the limit of tokens."""
    return merged(config, settings=settings).given.get("max_tokens") is not None


def _stop_like(flag: StopFlag | None) -> StopFlag:
    stop = StopFlag()
    if flag is not None:
        flag.when_signalled(stop.signal)
    return stop


@contextmanager
def _threads(
    names: Sequence[str], ask: Callable[..., Response], stop: StopFlag
) -> Generator[list["Future[Response]"]]:
    """A thread for each model; those that are still running at the end are told to stop."""
    pool = ThreadPoolExecutor(len(names), "talu-ask")
    futures: list[Future[Response]] = []
    try:
        with thread_starts():
            for name in names:
                futures.append(pool.submit(ask, model=name, stop_flag=stop))
        yield futures
    finally:
        stop.signal()
        pool.shutdown(wait=False, cancel_futures=True)  # a model may still be opening


def _tasks(
    names: Sequence[str], ask: Callable[..., Coroutine[Any, Any, AsyncResponse]]
) -> list["asyncio.Task[AsyncResponse]"]:
    return [asyncio.create_task(ask(model=name)) for name in names]


async def _cancelled(tasks: Sequence["asyncio.Task[AsyncResponse]"]) -> None:
    """Cancel the tasks that are still running, and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _result(future: "Future[Response]") -> Response | Exception:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error


def _outcome(task: "asyncio.Task[AsyncResponse]") -> AsyncResponse | Exception:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, Exception):
        return error
    raise error

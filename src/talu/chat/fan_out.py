"""Defines the client methods that ask one question to several models at once."""

from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack, cast

import talu.aio as aio
from talu.chat.async_chat import AsyncResponse
from talu.chat.sync_chat import Response
from talu.chat.user_message import Message
from talu.config import GenerationConfig, GenerationSettings
from talu.exceptions import GenerationError
from talu.first_use import loaded
from talu.router.router import Router
from talu.threads import thread_starts
from talu.types import StopFlag, check_stop_flag

if TYPE_CHECKING:
    from talu.chat.contest import Contest, Questions

__all__ = ["AsyncFanOut", "FanOut"]


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
        asked = _questions(self, "ask_all", prompt, models, config, settings, system, timeout)
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
        asked = _questions(self, "race", prompt, models, config, settings, system, timeout)
        contest: Contest = loaded("talu.chat.contest", "Contest")(asked)
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
        asked = _questions(self, "ask_all", prompt, models, config, settings, system, timeout)
        tasks = _tasks(asked, stop_flag)
        try:
            await aio.wait(tasks)
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
        asked = _questions(self, "race", prompt, models, config, settings, system, timeout)
        contest: Contest = loaded("talu.chat.contest", "Contest")(asked)
        tasks = _tasks(asked, stop_flag)
        running = set(tasks)
        try:
            while running:
                done, running = await aio.wait(running, return_when=aio.FIRST_COMPLETED)
                for task in sorted(done, key=tasks.index):
                    number = tasks.index(task)
                    if contest.add(number, _outcome(task)):
                        return cast("AsyncResponse", contest.winner(number))
            return cast("AsyncResponse", contest.result())
        finally:
            await _cancelled(tasks)


def _questions(*arguments: Any) -> "Questions":
    """The question of a call; see ``Questions``."""
    asked: Questions = loaded("talu.chat.contest", "Questions")(*arguments)
    return asked


@contextmanager
def _threads(asked: "Questions", stop_flag: StopFlag | None) -> Generator[list["Future[Response]"]]:
    """A thread for each model; those that are still running at the end are told to stop."""
    stop = StopFlag()
    if stop_flag is not None:
        stop_flag.when_signalled(stop.signal)
    pool = loaded("concurrent.futures", "ThreadPoolExecutor")(len(asked.models), "talu-ask")
    futures: list[Future[Response]] = []
    try:
        with thread_starts():
            for number in range(len(asked.models)):
                futures.append(pool.submit(asked.ask, number, stop))
        yield futures
    finally:
        stop.signal()
        pool.shutdown(wait=False, cancel_futures=True)  # a model may still be opening


def _tasks(asked: "Questions", stop_flag: StopFlag | None) -> list["aio.Task[AsyncResponse]"]:
    numbers = range(len(asked.models))
    return [aio.create_task(asked.aask(number, stop_flag)) for number in numbers]


async def _cancelled(tasks: Sequence["aio.Task[AsyncResponse]"]) -> None:
    """Cancel the tasks that are still running, and wait for them."""
    for task in tasks:
        task.cancel()
    await aio.gather(*tasks, return_exceptions=True)


def _result(future: "Future[Response]") -> Response | Exception:
    error = future.exception()
    if error is None:
        return future.result()
    if aio.was_cancelled(error):
        return _cancelled_itself()
    if isinstance(error, Exception):
        return error
    raise error


def _cancelled_itself() -> GenerationError:
    """The error of a request that was cancelled by its backend, and not by the caller."""
    return GenerationError("the request was cancelled by the code that ran it")


def _outcome(task: "aio.Task[AsyncResponse]") -> AsyncResponse | Exception:
    if task.cancelled():
        return _cancelled_itself()
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, Exception):
        return error
    raise error

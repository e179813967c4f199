"""Runs one background event loop for each process, for the coroutines of blocking callers.

The loop starts with the first call and ends with the interpreter. A forked child starts another
one. The thread is a daemon thread, so that blocked code cannot keep the interpreter from ending.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from talu.descriptors import descriptor_opens
from talu.exceptions import GenerationError, StateError
from talu.exits import at_exit
from talu.forks import ForkSafeLock, check_process
from talu.threads import thread_starts

__all__ = ["CLOSING_SECONDS", "Background", "Outcome", "Work", "background_loop", "on_background"]

T = TypeVar("T")
CLOSING_SECONDS = 5.0  # for a generation to close, and for the loop to end
GATE = ForkSafeLock(reentrant=True)  # a signal handler may call in


class Outcome(Generic[T]):
    """How a coroutine ended: with a value or an error."""

    def __init__(self, value: T | None = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    def result(self) -> T:
        """The value, or the error, which is raised once."""
        error, self.error = self.error, None  # whose traceback may lead back to this object
        try:
            if error is not None:
                raise error
            return cast("T", self.value)
        finally:
            del error


class Work:
    """A coroutine on the loop, as the caller's thread sees it.

    Attributes:
        background: where it runs; None before it was submitted.
        task: its task; None before it began and after it has ended.
        stopped: the caller does not wait for it any more.
    """

    def __init__(self, background: "Background | None" = None) -> None:
        self.background = background
        self.task: asyncio.Task[None] | None = None
        self.stopped = False

    def stop(self) -> None:
        """Cancel the task; from any thread, signal handler or finalizer."""
        self.stopped = True
        if self.background is not None:
            self.background.post_if_open(self._cancel_task)

    def _cancel_task(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def finish(self, outcome: Outcome[Any]) -> None:
        """Tell the caller how it ended."""
        raise NotImplementedError


class Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._process = os.getpid()
        with descriptor_opens():
            self._loop = _Loop()
        self._tasks: set[asyncio.Task[None]] = set()  # a loop refers to its tasks weakly
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="talu-loop", daemon=True)
        try:
            with thread_starts():
                self._thread.start()
        except BaseException:
            if not self._thread.is_alive():
                self._loop.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it runs, and in this process."""
        return self._process == os.getpid() and not self._ending

    @property
    def is_current(self) -> bool:
        """Whether this is its thread, which cannot wait for itself."""
        return threading.current_thread() is self._thread

    def check_process(self) -> None:
        """``StateError`` in a forked child, which does not have the thread."""
        check_process(self._process, "this request was started", "submit it again in this process")

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop, for a caller that waits for the result."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed
            raise _interpreter_ends() from None

    def post_if_open(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop unless the loop has ended or belongs to another process."""
        if self._process == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *args)

    def spawn(self, make: Callable[[], Coroutine[Any, Any, None]], work: Work) -> None:
        """Start a task for the coroutine, unless it was stopped already. On the loop."""
        if work.stopped or self._ending:
            work.finish(Outcome(error=None if work.stopped else _interpreter_ends()))
            return
        work.task = task = self._loop.create_task(self._guarded(make, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, make: Callable[[], Coroutine[Any, Any, None]], work: Work) -> None:
        """Run the coroutine; the caller's thread gets every error, and the loop none."""
        outcome: Outcome[None] = Outcome()
        try:
            await make()
        except asyncio.CancelledError as error:
            if self._ending:
                outcome = Outcome(error=_interpreter_ends())
            elif not work.stopped:
                outcome = Outcome(error=_was_cancelled(error))
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            outcome = Outcome(error=error)
        work.task = None  # which refers to the work
        work.finish(outcome)

    def end(self) -> None:
        """Cancel all tasks and end the thread, unless it belongs to another process."""
        if self._process == os.getpid() and not self._ending:
            self._ending = True
            self.post_if_open(self._loop.stop)
            self._thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()


RUNNING: list[Background] = []  # in a forked child also the parent's, which must not be closed


class _Loop(asyncio.SelectorEventLoop):
    """A loop that is silent in a forked child."""

    _getpid = staticmethod(os.getpid)  # modules are emptied before the last objects end

    def __init__(self) -> None:
        self._process = os.getpid()
        super().__init__()

    def __del__(self, *args: Any) -> None:
        if self._process == self._getpid():
            super().__del__(*args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an error, but nothing about the tasks of the parent process."""
        if self._process == os.getpid():
            super().call_exception_handler(context)


def on_background() -> Background | None:
    """The background loop whose thread this is; None in every other thread."""
    return next((background for background in list(RUNNING) if background.is_current), None)


def background_loop() -> Background:
    """The loop of this process, which starts now if it does not run."""
    with GATE.lock:
        if on_background() is not None:
            raise StateError(
                "a blocking call of talu inside async code of talu would wait for itself: await "
                "AsyncClient there, or make the call in another thread",
                "STATE_BUSY",
            )
        usable = [background for background in RUNNING if background.usable]
        if usable:
            return usable[0]
        if ENDED:
            raise _interpreter_ends()
        background = Background()
        RUNNING.append(background)
        return background


ENDED: list[int] = []  # this process, once its interpreter is ending


def _end() -> None:
    ENDED.append(os.getpid())
    for background in list(RUNNING):
        background.end()


at_exit(_end)


def _interpreter_ends() -> StateError:
    return StateError("no request can run: the interpreter is ending", "STATE_CLOSED")


def _was_cancelled(error: asyncio.CancelledError) -> GenerationError:
    failure = GenerationError("the request was cancelled by the code that ran it")
    failure.__cause__ = error
    return failure

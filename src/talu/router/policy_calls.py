"""Calls the methods of policies, which users may have written, in threads of their own."""

import asyncio
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from talu.deadline import Deadline
from talu.error_text import shortened, shown
from talu.exceptions import GenerationError, ResourceError, TaluError, ValidationError
from talu.forks import ForkSafeLock
from talu.protocols import Backend
from talu.router.policies import Policy, choice
from talu.router.queue import Queue, Ticket
from talu.router.status import TargetStatus
from talu.threads import in_daemon_thread
from talu.types import Request

__all__ = ["PolicyCalls", "checked_models"]

P = ParamSpec("P")
T = TypeVar("T")
SHOWN_MODELS = 10  # in an error
MAX_CALLS = 16  # of a policy at the same time


def checked_models(policy: Policy, known: Sequence[str]) -> list[str]:
    """The names of the policy's models, of the known ones.

    Raises:
        ValidationError: ``check`` has raised, or returned something else.
    """
    try:
        checked: object = policy.check(list(known))
    except ValidationError:
        raise
    except Exception as error:
        raise ValidationError(_raised(policy, "check", error), details=_about(policy)) from error
    return _models(policy, "check", checked, known)


class PolicyCalls:
    """Calls a policy for the requests of a router; what a user has written runs in daemon threads.

    Nothing can end a method that hangs. The request that waits for it ends with its time limit, but
    the thread stays, so there are at most ``MAX_CALLS`` at the same time.

    Attributes:
        policy: the policy.
    """

    def __init__(self, policy: Policy) -> None:
        """Begin without any call."""
        self.policy = policy
        self._lock = ForkSafeLock(reentrant=True)  # finalizers may call in
        self._forget_calls()

    def _forget_calls(self) -> None:
        self._process = os.getpid()
        self._running: set[_Call] = set()
        self._queue = Queue()

    @contextmanager
    def _state(self) -> Generator[None]:
        """Access to the state. A forked child does not have the threads of its parent."""
        with self._lock.lock:
            if self._process != os.getpid():
                self._forget_calls()
            yield

    async def order(self, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
        """The names of the models to ask, best first.

        Raises:
            ValidationError: ``order`` has returned something else.
            GenerationError: ``order`` has raised, or did not return before the request's deadline;
                or as many earlier calls hang as there may be.
        """
        policy = self.policy
        chosen: object = await self._called(policy.order, request.deadline, request, targets)
        return _models(policy, "order", chosen, [target.model for target in targets])

    async def reason_against(self, backend: Backend, request: Request) -> str | None:
        """Why a model cannot answer the request; None if it can.

        Raises:
            ValidationError: ``unfit`` has returned something else.
            GenerationError: as ``order``.
        """
        policy = self.policy
        reason: object = await self._called(policy.unfit, request.deadline, backend, request)
        if reason is None or (isinstance(reason, str) and reason):
            return reason
        raise ValidationError(
            f"{type(policy).__name__}.unfit must return a text that says why the model cannot "
            f"answer, or None if it can, and returned {shown(reason)}",
            details=_about(policy),
        )

    async def _called(
        self,
        method: Callable[P, T],
        deadline: Deadline | None,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a method, in a thread if a user has written it: it may take its time."""
        if getattr(method, "__module__", None) == Policy.__module__:
            return method(*args, **kwargs)
        policy, name = self.policy, getattr(method, "__name__", "order")

        def call() -> T:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                wrong = _raised(policy, name, error)
                raise GenerationError(wrong, "POLICY_FAILED", _about(policy)) from error

        try:
            async with asyncio.timeout(None if deadline is None else deadline.left):
                return await self._in_thread(name, call)
        except TimeoutError:
            if deadline is None:
                raise
            raise deadline.error() from None

    async def _in_thread(self, name: str, call: Callable[[], T]) -> T:
        """Run a call in a thread once there is room for one."""
        running = await self._admitted(name)

        def counted() -> T:
            try:
                return call()
            finally:
                self._ended(running)

        try:
            return await in_daemon_thread("talu-policy", counted)
        except ResourceError:  # no thread was started
            self._ended(running)
            raise
        except BaseException:
            self._abandoned(running)
            raise

    async def _admitted(self, name: str) -> "_Call":
        """Wait for room for another call, in the order of the requests."""
        ticket = Ticket()
        with self._state():
            self._queue.enter(ticket)
        try:
            while True:
                with self._state():
                    self._check_hanging(name)
                    free = len(self._running) < MAX_CALLS
                    if free and not self._queue.others_first(ticket):
                        self._running.add(running := _Call(ticket))
                        return running
                    changed = self._queue.changed(ticket)
                await changed
        finally:
            with self._state():
                self._queue.leave(ticket)
                self._queue.wake_first()

    def _check_hanging(self, name: str) -> None:
        """Refuse a call when nobody waits any more for any of those that run."""
        if sum(call.hangs for call in self._running) < MAX_CALLS:
            return
        kind = type(self.policy).__name__
        raise GenerationError(
            f"{MAX_CALLS} calls of {kind} have not returned although their requests have ended, so "
            f"{kind}.{name} is not called again until one of them returns: correct the policy",
            "POLICY_FAILED",
            _about(self.policy),
        )

    def _ended(self, call: "_Call") -> None:
        with self._state():
            self._running.discard(call)
            self._queue.wake_first()

    def _abandoned(self, call: "_Call") -> None:
        with self._state():
            call.abandoned = True
            self._queue.wake_all()


class _Call:
    """A call of a method in a thread."""

    def __init__(self, ticket: Ticket) -> None:
        self.abandoned = False
        self._ticket = ticket

    @property
    def hangs(self) -> bool:
        """Whether it still runs although its request has ended."""
        return self.abandoned or self._ticket.dead


def _models(policy: Policy, method: str, chosen: object, known: Sequence[str]) -> list[str]:
    if (models := choice(chosen, known)) is None:
        names = ", ".join(map(shown, known[:SHOWN_MODELS]))
        raise ValidationError(
            f"{type(policy).__name__}.{method} must return a list of some of the models {names}, "
            f"each once, and returned {shown(chosen)}",
            details=_about(policy),
        )
    return models


def _raised(policy: Policy, method: str, error: Exception) -> str:
    said = error if isinstance(error, TaluError) else f"{type(error).__name__}: {error}"
    return f"{type(policy).__name__}.{method} of the policy raised {shortened(str(said))}"


def _about(policy: Policy) -> dict[str, object]:
    return {"param": "policy", "value": type(policy).__name__}

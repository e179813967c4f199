"""A generation that is answered by one of the models of a policy."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from talu.error_text import shown
from talu.exceptions import TaluError
from talu.protocols import Backend
from talu.router.dispatch import Dispatch
from talu.router.hedging import Hedging
from talu.router.policy_calls import PolicyCalls
from talu.router.status import TargetStatus
from talu.router.targets import Target
from talu.router.trial import Trial
from talu.threads import beside_loop
from talu.types import Attempt, Done, Event, FinishReason, Request, Restart, Timings, Usage

__all__ = ["Choices", "RoutedGeneration"]


@dataclass(frozen=True, slots=True)
class Choices:
    """A policy, its models, and what their generations share.

    Attributes:
        calls: calls the policy, which decides the order of the models.
        targets: the state of each model.
        open_model: opens a model by its name, for a request.
        hedging: the times and the budget of the policy.
        opened: the backend of a model if it is open.
    """

    calls: PolicyCalls
    targets: Sequence[Target]
    open_model: Callable[[str, Request], Awaitable[Backend]]
    hedging: Hedging
    opened: Callable[[str], Backend | None] = lambda name: None


class RoutedGeneration:
    """See ``talu.protocols.AsyncGeneration``. The start waits for the first token of a model."""

    def __init__(self, choices: Choices, request: Request, model: str) -> None:
        """A generation that has not started; ``model`` is the name until one has answered."""
        self._choices = choices
        self._model = model
        self._request = request
        self._cancelled = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Future[None] | None = None  # done when no further model is to be asked
        self._dispatch: Dispatch | None = None
        self._first: Target | None = None  # the policy's first choice
        self._trial: Trial | None = None
        self._asking = False
        self._is_recorded = False  # the attempt of ``_trial`` is among ``_attempts``
        self._events: deque[Event] = deque()
        self._attempts: tuple[Attempt, ...] = ()
        self._notes: tuple[str, ...] = ()

    async def start(self) -> None:
        """Ask the models, until one has given its first token."""
        choices, request = self._choices, self._request
        self._loop = asyncio.get_running_loop()
        self._stop = stop = self._loop.create_future()
        states = {target.name: target for target in choices.targets}
        order = await self._order_unless(stop)
        if order is None:
            self._end_unanswered()
            return
        self._dispatch = dispatch = Dispatch(
            request,
            choices.calls,
            [states[name] for name in order],
            lambda name: choices.open_model(name, request),
            choices.hedging,
            stop,
        )
        self._first = states[order[0]]
        await self._take(dispatch.run())

    async def _take(self, asking: Awaitable[None]) -> None:
        """Let models be asked until one has given its first token, and take its events."""
        dispatch = self._dispatch
        if dispatch is None:
            raise RuntimeError("the generation has not been started")
        self._trial, self._asking = None, True
        if self._cancelled:
            self._stop_asking()
        try:
            await asking
        finally:
            self._asking = False
            self._attempts = tuple(dispatch.attempts)
            self._trial = trial = dispatch.winner
            if not self._request.unseen:
                self._dispatch = None  # with the errors of the other models
        if trial is None:
            self._end_unanswered()
            return
        self._notes = self._notes_on(trial)
        self._events += map(self._seen, trial.held)
        trial.held.clear()
        if self._cancelled and trial.generation is not None:
            trial.generation.cancel()

    def _end_unanswered(self) -> None:
        """End a generation that was stopped before a model has answered."""
        self._ended = True
        self._events.append(self.so_far())

    def _stop_asking(self) -> None:
        """Ask no further model; to be called on the event loop of the request."""
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(None)

    def _notes_on(self, trial: Trial) -> tuple[str, ...]:
        notes = []
        if self._first is not None and trial.model != self._first.name:
            notes.append(_note(self._first.status(), trial.model, self._attempts))
        if again := [each.error for each in self._attempts if each.model == trial.model]:
            times = "once" if len(again) == 1 else f"{len(again)} times"
            slower = again[-1] == "SLOWER"
            why = "the answer of a model that was faster broke off" if slower else again[-1]
            notes.append(f"the request was repeated {times}: {why}")
        return tuple(notes)

    async def _order_unless(self, stop: "asyncio.Future[None]") -> list[str] | None:
        """The names of the models to ask, best first; None once ``stop`` is done."""
        if self._cancelled:
            return None
        asking = asyncio.ensure_future(self._order())
        either: set[asyncio.Future[Any]] = {asking, stop}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()
        return asking.result() if asking.done() else None

    async def _order(self) -> list[str]:
        calls, targets = self._choices.calls, self._choices.targets
        order = await calls.order(self._request, [target.status() for target in targets])
        if not calls.policy.prefers_cached:
            return order
        opened = [self._choices.opened(name) for name in order]
        cached = await beside_loop(_cached, opened, self._request)
        best = max(cached)
        first = cached.index(best)
        return [order[first], *order[:first], *order[first + 1 :]] if best > 0 else order

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._events:
            return self._events.popleft()
        trial = self._trial
        if self._ended or trial is None or trial.generation is None:
            raise StopAsyncIteration
        try:
            event = await anext(trial.generation)
        except StopAsyncIteration:
            self._end()
            raise
        except TaluError as error:
            if self._dispatch is None:
                self._break(trial, error)
                raise
            broken = error
        except BaseException:
            self._end()
            raise
        else:
            return self._seen(event)
        await self._resume(trial, broken)
        return await anext(self)

    async def _resume(self, trial: Trial, error: TaluError) -> None:
        """Let another model answer; nobody has seen the answer that has ended with this error."""
        dispatch = self._dispatch
        if dispatch is None or trial.generation is None:
            raise error
        await trial.generation.aclose()
        try:
            await self._take(dispatch.resume(error))
        except BaseException:
            self._trial, self._is_recorded = trial, True  # its text stays
            self._end()
            raise
        self._events.appendleft(Restart())  # also when it was stopped: nobody has the broken answer

    def cancel(self) -> None:
        """Let it end soon; see ``talu.protocols.Generation``."""
        self._cancelled = True
        loop, trial = self._loop, self._trial
        if trial is not None and trial.generation is not None and not self._asking:
            trial.generation.cancel()
        elif loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._stop_asking)

    def so_far(self) -> Done:
        """The last event as if the generation was cancelled now."""
        trial = self._trial
        if trial is None or trial.generation is None:
            done = Done(FinishReason.CANCELLED, Usage(), Timings(), self._model)
            return replace(done, notes=self._request.notes, attempts=self._attempts)
        return self._named(trial, trial.generation.so_far())

    async def aclose(self) -> None:
        """Cancel it and read no more."""
        self._cancelled = True
        self._events.clear()
        trial = self._trial
        if trial is not None and trial.generation is not None:
            await trial.generation.aclose()
        self._end()

    def _seen(self, event: Event) -> Event:
        trial = self._trial
        if not isinstance(event, Done) or trial is None:
            return event
        if event.finish_reason not in (FinishReason.CANCELLED, FinishReason.ERROR):
            trial.lease.completed()
        return self._named(trial, event)

    def _named(self, trial: Trial, done: Done) -> Done:
        """The last event, with the model that answered and those that were asked."""
        if done.usage.total_tokens is not None:
            trial.lease.used(done.usage.total_tokens)
        answered = () if self._is_recorded else trial.attempts(None, None, done.attempts)
        attempts = sorted((*self._attempts, *answered), key=lambda each: each.started_ms)
        notes = (*done.notes, *self._notes)
        return replace(done, model=trial.model, attempts=tuple(attempts), notes=notes)

    def _end(self) -> None:
        self._ended = True
        self._dispatch = None
        if self._trial is not None:
            self._trial.lease.release()

    def _break(self, trial: Trial, error: TaluError) -> None:
        """The answer has ended with an error; no other model may continue it."""
        requests = trial.attempts(error.code, str(error), error.attempts)
        self._attempts = error.attempts = (*self._attempts, *requests)
        self._is_recorded = True
        trial.lease.failed(error)
        self._end()


def _cached(backends: Sequence[Backend | None], request: Request) -> list[int]:
    """For each backend the cached tokens of the prompt, 0 if they are not more than half of it."""
    found = []
    for backend in backends:
        asked = getattr(backend, "cached_tokens", None)
        cached, tokens = 0, 0
        if callable(asked):
            with suppress(TaluError):  # the attempt will raise it
                cached, tokens = asked(request)
        found.append(cached if 2 * cached > tokens else 0)
    return found


def _note(first: TargetStatus, answered: str, attempts: Sequence[Attempt]) -> str:
    """The note of an answer that is not from the first choice."""
    why = next((each.reason for each in attempts if each.model == first.model), None)
    if why is None and first.cooling_s > 0:
        why = f"it is not asked for {first.cooling_s:.3g} s ({first.cooling_reason})"
    why = why or "it has reached its limits, or is being probed by another request"
    return f"{shown(answered)} answered instead of {shown(first.model)}: {why}"

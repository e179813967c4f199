"""The backend of a policy: a model that lets one of several models answer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from talu.bridge import Bridged
from talu.config import FIELDS
from talu.error_text import shown
from talu.exceptions import TaluError
from talu.protocols import AsyncGeneration, Backend, Generation
from talu.router.dispatch import Dispatch
from talu.router.hedging import Hedging
from talu.router.policies import First, Policy
from talu.router.policy_calls import order_of
from talu.router.status import TargetStatus
from talu.router.targets import Target
from talu.router.trial import Trial
from talu.threads import beside_loop
from talu.types import (
    Attempt,
    Capabilities,
    Done,
    Event,
    FinishReason,
    Request,
    Restart,
    Timings,
    Usage,
)

__all__ = ["DirectBackend", "PolicyBackend", "RoutedGeneration"]


class PolicyBackend:
    """See ``talu.protocols.Backend``. Whether a model can do what is asked is seen when it opens.

    Attributes:
        policy: the policy.
        targets: its models.
        open_model: opens one of them for a request.
        hedging: the times and the budget of the policy.
        opened: the backend of a model if it is open.
    """

    def __init__(
        self,
        policy: Policy,
        targets: Sequence[Target],
        open_model: Callable[[str, Request], Awaitable[Backend]],
        hedging: Hedging,
        opened: Callable[[str], Backend | None] = lambda name: None,
    ) -> None:
        """Make the backend.

        Args:
            policy: the order of the models.
            targets: the models.
            open_model: opens a model by its name, for a request.
            hedging: the times and the budget of the policy.
            opened: the backend of a model if it is open.
        """
        self.opened = opened
        self.policy = policy
        self.targets = list(targets)
        self.hedging = hedging
        self.open_model = open_model

    @property
    def model(self) -> str:
        """The policy's name."""
        return self.policy.name

    @property
    def choices(self) -> list[str]:
        """The names of the models that the policy chooses from."""
        return [target.name for target in self.targets]

    @property
    def location(self) -> str | None:
        """None: its models have their own."""
        return None

    @property
    def max_context_length(self) -> int | None:
        """None: that of its models may differ."""
        return None

    @property
    def settings(self) -> Collection[str]:
        """All; a model that does not honour one of those that are set is passed over."""
        return FIELDS

    @property
    def capabilities(self) -> Capabilities:
        """Text; ``Client.capabilities`` asks the models for the rest."""
        return Capabilities.of(())

    def generate(self, request: Request) -> Generation:
        """A generation by one of the models, on the background event loop."""
        return Bridged(lambda: self.agenerate(request))

    def agenerate(self, request: Request) -> AsyncGeneration:
        """A generation by one of the models."""
        return RoutedGeneration(self, request)

    def close(self) -> None:
        """Do nothing: the router closes its models."""


class DirectBackend(PolicyBackend):
    """A backend that is asked without the policy; its generations count for its model as well."""

    def __init__(self, backend: Backend, target: Target, wait: float) -> None:
        """Make it of an open backend.

        Args:
            backend: the backend, which does everything but generate.
            target: the state of its model.
            wait: seconds for which a request without a time limit waits for its turn.
        """
        self._backend = backend
        super().__init__(First(wait=wait), [target], self._opened, Hedging())

    async def _opened(self, name: str, request: Request) -> Backend:
        return self._backend

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._backend.model

    @property
    def choices(self) -> list[str]:
        """Nothing: it is one model."""
        return []

    @property
    def location(self) -> str | None:
        """The location of the backend."""
        return self._backend.location

    @property
    def max_context_length(self) -> int | None:
        """The backend's."""
        return self._backend.max_context_length

    @property
    def settings(self) -> Collection[str]:
        """The backend's."""
        return self._backend.settings

    @property
    def capabilities(self) -> Capabilities:
        """The backend's."""
        return self._backend.capabilities

    def __getattr__(self, name: str) -> Any:
        """What else the backend can do."""
        return getattr(self._backend, name)

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()


class RoutedGeneration:
    """See ``talu.protocols.AsyncGeneration``. The start waits for the first token of a model."""

    def __init__(self, backend: PolicyBackend, request: Request) -> None:
        self._backend = backend
        self._request = request
        self._cancelled = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
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
        backend, request = self._backend, self._request
        self._loop = asyncio.get_running_loop()
        states = {target.name: target for target in backend.targets}
        order = await self._order()
        self._dispatch = dispatch = Dispatch(
            request,
            backend.policy,
            [states[name] for name in order],
            lambda name: backend.open_model(name, request),
            backend.hedging,
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
            dispatch.stop()
        try:
            await asking
        finally:
            self._asking = False
            self._attempts = tuple(dispatch.attempts)
            self._trial = trial = dispatch.winner
            if not self._request.unseen:
                self._dispatch = None  # with the errors of the other models
        if trial is None:
            self._ended = True
            self._events.append(self.so_far())
            return
        self._notes = self._notes_on(trial)
        self._events += map(self._seen, trial.held)
        trial.held.clear()
        if self._cancelled and trial.generation is not None:
            trial.generation.cancel()

    def _notes_on(self, trial: Trial) -> tuple[str, ...]:
        notes = []
        if self._first is not None and trial.model != self._first.name:
            notes.append(_note(self._first.status(), trial.model, self._attempts))
        if again := [each.error for each in self._attempts if each.model == trial.model]:
            times = "once" if len(again) == 1 else f"{len(again)} times"
            notes.append(f"the request was repeated {times}: {again[-1]}")
        return tuple(notes)

    async def _order(self) -> list[str]:
        """The names of the models to ask, best first."""
        backend, policy = self._backend, self._backend.policy
        order = await order_of(
            policy, self._request, [target.status() for target in backend.targets]
        )
        if not policy.prefers_cached:
            return order
        cached = await beside_loop(_cached, [backend.opened(name) for name in order], self._request)
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
        if self._trial is not None:
            self._events.appendleft(Restart())

    def cancel(self) -> None:
        """Let it end soon; see ``talu.protocols.Generation``."""
        self._cancelled = True
        dispatch, loop, trial = self._dispatch, self._loop, self._trial
        if trial is not None and trial.generation is not None and not self._asking:
            trial.generation.cancel()
        elif dispatch is not None and loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(dispatch.stop)

    def so_far(self) -> Done:
        """The last event as if the generation was cancelled now."""
        trial = self._trial
        if trial is None or trial.generation is None:
            done = Done(FinishReason.CANCELLED, Usage(), Timings(), self._backend.model)
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

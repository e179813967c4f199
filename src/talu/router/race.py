"""Asks models for one answer until one of them has given its first token."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import Any

from talu.error_text import shown
from talu.exceptions import EndpointError, GenerationError, ResourceError, TaluError
from talu.protocols import AsyncGeneration, Backend
from talu.router.failures import in_total, no_answer, said
from talu.router.health import Verdict
from talu.router.hedging import Hedging
from talu.router.policies import USUAL_TOKENS, Policy, prompt_tokens
from talu.router.targets import LIMITED, Lease, Target, Wait
from talu.types import Attempt, Done, Event, ReasoningEnd, Request, TextDelta

__all__ = ["Race", "Trial"]

CLOSING: set["asyncio.Task[None]"] = set()  # attempts that are being closed; a loop keeps no task


class Trial:
    """One attempt: its events are held back until there is a token.

    Attributes:
        model: the model's name.
        held: the events up to the first token.
        generation: None until the model is open.
        first_token_ms: from the start of the attempt; None before the first token.
    """

    def __init__(self, lease: Lease, request: Request, policy: Policy, began_at: float) -> None:
        self.model = lease.target.name
        self.lease = lease
        self.held: list[Event] = []
        self.generation: AsyncGeneration | None = None
        self.first_token_ms: float | None = None
        self._request = request
        self._policy = policy
        self._started_at = perf_counter()
        self._started_ms = (self._started_at - began_at) * 1000
        self._location: str | None = None

    async def run(self, open_model: Callable[[str], Awaitable[Backend]]) -> None:
        """Read until the first token; what goes wrong before it is raised."""
        backend: Backend | None = None
        try:
            backend = await open_model(self.model)
            self._location = backend.location
            if (reason := self._policy.unfit(backend, self._request)) is not None:
                raise GenerationError(reason, "UNSUITABLE")
            self.generation = generation = backend.agenerate(self._request)
            await generation.start()
            async for event in generation:
                self.held.append(event)
                if _commits(event, echo=self._request.echo_prompt):
                    self.first_token_ms = self._elapsed_ms()
                    self.lease.first_token(self.first_token_ms)
                    self._heed_server(backend)
                    return
            raise GenerationError("the backend's stream ended without its last event")
        except BaseException:
            self._heed_server(backend)
            begun, self.generation = self.generation, None
            if begun is not None:
                await begun.aclose()
            raise

    def _heed_server(self, backend: Backend | None) -> None:
        """Pause the model if its server has said that it takes no further request now."""
        asked = getattr(backend, "closed_for", None)
        seconds = asked() if callable(asked) else None
        if seconds is not None and seconds > 0:
            self.lease.target.server_said(seconds)

    def attempt(self, error: str | None = None, reason: str | None = None) -> Attempt:
        """A record of this attempt, ended now."""
        return Attempt(
            model=self.model,
            location=self._location,
            started_ms=self._started_ms,
            duration_ms=self._elapsed_ms(),
            first_token_ms=self.first_token_ms,
            error=error,
            reason=reason,
        )

    def _elapsed_ms(self) -> float:
        return (perf_counter() - self._started_at) * 1000


class Race:
    """The attempts of one request, up to the first token of one of them.

    Attributes:
        attempts: those that have failed.
        winner: the attempt that gave the first token.
    """

    def __init__(
        self,
        request: Request,
        policy: Policy,
        targets: Sequence[Target],
        open_model: Callable[[str], Awaitable[Backend]],
        hedging: Hedging,
    ) -> None:
        """Prepare the race.

        Args:
            request: what to ask.
            policy: how to treat failures.
            targets: the models, best first.
            open_model: opens a model by its name.
            hedging: when to ask a second one.
        """
        self.attempts: list[Attempt] = []
        self.winner: Trial | None = None
        self._request = request
        self._policy = policy
        self._targets = list(targets if policy.falls_back else targets[:1])
        self._lone = len(self._targets) == 1
        self._left = list(self._targets)
        self._open = open_model
        self._hedging = hedging
        self._may_hedge = policy.hedge
        self._running: dict[asyncio.Task[None], Trial] = {}
        self._errors: list[TaluError] = []
        self._held: BaseException | None = None  # raised unless a running attempt succeeds
        self._began_at = perf_counter()
        self._tokens = prompt_tokens(request) + (request.config.max_tokens or USUAL_TOKENS)
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Give up. For the race's own event loop."""
        if not self._stop.done():
            self._stop.set_result(None)

    async def run(self) -> None:
        """Ask until there is a winner, or the race is stopped.

        Raises:
            TaluError: no model gave a token; ``attempts`` of the error says what went wrong.
        """
        self._hedging.request()
        try:
            while self.winner is None and not self._stop.done():
                if not self._running:
                    if self._held is not None:
                        raise self._held
                    lease = await self._next()
                    if lease is None:
                        return
                    self._begin(lease)
                await self._progress()
        finally:
            self._drop_others()

    def _begin(self, lease: Lease) -> None:
        self._left.remove(lease.target)
        request = replace(self._request, has_alternatives=bool(self._left))
        trial = Trial(lease, request, self._policy, self._began_at)
        task = asyncio.create_task(trial.run(self._open))
        self._running[task] = trial

    async def _progress(self) -> None:
        """Wait until an attempt has ended, or ask a second model when the first one is slow."""
        delay = self._hedge_delay()
        waiting = {*self._running, self._stop}
        done, _ = await asyncio.wait(waiting, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in self._running if task in done]:
            trial = self._running.pop(task)
            error = _error_of(task)
            if error is None and self.winner is None:
                self.winner = trial
                self._hedging.observe(perf_counter() - self._began_at)
            elif error is None:  # two at once
                self._lose(trial)
            else:
                self._failed(trial, error)
        if not done and delay is not None:
            self._hedge()

    def _failed(self, trial: Trial, error: BaseException) -> None:
        """Record a failed attempt; raises when no other model can help."""
        code = error.code if isinstance(error, TaluError) else type(error).__name__
        self.attempts.append(trial.attempt(code, str(error)))
        verdict = trial.lease.failed(error)
        deadline = self._request.deadline
        late = deadline is not None and deadline.expired
        if verdict is Verdict.RAISE or late or not isinstance(error, TaluError):
            self._held = self._held or self._with_attempts(error)
            return
        self._errors.append(error)
        if isinstance(error, EndpointError) and error.retry_after is not None:
            self._left.append(trial.lease.target)  # once the server allows it

    def _hedge_delay(self) -> float | None:
        """Seconds until a second model is asked; None for never."""
        if not self._may_hedge or not self._left:
            return None
        delay = self._hedging.delay()
        if delay is None:
            return None
        return max(0.0, self._began_at + delay - perf_counter())

    def _hedge(self) -> None:
        """Ask a second model, if one is free and the budget allows it; once for each request."""
        self._may_hedge = False
        ticket = object()
        for target in self._left:
            lease = target.begin(ticket, lone=False, tokens=self._tokens)
            if isinstance(lease, Lease):
                if self._hedging.spend():
                    self._begin(lease)
                else:
                    lease.release()
                return

    async def _next(self) -> Lease | None:
        """The best model that can be asked; waits until one can be. None when stopped.

        Raises:
            TaluError: no model is left, or none can be asked in time.
        """
        if not self._left:
            raise self._failure({})
        ticket = object()
        changes = {target: target.changed(ticket) for target in self._left}
        try:
            _enter(self._left, ticket)
            while True:
                waits = {}
                for target in self._left:
                    lease = self._tried(target, ticket)
                    if isinstance(lease, Lease):
                        return lease
                    waits[target.name] = lease
                left = self._patience(waits)
                delay = min(wait.seconds for wait in waits.values())
                ends = all(wait.seconds != inf for wait in waits.values())
                if left <= 0 or (left < delay and ends):  # another request may end at any time
                    raise self._failure(waits)
                await self._changed(changes, ticket, min(delay, left))
                if self._stop.done():
                    return None
        finally:
            for target in self._left:
                target.leave(ticket)

    def _tried(self, target: Target, ticket: object) -> Lease | Wait:
        # A lone model is asked while it cools, but not again by the same request.
        lone = self._lone and not self.attempts
        return target.begin(ticket, lone=lone, tokens=self._tokens)

    def _patience(self, waits: Mapping[str, Wait]) -> float:
        """Seconds for which the request may wait."""
        if self._request.deadline is not None:
            return self._request.deadline.left
        if any(wait.why == LIMITED for wait in waits.values()):  # its turn will come
            return inf
        return self._began_at + self._policy.wait - perf_counter()

    async def _changed(
        self, changes: dict[Target, "asyncio.Future[None]"], ticket: object, seconds: float
    ) -> None:
        """Wait for a change of one of the models, for so long at most."""
        waiting = {self._stop, *changes.values()}
        timeout = None if seconds == inf else seconds
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for target, change in changes.items():
            if change.done():
                changes[target] = target.changed(ticket)

    def _drop_others(self) -> None:
        """Cancel the attempts that are still running."""
        for task, trial in self._running.items():
            if self.winner is not None:
                self.attempts.append(trial.attempt("SLOWER", "another model was faster"))
            else:
                self.attempts.append(trial.attempt("CANCELLED", "the request was cancelled"))
            task.cancel()
            _close_later(_ended(task, trial))
        self._running.clear()

    def _lose(self, trial: Trial) -> None:
        self.attempts.append(trial.attempt("SLOWER", "another model was faster"))
        _close_later(_closed(trial))

    def _failure(self, waits: Mapping[str, Wait]) -> BaseException:
        """The error when no model is left, or none that can be asked in time."""
        if len(self._errors) == 1 and (self._lone or not waits):
            return self._with_attempts(self._errors[0])
        if not waits:
            return no_answer(self.attempts, self._errors)
        last = {target.name: target.status().last_error for target in self._targets}
        parts = [said(self.attempts)] if self.attempts else []
        for name, wait in waits.items():
            after = f" after: {last[name]}" if last[name] and not self.attempts else ""
            when = "" if wait.seconds == inf else f" for {wait.seconds:.3g} s"
            parts.append(f"{shown(name)} {wait.why}{when}{after}")
        seconds = {name: wait.seconds for name, wait in waits.items() if wait.seconds != inf}
        message = f"no model can be asked in time: {'; '.join(parts)}"
        details = {"waits": seconds, "models": [target.name for target in self._targets]}
        return self._with_attempts(in_total(message, details, self._errors, seconds))

    def _with_attempts(self, error: BaseException) -> BaseException:
        if isinstance(error, TaluError):
            error.attempts = tuple(self.attempts)
        return error


def _enter(targets: Sequence[Target], ticket: object) -> None:
    """Join the queues; ``ResourceError`` when all of them are full."""
    full = []
    for target in targets:
        try:
            target.enter(ticket)
        except ResourceError as error:
            full.append(error)
    if len(full) == len(targets):
        raise full[0]


def _error_of(task: "asyncio.Task[None]") -> BaseException | None:
    if task.cancelled():  # by the code of the backend
        return GenerationError("the request was cancelled by the code that ran it")
    return task.exception()


def _commits(event: Event, *, echo: bool) -> bool:
    """Whether this event belongs to the answer, so that no other model may give it any more."""
    match event:
        case Done():
            return True
        case ReasoningEnd():
            return False
        case TextDelta() if echo and not event.tokens:
            return False
        case TextDelta():
            return bool(event.text or event.tokens)
    return True


def _close_later(closing: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(closing)
    CLOSING.add(task)
    task.add_done_callback(CLOSING.discard)


async def _ended(task: "asyncio.Task[None]", trial: Trial) -> None:
    """Wait for a cancelled attempt, which may have had its first token at the same moment."""
    with suppress(BaseException):
        await task
    await _closed(trial)


async def _closed(trial: Trial) -> None:
    with suppress(TaluError):
        if trial.generation is not None:
            await trial.generation.aclose()
    trial.lease.release()

"""Sends a request to models, one after the other, until one has given its first token."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import Any

from talu.exceptions import EndpointError, GenerationError, ResourceError, TaluError
from talu.protocols import Backend
from talu.router.failures import no_answer, no_model_works, not_in_time
from talu.router.health import Verdict, is_cut_off
from talu.router.hedging import Hedging
from talu.router.place import Place
from talu.router.policies import USUAL_TOKENS, prompt_tokens
from talu.router.policy_calls import PolicyCalls
from talu.router.queue import Ticket
from talu.router.targets import Lease, Target
from talu.router.trial import Trial
from talu.router.waits import Wait
from talu.types import Attempt, Request

__all__ = ["Dispatch"]

MAX_ASKED = 100  # attempts of one request at a model
GRACE_S = 0.1  # in which a backend may report itself that the time of the caller is over
RETRIES = 2  # after the times that a server names, of a model without max_retries
RECHECK_S = 2.0  # while waiting: a loop that is closed by hand tells nobody

CLOSING: set["asyncio.Task[None]"] = set()  # attempts that are being closed; a loop keeps no task


class Dispatch:
    """The attempts of one request, up to the first token of one of them.

    ``resume`` continues them when the answer of that one breaks and nobody has seen a part of it.

    Attributes:
        attempts: those that have failed.
        winner: the attempt that gave the first token.
    """

    def __init__(
        self,
        request: Request,
        calls: PolicyCalls,
        targets: Sequence[Target],
        open_model: Callable[[str], Awaitable[Backend]],
        hedging: Hedging,
        stop: "asyncio.Future[None]",
    ) -> None:
        """Prepare the attempts.

        Args:
            request: what to ask.
            calls: calls the policy, which decides how to treat failures.
            targets: the models, best first.
            open_model: opens a model by its name.
            hedging: when to ask a second one.
            stop: done when no further model is to be asked.
        """
        self.attempts: list[Attempt] = []
        self.winner: Trial | None = None
        self._request = request
        self._calls, self._policy = calls, calls.policy
        self._targets = list(targets if calls.policy.falls_back else targets[:1])
        self._lone = len(self._targets) == 1
        self._left = list(self._targets)
        self._again: list[Target] = []  # models that failed, to ask again if all others pause
        self._overtaken: list[Target] = []  # models that were cancelled because they were slower
        self._open = open_model
        self._hedging = hedging
        self._asked: Counter[str] = Counter()  # attempts at each model
        self._sent: Counter[str] = Counter()  # requests to each model
        self._may_hedge = calls.policy.hedge
        self._hedge: Trial | None = None  # the last one
        self._running: dict[asyncio.Task[None], Trial] = {}
        self._half_time: float | None = None  # of what the last attempt has of the caller's time
        self._place: Place | None = None  # half time is over, and no other model was free
        self._overdue: set[Trial] = set()  # those that had no first token then
        self._fresh = True  # no model was asked since the start or ``resume``
        self._errors: list[TaluError] = []
        self._held: BaseException | None = None  # raised unless a running attempt succeeds
        self._began_at = self._asked_at = self._waits_from = perf_counter()
        self._tokens = prompt_tokens(request) + (request.config.max_tokens or USUAL_TOKENS)
        self._stop = stop

    async def run(self) -> None:
        """Ask until there is a winner, or ``stop`` is done.

        Raises:
            TaluError: no model gave a token; ``attempts`` of the error says what went wrong.
        """
        self._hedging.request()
        await self._run()

    async def resume(self, error: TaluError) -> None:
        """Ask until there is another winner: the answer of this one has ended with an error.

        Raises:
            TaluError: as ``run``.
        """
        broken, self.winner = self.winner, None
        self._fresh, self._waits_from = True, perf_counter()  # the answer may have been long
        if broken is not None:
            self._failed(broken, error)
            self._left[:0] = self._overtaken
            self._overtaken.clear()
        await self._run()

    async def _run(self) -> None:
        try:
            while self.winner is None and not self._stop.done():
                if not self._running:
                    if self._held is not None:
                        raise self._with_attempts(self._held)
                    lease = await self._next()
                    if lease is None:
                        return
                    self._begin(lease)
                await self._progress()
        finally:
            self._drop_others()

    def _begin(self, lease: Lease) -> Trial:
        self._end_place()
        models = self._left if lease.target in self._left else self._again
        models.remove(lease.target)
        sent = self._sent[lease.target.name]
        self._asked[lease.target.name] += 1
        request = replace(self._request, has_alternatives=bool(self._left), asked_before=sent)
        trial = Trial(lease, request, self._calls, self._began_at)
        now, deadline = perf_counter(), self._request.deadline
        if self._fresh:
            self._fresh, self._asked_at = False, now  # a wait for its turn makes no model slow
        self._half_time = None if deadline is None else now + deadline.left / 2
        task = asyncio.create_task(trial.run(self._open))
        self._running[task] = trial
        return trial

    async def _progress(self) -> None:
        """Wait until an attempt has ended, or ask a second model when the first one is slow."""
        changes: list[asyncio.Future[None]] = []
        delay = self._delay()
        if self._place is not None:
            changes = self._place.changes()
            delay = self._ask_once_free(self._place)
        waiting = {*self._running, self._stop, *changes}
        limited = _smaller(delay, self._time_left())
        done, _ = await asyncio.wait(waiting, timeout=limited, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in self._running if task in done]:
            trial = self._running.pop(task)
            error = _error_of(task)
            if error is None and self.winner is None:
                self.winner = trial
                self._hedging.observe(perf_counter() - self._asked_at)
            elif error is None:  # two at once
                self._lose(trial)
            else:
                self._failed(trial, error)
        if self._time_left() == 0:
            self._run_out()
        elif not done and delay is not None and self._place is None:
            self._ask_second()

    def _time_left(self) -> float | None:
        """Seconds until attempts are ended that do not heed the time limit of the caller."""
        deadline = self._request.deadline
        return None if deadline is None else max(0.0, deadline.at + GRACE_S - perf_counter())

    def _run_out(self) -> None:
        """End the attempts that still run although the time of the caller is over."""
        deadline = self._request.deadline
        if deadline is None or self.winner is not None:
            return
        for task, trial in self._running.items():
            self._failed(trial, deadline.error())
            task.cancel()
            _close_later(_ended(task, trial))
        self._running.clear()

    def _failed(self, trial: Trial, error: BaseException) -> None:
        """Record a failed attempt, and its error for the case that no other model can help."""
        code = error.code if isinstance(error, TaluError) else type(error).__name__
        requests = error.attempts if isinstance(error, TaluError) else ()
        if requests:
            self.attempts += trial.attempts(code, str(error), requests)
        else:
            self.attempts += trial.unfinished(code, str(error))
        if is_cut_off(error):
            trial.count_refusals()
        verdict = trial.lease.failed(error, opening=not trial.opened)
        deadline = self._request.deadline
        late = deadline is not None and deadline.expired
        if verdict is Verdict.RAISE or late or not isinstance(error, TaluError):
            self._held = self._held or error
            return
        if trial is self._hedge and (not trial.lease.was_asked or verdict is Verdict.DOWN):
            self._hedging.refund()
        if self._hedge is not None:
            self._may_hedge = True  # the next model takes the place of this one
        self._errors.append(error)
        self._sent[trial.model] += _requests_of(error)
        if isinstance(error, EndpointError) and error.retry_after is not None:
            retries = RETRIES if trial.max_retries is None else trial.max_retries
            if self._sent[trial.model] <= retries:
                self._left.append(trial.lease.target)  # once the server allows it
        elif self._may_ask_again(trial, verdict):
            self._again.append(trial.lease.target)

    def _may_ask_again(self, trial: Trial, verdict: Verdict) -> bool:
        """Whether the model may be asked again, if no other one can be asked.

        It may be once at any time, and again whenever it has paused.
        """
        target, asked = trial.lease.target, self._asked[trial.model]
        if self._lone or trial.max_retries is not None or asked >= MAX_ASKED:
            return False
        return verdict in (Verdict.FAILED, Verdict.DOWN) and (asked == 1 or target.pauses)

    def _delay(self) -> float | None:
        """Seconds until another model is asked beside those that run; None for never."""
        times = [time for time in (self._hedge_at(), self._half_time) if time is not None]
        if not self._left or not times:
            return None
        return max(0.0, min(times) - perf_counter())

    def _hedge_at(self) -> float | None:
        """When to ask a second model because the first one is slower than usual."""
        delay = self._hedging.delay() if self._may_hedge else None
        return None if delay is None else self._asked_at + delay

    def _ask_second(self) -> None:
        """Ask another model that is free: half of the caller's time is over, or as a hedge."""
        if self._half_time is not None and self._half_time <= perf_counter():
            self._half_time = None
            with suppress(ResourceError):  # too many requests wait for them already
                self._place = Place(self._left)
            return
        self._may_hedge = False
        if (lease := self._free()) is None:
            return
        if self._hedging.spend():
            self._hedge = self._begin(lease)
        else:
            lease.sent_nothing()
            lease.release()

    def _ask_once_free(self, place: Place) -> float | None:
        """Ask another model if one is free; returns the seconds until it is worth looking again."""
        waits = self._try(self._left, place.ticket)
        if isinstance(waits, Lease):
            self._may_hedge = False  # one additional request is enough
            self._overdue |= set(self._running.values())
            self._hedging.hedged += 1
            self._begin(waits)
            return self._delay()
        return min((RECHECK_S, *(wait.seconds for wait in waits.values())))

    def _end_place(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    def _free(self) -> Lease | None:
        """An attempt at the best model that can be asked now; None if there is none."""
        found = self._try(self._left, Ticket())
        return found if isinstance(found, Lease) else None

    async def _next(self) -> Lease | None:
        """The best model that can be asked; waits until one can be. None when stopped.

        Raises:
            TaluError: no model is left, or none can be asked in time.
        """
        if not self._left and not any(target.pauses for target in self._again):
            raise self._with_attempts(self._failure())
        self._end_place()
        with Place([*self._left, *self._again]) as place:
            while not self._stop.done():
                changes = place.changes()
                waits = self._try(self._left, place.ticket)
                if not isinstance(waits, Lease) and not _any_limited(waits):
                    again = self._try(self._again, place.ticket)
                    waits = again if isinstance(again, Lease) else {**again, **waits}
                if isinstance(waits, Lease):
                    return waits
                seconds = self._patience(waits)
                await asyncio.wait(
                    {self._stop, *changes}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                )
        return None

    def _try(self, targets: Sequence[Target], ticket: Ticket) -> Lease | dict[str, Wait]:
        """An attempt at the first of these models that can be asked now; else why none can."""
        lone = self._lone and not self.attempts  # asked while it cools, but once by each request
        waits = {}
        for target in targets:
            found = target.begin(ticket, lone=lone, tokens=self._tokens)
            if isinstance(found, Lease):
                return found
            waits[target.name] = found
        return waits

    def _patience(self, waits: Mapping[str, Wait]) -> float:
        """Seconds until it is worth looking again.

        Raises:
            TaluError: the request may not wait that long.
        """
        if all(wait.broken is not None for wait in waits.values()):
            raise self._with_attempts(no_model_works(waits, self.attempts, self._errors))
        deadline, waited = self._request.deadline, perf_counter() - self._waits_from
        allowed = max(self._allowed(wait) for wait in waits.values())
        left = allowed - waited if deadline is None else deadline.left
        seconds = [wait.seconds for wait in waits.values()]
        if left <= 0 or (left < min(seconds) and max(seconds) < inf):
            within = allowed if deadline is None else deadline.seconds
            raise self._with_attempts(self._failure(waits, within))
        return min(left, RECHECK_S, *seconds)

    def _allowed(self, wait: Wait) -> float:
        """Seconds for which a request without a time limit waits for a model."""
        return self._policy.wait if wait.limits is None else wait.limits.wait

    def _drop_others(self) -> None:
        """Cancel the attempts that are still running."""
        self._end_place()
        for task, trial in self._running.items():
            if self.winner is not None:
                self._overtake(trial, self.winner)
            else:
                self.attempts += trial.unfinished("CANCELLED", "the request was cancelled")
            trial.count_refusals()
            task.cancel()
            _close_later(_ended(task, trial))
        self._running.clear()

    def _overtake(self, trial: Trial, winner: Trial) -> None:
        """Record that another model was faster than this one, which goes on if the other breaks."""
        trial.overtaken_by(winner)
        if trial in self._overdue:
            trial.lease.gave_up(self._too_slow())
        self._overtaken.append(trial.lease.target)
        self.attempts += trial.unfinished("SLOWER", "another model was faster")

    def _too_slow(self) -> GenerationError:
        deadline = self._request.deadline
        seconds = 0.0 if deadline is None else deadline.seconds
        return GenerationError(
            f"its first token did not come in half of the time that the caller had, {seconds:g} s",
            "GENERATION_TIMEOUT",
        )

    def _lose(self, trial: Trial) -> None:
        self._overtaken.append(trial.lease.target)
        self.attempts += trial.unfinished("SLOWER", "another model was faster")
        _close_later(_closed(trial))

    def _failure(
        self, waits: Mapping[str, Wait] | None = None, within: float = 0.0
    ) -> BaseException:
        """The error when no model is left, or none that can be asked within these seconds."""
        only = self._errors[0] if len(self._errors) == 1 else None
        if only is not None and only.code != "UNSUITABLE" and (self._lone or not waits):
            return only
        if waits and self._left:
            return not_in_time(waits, within, self.attempts, self._errors)
        return no_answer(self.attempts, self._errors, waits or {}, within)

    def _with_attempts(self, error: BaseException) -> BaseException:
        if isinstance(error, TaluError):
            error.attempts = tuple(self.attempts)
        return error


def _any_limited(waits: Mapping[str, Wait]) -> bool:
    return any(wait.limits is not None for wait in waits.values())


def _smaller(one: float | None, other: float | None) -> float | None:
    """The smaller number of those that are not None."""
    return min((each for each in (one, other) if each is not None), default=None)


def _requests_of(error: TaluError) -> int:
    """The number of requests that an attempt has sent, as its error says."""
    sent = error.details.get("attempts")
    return sent if isinstance(sent, int) else 1


def _error_of(task: "asyncio.Task[None]") -> BaseException | None:
    if task.cancelled():  # by the code of the backend
        return GenerationError("the request was cancelled by the code that ran it")
    return task.exception()


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

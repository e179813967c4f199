"""Tracks the requests to each model: what runs, how fast it answers, and when it may be asked."""

import asyncio
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakSet

from talu.error_text import shortened, shown
from talu.exceptions import EndpointError, ResourceError, StateError, TaluError
from talu.forks import ForkSafeLock
from talu.router.health import STALL_S, Health, Verdict, is_cut_off, is_refused, verdict_on
from talu.router.limits import Gate, Limits, Slot
from talu.router.queue import Queue, Ticket
from talu.router.status import TargetStatus
from talu.router.times import Average, Times
from talu.router.waits import Cause, Wait

__all__ = ["Lease", "Target"]

MAX_WAITING = 10_000  # requests
SWEEP_S = 1.0  # between two searches for requests whose event loop was closed
SERVER_SAID = "its server takes no request until then"


class Target:
    """The state of one model, shared by all threads and event loops.

    Attributes:
        name: the model's name in the router.
        limits: of its requests.
    """

    def __init__(
        self, name: str, limits: Limits | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        """Start without any request; ``clock`` gives the time in seconds."""
        self.name = name
        self.limits = limits or Limits()
        self._clock = clock
        self._lock = ForkSafeLock(reentrant=True)  # finalizers and signal handlers may call in
        self._health = Health()
        self._times, self._average = Times(), Average()
        self._requests = self._failures = 0
        self._last_error: str | None = None
        self._cooling_reason: str | None = None
        self._broken: Cause | None = None  # until ``_broken_until``
        self._broken_until = -inf
        self._closed = False
        self._swept_at = -inf
        self._forget_requests()

    def _forget_requests(self) -> None:
        self._process = os.getpid()
        self._gate = Gate(self.limits)
        self._queue = Queue()
        self._leases: WeakSet[Lease] = WeakSet()
        self._running = 0
        self._starting = 0  # those without a first token
        self._health.probing = False

    @contextmanager
    def _state(self) -> Generator[None]:
        """Access to the state. In a forked child, the requests of the parent do not count."""
        with self._lock.lock:
            if self._process != os.getpid():
                self._forget_requests()
            yield

    def begin(self, ticket: Ticket, *, lone: bool, tokens: int = 0) -> "Lease | Wait":
        """Begin an attempt if the model may be asked now.

        Args:
            ticket: of the request, which may be in the queue.
            lone: there is no other model to ask.
            tokens: an estimate of the request's tokens.
        """
        with self._state():
            if self._closed:
                raise StateError("the client has been closed", "STATE_CLOSED")
            now = self._clock()
            wait = self._wait(now, ticket, tokens, lone=lone)
            if wait is not None and not self._queue.others_first(ticket) and self._drop_dead():
                wait = self._wait(now, ticket, tokens, lone=lone)
            if wait is not None:
                return wait
            self._requests += 1
            self._running += 1
            self._starting += 1
            slot = self._gate.begin(now, tokens)
            lease = Lease(self, ticket, slot, tokens, began_at=now, probe=self._health.begin())
            self._leases.add(lease)
            return lease

    def _wait(self, now: float, ticket: Ticket, tokens: int, *, lone: bool) -> Wait | None:
        """Why a request cannot begin now; None when it can."""
        if self._health.blocked(now, lone=lone, starting=self._starting):
            left = self._health.ready_at(lone=lone) - now
            if left <= 0:
                return Wait(inf)
            broken = self._broken if now < self._broken_until else None
            return Wait(left, reason=self._cooling_reason, broken=broken)
        if not self._gate.limited:
            return None
        delay = self._gate.delay(now, tokens)
        if delay == 0 and not self._queue.others_first(ticket):
            return None
        return Wait(delay or inf, self.limits)

    @property
    def pauses(self) -> bool:
        """Whether it is not asked now because of failures, or because its server said so."""
        with self._state():
            return self._clock() < self._health.until

    def sweep(self) -> None:
        """Forget all requests whose event loop was closed, so that they are not counted."""
        with self._state():
            self._swept_at = self._clock()
            self._drop_dead()
            self._queue.drop_dead()

    def _drop_dead(self) -> bool:
        """Release attempts whose event loop was closed; returns whether there were any."""
        dead = [lease for lease in self._leases if lease.dead]
        for lease in dead:
            lease.release()
        return bool(dead)

    def enter(self, ticket: Ticket) -> None:
        """Join the queue.

        Raises:
            ResourceError: it is full.
        """
        with self._state():
            if len(self._queue) >= MAX_WAITING:
                self.sweep()
            if len(self._queue) >= MAX_WAITING:
                raise ResourceError(
                    f"{MAX_WAITING:,} requests wait for model {shown(self.name)} already: send "
                    "fewer at once, or raise its limits"
                )
            self._queue.enter(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Leave the queue; the next one may be admitted."""
        with self._state():
            self._queue.leave(ticket)
            if self._gate.limited:
                self._queue.wake_first()

    def changed(self, ticket: Ticket) -> "asyncio.Future[None]":
        """A future of the running loop that ends when it is worth trying again."""
        with self._state():
            return self._queue.changed(ticket)

    def close(self) -> None:
        """Refuse further requests, and wake all that wait, for the same error."""
        with self._state():
            self._closed = True
            self._queue.wake_all()

    def server_said(self, seconds: float) -> None:
        """The server takes no further request for so long."""
        with self._state(), self._reason(SERVER_SAID):
            self._health.close(self._clock(), seconds)

    @contextmanager
    def _reason(self, reason: str) -> Generator[None]:
        """Note the reason of a pause that begins or grows meanwhile."""
        before = self._health.until
        yield
        if self._health.until > before:
            self._cooling_reason = reason

    def status(self) -> TargetStatus:
        """The state now."""
        with self._state():
            now = self._clock()
            if now - self._swept_at >= SWEEP_S:
                self.sweep()
            cooling_s = max(0.0, self._health.until - now)
            return TargetStatus(
                model=self.name,
                requests=self._requests,
                running=self._running,
                waiting=len(self._queue),
                failures=self._failures,
                failures_in_a_row=self._health.failures,
                cooling_s=cooling_s,
                cooling_reason=self._cooling_reason if cooling_s else None,
                probing=self._health.probing,
                last_error=self._last_error,
                first_token_ms=self._average.at(now),
                first_token_p50_ms=self._times.percentile(0.5),
                first_token_p95_ms=self._times.percentile(0.95),
            )

    def _wake(self) -> None:
        """Let those who wait try again: only the first one of a model with limits."""
        if self._gate.limited:
            self._queue.wake_first()
        else:
            self._queue.wake_all()

    def _first_token(
        self, first_token_ms: float, closed_for: float | None, *, began_at: float
    ) -> None:
        with self._state():
            now = self._clock()
            self._starting -= 1
            self._health.first_token(now, began_at=began_at)
            self._broken = None
            if closed_for:
                self.server_said(closed_for)
            self._times.add(first_token_ms)
            self._average.add(first_token_ms, now)
            self._wake()

    def _waited(self, ms: float) -> None:
        """An attempt had no first token after this time, which it would have exceeded."""
        with self._state():
            now = self._clock()
            self._times.add(ms)
            self._average.add(max(ms, self._average.at(now) or 0.0), now)

    def not_opened(self, error: TaluError) -> None:
        """The model could not be opened for a request that asks it directly."""
        verdict = verdict_on(error, opening=True)
        if verdict.counts:
            self._failed(error, verdict, began_at=self._clock())

    def _completed(self, *, began_at: float) -> None:
        with self._state():
            self._health.complete(self._clock(), began_at=began_at)

    def _failed(self, error: BaseException, verdict: Verdict, **about: Any) -> None:
        """Count a failure; ``about`` is what ``Health.fail`` wants to know of the attempt."""
        retry_after = error.retry_after if isinstance(error, EndpointError) else None
        message = shortened(str(error))
        with self._state(), self._reason(message):
            self._failures += 1
            self._last_error = message
            self._health.fail(self._clock(), verdict, retry_after, **about)
            if verdict is Verdict.BROKEN:
                self._broken, self._broken_until = Cause.of(error), self._health.until

    def _cut_off(self, waited_s: float, *, began_at: float) -> Verdict | None:
        """What it means that a caller gave up after this time without a first token."""
        with self._state():
            now = self._clock()
            if self._health.cut_off(now, began_at=began_at):
                return Verdict.HANGS
            return Verdict.FAILED if waited_s >= STALL_S else None

    def _ended(self, *, probe: bool, answering: bool) -> None:
        with self._state():
            self._running -= 1
            self._starting -= not answering
            self._gate.end()
            if probe:  # one that ended without a result
                self._health.probing = False
            self._wake()


class Lease:
    """One attempt at a model, which counts as running until it is released or dropped."""

    def __init__(
        self,
        target: Target,
        ticket: Ticket,
        slot: Slot,
        tokens: int,
        *,
        began_at: float,
        probe: bool,
    ) -> None:
        self.target = target
        self._ticket = ticket
        self._began_at = began_at
        self._slot = slot
        self._process = os.getpid()
        self._tokens = tokens
        self._probe = probe
        self._asked_at: float | None = None
        self._answering = False
        self._counted = False  # it has failed
        self._released = False

    @property
    def dead(self) -> bool:
        """Whether nothing can end the attempt: its event loop was closed."""
        return self._ticket.dead

    @property
    def was_asked(self) -> bool:
        """Whether the model has got the request."""
        return self._asked_at is not None

    def asked(self) -> None:
        """The model is open, and gets the request now."""
        self._asked_at = self.target._clock()

    def used(self, tokens: int) -> None:
        """The number of tokens is known now."""
        with self.target._state():  # attempts in several threads share a slot
            self._slot.tokens += tokens - self._tokens
            self._tokens = tokens

    def first_token(self, first_token_ms: float, closed_for: float | None = None) -> None:
        """The first token has come; the server takes no other request for so many seconds."""
        self._probe, self._answering = False, True
        self.target._first_token(first_token_ms, closed_for, began_at=self._began_at)

    def overtaken(self, ms: float) -> None:
        """Another model was faster; this one had no first token after this time."""
        self.target._waited(ms)

    def completed(self) -> None:
        """The answer is complete."""
        self.target._completed(began_at=self._began_at)

    def failed(self, error: BaseException, *, opening: bool = False) -> Verdict:
        """The attempt has failed, perhaps while its model was opened; returns what that means."""
        verdict = verdict_on(error, opening=opening)
        counted = self._of_caller() if is_cut_off(error) else verdict
        if counted is not None and counted.counts:
            self._count(error, counted)
        if not self.was_asked or verdict is Verdict.DOWN:
            self.sent_nothing()
        elif not self._answering and is_refused(error):
            self.used(0)
        self.release()
        return verdict

    def sent_nothing(self) -> None:
        """The attempt does not count for the limits; to be called once."""
        with self.target._state():
            self._slot.requests -= 1
            self.used(0)

    def gave_up(self, error: BaseException) -> None:
        """The caller's time is running out without a first token; another model is asked."""
        if (counted := self._of_caller()) is not None:
            self._count(error, counted)

    def refused(self, error: BaseException) -> None:
        """The attempt is ended after requests that failed, the last one with this error."""
        self._count(error, Verdict.FAILED)

    def _count(self, error: BaseException, verdict: Verdict) -> None:
        if self._counted:
            return
        self._counted = True
        probe, self._probe = self._probe, False
        self.target._failed(
            error, verdict, began_at=self._began_at, probe=probe, answering=self._answering
        )

    def _of_caller(self) -> Verdict | None:
        """What it says about the model that the caller's time was over; None for nothing."""
        if self._asked_at is None or self._answering:
            return None
        waited = self.target._clock() - self._asked_at
        return self.target._cut_off(waited, began_at=self._began_at)

    def release(self) -> None:
        """The attempt has ended; idempotent."""
        if self._process != os.getpid():
            return
        with self.target._state():  # a sweep of another thread may release it at the same moment
            released, self._released = self._released, True
            if not released:
                self.target._ended(probe=self._probe, answering=self._answering)

    def __del__(self) -> None:
        self.release()

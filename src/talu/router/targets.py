"""Tracks the requests to each model: what runs, how fast it answers, and when it may be asked."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any

from talu.error_text import shortened, shown
from talu.exceptions import EndpointError, ResourceError, StateError
from talu.forks import ForkSafeLock
from talu.router.health import Health, Verdict, verdict_on
from talu.router.hedging import percentile
from talu.router.limits import Gate, Limits, Slot
from talu.router.status import TargetStatus

__all__ = ["COOLING", "LIMITED", "Lease", "Target", "Wait"]

OBSERVED = 200  # times to the first token
RECENT_S = 300.0  # of the moving average
WEIGHT = 0.2  # of a new time in the moving average
MAX_WAITING = 10_000  # requests


COOLING = "cools"
PROBED = "is being probed by another request"
LIMITED = "has reached its limits"


@dataclass(frozen=True, slots=True)
class Wait:
    """A model cannot be asked now.

    Attributes:
        seconds: until it is worth trying again; infinite when that depends on another request.
        why: what the model does, in words.
    """

    seconds: float
    why: str


Listener = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Target:
    """The state of one model, shared by all threads and event loops.

    Attributes:
        name: the model's name in the router.
    """

    def __init__(
        self, name: str, limits: Limits | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        """Start without any request; ``clock`` gives the time in seconds."""
        self.name = name
        self._given = limits
        self._clock = clock
        self._gate = ForkSafeLock(reentrant=True)  # finalizers and signal handlers may call in
        self._health = Health()
        self._forget_requests()
        self._times: deque[float] = deque(maxlen=OBSERVED)
        self._average: float | None = None
        self._average_at = -inf
        self._requests = self._failures = 0
        self._last_error: str | None = None
        self._closed = False

    def _forget_requests(self) -> None:
        self._process = os.getpid()
        self._limits = Gate(self._given)
        self._queue: deque[object] = deque()
        self._listeners: dict[object, Listener] = {}  # by ticket
        self._running = 0
        self._health.probing = False

    @contextmanager
    def _state(self) -> Generator[None]:
        """Access to the state. In a forked child, the requests of the parent do not count."""
        with self._gate.lock:
            if self._process != os.getpid():
                self._forget_requests()
            yield

    def begin(self, ticket: object, *, lone: bool, tokens: int = 0) -> "Lease | Wait":
        """Begin an attempt if the model may be asked now.

        Args:
            ticket: identifies the request in the queue.
            lone: there is no other model to ask.
            tokens: an estimate of the request's tokens.
        """
        with self._state():
            if self._closed:
                raise StateError("the client has been closed", "STATE_CLOSED")
            now = self._clock()
            if self._health.blocked(now, lone=lone):
                wait = self._health.ready_at(lone=lone) - now
                return Wait(wait, COOLING) if wait > 0 else Wait(inf, PROBED)
            if self._limits.limited:
                delay = self._limits.delay(now, tokens)
                if delay > 0 or (self._queue and self._queue[0] is not ticket):
                    return Wait(delay or inf, LIMITED)
            self._requests += 1
            self._running += 1
            slot = self._limits.begin(now, tokens)
            return Lease(self, slot, tokens, began_at=now, probe=self._health.begin())

    def enter(self, ticket: object) -> None:
        """Join the queue.

        Raises:
            ResourceError: it is full.
        """
        with self._state():
            if len(self._queue) >= MAX_WAITING:
                raise ResourceError(
                    f"{MAX_WAITING:,} requests wait for model {shown(self.name)} already: send "
                    "fewer at once, or raise its limits"
                )
            self._queue.append(ticket)

    def leave(self, ticket: object) -> None:
        """Leave the queue; the next one may be admitted."""
        with self._state():
            self._listeners.pop(ticket, None)
            with suppress(ValueError):
                self._queue.remove(ticket)
            self._notify()

    def close(self) -> None:
        """Refuse further requests, and wake all that wait, for the same error."""
        with self._state():
            self._closed = True
            for loop, future in self._listeners.values():
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(_settle, future)
            self._listeners.clear()

    def changed(self, ticket: object) -> "asyncio.Future[None]":
        """A future of the running loop that ends when it is worth trying again."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._state():
            self._listeners[ticket] = loop, future
        return future

    def server_said(self, seconds: float) -> None:
        """The server takes no further request for so long."""
        with self._state():
            self._limits.close(self._clock(), seconds)

    def status(self) -> TargetStatus:
        """The state now."""
        with self._state():
            now = self._clock()
            recent = self._average is not None and now - self._average_at <= RECENT_S
            return TargetStatus(
                model=self.name,
                requests=self._requests,
                running=self._running,
                waiting=len(self._queue),
                failures=self._failures,
                failures_in_a_row=self._health.failures,
                cooling_s=max(0.0, self._health.until - now),
                probing=self._health.probing,
                last_error=self._last_error,
                first_token_ms=self._average if recent else None,
                first_token_p50_ms=percentile(self._times, 0.5),
                first_token_p95_ms=percentile(self._times, 0.95),
            )

    def _notify(self) -> None:
        """Wake those who wait: only the first one of a model with limits."""
        first = [self._queue[0]] if self._limits.limited and self._queue else [*self._listeners]
        for ticket in first:
            listener = self._listeners.pop(ticket, None)
            if listener is not None:
                loop, future = listener
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(_settle, future)

    def _first_token(self, first_token_ms: float, *, began_at: float) -> None:
        with self._state():
            now = self._clock()
            self._health.first_token(now, began_at=began_at)
            self._times.append(first_token_ms)
            if self._average is None or now - self._average_at > RECENT_S:
                self._average = first_token_ms
            else:
                self._average += WEIGHT * (first_token_ms - self._average)
            self._average_at = now
            self._notify()

    def _completed(self, *, began_at: float) -> None:
        with self._state():
            self._health.complete(self._clock(), began_at=began_at)

    def _failed(self, error: BaseException, verdict: Verdict, **about: Any) -> None:
        """``about`` is what ``Health.fail`` wants to know of the attempt."""
        retry_after = error.retry_after if isinstance(error, EndpointError) else None
        with self._state():
            self._failures += 1
            self._last_error = shortened(str(error))
            self._health.fail(self._clock(), verdict, retry_after, **about)

    def _ended(self, *, probe: bool) -> None:
        with self._state():
            self._running -= 1
            self._limits.end()
            if probe:  # one that ended without a result
                self._health.probing = False
            self._notify()


class Lease:
    """One attempt at a model, which counts as running until it is released or dropped."""

    def __init__(
        self, target: Target, slot: Slot, tokens: int, *, began_at: float, probe: bool
    ) -> None:
        self.target = target
        self._began_at = began_at
        self._slot = slot
        self._process = os.getpid()
        self._tokens = tokens
        self._probe = probe
        self._answering = False
        self._released = False

    def used(self, tokens: int) -> None:
        """The number of tokens is known now."""
        self._slot.tokens += tokens - self._tokens
        self._tokens = tokens

    def first_token(self, first_token_ms: float) -> None:
        """The first token has come."""
        self._probe, self._answering = False, True
        self.target._first_token(first_token_ms, began_at=self._began_at)

    def completed(self) -> None:
        """The answer is complete."""
        self.target._completed(began_at=self._began_at)

    def failed(self, error: BaseException) -> Verdict:
        """The attempt has failed; returns what that means."""
        verdict = verdict_on(error)
        if verdict.counts:
            probe, self._probe = self._probe, False
            self.target._failed(
                error, verdict, began_at=self._began_at, probe=probe, answering=self._answering
            )
        self.release()
        return verdict

    def release(self) -> None:
        """The attempt has ended; idempotent."""
        if not self._released and self._process == os.getpid():
            self._released = True
            self.target._ended(probe=self._probe)

    def __del__(self) -> None:
        self.release()


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

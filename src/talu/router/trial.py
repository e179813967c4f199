"""Runs one attempt at a model until its first token."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from time import perf_counter

from talu.exceptions import EndpointError, GenerationError
from talu.protocols import AsyncGeneration, Backend
from talu.router.policy_calls import PolicyCalls
from talu.router.targets import Lease
from talu.threads import beside_loop
from talu.types import Attempt, Done, Event, ReasoningEnd, Request, TextDelta

__all__ = ["Trial"]


class Trial:
    """One attempt: its events are held back until there is a token.

    Attributes:
        model: the model's name.
        lease: what the model's state knows of the attempt.
        opened: whether the model is open.
        max_retries: how often a request to the model may be repeated; None if it does not say.
        held: the events up to the first token.
        generation: None until the model is open.
        first_token_ms: from the start of the attempt; None before the first token.
    """

    def __init__(self, lease: Lease, request: Request, calls: PolicyCalls, began_at: float) -> None:
        """Prepare the attempt; ``began_at`` is the start of the whole request."""
        self.model = lease.target.name
        self.lease = lease
        self.opened = False
        self.max_retries: int | None = None
        self.held: list[Event] = []
        self.generation: AsyncGeneration | None = None
        self.first_token_ms: float | None = None
        self._request = request
        self._calls = calls
        self._started_at = perf_counter()
        self._started_ms = (self._started_at - began_at) * 1000
        self._asked_ms = self._started_ms
        self._location: str | None = None
        self._sent: tuple[Attempt, ...] = ()  # the requests, once the generation has failed

    async def run(self, open_model: Callable[[str], Awaitable[Backend]]) -> None:
        """Read until the first token; what goes wrong before it is raised."""
        backend: Backend | None = None
        try:
            backend = await open_model(self.model)
            self.opened = True
            self.max_retries = getattr(backend, "max_retries", None)
            self._location = backend.location
            await self._check(backend)
            self.lease.asked()
            self._asked_ms = self._started_ms + self._elapsed_ms()
            self.generation = generation = backend.agenerate(self._request)
            await generation.start()
            async for event in generation:
                self.held.append(event)
                if _commits(event):
                    self.first_token_ms = self._elapsed_ms()
                    self.lease.first_token(self.first_token_ms, _closed_for(backend))
                    return
            raise GenerationError("the backend's stream ended without its last event")
        except BaseException:
            if closed_for := _closed_for(backend):
                self.lease.target.server_said(closed_for)
            self._sent = self._requests()
            begun, self.generation = self.generation, None
            if begun is not None:
                await begun.aclose()
            raise

    async def _check(self, backend: Backend) -> None:
        """Refuse a model that cannot answer the request."""
        reason = await self._calls.reason_against(backend, self._request)
        if reason is None and self._calls.policy.needs_room:
            reason = await _lack_of_room(backend, self._request)
        if reason is not None:
            raise GenerationError(reason, "UNSUITABLE")

    def overtaken_by(self, other: "Trial") -> None:
        """Count the time so far as the time to the first token, unless the other began first."""
        if self._started_at < other._started_at:
            self.lease.overtaken(self._elapsed_ms())

    def attempts(
        self, error: str | None, reason: str | None, requests: Sequence[Attempt]
    ) -> list[Attempt]:
        """Records of this attempt, ended now: one for each request, if its backend has repeated it.

        Args:
            error: as in ``Attempt``.
            reason: as in ``Attempt``.
            requests: the records of the backend, from the start of its generation.
        """
        if not requests:
            return [self.attempt(error, reason)]
        return [
            replace(each, model=self.model, started_ms=self._asked_ms + each.started_ms)
            for each in requests
        ]

    def unfinished(self, error: str, reason: str) -> list[Attempt]:
        """Records of this attempt, ended now by the router, with those that its backend repeated.

        Args:
            error: as in ``Attempt``.
            reason: as in ``Attempt``.
        """
        requests = self._requests()
        if requests and requests[-1].error is None:  # it was not waiting to repeat one
            requests = (*requests[:-1], replace(requests[-1], error=error, reason=reason))
        return self.attempts(error, reason, requests)

    def count_refusals(self) -> None:
        """Let the requests that failed, and were repeated by the backend, count as one failure."""
        failed = [each for each in self._requests() if each.error is not None]
        if failed and self.first_token_ms is None:
            code, reason = failed[-1].error, failed[-1].reason
            self.lease.refused(EndpointError(reason or str(code), code, transient=True))

    def _requests(self) -> tuple[Attempt, ...]:
        """The requests of the backend so far, if it has repeated some."""
        if self.generation is None:
            return self._sent
        with suppress(Exception):  # of a backend that has not begun: the attempt has its own error
            return self.generation.so_far().attempts
        return ()

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


def _closed_for(backend: Backend | None) -> float | None:
    """Seconds for which the server of the model takes no further request, if it has said so."""
    asked = getattr(backend, "closed_for", None)
    seconds: float | None = asked() if callable(asked) else None
    return seconds if seconds is not None and seconds > 0 else None


async def _lack_of_room(backend: Backend, request: Request) -> str | None:
    """What a prompt that is too long lacks; None if it fits, or if that cannot be known."""
    room, count = backend.max_context_length, getattr(backend, "count", None)
    if room is None or not callable(count):
        return None
    tokens = await beside_loop(count, request)  # a long prompt takes a while
    if tokens < room:
        return None
    return f"its context of {room:,} tokens has no room for a prompt of {tokens:,}"


def _commits(event: Event) -> bool:
    """Whether this event belongs to the answer, so that no other model may give it any more."""
    match event:
        case Done():
            return True
        case ReasoningEnd():
            return False
        case TextDelta():
            return not event.echo and bool(event.text or event.tokens)
    return True

"""One generation of a model behind an endpoint: attempts, time limits, cancelling, events."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Self

from talu.backends.remote.answers import Decoder, Ended, Malformed
from talu.backends.remote.attempts import Cancelled, Limits, Waiting, repeated
from talu.backends.remote.checks import Checks, is_same_model
from talu.backends.remote.encoding import Body
from talu.backends.remote.events import Part
from talu.backends.remote.failures import Failures
from talu.backends.remote.reading import Reading
from talu.deadline import Deadline
from talu.exceptions import EndpointError, TaluError
from talu.types import Attempt, Done, Event, FinishReason, TextDelta, Timings, ToolCallEvent, Usage

__all__ = ["Exchange", "RemoteGeneration"]

LAST_S = 2.0  # for what may come after the finish reason
DRAIN_S = 0.25  # for the end of a stream that has said that nothing comes any more
NOTE = 300  # characters
UNFINISHED = (
    f"the server did not end the stream within {LAST_S:g} seconds after the finish reason: what "
    "it sent later, such as the numbers of tokens, was not read"
)
CUT = "the connection broke after the end of the answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that is ready to be sent, with everything that its answer needs.

    Attributes:
        open: sends the body; the answer's status was good when it returns.
        decoder: makes a decoder for each attempt.
        checks: makes the checks of the answer for each attempt.
        echo: a text before the first piece.
        notes: notes for ``Done``.
    """

    body: Body
    open: Callable[[Body], Awaitable[Reading]]
    decoder: Callable[[], Decoder]
    checks: Callable[[], Checks]
    failures: Failures
    limits: Limits
    model: str
    echo: str = ""
    notes: tuple[str, ...] = ()
    retries: int = 0
    waits_for_server: bool = True
    deadline: Deadline | None = None


class RemoteGeneration:
    """See ``talu.protocols.AsyncGeneration``.

    The start waits for the first piece, because until then a failed attempt can be repeated.
    """

    _reading: Reading | None = None  # also if an interrupt hits the constructor
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, prepare: Callable[[], Exchange], model: str) -> None:
        """A generation that has not started.

        Args:
            prepare: encodes the request; raises when it cannot be sent.
            model: the model's name.
        """
        self._prepare = prepare
        self._model = model
        self._cancelled = False
        self._ended = False
        self._events: deque[Event] = deque()
        self._waiting: Waiting | None = None
        self._decoder: Decoder | None = None
        self._checks: Checks | None = None
        self._failure: TaluError | None = None  # raised after the events before it
        self._notes: tuple[str, ...] = ()
        self._failed: list[Attempt] = []  # the attempts before this one
        self._tried_at: float | None = None  # when the current attempt began, None between two
        self._began_at = self._first_at = self._last_at = 0.0

    async def start(self) -> None:
        """Send the request, and wait for the first piece of the answer."""
        self._loop = asyncio.get_running_loop()
        self._exchange = exchange = self._prepare()
        self._began_at = perf_counter()
        limits, failures = exchange.limits, exchange.failures
        self._waiting = waiting = Waiting(
            exchange.deadline, limits.total_s, self._too_late("total_timeout_ms", limits.total_s)
        )
        if self._cancelled:
            waiting.cancelled = True
        self._notes = exchange.notes
        if exchange.echo:
            self._events.append(TextDelta(exchange.echo, echo=True))
        attempt = partial(self._attempt, exchange, waiting)
        try:
            await repeated(
                attempt,
                waiting,
                failures,
                exchange.retries,
                self._repeating,
                waits_for_server=exchange.waits_for_server,
            )
        except Cancelled:
            await self._cancel_now()
        except EndpointError as error:
            error.attempts = self._attempts(error)
            raise

    def _repeating(self, failure: EndpointError) -> None:
        self._failed.append(self._attempted(failure))
        self._tried_at = None

    def _attempted(self, failure: TaluError | None) -> Attempt:
        """A record of the current attempt, ended now."""
        began_at = self._began_at if self._tried_at is None else self._tried_at
        return Attempt(
            model=self._model,
            location=self._exchange.failures.endpoint.url,
            started_ms=(began_at - self._began_at) * 1000,
            duration_ms=(perf_counter() - began_at) * 1000,
            first_token_ms=(self._first_at - began_at) * 1000 if self._first_at else None,
            error=None if failure is None else failure.code,
            reason=None if failure is None else str(failure),
        )

    def _attempts(self, failure: TaluError | None = None) -> tuple[Attempt, ...]:
        """All attempts, if the request was repeated; one alone says nothing new."""
        if not self._failed or self._tried_at is None:
            return tuple(self._failed)
        return (*self._failed, self._attempted(failure))

    def _too_late(self, option: str, seconds: float | None) -> Callable[[], Exception]:
        what = "the end of the answer" if option == "total_timeout_ms" else "the first token"
        return lambda: self._exchange.failures.timeout(what, seconds or 0.0, option)

    async def _attempt(self, exchange: Exchange, waiting: Waiting) -> None:
        """Send the request once, and read until there is an event."""
        self._tried_at = perf_counter()
        if failed := len(self._failed):
            times = "once" if failed == 1 else f"{failed} times"
            again = f"the request was repeated {times}: {self._failed[-1].error}"
            self._notes = (*exchange.notes, again)
        self._decoder = decoder = exchange.decoder()
        self._checks = exchange.checks()
        seconds, option = exchange.limits.first_token_s, exchange.limits.first_token_option
        try:
            async with waiting.within(seconds, self._too_late(option, seconds)):
                self._reading = reading = await exchange.open(exchange.body)
                await self._read_first(reading, decoder)
            if self._ended:
                await self._drop()
        except BaseException:
            await self._drop()
            raise

    async def _read_first(self, reading: Reading, decoder: Decoder) -> None:
        """Read until there is an event, or the finish reason."""
        before = len(self._events)  # such as the echo of the prompt
        while len(self._events) == before and decoder.reason is None:
            try:
                self._take(decoder, await self._next(reading))
                continue
            except StopAsyncIteration:
                failure = await self._end(decoder)
            if failure is not None:
                raise failure
            return

    async def _next(self, reading: Reading) -> Part:
        """The next part; raises a typed error that does not hold what was read."""
        failures = self._exchange.failures
        try:
            return await anext(reading)
        except StopAsyncIteration:
            raise
        except Malformed as malformed:
            failure = failures.bad_answer(f"the server sent {malformed}")
        except Exception as error:  # noqa: BLE001 - raised below, as a typed error
            failure = failures.of_reading(error)
        raise failure

    def _take(self, decoder: Decoder, part: Part) -> None:
        """Add the events of a part; raises a typed error that does not hold the part."""
        events = self._decoded(decoder, part)
        del part
        if isinstance(events, Exception):
            raise events
        self._add(events)

    def _decoded(self, decoder: Decoder, part: Part) -> list[Event] | Exception:
        """The events of a part, or why there are none."""
        failures = self._exchange.failures
        try:
            value = part.value()
            if not part.is_event and not isinstance(value, Mapping):
                return failures.foreign(part.data)
            if not isinstance(value, Mapping):
                return failures.bad_answer("the server sent an event that is not an object")
            return failures.in_answer(value) or decoder.push(value)
        except Malformed as malformed:
            if not part.is_event and not part.data.lstrip().startswith(b"{"):
                return failures.foreign(part.data)
            return failures.bad_answer(f"the server sent {malformed}")
        except Ended as ended:
            return failures.broken(_short(failures.safe(str(ended))))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, TaluError):
                return error
            wrong = f"the server sent an event with a wrong value ({type(error).__name__})"
            return failures.bad_answer(wrong)

    def _add(self, events: list[Event]) -> None:
        now = perf_counter()
        if events and not self._first_at:
            self._first_at = now
        self._last_at = now
        if (checks := self._checks) is None:
            return
        for event in events:
            if (seen := checks.seen(event)) is not None:
                self._events.append(seen)
            if checks.stopped is not None:
                self._stop()
                return

    def _stop(self) -> None:
        """End the answer at a stop sequence that the server went beyond."""
        self._ended = True
        self._events.append(self._done(FinishReason.STOP))

    def _add_rest(self) -> None:
        """Add the text that was held back at the end of an answer."""
        rest = None if self._checks is None else self._checks.rest()
        if rest is not None:
            self._events.append(rest)

    def _finish(self, decoder: Decoder) -> None:
        failures = self._exchange.failures
        if decoder.reason is None:
            raise failures.broken("it has no finish reason")
        failure, last = None, []
        try:
            last = decoder.finish()
        except Malformed as malformed:
            failure = failures.bad_answer(f"the server sent {malformed}")
        if failure is not None:
            raise failure
        self._add([event for event in last if not isinstance(event, ToolCallEvent)])
        if self._ended:  # at a stop sequence
            return
        self._add_rest()
        if self._checks is not None and self._checks.stopped is not None:
            self._stop()
            return
        self._add([event for event in last if isinstance(event, ToolCallEvent)])
        self._last_at = perf_counter()
        self._ended = True
        self._events.append(self._done(decoder.reason))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._ended:
                raise StopAsyncIteration
            await self._read()
        return self._events.popleft()

    async def _read(self) -> None:
        """Read until there are events, or raise."""
        waiting, reading, decoder = self._waiting, self._reading, self._decoder
        if waiting is None or reading is None or decoder is None:
            raise RuntimeError("the generation has not been started")
        failure: TaluError | None = None
        try:
            async with waiting.within(self._patience(reading, decoder), self._stalled):
                self._take(decoder, await self._next(reading))
            if self._ended:
                await self._drop()
        except StopAsyncIteration:
            failure = await self._end(decoder)
        except Cancelled:
            await self._cancel_now()
        except TaluError as error:
            failure = error
        except BaseException:
            await self._close()
            raise
        if failure is not None:
            await self._break(failure, reading, decoder)

    def _patience(self, reading: Reading, decoder: Decoder) -> float:
        """How long to wait for the next part, in seconds."""
        limits = self._exchange.limits
        if reading.ended:
            return min(limits.piece_s, DRAIN_S)
        return limits.piece_s if decoder.reason is None else min(limits.piece_s, LAST_S)

    async def _break(self, failure: TaluError, reading: Reading, decoder: Decoder) -> None:
        """Raise the failure, unless the answer was complete before it."""
        if decoder.reason is not None and failure.code in ("ENDPOINT_TIMEOUT", "STREAM_BROKEN"):
            if not reading.ended:
                decoder.note(CUT if failure.code == "STREAM_BROKEN" else UNFINISHED)
            await self._end(decoder)
            return
        await self._close()
        failure.attempts = self._attempts(failure)
        self._failure = failure
        self._add_rest()

    async def _end(self, decoder: Decoder) -> TaluError | None:
        """Add the last event; returns why the answer is not complete, if it is not."""
        try:
            self._finish(decoder)
        except TaluError as error:
            return error
        finally:
            await self._drop()
        return None

    def _stalled(self) -> Exception:
        seconds = self._exchange.limits.piece_s
        reason = f"no piece came for {seconds:g} seconds (timeout_ms)"
        return self._exchange.failures.broken(reason, timed_out=True)

    async def _cancel_now(self) -> None:
        await self._drop()
        self._add_rest()
        self._ended = True
        self._events.append(self._done(FinishReason.CANCELLED))

    def cancel(self) -> None:
        """End it soon, with the text so far; see ``talu.protocols.Generation``."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    def so_far(self) -> Done:
        """The last event as if the generation was cancelled now."""
        return self._done(FinishReason.CANCELLED)

    def _done(self, reason: FinishReason) -> Done:
        decoder, checks = self._decoder, self._checks
        if decoder is None or checks is None:
            usage = Usage()
            return Done(reason, usage, self._timings(usage), self._model, notes=self._notes)
        notes, safe = list(decoder.notes), self._exchange.failures.safe
        asked, served = str(self._exchange.body.values.get("model")), decoder.model
        if served and not is_same_model(asked, served):
            notes.append(f"the server says that the model {served!r} answered")
        if reason is not FinishReason.CANCELLED:
            notes += checks.notes(decoder.usage, decoder.reason)
        return Done(
            finish_reason=reason,
            usage=decoder.usage,
            timings=self._timings(decoder.usage),
            model=self._model,
            stop_sequence=checks.stopped or decoder.stop_sequence,
            # A key is looked for in the whole note, and a part of it is shown.
            seed=checks.seed,
            schema_report=checks.report,
            tool_reports=checks.tool_reports,
            attempts=self._attempts(),
            notes=(*self._notes, *(_short(safe(note)) for note in notes)),
        )

    def _timings(self, usage: Usage) -> Timings:
        if not self._first_at:
            return Timings()
        lasted, tokens = self._last_at - self._first_at, usage.completion_tokens
        return Timings(
            generation_ms=lasted * 1000,
            time_to_first_token_ms=(self._first_at - self._began_at) * 1000,
            tokens_per_second=(tokens - 1) / lasted if tokens and tokens > 1 and lasted else None,
        )

    async def aclose(self) -> None:
        """Cancel it and read no more."""
        await self._close()

    async def _close(self) -> None:
        self._cancelled = self._ended = True
        self._failure = None
        self._events.clear()
        await self._drop()

    async def _drop(self) -> None:
        """Close the connection, unless the answer was read to its end."""
        reading, self._reading = self._reading, None
        if reading is not None:
            await reading.aclose()

    def __del__(self) -> None:
        reading, loop = self._reading, self._loop
        if reading is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections
                loop.call_soon_threadsafe(lambda: loop.create_task(reading.aclose()))


def _short(text: str) -> str:
    return text if len(text) <= NOTE else text[:NOTE] + "…"

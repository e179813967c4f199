"""One generation of a model behind an endpoint: attempts, time limits, cancelling, events."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Protocol, Self

import httpx2

from talu.backends.remote.answers import Decoder, Ended, Malformed
from talu.backends.remote.attempts import Cancelled, Limits, Waiting, repeated
from talu.backends.remote.checks import Checks, is_same_model
from talu.backends.remote.encoding import Body
from talu.backends.remote.failures import Failures
from talu.deadline import Deadline
from talu.exceptions import EndpointError, TaluError
from talu.types import Attempt, Done, Event, FinishReason, TextDelta, Timings, Usage

__all__ = ["Exchange", "RemoteGeneration", "Stream"]

LAST_S = 2.0  # for what may come after the finish reason
NOT_JSON = object()
STREAMED = "text/event-stream"
NOTE = 300  # characters
EVENTS_AHEAD = 10_000  # that may have been read and not looked at
UNWINDING: set["asyncio.Task[None]"] = set()  # a loop refers to its tasks weakly


class Stream(Protocol):
    """A streamed answer, as the SDKs return it when they are asked for plain objects."""

    @property
    def response(self) -> httpx2.Response:
        """Status and headers of the answer."""

    async def __anext__(self) -> Any:
        """The JSON of the next event."""

    async def close(self) -> None:
        """Close the connection if the answer has not been read to its end."""


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
    open: Callable[[Body], Awaitable[Stream]]
    decoder: Callable[[], Decoder]
    checks: Callable[[], Checks]
    failures: Failures
    limits: Limits
    model: str
    echo: str = ""
    notes: tuple[str, ...] = ()
    retries: int = 0
    deadline: Deadline | None = None


class RemoteGeneration:
    """See ``talu.protocols.AsyncGeneration``.

    The start waits for the first piece, because until then a failed attempt can be repeated.
    """

    _stream: Stream | None = None  # also if an interrupt hits the constructor
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
        self._tried_at = 0.0
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
            self._events.append(TextDelta(exchange.echo))
        attempt = partial(self._attempt, exchange, waiting)
        try:
            await repeated(attempt, waiting, failures, exchange.retries, self._repeating)
        except Cancelled:
            await self._cancel_now()
        except EndpointError as error:
            error.attempts = self._attempts(error)
            raise

    def _repeating(self, failure: EndpointError, failed: int) -> None:
        self._failed.append(self._attempted(failure))
        times = "once" if failed == 1 else f"{failed} times"
        again = f"the request was repeated {times}: {failure.code}"
        self._notes = (*self._exchange.notes, again)

    def _attempted(self, failure: TaluError | None) -> Attempt:
        """A record of the current attempt, ended now."""
        return Attempt(
            model=self._model,
            location=self._exchange.failures.endpoint.url,
            started_ms=(self._tried_at - self._began_at) * 1000,
            duration_ms=(perf_counter() - self._tried_at) * 1000,
            first_token_ms=(self._first_at - self._tried_at) * 1000 if self._first_at else None,
            error=None if failure is None else failure.code,
            reason=None if failure is None else str(failure),
        )

    def _attempts(self, failure: TaluError | None = None) -> tuple[Attempt, ...]:
        """All attempts, if the request was repeated; one alone says nothing new."""
        return (*self._failed, self._attempted(failure)) if self._failed else ()

    def _too_late(self, option: str, seconds: float | None) -> Callable[[], Exception]:
        what = "the end of the answer" if option == "total_timeout_ms" else "the first token"
        return lambda: self._exchange.failures.timeout(what, seconds or 0.0, option)

    async def _attempt(self, exchange: Exchange, waiting: Waiting) -> None:
        """Send the request once, and read until there is an event."""
        self._tried_at = perf_counter()
        self._decoder = decoder = exchange.decoder()
        self._checks = exchange.checks()
        seconds = exchange.limits.first_token_s
        try:
            async with waiting.within(seconds, self._too_late("first_token_timeout_ms", seconds)):
                self._stream = stream = await exchange.open(exchange.body)
                if _is_whole(stream.response):
                    await self._read_whole(stream.response, decoder)
                else:
                    await self._read_first(stream, decoder)
            if self._ended:
                await self._drop_stream()
        except BaseException:
            await self._drop_stream()
            raise

    async def _read_first(self, stream: Stream, decoder: Decoder) -> None:
        """Read until there is an event."""
        while not self._ended:
            try:
                data = await _next(stream)
            except StopAsyncIteration:
                self._finish(decoder)
                return
            if events := self._decoded(partial(self._pushed, decoder, data)):
                self._add(events)
                return

    async def _read_whole(self, response: httpx2.Response, decoder: Decoder) -> None:
        """Read an answer that is not marked as a stream: an error, a web page, or all in one."""
        body = (await response.aread()).decode(errors="replace")
        pieces = _json_in(body)
        if not pieces:
            raise self._exchange.failures.bad_answer(
                "the server answered with a web page, nothing, or another text that is not of its "
                "protocol; " + self._exchange.failures.path_advice,
                status=response.status_code,
            )
        for data in pieces:
            self._add(self._decoded(partial(self._pushed, decoder, data)))
        if not self._ended:
            self._finish(decoder)

    def _pushed(self, decoder: Decoder, data: Any) -> list[Event]:
        if data is NOT_JSON:
            raise Malformed("text that is not JSON")
        if not isinstance(data, Mapping):
            raise Malformed("an event that is not an object")
        if _is_error(data):
            raise self._exchange.failures.of_object(data)
        return decoder.push(data)

    def _decoded(self, decode: Callable[[], list[Event]]) -> list[Event]:
        """The events of a decoder, or a typed error without the server's value in its cause."""
        failures = self._exchange.failures
        try:
            return decode()
        except Malformed as malformed:
            failure = failures.bad_answer(f"the server sent {malformed}")
        except Ended as ended:
            failure = failures.broken(_short(failures.safe(str(ended))))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, TaluError):
                raise
            wrong = f"the server sent an event with a wrong value ({type(error).__name__})"
            failure = failures.bad_answer(wrong)
        raise failure

    def _add(self, events: list[Event]) -> None:
        now = perf_counter()
        if events and not self._first_at:
            self._first_at = now
        self._last_at = now
        if (checks := self._checks) is None:
            return
        for event in events:
            self._events.append(checks.seen(event))
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
        if decoder.reason is None:
            raise self._exchange.failures.broken("it has no finish reason")
        self._add_rest()
        if self._checks is not None and self._checks.stopped is not None:
            self._stop()
            return
        self._add(self._decoded(decoder.finish))
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
        waiting, stream, decoder = self._waiting, self._stream, self._decoder
        if waiting is None or stream is None or decoder is None:
            raise RuntimeError("the generation has not been started")
        seconds = self._exchange.limits.piece_s
        if decoder.reason is not None:  # only counts of tokens may still come
            seconds = min(seconds, LAST_S)
        failure: TaluError | None = None
        try:
            async with waiting.within(seconds, self._stalled):
                data = await _next(stream)
            self._add(self._decoded(partial(self._pushed, decoder, data)))
            if self._ended:
                await self._drop_stream()
        except StopAsyncIteration:
            await self._end(decoder)
        except Cancelled:
            await self._cancel_now()
        except TaluError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - raised below, as a typed error
            failure = self._exchange.failures.of(error, doing="the answer")
            if failure.status is None and failure.code in ("ENDPOINT_UNREACHABLE", "SERVER_ERROR"):
                failure = self._exchange.failures.broken("the connection was cut")
        except BaseException:
            await self._close()
            raise
        if failure is not None:  # after the handlers, so that the SDK's error is not attached
            await self._break(failure, decoder)

    async def _break(self, failure: TaluError, decoder: Decoder) -> None:
        """Raise the failure, unless the answer was complete before it."""
        if decoder.reason is not None and failure.code in ("ENDPOINT_TIMEOUT", "STREAM_BROKEN"):
            decoder.note("the connection broke after the end of the answer")
            await self._end(decoder)
            return
        await self._close()
        failure.attempts = self._attempts(failure)
        self._failure = failure
        self._add_rest()

    async def _end(self, decoder: Decoder) -> None:
        """Add the last event; raises when the answer is not complete."""
        try:
            self._finish(decoder)
        finally:
            await self._drop_stream()

    def _stalled(self) -> Exception:
        seconds = self._exchange.limits.piece_s
        reason = f"no piece came for {seconds:g} seconds (timeout_ms)"
        return self._exchange.failures.broken(reason, timed_out=True)

    async def _cancel_now(self) -> None:
        await self._drop_stream()
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
        await self._drop_stream()

    async def _drop_stream(self) -> None:
        """Close the connection, unless the answer was read to its end."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await _closed(stream)

    def __del__(self) -> None:
        stream, loop = self._stream, self._loop
        if stream is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections
                loop.call_soon_threadsafe(lambda: loop.create_task(_closed(stream)))


def _short(text: str) -> str:
    return text if len(text) <= NOTE else text[:NOTE] + "…"


async def _next(stream: Stream) -> Any:
    """The next event; ``NOT_JSON`` for one that cannot be read, whose error may hold its text."""
    try:
        return await stream.__anext__()
    except (ValueError, RecursionError) as error:
        if isinstance(error, TaluError):
            raise
    return NOT_JSON


async def _closed(stream: Stream) -> None:
    """Close a stream; a failure to close a connection concerns nobody."""
    with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):
        await stream.close()
    with contextlib.suppress(RuntimeError):  # no event loop runs any more
        task = asyncio.get_running_loop().create_task(_unwound(stream))
        UNWINDING.add(task)
        task.add_done_callback(UNWINDING.discard)


async def _unwound(stream: Stream) -> None:
    """End the generators of the SDK and the HTTP library, which are inside each other.

    Reading on, which fails now, ends all of them; otherwise the garbage collector would end them,
    in no order.
    """
    with contextlib.suppress(Exception):
        async with asyncio.timeout(0):
            for _ in range(EVENTS_AHEAD):
                await stream.__anext__()


def _json_in(body: str) -> list[Any]:
    """The JSON of an answer without a usual type: one object, or events; empty for other text."""
    events = [line[5:].strip() for line in body.splitlines() if line.startswith("data:")]
    try:
        if not events:
            return [json.loads(body)]
        return [json.loads(event) for event in events if event != "[DONE]"]
    except (ValueError, RecursionError):
        return []


def _is_error(data: Mapping[str, Any]) -> bool:
    """Whether an event is an error, in the form of any known server."""
    if data.get("error") or data.get("object") == "error" or data.get("type") == "error":
        return True
    return "choices" not in data and isinstance(data.get("message"), str)


def _is_whole(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "").lower()
    return not kind.startswith(STREAMED)

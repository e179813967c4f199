"""A model behind an endpoint, as a backend."""

import asyncio
import os
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Sequence,
)
from concurrent.futures import TimeoutError as LateError
from functools import partial
from weakref import WeakSet

import httpx2

from talu.backends.remote.answers import Decoder
from talu.backends.remote.anthropic_messages import MessagesDecoder, encode_messages
from talu.backends.remote.attempts import Cancelled, Limits, Waiting, repeated
from talu.backends.remote.checks import Checks
from talu.backends.remote.embeddings import RemoteTexts
from talu.backends.remote.encoding import Body, Target, honoured
from talu.backends.remote.endpoint import endpoint_of
from talu.backends.remote.failures import Failures
from talu.backends.remote.generation import Exchange, RemoteGeneration
from talu.backends.remote.http import PerLoop, http_client, own_headers, tls_of
from talu.backends.remote.openai_chat import ChatDecoder, encode_chat
from talu.backends.remote.openai_completions import CompletionDecoder, encode_completion
from talu.backends.remote.options import RemoteBackend
from talu.backends.remote.providers import provider_named
from talu.backends.remote.proxies import proxy_of
from talu.backends.remote.rate_limits import paused_for
from talu.backends.remote.reading import Reading
from talu.backends.remote.reranking import RemoteScores
from talu.backends.remote.sdk import SdkClient
from talu.bridge import Bridged
from talu.checks import check_boolean
from talu.deadline import Deadline
from talu.error_text import kind_of, shown
from talu.exceptions import EndpointError, StateError, ValidationError
from talu.first_use import loaded
from talu.forks import import_whole
from talu.protocols import AsyncGeneration, Embedded, Generation, Scored
from talu.structured.places import Explained, may_be_explained
from talu.types import Capabilities, EmbeddingOptions, Request

__all__ = ["RemoteModel"]

SDKS = {  # by protocol; imported on first use, because importing them takes a second
    "anthropic": "talu.backends.remote.anthropic_sdk",
    "openai": "talu.backends.remote.openai_sdk",
}
CONNECT_S = 5.0
PIECE_S = 60.0
MAX_RETRIES = 100
MAX_MS = 1_000_000_000
CLOSING_S = 2.0


Encode = Callable[[Request, Target], Body]
Decode = Callable[[Target], Decoder]


class RemoteModel:
    """A model behind an endpoint; see ``talu.protocols.Backend``.

    Creating it sends nothing.
    """

    def __init__(
        self,
        ref: str,
        options: RemoteBackend,
        *,
        provider: str,
        name: str | None = None,
        offline: bool = False,
    ) -> None:
        """Check the options, find the key, and import the SDK.

        Args:
            ref: the model's name at the provider.
            options: where it runs.
            provider: a name of the table of providers.
            name: the name of the model in answers; None for ``ref``.
            offline: refused, because the model needs the network.

        Raises:
            ValidationError: an option is wrong, or no key is known.
        """
        if check_boolean("offline", offline):
            wrong = f"model {shown(ref)} runs behind an endpoint: offline=True excludes it"
            raise ValidationError(wrong, details={"param": "offline"})
        row = provider_named(provider)
        self._name = ref if name is None else name
        self._limits = limits_of(options, row.first_token_s)
        self._endpoint = endpoint_of(row, options, os.environ)
        self._target = Target(ref, row, options)
        self._failures = Failures(self._endpoint, self._name, proxy_of(self._endpoint))
        sdk = import_whole(SDKS[row.protocol])
        headers = own_headers(self._endpoint, options)
        timeout = httpx2.Timeout(None, connect=self._limits.connect_s)
        tls = tls_of(self._endpoint)
        self._clients: PerLoop[SdkClient] = PerLoop(
            lambda: sdk.client(self._endpoint, http_client(self._endpoint, headers, tls), timeout)
        )
        self._texts = RemoteTexts(self._target, self._answer, self._failures)
        self._scores = RemoteScores(self._target, self._answer, self._failures)
        self._paused_until = 0.0
        self._generations: WeakSet[RemoteGeneration] = WeakSet()
        self._waits: WeakSet[Waiting] = WeakSet()  # of requests that are not streamed
        self._closed = False

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._name

    @property
    def location(self) -> str:
        """The address of the endpoint."""
        return self._endpoint.url

    @property
    def max_context_length(self) -> None:
        """None: a server does not say."""
        return None

    @property
    def max_retries(self) -> int | None:
        """How often a request may be repeated; None if the options do not say."""
        return self._limits.retries

    @property
    def settings(self) -> Collection[str]:
        """The settings that the provider takes in chats or raw completions."""
        return honoured(self._target, raw=False) | honoured(self._target, raw=True)

    @property
    def capabilities(self) -> Capabilities:
        """What the provider's row says; nothing is sent."""
        return self._endpoint.provider.capabilities

    def generate(self, request: Request) -> Generation:
        """A generation that has not started, for a reader that blocks."""
        return Bridged(partial(self.agenerate, request))

    def agenerate(self, request: Request) -> AsyncGeneration:
        """A generation that has not started."""
        generation = RemoteGeneration(partial(self._exchange, request), self._name)
        self._generations.add(generation)
        return generation

    def _exchange(self, request: Request) -> Exchange:
        self._check_open()
        encode, decode = self._protocol(request)
        request, strategy, unfilled = self._explained(request)
        body = encode(request, self._target)
        return Exchange(
            body=body,
            open=self._opened,
            decoder=partial(decode, self._target),
            checks=partial(Checks, request, self._target, body, explained=strategy),
            failures=self._failures,
            limits=self._limits,
            model=self._name,
            echo=request.prompt or "" if request.echo_prompt else "",
            notes=(*request.notes, *body.notes, *unfilled),
            deadline=request.deadline,
            retries=self._limits.retries_of(has_alternatives=request.has_alternatives)
            - (request.asked_before or 0),
            waits_for_server=request.asked_before is None,
        )

    def _explained(self, request: Request) -> Explained:
        """The request with an explanation of the form of its answer.

        Without being asked, only of a form that the server does not take.
        """
        if not may_be_explained(request):
            return Explained(request)
        form, taken = request.config.response_format, False
        if form is not None:
            fields = loaded("talu.backends.remote.response_formats", "form_fields")
            raw = request.messages is None
            taken = fields(form, self._target.provider.forms, raw=raw) is not None
        explained = loaded("talu.structured.explanation", "explained")
        found: Explained = explained(request, unasked=not taken)
        return found

    async def _opened(self, body: Body) -> Reading:
        reading = await self._clients.get().stream(body)
        pause = paused_for(reading.response.headers, time.time())
        self._paused_until = max(self._paused_until, time.monotonic() + pause)
        return reading

    def closed_for(self) -> float:
        """Seconds for which the server takes no further request, as its last answers say."""
        return max(0.0, self._paused_until - time.monotonic())

    def _protocol(self, request: Request) -> tuple[Encode, Decode]:
        if self._endpoint.provider.protocol == "anthropic":
            return encode_messages, MessagesDecoder
        if request.messages is None:
            return encode_completion, CompletionDecoder
        return encode_chat, ChatDecoder

    @property
    def embedding_dim(self) -> int:
        """The length of an embedding; asks the server, unless it has answered before."""
        return self._texts.dimension

    def embed(
        self, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Embedded]:
        """The vectors of each batch, in order."""
        return self._texts.embed(batches, options)

    def aembed(
        self, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Embedded]:
        """Like ``embed``, awaited."""
        return self._texts.aembed(batches, options)

    def score(
        self, query: str, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Scored]:
        """The scores of each batch of documents, in order."""
        return self._scores.score(query, batches, options)

    def ascore(
        self, query: str, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Scored]:
        """Like ``score``, awaited."""
        return self._scores.ascore(query, batches, options)

    async def _answer(self, body: Body, deadline: Deadline | None) -> object:
        """The JSON of an answer that is not streamed."""
        self._check_open()
        seconds, failures = self._limits.first_token_s, self._failures
        total = partial(failures.timeout, "the answer", self._limits.total_s or 0.0)
        waiting = Waiting(deadline, self._limits.total_s, partial(total, "total_timeout_ms"))
        self._waits.add(waiting)

        async def attempt() -> object:
            late = partial(failures.timeout, "the answer", seconds, self._limits.first_token_option)
            async with waiting.within(seconds, late):
                answer = failures.read(await self._clients.get().post(body))
            if isinstance(answer, EndpointError):
                raise answer
            return answer

        try:
            return await repeated(attempt, waiting, failures, self._limits.retries_of())
        except (Cancelled, EndpointError):
            self._check_open()  # it may have failed because the model was closed
            raise

    def close(self) -> None:
        """Cancel the requests of this object and close all connections; idempotent.

        Waiting readers get the text so far and the finish reason ``cancelled``, and embeddings
        raise ``StateError``.
        """
        self._closed = True
        for generation in list(self._generations):
            generation.cancel()
        for waiting in list(self._waits):
            waiting.cancel()
        for loop, client in self._clients.drain():
            _close_on(loop, client)

    def _check_open(self) -> None:
        if self._closed:
            raise StateError(f"{self._name} is closed; open it again", "STATE_CLOSED")


def _close_on(loop: asyncio.AbstractEventLoop, client: SdkClient) -> None:
    """Close a client on the loop of its connections, and wait for that, but not on that loop."""
    if loop.is_closed() or not loop.is_running():
        return
    try:
        running: object = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    closing = asyncio.run_coroutine_threadsafe(client.close(), loop)
    if running is not loop:
        try:
            closing.result(CLOSING_S)
        except LateError:
            closing.cancel()


def limits_of(options: RemoteBackend, first_token_s: float) -> Limits:
    """The limits that the options give.

    Raises:
        ValidationError: one is not a whole number in its range, or another option is wrong.
    """
    given = {
        name: _milliseconds(name, getattr(options, name))
        for name in (
            "timeout_ms",
            "connect_timeout_ms",
            "first_token_timeout_ms",
            "total_timeout_ms",
        )
    }
    retries = options.max_retries
    if retries is not None and not _whole(retries, 0, MAX_RETRIES):
        raise _wrong("max_retries", retries, f"a whole number from 0 to {MAX_RETRIES}, or None")
    if options.on_unsupported not in ("error", "warn"):
        raise _wrong("on_unsupported", options.on_unsupported, "'error' or 'warn'")
    check_boolean("allow_insecure", options.allow_insecure)
    piece, first = given["timeout_ms"], given["first_token_timeout_ms"]
    return Limits(
        connect_s=given["connect_timeout_ms"] or CONNECT_S,
        first_token_s=first or piece or first_token_s,
        first_token_option="timeout_ms" if piece and not first else "first_token_timeout_ms",
        piece_s=piece or PIECE_S,
        total_s=given["total_timeout_ms"],
        retries=retries,
    )


def _milliseconds(name: str, value: int | None) -> float | None:
    """Seconds; None for the default."""
    if value is None:
        return None
    if not _whole(value, 1, MAX_MS):
        raise _wrong(name, value, f"milliseconds from 1 to {MAX_MS:,}, or None for the default")
    return value / 1000


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _wrong(name: str, value: object, wanted: str) -> ValidationError:
    # A value of a wrong type may be the key in a wrong place.
    got = shown(value) if isinstance(value, int) else kind_of(value)
    return ValidationError(f"{name} must be {wanted}, got {got}", details={"param": name})

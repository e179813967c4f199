"""Batches texts to embed into steps of the model.

A step takes texts from all requests in turn. A text that is longer than a step is computed in parts
if the network allows it. Only the engine's thread uses this, except for the tickets.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import TYPE_CHECKING, NamedTuple

from talu.arrays import Floats, Ints, integers, table
from talu.deadline import Deadline
from talu.engine.blocks import BlockPool
from talu.engine.budget import CachePlan
from talu.engine.ticket import Channel
from talu.exceptions import StateError, TaluError
from talu.first_use import loaded
from talu.models import Architecture
from talu.protocols import Executor
from talu.sources.embedding import PoolingMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talu.engine.pooling import Pool

__all__ = ["Embedder", "EmbedderPlan", "EmbeddingRequest", "EmbeddingTicket", "plan_embedder"]

POOLING = "talu.engine.pooling"  # loads NumPy
ROWS = 768  # of a step: 6 % faster than half, 4 % faster than twice as many
SHORT = 4  # tokens; a full step of texts at least this long has enough blocks
ROWS_BESIDE_GENERATIONS = 64  # limits how much longer the pauses in running answers get


class EmbedderPlan(NamedTuple):
    """Sizes of the steps that embed texts.

    Attributes:
        rows: maximum rows of a step; a text that must be computed whole may have more.
        whole: each text must be computed in one step, because its rows attend to each other.
        blocks: cache blocks for the texts that are being computed.
        width: width of the hidden states.
    """

    rows: int
    whole: bool
    blocks: int
    block_size: int
    width: int


def plan_embedder(architecture: Architecture, cache: CachePlan) -> EmbedderPlan:
    """Plan blocks for the longest text and a step of short texts, at most those of ``cache``."""
    whole = not architecture.causal
    longest = -(-cache.context_length // cache.block_size)
    blocks = min(cache.blocks, longest + ROWS // SHORT)
    return EmbedderPlan(ROWS, whole, blocks, cache.block_size, architecture.hidden_size)


@dataclass(eq=False, kw_only=True)
class _Text:
    """A text of a request."""

    number: int
    tokens: Sequence[int]
    request: "EmbeddingRequest"
    pool: "Pool"
    blocks: list[int] = field(default_factory=list)
    computed: int = 0

    def pooled_rows(self, count: int) -> range:
        """The rows among the next ``count`` that are pooled."""
        rows = self.pool.rows(self.computed, self.computed + count)
        return range(rows.start - self.computed, rows.stop - self.computed)

    def take(self, rows: Floats, count: int) -> bool:
        """Add the pooled rows of a step; True if the text is complete."""
        self.pool.add(rows, self.computed + self.pooled_rows(count).start)
        self.computed += count
        return self.computed == len(self.tokens)


class EmbeddingRequest:
    """Texts of one caller, whose pooled states are delivered together.

    Attributes:
        weight: memory of the waiting request in tokens, each about 40 bytes.

    Args:
        texts: token ids of each text.
        pooling: pooling modes; the vectors of several are joined.
        width: width of the hidden states.
        skip: rows at the start of each text that are not pooled.
        deadline: time at which an unfinished request fails.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        pooling: Sequence[PoolingMode],
        width: int,
        *,
        skip: int = 0,
        deadline: Deadline | None = None,
    ) -> None:
        self.mailbox: Channel[NDArray[np.float32] | TaluError] = Channel(deadline=deadline)
        pool, vectors = loaded(POOLING, "Pool"), loaded(POOLING, "vectors")
        self.vectors: NDArray[np.float32] = vectors(len(texts), len(pooling) * width)
        self.left = len(texts)
        self.weight = sum(map(len, texts)) + 8 * len(texts)
        self.waiting = deque(
            _Text(number=number, tokens=ids, request=self, pool=pool(pooling, len(ids), skip))
            for number, ids in enumerate(texts)
        )

    def finish(self, text: _Text) -> None:
        """Store the pooled state of a text, and send all states if it was the last text."""
        self.vectors[text.number] = text.pool.vector()
        self.left -= 1
        if self.left == 0:
            self.mailbox.end(self.vectors)

    def drop(self) -> None:
        """End the request without vectors."""
        wrong = "the embedding was cancelled: its model was closed, or its caller cancelled it"
        self.mailbox.end(StateError(wrong))


class EmbeddingTicket:
    """The caller's side of a request: wait for it in a thread or in an event loop.

    Dropping it cancels it.
    """

    def __init__(self, request: EmbeddingRequest) -> None:
        self._mailbox = request.mailbox

    def wait(self) -> "NDArray[np.float32]":
        """The pooled states, (texts, width); raises the error of the request."""
        try:
            return _opened(self._mailbox.take())
        finally:
            self.cancel()  # has an effect only if the wait was interrupted

    async def wait_async(self) -> "NDArray[np.float32]":
        """Like ``wait``, awaited; cancelling the task cancels the request."""
        try:
            return _opened(await self._mailbox.take_async())
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Stop computing it. A waiting caller gets a ``StateError``."""
        self._mailbox.cancel()

    def __del__(self) -> None:
        self.cancel()


def _opened(item: "NDArray[np.float32] | TaluError") -> "NDArray[np.float32]":
    if isinstance(item, TaluError):
        raise item
    return item


class Embedder:
    """Runs the embedding requests of a model.

    Args:
        plan: sizes of the steps.
        open_executor: creates the executor for hidden states; called at the first step.
    """

    def __init__(self, plan: EmbedderPlan, open_executor: Callable[[], Executor]) -> None:
        self.plan = plan
        self._open = open_executor
        self._executor: Executor | None = None
        self._pool = self._new_pool()
        self._requests: deque[EmbeddingRequest] = deque()  # with waiting texts; the next one first
        self._running: list[_Text] = []

    @property
    def requests(self) -> list[EmbeddingRequest]:
        """The requests that are not finished."""
        begun = [text.request for text in self._running]
        return list(dict.fromkeys([*begun, *self._requests]))

    @property
    def waiting(self) -> int:
        """Number of requests with texts that have not started; any thread may call this."""
        return len(self._requests)

    @property
    def busy(self) -> bool:
        """Whether there is something to compute."""
        return bool(self._running or self._requests)

    def add(self, request: EmbeddingRequest) -> None:
        """Queue a request."""
        self._requests.append(request)

    def drop_cancelled(self) -> None:
        """Drop cancelled requests, and fail those past their deadline."""
        for request in self.requests:
            deadline = request.mailbox.deadline
            if request.mailbox.cancelled:
                self._forget(request)
                request.drop()
            elif deadline is not None and deadline.expired:
                self._forget(request)
                request.mailbox.end(deadline.error())

    def forget_begun(self) -> None:
        """Forget requests that a failed step may have included; all of them if that is unknown."""
        begun = {text.request for text in self._running}
        left = [request for request in self._requests if request not in begun]
        self._requests = deque(left if begun else [])
        self._running = []
        self._pool = self._new_pool()

    def step(self, *, beside_generations: bool) -> None:
        """Compute one step, and send the results of finished requests."""
        limit = ROWS_BESIDE_GENERATIONS if beside_generations else self.plan.rows
        chunks = self._plan(self.plan.rows if self.plan.whole else limit)
        if self._executor is None:
            self._executor = self._open()
        hidden = self._executor.step(*_arrays(chunks))
        first = 0
        for text, count in chunks:
            last = first + len(text.pooled_rows(count))
            if text.take(hidden[first:last], count):
                self._finish(text)
            first = last

    def close(self) -> None:
        """Free the executor."""
        if self._executor is not None:
            self._executor.close()

    def _plan(self, limit: int) -> list[tuple[_Text, int]]:
        """The texts of the next step, at least one, with their numbers of rows."""
        chunks: list[tuple[_Text, int]] = []
        for text in self._texts():
            left = len(text.tokens) - text.computed
            if chunks and (limit <= 0 or (self.plan.whole and left > limit)):
                break
            if not self._pool.grow(text.blocks, self._pool.needed(len(text.tokens))):
                break
            if text not in self._running:
                self._begin(text)
            chunks.append((text, left if self.plan.whole else min(left, limit)))
            limit -= chunks[-1][1]
        return chunks

    def _texts(self) -> Iterator[_Text]:
        """Running texts, then one of each request in turn."""
        yield from list(self._running)
        while self._requests:
            yield self._requests[0].waiting[0]

    def _begin(self, text: _Text) -> None:
        self._running.append(text)
        request = self._requests.popleft()
        request.waiting.popleft()
        if request.waiting:
            self._requests.append(request)

    def _new_pool(self) -> BlockPool:
        return BlockPool(self.plan.blocks, self.plan.block_size)

    def _finish(self, text: _Text) -> None:
        text.request.finish(text)  # before it leaves the list, so that a failure still ends it
        self._running.remove(text)
        self._pool.release(text.blocks)

    def _forget(self, request: EmbeddingRequest) -> None:
        for text in [text for text in self._running if text.request is request]:
            self._running.remove(text)
            self._pool.release(text.blocks)
        if request in self._requests:
            self._requests.remove(request)


def _arrays(chunks: list[tuple[_Text, int]]) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """The arguments of ``Executor.step``."""
    parts = [(text, text.computed, text.computed + count) for text, count in chunks]
    starts = list(accumulate((count for _, count in chunks), initial=0))
    wanted = (
        (start, text.pooled_rows(count))
        for start, (text, count) in zip(starts, chunks, strict=False)
    )
    pooled = (range(start + rows.start, start + rows.stop) for start, rows in wanted)
    return (
        integers(chain.from_iterable(t.tokens[a:b] for t, a, b in parts)),
        integers(chain.from_iterable(range(a, b) for _, a, b in parts)),
        integers(starts),
        table([text.blocks for text, *_ in parts]),
        integers(chain.from_iterable(pooled)),
    )

"""The interfaces of backends, executors and stores."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Collection,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypedDict

from talu.types import Capabilities, Done, EmbeddingOptions, Event, Request

if TYPE_CHECKING:  # importing talu does not import numpy
    import numpy as np
    from numpy.typing import NDArray

    from talu.arrays import Bytes, Floats, Ints

__all__ = [
    "AsyncGeneration",
    "Backend",
    "CachedPrefix",
    "ChatRecord",
    "Counter",
    "Embedded",
    "Embedder",
    "Executor",
    "Generation",
    "LimitReporter",
    "PackedTensor",
    "Renderer",
    "Sampled",
    "Scored",
    "Scorer",
    "SessionRecord",
    "Store",
    "StoredRecord",
    "StoredSession",
    "Vocabulary",
]


class Embedded(NamedTuple):
    """The embeddings of a batch of texts.

    Attributes:
        vectors: (texts, dimension) float32.
        cut: indices of the texts that were truncated.
        notes: sentences that describe each deviation from the request.
    """

    vectors: "NDArray[np.float32]"
    cut: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Scored(NamedTuple):
    """The scores of a batch of documents.

    Attributes:
        scores: one for each document; the larger, the better it answers the query.
        cut: indices of the documents that were truncated.
        notes: sentences that describe each deviation from the request.
    """

    scores: list[float]
    cut: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Generation(Protocol):
    """One generation, for a reader that blocks: an iterator of events that ends after ``Done``.

    A generation that is dropped is cancelled.
    """

    def start(self) -> None:
        """Submit the request; one that is invalid raises here."""

    def __iter__(self) -> Self:
        """The generation itself."""

    def __next__(self) -> Event:
        """Wait for the next event; raises ``StopIteration`` after the last one."""

    def cancel(self) -> None:
        """Let it end soon with ``Done`` and the reason ``cancelled``.

        May be called from any thread or signal handler, before the start, and more than once.
        """

    def so_far(self) -> Done:
        """The last event, as it would be if the generation was cancelled now.

        Valid after the start, even if the generation was closed or interrupted.
        """

    def close(self) -> None:
        """Cancel it and read no more; idempotent."""


class AsyncGeneration(Protocol):
    """Like ``Generation``, awaited; never blocks the event loop."""

    async def start(self) -> None:
        """Like ``Generation.start``."""

    def __aiter__(self) -> Self:
        """The generation itself."""

    async def __anext__(self) -> Event:
        """Await the next event; raises ``StopAsyncIteration`` after the last one."""

    def cancel(self) -> None:
        """Like ``Generation.cancel``."""

    def so_far(self) -> Done:
        """Like ``Generation.so_far``."""

    async def aclose(self) -> None:
        """Like ``Generation.close``."""


class Backend(Protocol):
    """One model, in this process or behind an endpoint.

    A backend generates. It may also be an ``Embedder``, a ``Scorer``, a ``Renderer``, a
    ``Counter`` or a ``Vocabulary``, whose methods it then has as well.
    """

    @property
    def model(self) -> str:
        """The name of the model."""

    @property
    def location(self) -> str | None:
        """The model's folder or address; None when it has neither."""

    @property
    def max_context_length(self) -> int | None:
        """Maximum tokens of prompt and answer together; None when unknown."""

    @property
    def settings(self) -> Collection[str]:
        """The fields of ``GenerationConfig`` that it honours; a request that sets others raises.

        Also ``"tools"``, ``"tool_choice"``, ``"parallel_tool_calls"`` and ``"response_format"``.
        """

    @property
    def capabilities(self) -> Capabilities:
        """The features that the model supports, as ``Capabilities.of`` its settings."""

    def generate(self, request: Request) -> Generation:
        """A generation that has not started; neither blocks nor raises."""

    def agenerate(self, request: Request) -> AsyncGeneration:
        """Like ``generate``, for a reader in an event loop."""

    def close(self) -> None:
        """Release the engine or the connections; idempotent."""


class CachedPrefix(Protocol):
    """A backend that knows how much of a prompt it has computed before."""

    def cached_tokens(self, request: Request) -> tuple[int, int]:
        """How many tokens of the prompt need no computation, and how many it has; blocks."""


class LimitReporter(Protocol):
    """A backend whose server says in its answers how many requests it still takes."""

    def closed_for(self) -> float | None:
        """Seconds for which the server takes no further request, by its last answer.

        None when it takes some, or does not say. A router asks this after every first token and
        every failure, and sends no request to the model for so long.
        """


class Embedder(Protocol):
    """A backend that embeds texts."""

    @property
    def embedding_dim(self) -> int:
        """The dimension of an embedding."""

    def embed(
        self, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Embedded]:
        """The embeddings of each batch, in order; the next batch is read while one is computed."""

    def aembed(
        self, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Embedded]:
        """Like ``embed``, awaited; never blocks the event loop."""


class Scorer(Protocol):
    """A backend that scores how well documents answer a query."""

    def score(
        self, query: str, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Scored]:
        """The scores of each batch of documents, in order."""

    def ascore(
        self, query: str, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Scored]:
        """Like ``score``, awaited; never blocks the event loop."""


class Renderer(Protocol):
    """A backend that knows the prompts of its model."""

    def render(self, request: Request) -> tuple[str, list[int]]:
        """The prompt as text and as token ids, without generating."""


class Counter(Protocol):
    """A backend that counts the tokens of prompts."""

    def count(self, request: Request) -> int:
        """The number of tokens of the request's prompt; 0 for an empty raw prompt."""


class Vocabulary(Protocol):
    """A backend that knows the tokens of its model."""

    def tokenize(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """The token ids of a text, with or without the special tokens that the tokenizer adds."""

    def detokenize(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids."""


class PackedTensor(NamedTuple):
    """A weight in the layout that the native kernels read.

    Attributes:
        format: ``"f32"``, ``"f16"``, ``"bf16"`` (matrices in tiles of 16 output rows), or
            ``"vector"`` (one-dimensional float32: norms, biases).
        shape: logical shape: (rows, columns) of a matrix, (length,) of a vector.
        data: one-dimensional uint8 array of packed bytes, 64-byte aligned; it may lie in a
            mapped file. float32 for a vector.
    """

    format: str
    shape: tuple[int, ...]
    data: "Bytes | Floats"


class Executor(Protocol):
    """Runs a recorded graph for a batch of rows; owns the paged KV cache."""

    def step(
        self,
        tokens: "Ints",
        positions: "Ints",
        row_starts: "Ints",
        block_tables: "Ints",
        outputs: "Ints",
    ) -> "Floats":
        """Run one step over a mix of prefill chunks and decode rows.

        Args:
            tokens: (T,) token ids of all rows, sequence after sequence.
            positions: (T,) position of each row in its sequence; consecutive within a sequence.
                A row attends to all positions of its sequence up to its own; those before the
                chunk were written to the cache by earlier steps.
            row_starts: (S + 1,) rows of sequence s are row_starts[s]:row_starts[s + 1].
            block_tables: (S, B) cache blocks of each sequence in order, padded with -1.
            outputs: (O,) rows whose logits are returned, ascending.

        Returns:
            (O, vocabulary) logits.
        """

    def close(self) -> None:
        """Free the cache and the weights; idempotent."""


class Sampled(NamedTuple):
    """A sampled token; log-probabilities are of the model's own distribution."""

    token: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


class ChatRecord(TypedDict):
    """The attributes of a chat other than its items, as plain values for JSON.

    Attributes:
        system_prompt: text of the system message, which is also the first item.
        config: the fields of ``GenerationConfig`` that are set.
    """

    session_id: str
    parent_session_id: str | None
    title: str | None
    model: str | None
    system_prompt: str | None
    config: dict[str, Any]
    chat_template: str | None
    marker: str
    metadata: dict[str, Any]


class StoredRecord(ChatRecord):
    """The stored attributes of a chat other than its items.

    Attributes:
        created_at_ms, updated_at_ms: milliseconds since 1970, UTC; set by the store.
    """

    created_at_ms: int
    updated_at_ms: int


class SessionRecord(StoredRecord):
    """A stored session in a listing.

    Attributes:
        search_snippet: an excerpt with the matches in brackets; None without a search.
        cursor: continues the listing after this session.
    """

    search_snippet: str | None
    cursor: str


class StoredSession(NamedTuple):
    """A session as returned by a store.

    Attributes:
        change: number of the session's last change, which detects concurrent changes.
        nodes: the store's identifiers of the items, one per item.
    """

    record: StoredRecord
    change: int
    nodes: list[int]
    items: list[dict[str, Any]]


class Store(Protocol):
    """Storage of chats. Histories with a common beginning share the nodes of that beginning."""

    def load(self, session_id: str) -> StoredSession | None:
        """The session with this id; None when there is none."""

    def save(
        self,
        record: ChatRecord,
        *,
        change: int | None,
        after: int | None,
        items: Sequence[Mapping[str, Any]],
    ) -> tuple[int, list[int]]:
        """Store a session atomically; its history is that up to ``after``, followed by ``items``.

        Args:
            record: everything but the items.
            change: the last change of the session that the caller has seen, None for a new session.
            after: the last node to keep, None for none.
            items: the items that follow it.

        Returns:
            The number of this change, and one node per item.

        Raises:
            LookupError: ``after`` no longer exists; nothing was stored.
            StorageError: with code ``STORAGE_CONFLICT`` when the session was changed or deleted
                elsewhere; with ``STORAGE_UNCERTAIN`` when it may have been stored; with
                ``STORAGE_ERROR`` when it cannot be written now.
        """

"""Embeds texts with a model behind an endpoint."""

import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu.backends.remote.answers import Malformed
from talu.backends.remote.encoding import Body, Target, with_extras
from talu.backends.remote.failures import Failures
from talu.bridge import run_in_background
from talu.deadline import Deadline
from talu.exceptions import GenerationError, ValidationError
from talu.protocols import Embedded
from talu.types import EmbeddingOptions
from talu.unicode import check_unicode

__all__ = ["RemoteTexts", "check_options", "encode_embedding", "parts", "vectors_of"]

TEXTS = 64  # of one request
CHARACTERS = 100_000  # of one request, unless a single text is longer
MAX_DIMENSION = 1 << 20
SMALLEST = math.ldexp(1.0, -400)

Send = Callable[[Body, Deadline | None], Awaitable[object]]


class RemoteTexts:
    """Embeds texts at an endpoint; see ``talu.protocols.Embedder``.

    Args:
        target: the model.
        send: sends a body and returns the JSON of the answer, under the limits of the endpoint.
        failures: words what goes wrong.
    """

    def __init__(self, target: Target, send: Send, failures: Failures) -> None:
        self._target = target
        self._send = send
        self._failures = failures
        self._dimension: int | None = None

    @property
    def dimension(self) -> int:
        """The length of a vector, as the server's first answer shows; asks for one if needed."""
        if self._dimension is None:
            vectors = run_in_background(partial(self._vectors, ["a"], EmbeddingOptions()))
            self._dimension = vectors.shape[1]
        return self._dimension

    def embed(
        self, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Embedded]:
        """The vectors of each batch, in order."""
        self._check(options)
        for texts in batches:
            work = partial(self._vectors, texts, options)
            yield Embedded(run_in_background(work, options.deadline))

    async def aembed(
        self, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Embedded]:
        """Like ``embed``, awaited."""
        self._check(options)
        async for texts in batches:
            yield Embedded(await self._vectors(texts, options))

    def _check(self, options: EmbeddingOptions) -> None:
        check_options(options)
        if not self._target.provider.embeddings:
            raise GenerationError(
                f"{self._target.provider.name} has no embeddings: use a provider that has",
                "GENERATION_UNSUPPORTED",
                {"model": self._target.name},
            )

    async def _vectors(
        self, texts: Sequence[str], options: EmbeddingOptions
    ) -> NDArray[np.float32]:
        found = [await self._part(part, options) for part in parts(texts)]
        try:
            return np.concatenate(found)
        except ValueError:
            raise self._failures.bad_answer("the server sent vectors of several lengths") from None

    async def _part(self, texts: Sequence[str], options: EmbeddingOptions) -> NDArray[np.float32]:
        body = encode_embedding(texts, self._target, options)
        found = _checked(await self._send(body, options.deadline), len(texts), options)
        if isinstance(found, str):
            raise self._failures.bad_answer(f"the server sent {found}")
        return found


def _checked(answer: object, count: int, options: EmbeddingOptions) -> NDArray[np.float32] | str:
    """The vectors of an answer, or what is wrong with it: an error would hold the answer."""
    try:
        return vectors_of(answer, count, normalize=options.normalize)
    except Malformed as malformed:
        return str(malformed)


def check_options(options: EmbeddingOptions) -> None:
    """Refuse options that only a model in this process has.

    Raises:
        ValidationError: the server cannot do it; the message names the option.
    """
    named = {
        "pooling": options.pooling_given and options.pooling is not None,
        "truncate": options.truncate,
        "prompt_name": options.prompt_name is not None,
    }
    for name, is_set in named.items():
        if is_set:
            wrong = f"{name} is the server's choice for a model behind an endpoint: leave it out"
            raise ValidationError(wrong, "UNSUPPORTED", {"param": name})


def encode_embedding(texts: Sequence[str], target: Target, options: EmbeddingOptions) -> Body:
    """The body of a request for the embeddings of these texts.

    Raises:
        TokenizerError: a text has a lone surrogate.
    """
    check_unicode("prompt", options.prompt or "")
    for place, text in enumerate(texts):
        check_unicode(f"text {place}" if place else "text", text)
    body: dict[str, Any] = {
        "model": target.name,
        "input": [f"{options.prompt or ''}{text}" for text in texts],
        "encoding_format": "float",
    }
    return Body("embeddings", with_extras(body, target))


def parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in groups that fit one request."""
    start = length = 0
    for place, text in enumerate(texts):
        if place > start and (place - start >= TEXTS or length + len(text) > CHARACTERS):
            yield texts[start:place]
            start, length = place, 0
        length += len(text)
    if texts[start:]:
        yield texts[start:]


def vectors_of(answer: object, count: int, *, normalize: bool) -> NDArray[np.float32]:
    """The vectors of an answer, in the order of the texts.

    Args:
        answer: the JSON of the answer.
        count: the number of texts.
        normalize: scale each to length 1.

    Raises:
        Malformed: it does not have one vector of finite numbers for each text.
    """
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(data, list) or len(data) != count:
        raise Malformed(f"an answer that does not have {count} embeddings")
    rows: list[Any] = [None] * count
    for place, entry in enumerate(data):
        index = entry.get("index", place) if isinstance(entry, Mapping) else None
        if type(index) is not int or not 0 <= index < count or rows[index] is not None:
            raise Malformed("embeddings with wrong numbers")
        rows[index] = entry.get("embedding")
    try:
        if not all(isinstance(row, list) and set(map(type, row)) <= {int, float} for row in rows):
            raise Malformed("embeddings that are not lists of numbers")
        vectors = np.array(rows, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):
        raise Malformed("embeddings that are not lists of numbers of one length") from None
    if vectors.ndim != 2 or not 0 < vectors.shape[1] <= MAX_DIMENSION:
        raise Malformed("embeddings that are not lists of numbers of one length")
    if not np.isfinite(vectors).all():
        raise Malformed("embeddings that are not finite")
    if normalize:
        vectors = np.array([_normal(vector) for vector in vectors])
    with np.errstate(over="ignore"):
        single = vectors.astype(np.float32)
    if not np.isfinite(single).all():
        raise Malformed("embeddings with numbers too large for 32 bits")
    return single


def _normal(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector with length 1; zero stays zero. The sum is exact, the same on every processor."""
    largest = float(np.abs(vector).max())
    if largest and not SMALLEST < largest < 1 / SMALLEST:  # its squares would be 0 or infinite
        power = math.frexp(largest)[1]
        vector = np.array([math.ldexp(value, -power) for value in vector.tolist()])
    length = math.sqrt(math.fsum(value * value for value in vector.tolist()))
    return vector / length if length else vector

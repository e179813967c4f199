"""Scores documents with a model behind an endpoint that has ``/rerank``.

The request is that of Jina and Cohere, which vLLM, llama.cpp, Together and LocalAI read as well;
SGLang answers with a plain list. https://docs.vllm.ai/en/latest/serving/openai_compatible_server/
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial

from talu.backends.remote.answers import Malformed, real
from talu.backends.remote.embeddings import check_options, parts
from talu.backends.remote.encoding import Body, Target, with_extras
from talu.backends.remote.failures import Failures
from talu.bridge import run_in_background
from talu.deadline import Deadline
from talu.exceptions import GenerationError
from talu.protocols import Scored
from talu.types import EmbeddingOptions
from talu.unicode import check_unicode

__all__ = ["RemoteScores", "encode_rerank", "scores_of"]

Send = Callable[[Body, Deadline | None], Awaitable[object]]
SCORES = ("relevance_score", "score")


class RemoteScores:
    """Scores documents at an endpoint; see ``talu.protocols.Scorer``.

    Args:
        target: the model.
        send: sends a body and returns the JSON of the answer, under the limits of the endpoint.
        failures: words what goes wrong.
    """

    def __init__(self, target: Target, send: Send, failures: Failures) -> None:
        self._target = target
        self._send = send
        self._failures = failures

    def score(
        self, query: str, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Scored]:
        """The scores of each batch of documents, in order."""
        self._check(options)
        for texts in batches:
            work = partial(self._scores, query, texts, options)
            yield Scored(run_in_background(work, options.deadline))

    async def ascore(
        self, query: str, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Scored]:
        """Like ``score``, awaited."""
        self._check(options)
        async for texts in batches:
            yield Scored(await self._scores(query, texts, options))

    def _check(self, options: EmbeddingOptions) -> None:
        provider = self._target.provider
        if not provider.reranks:
            raise GenerationError(
                f"{provider.name} does not rank documents: use a provider that does",
                "GENERATION_UNSUPPORTED",
                {"model": self._target.name},
            )
        check_options(options)

    async def _scores(
        self, query: str, texts: Sequence[str], options: EmbeddingOptions
    ) -> list[float]:
        found: list[float] = []
        for part in parts(texts):
            body = encode_rerank(query, part, self._target)
            scores = _checked(await self._send(body, options.deadline), len(part))
            if isinstance(scores, str):
                raise self._failures.bad_answer(f"the server sent {scores}")
            found += scores
        return found


def _checked(answer: object, count: int) -> list[float] | str:
    """The scores of an answer, or what is wrong with it: an error would hold the answer."""
    try:
        return scores_of(answer, count)
    except Malformed as malformed:
        return str(malformed)


def encode_rerank(query: str, documents: Sequence[str], target: Target) -> Body:
    """The body of a request for the scores of these documents.

    Raises:
        TokenizerError: a text has a lone surrogate.
    """
    check_unicode("query", query)
    for place, text in enumerate(documents):
        check_unicode(f"text {place}", text)
    body = {
        "model": target.name,
        "query": query,
        "documents": list(documents),
        "top_n": len(documents),
    }
    return Body("rerank", with_extras(body, target))


def scores_of(answer: object, count: int) -> list[float]:
    """The scores of an answer, in the order of the documents.

    Raises:
        Malformed: it does not have one finite score for each document.
    """
    results = answer.get("results") if isinstance(answer, Mapping) else answer
    if not isinstance(results, list) or len(results) != count:
        raise Malformed(f"an answer that does not have {count} scores")
    scores: list[float | None] = [None] * count
    for entry in results:
        index = entry.get("index") if isinstance(entry, Mapping) else None
        if type(index) is not int or not 0 <= index < count or scores[index] is not None:
            raise Malformed("scores with wrong numbers of documents")
        name = next((name for name in SCORES if name in entry), SCORES[0])
        scores[index] = real(entry.get(name), "a score")
    return [score for score in scores if score is not None]

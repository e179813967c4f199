"""Adds to both clients the methods that rank documents."""

from collections.abc import AsyncIterable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.protocols import Scored
from talu.router.abilities import scorer
from talu.router.batches import abatches, batches, check_texts
from talu.router.embedding_calls import checked_options, failures
from talu.router.model_methods import ModelMethods
from talu.types import EmbeddingOptions, Pooling

if TYPE_CHECKING:
    from talu.ranking import Ranking, Scores

__all__ = ["AsyncScoringMethods", "ScoringMethods"]


class _Call(NamedTuple):
    """The checked arguments of a call."""

    query: str
    model: str
    options: EmbeddingOptions


class ScoringMethods(ModelMethods):
    """Methods of both clients that rank documents."""

    def score(
        self,
        query: str,
        documents: Iterable[str],
        model: str | None = None,
        *,
        pooling: Pooling | None = None,
        truncate: bool = False,
        timeout: float | None = None,
    ) -> "Scores":
        """How well each document answers a query: a number for each, in their order.

        A cross-encoder reads query and document together; its score is what its folder says, as a
        rule a number from 0 to 1. Another model embeds them, with its prompts ``"query"`` and
        ``"document"`` if it has them; the score is the cosine, from -1 to 1. A model behind an
        endpoint is asked at ``/rerank``, and the server decides what its scores are. Only scores
        of one query and one model can be compared. A score does not depend on the other documents.

        Args:
            query: what is searched for. It is never cut.
            documents: a list, a column of a table, a generator: anything that gives texts. They are
                read in batches.
            model: one of ``models`` instead of the default one.
            pooling: as in ``embed_batch``, for a model that embeds; None for the model's own.
            truncate: truncate documents that are too long for the model, instead of raising.
            timeout: seconds that the call may take.

        Raises:
            ValidationError: an argument has the wrong type or an unknown name; ``pooling=None``,
                but a model that embeds names none; a pooling for a model that does not embed.
            GenerationError: the model is missing or cannot rank; query or document is too long; a
                score is not finite; the timeout expired (code ``GENERATION_TIMEOUT``).
            StateError: the client is closed, or was closed during the call.
        """
        call = self._scoring(query, model, pooling, truncate, timeout)
        check_texts(documents, "documents")
        found = _no_scores()
        parts = batches(documents, "documents")
        with failures(call.model):
            backend = scorer(self._router.backend(call.model, deadline=call.options.deadline))
            with closing(backend.score(call.query, parts, call.options)) as scored:
                for part in scored:
                    _add(found, part)
        return found

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        model: str | None = None,
        *,
        top_n: int | None = None,
        pooling: Pooling | None = None,
        truncate: bool = False,
        timeout: float | None = None,
    ) -> "Ranking":
        """The documents in the order of their scores for a query, the best one first.

        Documents with the same score keep their order. See ``score`` for what the scores are.

        Args:
            query: as in ``score``.
            documents: as in ``score``; all are kept in memory.
            model: as in ``score``.
            top_n: maximum number of documents in the result; all are scored.
            pooling: as in ``score``.
            truncate: as in ``score``.
            timeout: as in ``score``.

        Raises:
            ValidationError: as in ``score``, or ``top_n`` is not a whole number above 0.
            GenerationError: as in ``score``.
            StateError: as in ``score``.
        """
        _check_top_n(top_n)
        check_texts(documents, "documents")
        kept = list(documents)
        scores = self.score(query, kept, model, pooling=pooling, truncate=truncate, timeout=timeout)
        return _ranking(kept, scores, top_n)

    def _scoring(
        self,
        query: str,
        model: str | None,
        pooling: Pooling | None,
        truncate: bool,
        timeout: float | None,
    ) -> _Call:
        self._check_open()
        options = checked_options(
            pooling, True, truncate, None, None, as_numpy=False, timeout=timeout
        )
        if not isinstance(query, str):
            wrong = f"query must be a text, got {shown(query)}"
            raise ValidationError(wrong, details={"param": "query"})
        return _Call(query, self._router.name_of(model), options)


class AsyncScoringMethods(ScoringMethods):
    """The methods that the async client adds."""

    async def ascore(
        self,
        query: str,
        documents: Iterable[str] | AsyncIterable[str],
        model: str | None = None,
        *,
        pooling: Pooling | None = None,
        truncate: bool = False,
        timeout: float | None = None,
    ) -> "Scores":
        """Like ``score``, awaited; cancelling the task stops the work.

        ``documents`` may be an asynchronous iterable; others are read on the event loop.
        """
        call = self._scoring(query, model, pooling, truncate, timeout)
        check_texts(documents, "documents")
        found = _no_scores()
        parts = abatches(documents, "documents")
        with failures(call.model):
            opened = await self._router.abackend(call.model, deadline=call.options.deadline)
            async for part in scorer(opened).ascore(call.query, parts, call.options):
                _add(found, part)
        return found

    async def arerank(
        self,
        query: str,
        documents: Iterable[str] | AsyncIterable[str],
        model: str | None = None,
        *,
        top_n: int | None = None,
        pooling: Pooling | None = None,
        truncate: bool = False,
        timeout: float | None = None,
    ) -> "Ranking":
        """Like ``rerank``, awaited; ``documents`` may be an asynchronous iterable."""
        _check_top_n(top_n)
        check_texts(documents, "documents")
        kept = [text async for batch in abatches(documents, "documents") for text in batch]
        scores = await self.ascore(
            query, kept, model, pooling=pooling, truncate=truncate, timeout=timeout
        )
        return _ranking(kept, scores, top_n)


def _check_top_n(top_n: object) -> None:
    if top_n is None or (isinstance(top_n, int) and not isinstance(top_n, bool) and top_n > 0):
        return
    wrong = f"top_n must be a whole number above 0, or None for all, got {shown(top_n)}"
    raise ValidationError(wrong, details={"param": "top_n", "value": top_n})


def _add(found: "Scores", part: Scored) -> None:
    found.extend(part.scores)
    found.truncated.extend(part.cut)
    found.notes = tuple(dict.fromkeys((*found.notes, *part.notes)))


def _no_scores() -> "Scores":
    scores: Scores = loaded("talu.ranking", "Scores")()
    return scores


def _ranking(documents: list[str], scores: "Scores", top_n: int | None) -> "Ranking":
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_n]
    document = loaded("talu.ranking", "RankedDocument")
    ranked = (document(index, scores[index], documents[index]) for index in order)
    ranking: Ranking = loaded("talu.ranking", "Ranking")(ranked)
    ranking.truncated = scores.truncated
    ranking.notes = scores.notes
    return ranking

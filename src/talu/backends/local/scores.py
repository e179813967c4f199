"""Scores how well documents answer a query: with a cross-encoder, or by their embeddings."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from talu.backends.local.read_ahead import aread_ahead, read_ahead
from talu.backends.local.texts import TOKENIZING, Batch, Texts
from talu.engine.embedding import EmbeddingTicket
from talu.engine.engine import Engine
from talu.exceptions import GenerationError, ValidationError
from talu.first_use import loaded
from talu.protocols import Embedded, Scored
from talu.tokenizer.encoding import check_text
from talu.types import EmbeddingOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TextScores"]


class TextScores:
    """Scores documents with an open model.

    Args:
        ref: the model's name for messages.
        engine: returns the open engine, or raises ``StateError``.
        track: called with every ticket before it is waited for.
        texts: embeds texts with the same model.
        notes: on the model, for every result.
    """

    def __init__(
        self,
        ref: str,
        engine: Callable[[], Engine],
        track: Callable[[EmbeddingTicket], None],
        texts: Texts,
        notes: tuple[str, ...],
    ) -> None:
        self._ref = ref
        self._engine = engine
        self._track = track
        self._texts = texts
        self._notes = notes

    def score(
        self, query: str, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Scored]:
        """The scores of each batch of documents, in order; see ``talu.protocols.Scorer``."""
        if self._scores_pairs(options):
            start = partial(self._start, self._query(query, options), options)
            yield from read_ahead(batches, start, self._finish)
            return
        (asked,) = self._texts.embed([[query]], self._of(options, "query"))
        for part in self._texts.embed(batches, self._of(options, "document")):
            yield _similar(asked, part)

    async def ascore(
        self, query: str, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Scored]:
        """Like ``score``, awaited; slow work runs in a thread."""
        if self._scores_pairs(options):
            ids = await TOKENIZING.call(self._query, query, options)

            async def start(texts: Sequence[str], first: int) -> Batch:
                return await TOKENIZING.call(self._start, ids, options, texts, first)

            async for scored in aread_ahead(batches, start, self._afinish):
                yield scored
            return
        asked = [part async for part in self._texts.aembed(_one(query), self._of(options, "query"))]
        async for part in self._texts.aembed(batches, self._of(options, "document")):
            yield _similar(asked[0], part)

    def _scores_pairs(self, options: EmbeddingOptions) -> bool:
        """Whether the model reads query and document together.

        Raises:
            GenerationError: a file of the model asks for what talu does not support.
            ValidationError: a pooling is given, and the model has no embeddings.
        """
        architecture = self._engine().architecture
        if not architecture.scores_pairs:
            return False
        if architecture.embedding.problem is not None:
            problem = architecture.embedding.problem
            raise GenerationError(problem, "GENERATION_UNSUPPORTED", {"model": self._ref})
        if options.pooling is not None:
            wrong = f"{self._ref} scores pairs of texts without embeddings: leave pooling out"
            raise ValidationError(wrong, "UNSUPPORTED", {"param": "pooling"})
        return True

    def _of(self, options: EmbeddingOptions, kind: str) -> EmbeddingOptions:
        """The options of embedding a query or a document, with the model's prompt for it."""
        prompts = self._engine().architecture.embedding.prompts
        return replace(options, prompt_name=kind if kind in prompts else None)

    def _query(self, query: str, options: EmbeddingOptions) -> list[int]:
        """The tokens of a query, which is never cut."""
        engine = self._engine()
        check_text(query, "the query")
        ids = engine.tokenizer.encode(query, special_tokens=False)
        engine.check_ids("query", ids)
        room = engine.text_limit - engine.tokenizer.pair_template.size
        if len(ids) >= room:
            raise GenerationError(
                f"the query has {len(ids)} tokens, which leaves no room for a document: "
                f"{self._ref} takes {max(room, 0)} tokens of both; shorten the query",
                "GENERATION_CONTEXT_OVERFLOW",
                {"tokens": len(ids), "context_length": engine.text_limit},
            )
        return ids

    def _start(
        self, query: list[int], options: EmbeddingOptions, texts: Sequence[str], first: int
    ) -> Batch:
        engine = self._engine()
        template = engine.tokenizer.pair_template
        taken = template.size + len(query)
        pairs, segments, cut = list[list[int]](), list[int](), list[int]()
        for number, text in enumerate(texts, first):
            ids, is_cut = self._texts.tokens(number, text, options, taken=taken)
            if is_cut:
                cut.append(number)
            pair, segment = template.joined(query, ids)
            pairs.append(pair)
            segments.append(segment)
        if not engine.architecture.embedding.texts.segments:
            segments = list(map(len, pairs))
        ticket = engine.submit_embedding(
            pairs, ("first",), first=first, segments=segments, deadline=options.deadline
        )
        self._track(ticket)
        return Batch(ticket, first, tuple(cut))

    def _finish(self, batch: Batch) -> Scored:
        return self._scored(batch, batch.ticket.wait())

    async def _afinish(self, batch: Batch) -> Scored:
        pooled = await batch.ticket.wait_async()
        return await TOKENIZING.call(self._scored, batch, pooled)

    def _scored(self, batch: Batch, pooled: "NDArray[np.float32]") -> Scored:
        vectors = self._engine().head.vectors(pooled, normalize=False, first=batch.first)
        return Scored(vectors[:, 0].tolist(), batch.cut, self._notes)


def _similar(query: Embedded, documents: Embedded) -> Scored:
    """The cosine of each document with the query."""
    cosines = loaded("talu.engine.vectors", "cosines")(query.vectors[0], documents.vectors)
    notes = tuple(dict.fromkeys((*query.notes, *documents.notes)))
    return Scored(cosines, documents.cut, notes)


async def _one(query: str) -> AsyncGenerator[list[str]]:
    yield [query]

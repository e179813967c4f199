"""Embeds texts with a local model.

The next batch is tokenized and queued while the engine computes the current one.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from talu.backends.local.read_ahead import aread_ahead, read_ahead
from talu.callers import warn
from talu.engine.embedding import EmbeddingTicket
from talu.engine.engine import Engine
from talu.error_text import shown
from talu.exceptions import GenerationError, ValidationError
from talu.forks import ForkSafeLock
from talu.protocols import Embedded
from talu.sources.embedding import PoolingMode
from talu.threads import InTurn
from talu.tokenizer.encoding import check_text
from talu.types import POOLINGS, EmbeddingOptions, Pooling

__all__ = ["TOKENIZING", "Batch", "Texts"]

TOKENIZING = InTurn()  # separate, because a batch may take seconds and prompts must not wait for it


class Batch(NamedTuple):
    """A batch of texts that was submitted to the engine.

    Attributes:
        first: the number of its first text.
        cut: the numbers of the texts that were cut.
    """

    ticket: EmbeddingTicket
    first: int
    cut: tuple[int, ...]


class Texts:
    """Embeds texts with an open model.

    Args:
        ref: the model's name for messages.
        engine: returns the open engine, or raises ``StateError``.
        track: called with every ticket before it is waited for.
        notes: on the model, for every result.
    """

    def __init__(
        self,
        ref: str,
        engine: Callable[[], Engine],
        track: Callable[[EmbeddingTicket], None],
        notes: tuple[str, ...],
    ) -> None:
        self._ref = ref
        self._engine = engine
        self._track = track
        self._notes = notes
        self._gate = ForkSafeLock(reentrant=True)
        self._warned = False

    @property
    def dimension(self) -> int:
        """The length of a vector.

        Raises:
            GenerationError: the model has an unsupported step.
        """
        engine = self._supported()
        return engine.architecture.embedding.dimension

    def embed(
        self, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Embedded]:
        """Vectors of each batch, in order; see ``talu.protocols.Backend``."""
        start = partial(self._start, options)
        yield from read_ahead(batches, start, partial(self._finish, options))

    async def aembed(
        self, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Embedded]:
        """Like ``embed``, awaited; slow work runs in a thread."""

        async def start(texts: Sequence[str], first: int) -> Batch:
            self._pooling(self._supported(), options.pooling)  # its warning needs this stack
            return await TOKENIZING.call(self._start, options, texts, first)

        async for embedded in aread_ahead(batches, start, partial(self._afinish, options)):
            yield embedded

    def _start(self, options: EmbeddingOptions, texts: Sequence[str], first: int) -> Batch:
        engine = self._supported()
        pooling = self._pooling(engine, options.pooling)
        prompt, skip = self._prompt(engine, options)
        ids: list[list[int]] = []
        cut: list[int] = []
        for number, text in enumerate(texts, first):
            tokens, is_cut = self.tokens(number, text, options, prompt=prompt)
            ids.append(tokens)
            if is_cut:
                cut.append(number)
        ticket = engine.submit_embedding(
            ids, pooling, skip=skip, first=first, deadline=options.deadline
        )
        self._track(ticket)
        return Batch(ticket, first, tuple(cut))

    def tokens(
        self,
        number: int,
        text: str,
        options: EmbeddingOptions,
        *,
        prompt: str = "",
        taken: int | None = None,
    ) -> tuple[list[int], bool]:
        """The tokens of a text, and whether it was cut.

        Args:
            number: of the text, for messages.
            text: what is embedded.
            options: whether it may be cut, and until when that may take.
            prompt: stands before the text.
            taken: how many tokens of other texts and special tokens go with it, if it is no text
                of its own; None adds the special tokens of a single text.

        Raises:
            GenerationError: it is too long (code ``GENERATION_CONTEXT_OVERFLOW``), or it takes
                too long.
            TokenizerError: it cannot be tokenized.
        """
        engine, others = self._engine(), taken or 0

        def watch(count: int) -> None:
            if options.deadline is not None:
                options.deadline.check()
            if not options.truncate:
                engine.check_text_size(number, count + others)

        check_text(text, f"text {number}")
        tokenizer, whole, text = engine.tokenizer, taken is None, prompt + text
        if options.truncate:
            watch(0)
            return tokenizer.encode_at_most(
                text,
                engine.text_limit - others,
                special_tokens=whole,
                at_start=engine.architecture.embedding.texts.truncates_start,
                watch=watch,
            )
        watch(tokenizer.fewest_tokens(text))
        return tokenizer.encode(text, special_tokens=whole, watch=watch), False

    def _finish(self, options: EmbeddingOptions, batch: Batch) -> Embedded:
        pooled = batch.ticket.wait()
        engine = self._engine()
        vectors = engine.head.vectors(pooled, normalize=options.normalize, first=batch.first)
        return Embedded(vectors, batch.cut, self._notes)

    async def _afinish(self, options: EmbeddingOptions, batch: Batch) -> Embedded:
        pooled = await batch.ticket.wait_async()
        engine = self._engine()
        vectors = await TOKENIZING.call(
            engine.head.vectors, pooled, normalize=options.normalize, first=batch.first
        )
        return Embedded(vectors, batch.cut, self._notes)

    def _supported(self) -> Engine:
        engine = self._engine()
        problem = engine.architecture.embedding.problem
        if engine.architecture.scores_pairs:
            problem = (
                f"{self._ref} scores pairs of texts and has no embeddings: use rerank or score"
            )
        if problem is not None:
            raise GenerationError(problem, "GENERATION_UNSUPPORTED", {"model": self._ref})
        return engine

    def _pooling(self, engine: Engine, asked: Pooling | None) -> tuple[PoolingMode, ...]:
        own = engine.architecture.embedding
        if asked is None:
            if own.pooling is None:
                raise ValidationError(
                    f"{self._ref} does not say how its embeddings are pooled "
                    f"({own.pooling_problem}); choose one of {', '.join(map(repr, POOLINGS))}",
                    details={"param": "pooling"},
                )
            return own.pooling
        named = " + ".join(own.pooling or ("last",))
        if own.pooling is not None and len(own.pooling) > 1:
            raise ValidationError(
                f"the vectors of {self._ref} join the poolings {named}, and {asked!r} would give "
                "shorter ones; pass pooling=None",
                details={"param": "pooling"},
            )
        if asked == "last" != named:
            self._warn(named)
        return (asked,)

    def _warn(self, own: str) -> None:
        with self._gate.lock:
            if self._warned:
                return
            self._warned = True
        warn(
            f"{self._ref} was trained for pooling={own!r}, but the call uses 'last', the default "
            "of pooling=: its vectors will compare badly; pass pooling=None for the model's own"
        )

    def _prompt(self, engine: Engine, options: EmbeddingOptions) -> tuple[str, int]:
        """The text to put before each text, and the number of its tokens that are not pooled."""
        own = engine.architecture.embedding
        prompt, name = options.prompt, options.prompt_name
        if prompt is None:
            name = own.default_prompt if name is None else name
            if name is not None and name not in own.prompts:
                known = ", ".join(map(repr, own.prompts)) or "none"
                raise ValidationError(
                    f"{self._ref} has no prompt {shown(name)}; its prompts are: {known[:500]}",
                    details={"param": "prompt_name", "value": name[:100]},
                )
            prompt = "" if name is None else own.prompts[name]
        if not prompt or own.pools_prompt:
            return prompt, 0
        ids = engine.tokenizer.encode(prompt)
        return prompt, len(ids) - (ids[-1:] != [] and ids[-1] in engine.tokenizer.special_ids)

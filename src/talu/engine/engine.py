"""Validates the requests to a loaded model and submits them to its worker thread."""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from talu.deadline import Deadline
from talu.engine.drafts import Drafts
from talu.engine.embedding import EmbeddingRequest, EmbeddingTicket
from talu.engine.model import LoadedModel
from talu.engine.scheduler import Limits
from talu.engine.sequence import Sequence
from talu.engine.stops import ReplyForm, Stops
from talu.engine.ticket import Mailbox, Ticket
from talu.engine.worker import Worker
from talu.exceptions import EmptyPromptError, GenerationError, ValidationError
from talu.first_use import loaded
from talu.forks import ForkSafeLock
from talu.sampling import SamplingParams
from talu.sources.embedding import PoolingMode

if TYPE_CHECKING:
    from talu.engine.constraints import Constraint, Vocabulary
    from talu.engine.grammars import Grammars
    from talu.engine.vectors import Head

__all__ = ["Engine"]


class Engine:
    """A loaded model that serves requests.

    Requests may come from any thread. The same request with the same seed gives the same tokens,
    regardless of other requests, of the chunks of its prompt and of the prefix cache.

    If a step fails, all requests that have started get a ``GenerationError``; waiting and later
    requests continue. After a failure outside of a step, all requests get the error and the engine
    accepts no more. In a forked child, which lacks the thread, ``submit`` raises.
    """

    def __init__(
        self, model: LoadedModel, limits: Limits | None = None, *, max_requests: int = 10_000
    ) -> None:
        """Start the thread.

        Args:
            model: closed together with the engine.
            limits: budgets of a step.
            max_requests: unfinished requests beyond which new ones are refused.
        """
        self.tokenizer = model.tokenizer
        self.architecture = model.architecture
        self.info = model.info
        self.chat_templates = model.chat_templates
        self.context_length = model.cache.context_length
        self.text_limit = min(self.context_length, self.architecture.embedding.texts.max_tokens)
        self._head = model.head
        self._cache = model.cache
        self._width = model.embedder.width
        self._dimension = model.architecture.embedding.dimension
        self._speculative = model.speculative
        self._gate = ForkSafeLock()
        self._grammars: Grammars | None = None
        self._worker = Worker(model, limits, max_requests)

    @property
    def failed(self) -> bool:
        """Whether a failure has closed the engine."""
        return self._worker.failed

    def submit(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        form: ReplyForm | None = None,
        constraint: "Constraint | None" = None,
        deadline: Deadline | None = None,
    ) -> Ticket:
        """Submit a generation.

        Args:
            prompt_ids: the whole prompt.
            params: sampling and stopping.
            form: known properties of the answer's text.
            constraint: says which tokens may follow; for this generation alone.
            deadline: time at which an unfinished generation fails.

        Raises:
            EmptyPromptError: the prompt has no tokens.
            GenerationError: the model does not generate (code ``GENERATION_UNSUPPORTED``), or the
                prompt leaves no room for an answer (code ``GENERATION_CONTEXT_OVERFLOW``).
            ValidationError: a token id is outside the vocabulary.
            ResourceError: too many requests are waiting.
            StateError: the engine is closed or has failed, or was opened before a fork.
        """
        form = form or ReplyForm()
        self._check_request(prompt_ids, params)
        self._worker.check_process()
        mailbox = Mailbox(len(prompt_ids), self._worker.bell, deadline)
        tokens = list(prompt_ids)
        sequence = Sequence(
            tokens=tokens,
            namespace=params.cache_namespace,
            context_length=self.context_length,
            context_note=self._context_note(),
            params=params,
            mailbox=mailbox,
            tokenizer=self.tokenizer,
            decoder=self.tokenizer.decoder(
                continues=form.continues, marks_tags=form.has_regions, tags=form.tags
            ),
            stops=Stops(
                params.stop_sequences,
                self.tokenizer.stop_token_id,
                form,
                lambda tag: self.tokenizer.mark_tags(tag, form.tags),
            ),
            drafts=Drafts(tokens) if self._speculative else None,
            constraint=constraint,
        )
        self._worker.put(sequence)
        return Ticket(mailbox)

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end an answer, unless a request names others."""
        ends = self.architecture.end_token_ids
        eos = self.tokenizer.eos_token_id
        if eos is None or eos >= self.architecture.vocabulary_size:
            return ends
        return ends | {eos}

    @cached_property
    def masks(self) -> "Vocabulary":
        """Masks that depend on the vocabulary alone."""
        kind = loaded("talu.engine.constraints", "Vocabulary")
        masks: Vocabulary = kind(self.architecture.vocabulary_size, self.end_token_ids)
        return masks

    @property
    def grammars(self) -> "Grammars":
        """The grammars of the model; the first use builds a table of the tokens, and blocks.

        Raises:
            StructuredOutputError: the model has no token that ends an answer.
        """
        with self._gate.lock:
            if self._grammars is None:
                kind = loaded("talu.engine.grammars", "Grammars")
                size = self.architecture.vocabulary_size
                self._grammars = kind(self.tokenizer, size, self.end_token_ids)
            return self._grammars

    @property
    def head(self) -> "Head":
        """Computes vectors from pooled states."""
        if self._head is None:
            head: Head = loaded("talu.engine.vectors", "Head")((), self._dimension)
            self._head = head
        return self._head

    def submit_embedding(
        self,
        texts: list[list[int]],
        pooling: Iterable[PoolingMode],
        *,
        skip: int = 0,
        first: int = 0,
        segments: list[int] | None = None,
        deadline: Deadline | None = None,
    ) -> EmbeddingTicket:
        """Submit texts whose hidden states are pooled. Several texts run in one step.

        A result does not depend on the other texts, their order, or other requests.

        Args:
            texts: token ids of each text.
            pooling: modes that pool the rows after the last norm; several vectors are joined.
            skip: rows at the start of each text that are not pooled.
            first: number of the first text, for error messages.
            segments: where the second segment of each text begins, if it consists of two.
            deadline: time at which an unfinished request fails.

        Raises:
            EmptyPromptError: a text has no tokens.
            GenerationError: a text is longer than the model accepts (code
                ``GENERATION_CONTEXT_OVERFLOW``).
            ValidationError: a token id is outside the vocabulary.
            ResourceError: too many requests are waiting.
            StateError: the engine is closed or has failed, or was opened before a fork.
        """
        for number, ids in enumerate(texts):
            self._check_text(first + number, ids, skip)
        if segments is not None and self.architecture.segments is not None:
            shift = self.architecture.vocabulary_size  # rows of the first segment; see SegmentTable
            texts = [
                [*ids[:at], *(token + shift for token in ids[at:])]
                for ids, at in zip(texts, segments, strict=True)
            ]
        self._worker.check_process()
        request = EmbeddingRequest(texts, tuple(pooling), self._width, skip=skip, deadline=deadline)
        if texts:
            self._worker.put(request)
        else:
            request.mailbox.put(request.vectors)
        return EmbeddingTicket(request)

    def close(self) -> None:
        """Cancel all requests, end the thread, free weights and cache; idempotent.

        Readers get the pieces already sent and a result with the finish reason ``cancelled``. Does
        not wait if called in the engine's thread, where a finalizer may run.
        """
        self._worker.close()

    def check_text_size(self, number: int, count: int) -> None:
        """Refuse a text of at least this many tokens if it cannot fit.

        Raises:
            GenerationError: it is too long (code ``GENERATION_CONTEXT_OVERFLOW``).
        """
        if count > self.text_limit:
            raise self._too_long(number, count, f"at least {count}")

    def cached(self, ids: list[int], namespace: str = "") -> int:
        """The number of these tokens at the beginning of a prompt that are in the prefix cache."""
        return self._worker.cached(ids, namespace)

    def check_ids(self, name: str, ids: Iterable[int]) -> None:
        """Refuse token ids outside the vocabulary; ``name`` is the argument in messages.

        Raises:
            ValidationError: there is such an id.
        """
        size = self.architecture.vocabulary_size
        strays = [token for token in ids if not 0 <= token < size]
        if strays:
            raise ValidationError(
                f"{name} has token id {strays[0]}, but the ids of this model are 0 to {size - 1}",
                details={"param": name, "token_ids": strays[:16], "vocabulary_size": size},
            )

    def check_length(self, text: str, count: int | None = None) -> None:
        """Refuse a prompt that is too long before all of it is tokenized.

        Args:
            text: the prompt.
            count: the fewest tokens that it can have; None if only its length is known.

        Raises:
            GenerationError: these are too many (code ``GENERATION_CONTEXT_OVERFLOW``).
        """
        if len(text) < self.context_length:  # fits even with one token for each character
            return
        count = self.tokenizer.fewest_tokens(text) if count is None else count
        if count >= self.context_length:
            raise self.overflow(
                f"the prompt has {len(text):,} characters, which are at least {count:,} tokens",
                {"characters": len(text), "prompt_tokens_at_least": count},
            )

    def overflow(self, reason: str, details: dict[str, object]) -> GenerationError:
        """The error for a prompt that leaves no room for an answer."""
        return GenerationError(
            f"{reason}, but the context holds {self.context_length} and the answer needs at least "
            f"one{self._context_note()}; shorten the prompt",
            "GENERATION_CONTEXT_OVERFLOW",
            {**details, "context_length": self.context_length},
        )

    def check_generates(self) -> None:
        """Refuse a generation if the model only makes embeddings.

        Raises:
            GenerationError: the model does not generate (code ``GENERATION_UNSUPPORTED``).
        """
        if not self.architecture.generates:
            instead = (
                "rerank or score" if self.architecture.scores_pairs else "embed or embed_batch"
            )
            raise GenerationError(
                f"{self.architecture.embeds_only}; use {instead}",
                "GENERATION_UNSUPPORTED",
                {"model_type": self.info.model_type},
            )

    def _check_text(self, number: int, ids: list[int], skip: int) -> None:
        if len(ids) <= skip:
            raise EmptyPromptError(
                f"text {number} has no tokens, so there is nothing to embed",
                details={"index": number},
            )
        self.check_ids(f"text {number}", ids)
        if len(ids) > self.text_limit:
            raise self._too_long(number, len(ids), f"{len(ids)}")

    def _too_long(self, number: int, count: int, named: str) -> GenerationError:
        own = self.architecture.embedding
        shorter = self.text_limit < self.context_length
        source = f" ({own.texts.source})" if shorter else self._context_note()
        return GenerationError(
            f"text {number} has {named} tokens, but the model takes {self.text_limit}{source}; "
            "count with client.count_tokens and shorten or split it, or truncate it with "
            "truncate=True",
            "GENERATION_CONTEXT_OVERFLOW",
            {"index": number, "tokens": count, "context_length": self.text_limit},
        )

    def _check_request(self, prompt_ids: list[int], params: SamplingParams) -> None:
        self.check_generates()
        if not prompt_ids:
            raise EmptyPromptError("the prompt has no tokens; give some text to start from")
        self.check_ids("prompt", prompt_ids)
        self.check_ids("logit_bias", params.logit_bias)
        self.check_ids("stop_token_ids", params.stop_token_ids)
        count = len(prompt_ids)
        if count >= self.context_length:
            raise self.overflow(f"the prompt has {count} tokens", {"prompt_tokens": count})

    def _context_note(self) -> str:
        whole = self._cache.reduced_from
        return f" (the model supports {whole}, but memory allows less)" if whole else ""

"""Converts the tokens of a running generation to text and decides when it ends.

Only the engine's thread changes a sequence.
"""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from typing import TYPE_CHECKING

from talu.arrays import integers
from talu.engine.drafts import Drafts
from talu.engine.scheduler import Job
from talu.engine.stops import Stops
from talu.engine.ticket import Mailbox, Piece, Result
from talu.graph.sampler import SampleRow, SamplerSettings
from talu.protocols import Sampled
from talu.sampling import SamplingParams
from talu.tokenizer.decoding import IncrementalDecoder
from talu.tokenizer.tokenizer import Tokenizer
from talu.types import FinishReason, TokenLogprob

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.engine.constraints import Constraint, Mask

__all__ = ["Sequence"]


@dataclass(eq=False, kw_only=True)
class Sequence(Job):
    """A scheduler job with the state that turns its tokens into an answer.

    Attributes:
        context_length: maximum tokens of prompt and answer together.
        context_note: why that is less than the model supports, if it is.
        drafts: drafts the next tokens; None without speculation.
        constraint: says which tokens may follow; None allows all.
    """

    params: SamplingParams
    context_length: int
    mailbox: Mailbox
    tokenizer: Tokenizer
    decoder: IncrementalDecoder
    stops: Stops
    context_note: str = ""
    drafts: Drafts | None = None
    constraint: "Constraint | None" = None

    def __post_init__(self) -> None:
        if self.drafts is not None:
            self.mailbox.progress.draft()
        params, count = self.params, len(self.tokens)
        self._seen: memoryview | None = None  # the tokens as an array for the sampler
        if params.has_penalty:
            most = min(self.context_length, count + params.max_tokens)
            self._seen = memoryview(bytearray(4 * most)).cast("i")
            self._seen[:count] = integers(self.tokens)
        self._settings = SamplerSettings(
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            seed=params.seed,
            bias_ids=list(params.logit_bias),
            bias_values=list(params.logit_bias.values()),
            seen_prompt=0 if self._seen is None else count,
            top_logprobs=params.top_logprobs,
        )

    @property
    def weight(self) -> int:
        """Memory of the waiting request in tokens, each about 40 bytes."""
        stops = sum(map(len, self.params.stop_sequences))
        return len(self.tokens) + 8 * (stops + len(self.params.logit_bias))

    @property
    def sampled(self) -> int:
        """Number of tokens of the answer."""
        return self.mailbox.progress.completion_tokens

    def start(self) -> None:
        """Record that the first step with this sequence starts."""
        self.mailbox.progress.start(self.cached)

    @property
    def longest_draft(self) -> int:
        """The number of tokens that may be sampled after the next one."""
        left = self.params.max_tokens - self.sampled
        return min(left, self.context_length - len(self.tokens)) - 1

    def sample_rows(
        self, draft: Tokens[int] = (), masks: "Tokens[Mask | None] | None" = None
    ) -> list[SampleRow]:
        """Sampling parameters of the next token, and of the tokens after each token of a draft.

        Args:
            draft: the draft.
            masks: one for each of these tokens; None allows all.
        """
        count, seen = len(self.tokens), self._seen
        if seen is not None:
            seen[count : count + len(draft)] = integers(draft)
        return [
            SampleRow(
                self._settings,
                count + n,
                None if seen is None else seen[: count + n],
                None if masks is None else masks[n],
            )
            for n in range(len(draft) + 1)
        ]

    def accept(self, sampled: Sampled) -> FinishReason | None:
        """Add the next token and send its text; return the finish reason if it is the last one."""
        self.mailbox.progress.token()
        if self._seen is not None:
            self._seen[len(self.tokens)] = sampled.token
        self.tokens.append(sampled.token)
        if self.constraint is not None:
            self.constraint.accept(sampled.token)
        reason, shown = self._read(sampled.token)
        if reason and self.stops.matched is None:
            shown += self.stops.push(self.decoder.flush()) + self.stops.flush()
            self.stops.end_at(sampled.token)
            reason = FinishReason.STOP if self.stops.matched else reason
        self.mailbox.put(Piece(shown, (sampled.token,), self._logprobs(sampled)))
        return reason

    def end(self, reason: FinishReason) -> None:
        """Send the result."""
        progress, matched = self.mailbox.progress, self.stops.matched
        notes = tuple(self._notes(reason))
        self.mailbox.end(Result(reason, progress.usage(), progress.timings(), matched, notes))

    def drop(self) -> None:
        """End the generation with the text so far."""
        self.end(FinishReason.CANCELLED)

    def _read(self, token: int) -> tuple[FinishReason | None, str]:
        """The finish reason if the token ends the answer, and its text; an end token has none."""
        if token in self.params.stop_token_ids or self.stops.is_token(token):
            return FinishReason.STOP, ""
        shown = self.stops.push(self.decoder.push(token))
        if self.stops.matched is not None:
            return FinishReason.STOP, shown
        if self.constraint is not None and self.constraint.finished:
            return FinishReason.STOP, shown
        if self.sampled >= self.params.max_tokens or self._fills_context():
            return FinishReason.LENGTH, shown
        return None, shown

    def _fills_context(self) -> bool:
        return len(self.tokens) >= self.context_length

    def _logprobs(self, sampled: Sampled) -> tuple[TokenLogprob, ...]:
        if sampled.logprob is None:
            return ()
        text = self.tokenizer.token_text
        top = [(token, text(token), logprob) for token, logprob in sampled.top_logprobs]
        token = sampled.token
        return (TokenLogprob(token, text(token), sampled.logprob, top or None),)

    def _notes(self, reason: FinishReason) -> list[str]:
        notes = []
        wanted = self.params.max_tokens
        if reason is FinishReason.LENGTH and self.sampled < wanted:
            prompt = self.mailbox.progress.prompt_tokens
            notes.append(
                f"the answer reached the context limit of {self.context_length} tokens: "
                f"the prompt of {prompt} left room for {self.sampled} of max_tokens={wanted}"
                f"{self.context_note}"
            )
        if self.recomputed:
            notes.append(
                f"the cache was full: {self.recomputed} tokens were evicted for older requests and "
                "recomputed"
            )
        return notes

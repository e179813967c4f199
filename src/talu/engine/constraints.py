"""Says which tokens may follow in one answer: reasoning with a budget, then the form of the answer.

A mask depends only on the tokens of the answer so far, so it is computed while the step runs.
"""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from talu.engine.waiting import Waiting
from talu.exceptions import GenerationError

if TYPE_CHECKING:  # the package of the grammars is loaded when the first format is compiled
    from talu.engine.grammars import LLMatcher

__all__ = ["Constraint", "Thinking", "Vocabulary"]

Mask = memoryview


class Thinking(NamedTuple):
    """The reasoning of an answer.

    Attributes:
        opening: the tag that begins it; None if the prompt has begun it.
        closing: the tag that ends it.
        budget: most tokens between the tags; None for no limit.
    """

    opening: int | None
    closing: int
    budget: int | None = None


class Vocabulary:
    """Masks that depend on the vocabulary alone.

    Attributes:
        ends: tokens that end an answer.
    """

    def __init__(self, size: int, ends: frozenset[int]) -> None:
        """Make the masks for ``size`` tokens."""
        self.ends = ends
        self._words = -(-size // 32)
        self.unended = memoryview(array("i", [-1]) * self._words)
        for token in ends:
            self.unended[token // 32] &= ~_bit(token)

    def only(self, token: int) -> Mask:
        """The mask that allows this token alone."""
        mask = self.empty()
        mask[token // 32] = _bit(token)
        return mask

    def empty(self) -> Mask:
        """A mask that allows nothing."""
        return memoryview(array("i", bytes(4 * self._words)))


class Constraint:
    """What may follow in one answer. Only one thread at a time may use it.

    Attributes:
        finished: the answer is complete, so that no token may follow.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        matcher: "LLMatcher | None",
        thinking: Thinking | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        """Begin an answer.

        Args:
            vocabulary: of the model.
            matcher: of the form of the answer; None for any text.
            thinking: reasoning that may precede it, or has begun; None for none.
            waiting: finds the marker in the text from which on a grammar holds; None for no marker.
        """
        self._waiting = waiting
        self.finished = False
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._thinking = thinking
        self._may_open = thinking is not None and thinking.opening is not None
        self._reasons = thinking is not None and thinking.opening is None
        self._spent = 0  # tokens of reasoning
        if self._may_open and thinking is not None and thinking.budget == 0:
            self._may_open = matcher is None  # without a form, the tag is followed by its end

    @property
    def is_free(self) -> bool:
        """Whether anything may follow now, whatever the next tokens are."""
        free = self._matcher is None and not self._may_open
        return free and (not self._reasons or self._thinking is None)

    def masks(self, draft: Sequence[int] = ()) -> list[Mask | None]:
        """The masks of the next token, and of the tokens after each token of a draft.

        Args:
            draft: tokens that ``allowed`` or ``forced`` has given.

        Raises:
            GenerationError: the grammar became too complex.
        """
        if self._reasons and self._thinking is not None:
            return [self._in_reasoning(self._thinking, n) for n in range(len(draft) + 1)]
        matcher = self._matcher
        if matcher is None:
            return [None] * (len(draft) + 1)
        found: list[Mask | None] = []
        for token in (*draft, None):
            mask = self._vocabulary.empty()
            address, count = _place(mask)
            matcher.unsafe_compute_mask_ptr(address, 4 * count)
            if matcher.is_error():
                raise self._broken(matcher)
            found.append(mask)
            if token is not None and not matcher.consume_token(token):
                raise self._broken(matcher)
        if draft:
            matcher.rollback(len(draft))
        first = found[0]
        if self._may_open and self._thinking is not None and first is not None:
            opening = self._thinking.opening or 0
            first[opening // 32] |= _bit(opening)
        return found

    def allowed(self, draft: Sequence[int]) -> tuple[int, ...]:
        """The beginning of a draft that the constraint allows."""
        ends = self._vocabulary.ends
        stops = (place for place, token in enumerate(draft) if token in ends)
        draft = draft[: next(stops, len(draft))]
        thinking = self._thinking
        if self._reasons and thinking is not None:
            if thinking.closing in draft:
                draft = draft[: tuple(draft).index(thinking.closing)]
            left = len(draft) if thinking.budget is None else thinking.budget - self._spent
            return tuple(draft[: max(0, left)])
        if self._waiting is not None:
            draft = self._waiting.before_marker(draft)
        if self._matcher is None:
            return tuple(draft) if not self._may_open else ()
        return tuple(draft[: self._matcher.validate_tokens(list(draft))])

    def forced(self, most: int) -> tuple[int, ...]:
        """Up to ``most`` next tokens, as far as the grammar leaves no choice."""
        if self._reasons or self._may_open or self._matcher is None or most < 1:
            return ()
        return self.allowed(self._matcher.compute_ff_tokens()[:most])

    def accept(self, token: int) -> None:
        """Go on after a sampled token.

        Raises:
            GenerationError: the token does not fit, or the grammar became too complex.
        """
        thinking = self._thinking
        if self._waiting is not None:
            self._matcher = self._waiting.see(token)
            if self._matcher is not None or self._waiting.is_over:
                self._waiting = None
            if self._matcher is not None:
                self._reasons = self._may_open = False
                self.finished = self._matcher.is_stopped()
                return
        if self._reasons and thinking is not None:
            self._reasons = token != thinking.closing
            self._spent += 1
            return
        if self._may_open and thinking is not None:
            self._may_open = False
            if token == thinking.opening:
                self._reasons = True
                return
        matcher = self._matcher
        if matcher is None:
            return
        if token in self._vocabulary.ends:
            self.finished = True
            return
        if not matcher.consume_token(token):
            raise self._broken(matcher)
        self.finished = matcher.is_stopped()

    def _in_reasoning(self, thinking: Thinking, ahead: int) -> Mask | None:
        if thinking.budget is not None and self._spent + ahead >= thinking.budget:
            return self._vocabulary.only(thinking.closing)
        return None if self._matcher is None else self._vocabulary.unended

    def _broken(self, matcher: "LLMatcher") -> GenerationError:
        problem = " ".join(matcher.get_error().replace("<non-verbose/>", "").split())
        return GenerationError(
            f"the grammar of the answer became too complex while it was followed: {problem[:300]}",
            details={"param": "response_format"},
        )


def _bit(token: int) -> int:
    """The bit of a token in its word, as a signed number."""
    bit = 1 << token % 32
    return bit - (1 << 32) if bit >> 31 else bit


def _place(mask: Mask) -> tuple[int, int]:
    """Address and length of a mask."""
    words = mask.obj
    assert isinstance(words, array)
    return words.buffer_info()

"""The pieces that a streamed answer is read in."""

from typing import Self

from talu.types import FinishReason

__all__ = ["Token"]


class Token(str):
    """A piece of streamed text; a ``str`` that also knows where it came from.

    Attributes:
        id: id of the last token that ended in this piece, -1 when the backend does not tell.
        logprob: log-probability of that token, when log-probabilities were asked for.
        is_special: the piece is the text of a special token.
        finish_reason: set on the last piece of a stream only, whose text is empty.
    """

    __slots__ = ("finish_reason", "id", "is_special", "logprob")

    id: int
    logprob: float | None
    is_special: bool
    finish_reason: FinishReason | None

    def __new__(
        cls,
        text: str = "",
        *,
        id: int = -1,
        logprob: float | None = None,
        is_special: bool = False,
        finish_reason: FinishReason | None = None,
    ) -> Self:
        """Make a piece of this text."""
        token = super().__new__(cls, text)
        token.id = id
        token.logprob = logprob
        token.is_special = is_special
        token.finish_reason = finish_reason
        return token

    def __repr__(self) -> str:
        known = [repr(self[:20] + "…" if len(self) > 20 else str(self))]
        if self.id >= 0:
            known.append(f"id={self.id}")
        if self.logprob is not None:
            known.append(f"logprob={self.logprob:.3f}")
        if self.finish_reason is not None:
            known.append(f"finish_reason={self.finish_reason.value!r}")
        return f"Token({', '.join(known)})"

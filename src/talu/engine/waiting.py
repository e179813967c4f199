"""Waits in the text of an answer for the marker from which on a grammar holds."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from talu.tokenizer.decoding import IncrementalDecoder

if TYPE_CHECKING:  # the package of the grammars is loaded when the first one is compiled
    from talu.engine.grammars import LLMatcher

__all__ = ["Waiting"]


class Waiting:
    """Reads the tokens of one answer. Text is free until the marker, reasoning always.

    Attributes:
        is_over: the marker cannot come any more.
    """

    def __init__(
        self,
        marker: str,
        begin: Callable[[], "LLMatcher"],
        decoder: IncrementalDecoder,
        text_of: Callable[[int], str],
        *,
        anywhere: bool = True,
        opening: str = "",
        closings: Sequence[str] = (),
        in_reasoning: bool = False,
    ) -> None:
        """Begin an answer.

        Args:
            marker: the text that is waited for, as the decoder writes it.
            begin: makes the matcher, which reads on from the token that begins the marker.
            decoder: of the answer.
            text_of: the text of a single token, as the decoder writes it.
            anywhere: the marker counts within a text, and not only at its beginning.
            opening: the tag that begins reasoning at the beginning of the answer.
            closings: the tags that end it.
            in_reasoning: the prompt has begun it.
        """
        self.is_over = False
        self._marker = marker
        self._begin = begin
        self._decoder = decoder
        self._text_of = text_of
        self._anywhere = anywhere
        self._opening = opening
        self._closings = closings
        self._in_reasoning = in_reasoning
        self._text = ""  # what may still become a tag, and the text of ``_tokens`` before it
        self._tokens: list[tuple[int, int]] = []  # ids, and where the text of each ends
        self._at_start = True  # only white space of the answer has come

    def see(self, token: int) -> "LLMatcher | None":
        """Go on after a token; the matcher, which has read the marker, if this completes it."""
        self._text += self._decoder.push(token)
        self._tokens.append((token, len(self._text)))
        if self._in_reasoning and not self._leave_reasoning():
            return None
        while True:
            found = self._text.find(self._marker)
            if self._at_start and self._enters_reasoning():
                if not self._leave_reasoning():
                    return None
                continue
            if found >= 0 and (self._anywhere or not self._text[:found].strip()):
                matcher = self._matcher(found)
                if matcher is not None:
                    return matcher
                self._keep(found + 1)
                self._at_start = False
                self.is_over = not self._anywhere
                continue
            break
        self._look_at_start()
        return None

    def before_marker(self, draft: Sequence[int]) -> tuple[int, ...]:
        """The beginning of a draft in which no marker is completed."""
        text = self._text
        for place, token in enumerate(draft):
            text += self._text_of(token)
            if self._marker in text or "\ufffd" in text:
                return tuple(draft[:place])
        return tuple(draft)

    def _matcher(self, place: int) -> "LLMatcher | None":
        """The matcher after all tokens of the marker; None if they are not the start of a call."""
        matcher = self._begin()
        tokens = [token for token, end in self._tokens if end > place]
        return matcher if matcher.try_consume_tokens(tokens) == len(tokens) else None

    def _enters_reasoning(self) -> bool:
        if not self._opening or not self._text.lstrip().startswith(self._opening):
            return False
        self._keep(self._text.find(self._opening) + len(self._opening))
        self._in_reasoning = True
        self._at_start = False
        return True

    def _leave_reasoning(self) -> bool:
        """Whether reasoning has ended."""
        found = [place + len(tag) for tag in self._closings if (place := self._text.find(tag)) >= 0]
        if not found:
            self._keep(len(self._text) - max(map(len, self._closings), default=1))
            return False
        self._keep(min(found))
        self._in_reasoning = False
        self._at_start = True
        self._opening = ""  # once is enough
        return True

    def _look_at_start(self) -> None:
        """Forget what can be no part of a tag any more."""
        body = self._text.lstrip()
        tags = [self._marker, *([self._opening] if self._at_start else [])]
        could_be = not body or any(tag and tag.startswith(body) for tag in tags)
        if self._at_start and could_be:
            return
        self._at_start = False
        if self._anywhere:
            self._keep(len(self._text) - len(self._marker))
        else:
            self.is_over = True

    def _keep(self, start: int) -> None:
        """Forget the text before a place, and the tokens that end there."""
        start = max(0, start)
        self._text = self._text[start:]
        self._tokens = [(token, end - start) for token, end in self._tokens if end > start]

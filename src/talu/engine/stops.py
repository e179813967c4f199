"""Finds stop sequences in the streamed text of an answer.

Text is released once it cannot be part of a stop sequence; the caller checks ``matched``.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from talu.exceptions import ValidationError
from talu.unicode import REPLACE_SURROGATES

__all__ = ["ReplyForm", "StopMatcher", "Stops"]

MAX_CHARACTERS = 64 * 1024  # of all stop sequences of a request: about 30 MB while it runs


class ReplyForm(NamedTuple):
    """Known properties of the text of a reply.

    Attributes:
        continues: the reply follows other text, so its leading space is kept.
        has_regions: reasoning and tool calls are in tags; tags that are tokens are marked.
        in_reasoning: the prompt has begun the reasoning.
        opening: the tag that begins reasoning.
        closings: tags that end it.
        tags: the ids of tags that are tokens; None for those of reasoning.
    """

    continues: bool = False
    has_regions: bool = False
    in_reasoning: bool = False
    opening: str = "<think>"
    closings: tuple[str, ...] = ("</think>", "<|/think|>")
    tags: Mapping[str, int] | None = None


class _Node:
    """A prefix of some stop sequence. Aho and Corasick, 1975, doi:10.1145/360825.360855."""

    __slots__ = ("depth", "ends", "fall", "next")

    def __init__(self, depth: int) -> None:
        self.depth = depth  # characters of the prefix
        self.next: dict[str, _Node] = {}
        self.fall: _Node = self  # the longest proper suffix that is also a prefix of a sequence
        self.ends = 0  # length of the longest sequence that the prefix ends with


class StopMatcher:
    """Cuts a text before the first stop sequence; holds back only text that could become one.

    The first sequence is the one that starts first; of those that start at the same position, the
    one that ends first. The result does not depend on the pieces of the text; time is linear.

    Attributes:
        matched: the sequence that was found; all text after it is dropped.
    """

    def __init__(self, stop_sequences: Iterable[str] = ()) -> None:
        """Prepare for these sequences.

        Raises:
            ValidationError: a sequence is empty, or they are too long.
        """
        self.matched: str | None = None
        self._root = _build(list(stop_sequences))
        self._node = self._root
        self._held = ""  # received but not released
        self._found: tuple[int, int] | None = None  # start and end in _held

    @property
    def looks_for_any(self) -> bool:
        """Whether there is any stop sequence."""
        return bool(self._root.next)

    def push(self, text: str) -> str:
        """Take the next piece and give back what can no longer belong to a stop sequence."""
        if self.matched is not None:
            return ""
        if not self._root.next:
            return text
        position = len(self._held)
        self._held += text
        for character in text:
            position += 1
            self._step(character)
            node = self._node
            if node.ends and (self._found is None or position - node.ends < self._found[0]):
                self._found = (position - node.ends, position)
            if self._found and position - node.depth >= self._found[0]:
                return self._cut(*self._found)
        return self._release(position - self._node.depth)

    def flush(self) -> str:
        """Say that the text is over, and give back what was held."""
        if self._found:
            return self._cut(*self._found)
        return self._release(len(self._held))

    def _step(self, character: str) -> None:
        node = self._node
        while character not in node.next and node is not self._root:
            node = node.fall
        self._node = node.next.get(character, self._root)

    def _cut(self, start: int, end: int) -> str:
        self.matched = self._held[start:end]
        text, self._held, self._found = self._held[:start], "", None
        return text

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        if self._found:
            self._found = (self._found[0] - count, self._found[1] - count)
        return text


class Stops:
    """The stop sequences of one request.

    A sequence that is a single token, such as ``<|im_end|>``, is matched by its id anywhere. The
    others are searched for in the text of the answer, but not in its reasoning.

    Attributes:
        matched: the sequence that was found.
    """

    def __init__(
        self,
        sequences: Iterable[str],
        token_of: Callable[[str], int | None] = lambda sequence: None,
        form: ReplyForm | None = None,
        mark_tags: Callable[[str], str] = str,
    ) -> None:
        """Prepare for these sequences.

        Args:
            sequences: from the request.
            token_of: returns the token id of a sequence, None if it is not a single token.
            form: says whether there is reasoning.
            mark_tags: changes a tag to what stands in the pushed text.

        Raises:
            ValidationError: a sequence is empty, or they are too long.
        """
        tokens = {sequence: token_of(sequence) for sequence in sequences}
        self._tokens = {number: each for each, number in tokens.items() if number is not None}
        self._matcher = StopMatcher(each for each, number in tokens.items() if number is None)
        self._ended_by: str | None = None
        form = form or ReplyForm()
        self._opening = mark_tags(form.opening)
        self._closings = [mark_tags(tag) for tag in form.closings]
        self._pass: Callable[[str], str] = self._matcher.push
        if form.has_regions and self._matcher.looks_for_any:
            self._pass = self._reasoning if form.in_reasoning else self._beginning
        self._tail = ""  # end of the reasoning, possibly the start of a closing tag
        self._held = ""  # white space, or possibly the start of an opening tag
        self._after_tag = False

    @property
    def matched(self) -> str | None:
        """The sequence that was found; None if none was."""
        return self._matcher.matched or self._ended_by

    def is_token(self, token: int) -> bool:
        """Whether this token ends the answer."""
        return token in self._tokens

    def end_at(self, token: int) -> None:
        """Record the token that ends the answer."""
        self._ended_by = self._tokens.get(token)

    def push(self, text: str) -> str:
        """Take the next piece and give back what can no longer belong to a stop sequence."""
        return self._pass(text)

    def flush(self) -> str:
        """Say that the text is over, and give back what was held."""
        held, self._held = self._held, ""
        return self._matcher.push(held) + self._matcher.flush()

    def _reasoning(self, text: str) -> str:
        """Pass reasoning through, and search after the tag that closes it."""
        seen = self._tail + text
        ends = [place + len(tag) for tag in self._closings if (place := seen.find(tag)) >= 0]
        if not ends:
            self._tail = seen[-max(map(len, self._closings)) :]
            return text
        passed = text[: len(text) - len(seen) + min(ends)]
        self._tail, self._after_tag = "", True
        self._pass = self._beginning
        return passed + self._beginning(text[len(passed) :])

    def _beginning(self, text: str) -> str:
        """Decide from the first characters after white space whether reasoning starts."""
        text = self._held + text
        self._held = ""
        passed = ""
        if self._after_tag:  # line breaks after a tag are not part of the answer
            body = text.lstrip("\r\n")
            passed, text = text[: len(text) - len(body)], body
        body = text.lstrip()
        if self._opening and body.startswith(self._opening):
            self._pass = self._reasoning
            end = len(text) - len(body) + len(self._opening)
            return passed + text[:end] + self._reasoning(text[end:])
        if self._opening.startswith(body):
            self._held = text
            return passed
        self._pass = self._matcher.push
        return passed + self._matcher.push(text)


def _build(sequences: list[str]) -> _Node:
    size = sum(map(len, sequences))
    if size > MAX_CHARACTERS:
        raise ValidationError(
            f"the stop sequences have {size:,} characters; the limit is {MAX_CHARACTERS:,}: "
            "shorten them or leave some out",
            details={"param": "stop_sequences", "characters": size},
        )
    root = _Node(0)
    for sequence in sequences:
        if not sequence:
            raise ValidationError(
                "a stop sequence is empty; leave it out, or name the text to stop at",
                details={"param": "stop_sequences"},
            )
        if any("\ud800" <= character <= "\udfff" for character in sequence):
            raise ValidationError(
                f"the stop sequence {sequence!r:.100} has a lone surrogate, which no answer has; "
                + REPLACE_SURROGATES,
                details={"param": "stop_sequences"},
            )
        node = root
        for character in sequence:
            node = node.next.setdefault(character, _Node(node.depth + 1))
        node.ends = node.depth
    queue = deque(root.next.values())
    for node in queue:
        node.fall = root
    while queue:
        node = queue.popleft()
        for character, child in node.next.items():
            fall = node.fall
            while character not in fall.next and fall is not root:
                fall = fall.fall
            child.fall = fall.next.get(character, root)
            child.ends = child.ends or child.fall.ends
            queue.append(child)
    return root

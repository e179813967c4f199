"""Finds stop sequences in a text that arrives in pieces of any size.

Pure: text in, text that is safe to show out. It knows nothing of tokens, and does not stop anything
itself; whoever feeds it looks at ``matched``.
"""

from collections import deque
from collections.abc import Iterable

from talu.exceptions import ValidationError

__all__ = ["StopMatcher"]


class _Node:
    """A prefix of some stop sequence. Aho and Corasick, 1975, doi:10.1145/360825.360855."""

    __slots__ = ("depth", "ends", "fall", "next")

    def __init__(self, depth: int) -> None:
        self.depth = depth  # characters of the prefix
        self.next: dict[str, _Node] = {}
        self.fall: _Node = self  # the longest proper suffix that is a prefix of a sequence too
        self.ends = 0  # length of the longest sequence that the prefix ends with


class StopMatcher:
    """Cuts a text before the first stop sequence, and holds back only what could become one.

    The first sequence is the one that starts first; of those that start there, the one that ends
    first. The result does not depend on how the text is cut into pieces; time is linear.

    Attributes:
        matched: the sequence that was found; what ``push`` gets from then on is dropped.
    """

    def __init__(self, stop_sequences: Iterable[str] = ()) -> None:
        """Prepare for these sequences.

        Raises:
            ValidationError: a sequence is empty: it would stop everything.
        """
        self.matched: str | None = None
        self._root = _build(stop_sequences)
        self._node = self._root
        self._held = ""  # seen and not given out
        self._found: tuple[int, int] | None = None  # start and end in _held

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


def _build(sequences: Iterable[str]) -> _Node:
    root = _Node(0)
    for sequence in sequences:
        if not sequence:
            raise ValidationError(
                "a stop sequence is empty; leave it out, or name the text to stop at",
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

"""Finds earlier places in a sequence of tokens that match its end."""

from collections.abc import Sequence

__all__ = ["MATCH", "NGrams"]

MATCH = 16  # tokens that are compared at most
PLACES = 8  # places that are compared at most


class NGrams:
    """An index of the pairs of tokens in a sequence that grows.

    The places after equal pairs form a chain from the last one backwards, as in LZ77. The cost of a
    search is constant for each token that is new since the last one.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        """Search in these tokens, to which the caller appends."""
        self._tokens = tokens
        self._last: dict[int, int] = {}
        self._previous = [-1, -1]  # for each place, the one before it in its chain

    def find(self) -> tuple[int, int] | None:
        """The place before which most tokens equal those at the end, and their number, at least 2.

        Of equally good places the last one. None if there is none.
        """
        tokens, end = self._tokens, len(self._tokens)
        if end < 2:
            return None
        self._extend(end)
        best, most = -1, 0
        place = self._last.get(tokens[end - 2] << 32 | tokens[end - 1], -1)
        for _ in range(PLACES):
            if place < 0:
                break
            count, limit = 2, min(MATCH, place)
            while count < limit and tokens[place - count - 1] == tokens[end - count - 1]:
                count += 1
            if count > most:
                best, most = place, count
                if count == MATCH:
                    break
            place = self._previous[place]
        return (best, most) if most else None

    def continuation(self, place: int, count: int) -> list[int]:
        """The next ``count`` tokens, if the end continues as the sequence did at ``place``."""
        found = list(self._tokens[place : place + count])
        period = len(self._tokens) - place
        while len(found) < count:  # the end of the sequence was reached, so the copy is copied
            found.append(found[len(found) - period])
        return found

    def _extend(self, end: int) -> None:
        """Add the places before ``end`` that are new."""
        tokens, last, previous = self._tokens, self._last, self._previous
        for place in range(len(previous), end):
            key = tokens[place - 2] << 32 | tokens[place - 1]
            previous.append(last.get(key, -1))
            last[key] = place

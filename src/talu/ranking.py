"""Defines what ranking documents returns; loaded on first use."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["RankedDocument", "Ranking", "Scores"]


class Scores(list[float]):
    """The scores of documents for a query: a list of numbers, in the order of the documents.

    Attributes:
        truncated: indices of the documents cut to the model's maximum length, ascending.
        notes: sentences that describe each deviation from the request, and each setting in the
            model's files that is not used.
    """

    def __init__(self, scores: Iterable[float] = ()) -> None:
        super().__init__(scores)
        self.truncated: list[int] = []
        self.notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document of a ranking.

    Attributes:
        index: its place among the documents that were given.
        score: the larger, the better it answers the query.
        document: its text.
    """

    index: int
    score: float
    document: str


class Ranking(list[RankedDocument]):
    """Documents in the order of their scores for a query, the best one first.

    Attributes:
        truncated: as that of ``Scores``, of all documents that were given.
        notes: as those of ``Scores``.
    """

    def __init__(self, documents: Iterable[RankedDocument] = ()) -> None:
        super().__init__(documents)
        self.truncated: list[int] = []
        self.notes: tuple[str, ...] = ()

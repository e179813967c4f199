"""Ranks documents: bodies of Jina's and Cohere's rerank, and of vLLM's score.

https://docs.vllm.ai/en/latest/serving/online_serving/.
"""

from typing import Annotated, Any

from pydantic import Field

from talu.ranking import Ranking, Scores
from talu.server.bodies import Body
from talu.server.failures import invalid
from talu.types import Pooling

__all__ = ["RerankBody", "ScoreBody", "rerank_body", "score_body"]

MAX_DOCUMENTS = 2_048


class Document(Body):
    """A document as an object."""

    text: str


Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class Scoring(Body):
    """What both have; ``pooling`` and ``truncate`` are extensions, see ``Client.score``."""

    model: str
    pooling: Pooling | None = None
    truncate: bool = False


class RerankBody(Scoring):
    """A query, and the documents to order; the best ``top_n`` of them."""

    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    @property
    def texts(self) -> list[str]:
        """The texts of the documents."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


class ScoreBody(Scoring):
    """Pairs of texts: one with each of several, or as many with as many."""

    text_1: str | Texts
    text_2: str | Texts

    @property
    def questions(self) -> list[tuple[str, list[str]]]:
        """The queries, each with the documents to score for it.

        Raises:
            Failure: there are different numbers of both.
        """
        first, second = (
            [given] if isinstance(given, str) else given for given in (self.text_1, self.text_2)
        )
        if len(first) == 1:
            return [(first[0], second)]
        if len(first) != len(second):
            text = "text_1 must be a single text, or as many texts as text_2 has"
            raise invalid("text_1", text)
        return [(one, [other]) for one, other in zip(first, second, strict=True)]


def rerank_body(body: RerankBody, ranking: Ranking) -> dict[str, Any]:
    """The body of an answer: the documents with the highest scores first."""
    results: list[dict[str, Any]] = []
    for each in ranking:
        result: dict[str, Any] = {"index": each.index, "relevance_score": each.score}
        if body.return_documents:
            result["document"] = {"text": each.document}
        results.append(result)
    about = {"truncated": ranking.truncated, "notes": list(ranking.notes)}
    return {"model": body.model, "results": results, "talu": about}


def score_body(body: ScoreBody, found: list[Scores]) -> dict[str, Any]:
    """The body of an answer: the scores of the pairs in their order."""
    scores = [score for each in found for score in each]
    data = [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(scores)
    ]
    truncated: list[int] = []
    begin = 0
    for each in found:
        truncated += [begin + index for index in each.truncated]
        begin += len(each)
    notes = list(dict.fromkeys(note for each in found for note in each.notes))
    about = {"truncated": truncated, "notes": notes}
    return {"object": "list", "model": body.model, "data": data, "talu": about}

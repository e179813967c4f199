"""Orders documents by their similarity to a query, with the embeddings of a model.

The bodies are those of Jina's and Cohere's rerank, and of vLLM's score:
https://docs.vllm.ai/en/latest/serving/online_serving/.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from talu.server.bodies import Body
from talu.server.failures import Failure

__all__ = ["Prompts", "RerankBody", "ScoreBody", "rerank_body", "score_body", "similarities"]

MAX_DOCUMENTS = 2_048


class Document(Body):
    """A document as an object."""

    text: str


Documents = Annotated[list[str | Document], Field(min_length=1, max_length=MAX_DOCUMENTS)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class Prompts(Body):
    """The names of prompts of the model, for models that read both sides differently."""

    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    truncate: bool | None = None


class RerankBody(Prompts):
    """A query, and the documents to order; the best ``top_n`` of them."""

    model: str
    query: str
    documents: Documents
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    @property
    def texts(self) -> list[str]:
        """The texts of the documents."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


class ScoreBody(Prompts):
    """Pairs of texts: one with each of several, or as many with as many."""

    model: str
    text_1: str | Texts
    text_2: str | Texts

    @property
    def pairs(self) -> tuple[list[str], list[str]]:
        """The first and the second texts; a single first text stands for each pair.

        Raises:
            Failure: there are different numbers of them.
        """
        first, second = (
            [given] if isinstance(given, str) else given for given in (self.text_1, self.text_2)
        )
        if len(first) not in (1, len(second)):
            text = "text_1 must be a single text, or as many texts as text_2 has"
            raise Failure(400, "INVALID_ARGUMENT", text, param="text_1")
        return first, second


def similarities(first: Sequence[list[float]], second: Sequence[list[float]]) -> list[float]:
    """The cosine similarity of each pair of vectors of length 1, the same on every machine."""
    left = first if len(first) == len(second) else [*first] * len(second)
    return [
        math.fsum(a * b for a, b in zip(one, other, strict=True))
        for one, other in zip(left, second, strict=True)
    ]


def rerank_body(body: RerankBody, scores: Sequence[float], tokens: int | None) -> dict[str, Any]:
    """The body of an answer: the documents with the highest scores first.

    Args:
        body: of the request.
        scores: of the documents.
        tokens: of all texts; None if that is not known.
    """
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    results: list[dict[str, Any]] = []
    for index in order[: body.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
        if body.return_documents:
            result["document"] = {"text": body.texts[index]}
        results.append(result)
    return {"model": body.model, "results": results, "usage": {"total_tokens": tokens}}


def score_body(body: ScoreBody, scores: Sequence[float], tokens: int | None) -> dict[str, Any]:
    """The body of an answer: the scores of the pairs in their order."""
    data = [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(scores)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": body.model, "data": data, "usage": usage}

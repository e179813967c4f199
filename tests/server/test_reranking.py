"""Rerank and score, with the embeddings of a real model."""

from typing import Any

import httpx2
import pytest

from talu import Client

MODEL = "talu/pocket"
QUERY = "What is the capital of France?"
DOCUMENTS = ["A fox ran over the hill.", "What is the capital of Italy?", "Two and two is four."]


def post(server: Any, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(server.url + path, json={"model": MODEL, **body}, timeout=60)


def similarity(client: Client, one: str, other: str) -> float:
    first, second = client.embed_batch([one, other])
    return sum(a * b for a, b in zip(first, second, strict=True))


def test_documents_are_ordered_by_the_similarity_of_their_embeddings(pocket) -> None:
    answer = post(pocket, "/v1/rerank", query=QUERY, documents=DOCUMENTS).json()
    results = answer["results"]
    scores = [result["relevance_score"] for result in results]
    with Client(MODEL) as client:
        for result in results:
            text = DOCUMENTS[result["index"]]
            assert result["document"] == {"text": text}
            assert result["relevance_score"] == pytest.approx(similarity(client, QUERY, text))
        tokens = sum(map(client.count_tokens, [QUERY, *DOCUMENTS]))
    assert scores == sorted(scores, reverse=True)
    assert results[0]["index"] == 1
    assert answer["usage"] == {"total_tokens": tokens}


def test_only_the_best_documents_are_returned_and_without_their_texts(pocket) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    fields: Any = {"query": QUERY, "documents": documents, "top_n": 1, "return_documents": False}
    (result,) = post(pocket, "/v1/rerank", **fields).json()["results"]
    assert result.keys() == {"index", "relevance_score"}


def test_equal_documents_stay_in_their_order(pocket) -> None:
    answer = post(pocket, "/v1/rerank", query=QUERY, documents=["same"] * 3).json()
    assert [result["index"] for result in answer["results"]] == [0, 1, 2]


@pytest.mark.parametrize("first", [QUERY, [QUERY], [QUERY] * 3], ids=["text", "one", "three"])
def test_pairs_of_texts_have_scores_in_their_order(pocket, first: Any) -> None:
    ranked = post(pocket, "/v1/rerank", query=QUERY, documents=DOCUMENTS).json()["results"]
    scored = post(pocket, "/v1/score", text_1=first, text_2=DOCUMENTS).json()["data"]
    assert [each["score"] for each in scored] == [
        result["relevance_score"] for result in sorted(ranked, key=lambda each: each["index"])
    ]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": QUERY, "documents": []}, "documents"),
        ("/v1/rerank", {"query": QUERY, "documents": ["x"] * 2_049}, "documents"),
        ("/v1/rerank", {"query": QUERY, "documents": ["x"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": QUERY, "documents": [{"image": "x"}]}, "documents[0].image"),
        ("/v1/rerank", {"documents": ["x"]}, "query"),
        (
            "/v1/rerank",
            {"query": QUERY, "documents": ["x"], "query_prompt_name": "no"},
            "query_prompt_name",
        ),
        ("/v1/score", {"text_1": ["x", "y"], "text_2": ["x"]}, "text_1"),
        ("/v1/score", {"text_1": "x", "text_2": []}, "text_2"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_the_field(
    pocket, path: str, body: dict[str, Any], param: str
) -> None:
    answer = post(pocket, path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

"""Rerank and score, with the embeddings of a real model."""

from typing import Any

import httpx2
import pytest

from talu import Client

MODEL = "talu/pocket"
QUERY = "What is the capital of France?"
DOCUMENTS = ["A fox ran over the hill.", "What is the capital of Italy?", "Two and two is four."]


def post(server: Any, path: str, **body: Any) -> httpx2.Response:
    given = {"model": MODEL, "pooling": "last", **body}
    return httpx2.post(server.url + path, json=given, timeout=60)


def test_documents_are_ordered_as_by_the_library(pocket) -> None:
    answer = post(pocket, "/v1/rerank", query=QUERY, documents=DOCUMENTS).json()
    with Client(MODEL) as client:
        ranking = client.rerank(QUERY, DOCUMENTS, pooling="last")
    assert [result["index"] for result in answer["results"]] == [each.index for each in ranking]
    assert answer["results"][0] == {
        "index": 1,
        "relevance_score": ranking[0].score,
        "document": {"text": DOCUMENTS[1]},
    }
    assert answer["talu"] == {"truncated": [], "notes": list(ranking.notes)}


def test_only_the_best_documents_are_returned_and_without_their_texts(pocket) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    fields: Any = {"query": QUERY, "documents": documents, "top_n": 1, "return_documents": False}
    (result,) = post(pocket, "/v1/rerank", **fields).json()["results"]
    assert result.keys() == {"index", "relevance_score"}


@pytest.mark.parametrize("first", [QUERY, [QUERY], [QUERY] * 3], ids=["text", "one", "three"])
def test_pairs_of_texts_have_scores_in_their_order(pocket, first: Any) -> None:
    ranked = post(pocket, "/v1/rerank", query=QUERY, documents=DOCUMENTS).json()["results"]
    scored = post(pocket, "/v1/score", text_1=first, text_2=DOCUMENTS).json()["data"]
    assert [each["score"] for each in scored] == [
        result["relevance_score"] for result in sorted(ranked, key=lambda each: each["index"])
    ]


def test_a_document_that_is_cut_is_named_in_the_answer(pocket) -> None:
    texts = ["short", "word " * 3_000]
    several = {"text_1": [QUERY, QUERY], "text_2": texts, "truncate": True}
    ranked = post(pocket, "/v1/rerank", query=QUERY, documents=texts, truncate=True).json()
    scored = post(pocket, "/v1/score", **several).json()
    assert ranked["talu"]["truncated"] == scored["talu"]["truncated"] == [1]
    assert post(pocket, "/v1/rerank", query=QUERY, documents=texts).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": QUERY, "documents": []}, "documents"),
        ("/v1/rerank", {"query": QUERY, "documents": ["x"] * 2_049}, "documents"),
        ("/v1/rerank", {"query": QUERY, "documents": ["x"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": QUERY, "documents": ["x"], "pooling": "max"}, "pooling"),
        ("/v1/rerank", {"query": QUERY, "documents": ["x"], "pooling": None}, "pooling"),
        ("/v1/rerank", {"query": QUERY, "documents": [{"image": "x"}]}, "documents[0].image"),
        ("/v1/rerank", {"documents": ["x"]}, "query"),
        ("/v1/score", {"text_1": ["x", "y"], "text_2": ["x"]}, "text_1"),
        ("/v1/score", {"text_1": "x", "text_2": []}, "text_2"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_the_field(
    pocket, path: str, body: dict[str, Any], param: str
) -> None:
    answer = post(pocket, path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

"""Scores of documents from a model behind an endpoint with ``/rerank``."""

from typing import Any

import pytest
from tests.remote import replies
from tests.remote.server import Reply

from talu import AnthropicBackend, ModelSpec, TaluError, ValidationError


def score(remote: Any, client: Any, documents: list[str], **options: Any) -> Any:
    if remote.faces.name == "sync":
        return client.score("q", documents, **options)
    return remote.run(client.ascore("q", documents, **options))


def results(*scores: float, name: str = "relevance_score") -> list[dict[str, Any]]:
    return [{"index": index, name: value} for index, value in enumerate(scores)]


def test_scores_come_in_the_order_of_the_documents(remote: Any, serve: Any) -> None:
    server = serve(replies.json_reply({"results": results(0.1, 0.9, -2)[::-1], "model": "m"}))
    assert score(remote, remote.client(server), ["a", "b", "c"]) == [0.1, 0.9, -2.0]
    assert server.request.target.endswith("/rerank")
    asked = {"model": "m", "query": "q", "documents": ["a", "b", "c"], "top_n": 3}
    assert server.request.json == asked


def test_a_plain_list_of_scores_is_read_as_well(remote: Any, serve: Any) -> None:
    server = serve(replies.json_reply(results(0.5, 0.25, name="score")))
    assert score(remote, remote.client(server), ["a", "b"]) == [0.5, 0.25]


def test_many_documents_are_asked_for_in_several_requests(remote: Any, serve: Any) -> None:
    def answer(request: Any) -> Reply:
        return replies.json_reply({"results": results(*map(len, request.json["documents"]))})

    server = serve(always=answer)
    documents = ["x" * (number % 7 + 1) for number in range(150)]
    assert score(remote, remote.client(server), documents) == list(map(len, documents))
    assert len(server.requests) > 1


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"results": 7},
        {"results": results(1)},
        {"results": results(1, 2, 3)},
        {"results": [{"index": 0, "relevance_score": 1}] * 2},
        {"results": [{"index": 0, "relevance_score": 1}, {"index": 2, "relevance_score": 1}]},
        {"results": [{"index": 0, "relevance_score": 1}, {"index": "1", "relevance_score": 1}]},
        {"results": [{"index": 0, "relevance_score": 1}, {"index": 1}]},
        {"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": "1"}]},
        {"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": True}]},
        {"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": 10**400}]},
        {"results": [1, 2]},
    ],
    ids=repr,
)  # fmt: skip
def test_an_answer_without_a_score_for_each_document_is_an_error(
    remote: Any, serve: Any, answer: Any
) -> None:
    client = remote.client(serve(always=lambda _: replies.json_reply(answer)), max_retries=0)
    with pytest.raises(TaluError, match="the server sent"):
        score(remote, client, ["a", "b"])


def test_a_provider_that_does_not_rank_says_so_before_it_is_asked(remote: Any, serve: Any) -> None:
    server = serve()
    client = remote.client_of(ModelSpec("m", AnthropicBackend(server.url, "key")))
    assert not client.capabilities().reranking
    with pytest.raises(TaluError, match="does not rank documents: use a provider that does"):
        score(remote, client, ["a"])
    assert server.requests == []


@pytest.mark.parametrize(("option", "value"), [("pooling", "mean"), ("truncate", True)])
def test_an_option_that_the_server_is_not_told_is_refused(
    remote: Any, serve: Any, option: str, value: Any
) -> None:
    server = serve()
    with pytest.raises(ValidationError, match="server's choice") as caught:
        score(remote, remote.client(server), ["a"], **{option: value})
    assert caught.value.details["param"] == option
    assert server.requests == []

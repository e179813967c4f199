"""``talu rerank``: documents from files or standard input, the best one first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu.client import Client

Talu = Callable[..., Any]
MODEL = str(Path(__file__).parents[1] / "models" / "golden" / "rerankers" / "bert")
QUERY = "where does the fox sleep"
LINES = ["by the river", "what is Paris", "the hen"]


@pytest.fixture
def ranking() -> list[Any]:
    with Client(MODEL) as client:
        return client.rerank(QUERY, LINES)


def test_each_line_of_standard_input_is_a_document(talu: Talu, ranking: list[Any]) -> None:
    outcome = talu("rerank", QUERY, "--model", MODEL, stdin="\n".join(LINES))
    expected = [f"{each.score:.4f}  {each.document}" for each in ranking]
    assert (outcome.status, outcome.out.splitlines(), outcome.err) == (0, expected, "")


def test_each_file_is_a_document(talu: Talu, ranking: list[Any], tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(len(LINES))]
    for file, line in zip(files, LINES, strict=True):
        file.write_text(line)
    outcome = talu("rerank", QUERY, *map(str, files), "--model", MODEL, "--top-n", "2")
    expected = [f"{each.score:.4f}  {files[each.index]}" for each in ranking[:2]]
    assert (outcome.status, outcome.out.splitlines()) == (0, expected)


def test_json_has_an_object_for_each_document(talu: Talu, ranking: list[Any]) -> None:
    outcome = talu("rerank", QUERY, "--model", MODEL, "--json", stdin="\n".join(LINES))
    assert [json.loads(line) for line in outcome.out.splitlines()] == [
        {"index": each.index, "score": each.score, "document": each.document} for each in ranking
    ]


def test_a_document_that_was_cut_is_reported(talu: Talu) -> None:
    long = "the fox " * 100
    refused = talu("rerank", QUERY, "--model", MODEL, stdin=long)
    assert (refused.status, refused.out) == (1, "")
    outcome = talu("rerank", QUERY, "--model", MODEL, "--truncate", stdin=f"{long}\nhen\n")
    assert outcome.status == 0
    assert outcome.err == "talu: 1 document had to be cut\n"


def test_a_model_without_a_pooling_of_its_own_needs_one(talu: Talu) -> None:
    arguments = ["rerank", "fox", "--model", "talu/pocket"]
    assert "does not say how its embeddings are pooled" in talu(*arguments, stdin="hen").err
    assert talu(*arguments, "--pooling", "mean", stdin="hen").status == 0


def test_nothing_to_rank_is_wrong_usage(talu: Talu) -> None:
    for stdin in (None, ""):
        outcome = talu("rerank", "fox", "--model", MODEL, stdin=stdin)
        assert (outcome.status, outcome.out) == (2, "")
        assert "nothing to rank" in outcome.err

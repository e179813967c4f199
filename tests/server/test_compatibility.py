"""The page on the server has the tables of what the tests show."""

import re
from pathlib import Path

import httpx2
import pytest
from tests.server import (
    test_anthropic,
    test_openai_chat,
    test_openai_completions,
    test_openai_responses,
)
from tests.server.compatibility import PATHS, features_table, fields_table, refused_fields

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "server.md"
MODULES = (test_openai_chat, test_openai_responses, test_openai_completions, test_anthropic)
SENT = {  # what a request of each path needs
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi."}]},
    "/v1/responses": {"input": "Hi."},
    "/v1/completions": {"prompt": "Hi."},
    "/v1/embeddings": {"input": "Hi."},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hi."}]},
}


def test_the_page_has_the_features_that_tests_show() -> None:
    tests = [value for module in MODULES for value in vars(module).values()]
    assert features_table(tests) in PAGE.read_text()


def test_the_page_has_the_fields_of_every_path() -> None:
    assert fields_table() in PAGE.read_text()


@pytest.mark.parametrize("path", PATHS)
def test_the_page_names_refused_fields_only_where_they_are_refused(path: str) -> None:
    line = re.search(rf"^- `{path}`: (.*)$", PAGE.read_text(), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", line[1])) if line else set()
    assert named - set(refused_fields(path)) == set()
    assert named or path in ("/v1/embeddings",)


@pytest.mark.parametrize("path", PATHS)
def test_every_field_of_the_sdk_that_is_not_taken_is_a_400_that_names_it(pocket, path: str) -> None:
    for field in refused_fields(path):
        body = {"model": "talu/pocket", **SENT[path], field: "x"}
        answer = httpx2.post(pocket.url + path, json=body)
        assert answer.status_code == 400
        assert f"'{field} is not supported'" in str(answer.json()["error"])

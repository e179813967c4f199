"""The table of providers, and what a new row needs."""

from collections.abc import Callable

import pytest
from tests.remote.replies import chat
from tests.remote.server import Server

from talu import Client
from talu.backends.remote.providers import PROVIDERS, TOOLS, Provider
from talu.config import FIELDS
from talu.exceptions import ValidationError


def test_the_providers_are_listed_here() -> None:
    self_hosted = {"vllm", "sglang", "ollama", "llamacpp", "lmstudio", "localai"}
    hosted = {"openai", "anthropic", "openrouter", "groq", "together", "fireworks", "mistral"}
    assert set(PROVIDERS) == self_hosted | hosted | {"deepseek", "gemini", "xai"}
    assert {name for name, row in PROVIDERS.items() if not row.needs_key} == self_hosted


@pytest.mark.parametrize("row", PROVIDERS.values(), ids=PROVIDERS)
def test_a_row_names_settings_of_talu(row: Provider) -> None:
    assert set(row.settings(raw=False)) | set(row.settings(raw=True)) <= {*FIELDS, *TOOLS}
    assert set(row.without) | set(row.names) | set(row.also) <= {*FIELDS, *TOOLS}


@pytest.mark.parametrize("row", PROVIDERS.values(), ids=PROVIDERS)
def test_no_two_settings_have_the_same_name_in_a_request(row: Provider) -> None:
    names = list(row.settings(raw=False).values())
    assert len(set(names)) == len(names)


def test_a_new_provider_is_a_row_and_nothing_else(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(chat("Hello", "!"))
    row = Provider(
        name="toy",
        base_url=f"{server.url}/api",
        key_variable="TOY_KEY",
        names={"max_tokens": "most"},
        also={"top_k": "k"},
        without=frozenset({"seed"}),
    )
    monkeypatch.setitem(PROVIDERS, "toy", row)
    monkeypatch.setenv("TOY_KEY", "toy-key")
    with Client("toy::x/y") as client:
        assert client.ask("Hi", max_tokens=3, top_k=5) == "Hello!"
        with pytest.raises(ValidationError, match="has no seed"):
            client.ask("Hi", seed=1)
        assert client.router.resolve().provider == "toy"
    body = server.request.json
    assert (body["model"], body["most"], body["k"]) == ("x/y", 3, 5)
    assert server.request.target == "/api/chat/completions"
    assert server.request.values("authorization") == ["Bearer toy-key"]

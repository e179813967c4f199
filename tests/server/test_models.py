"""Several models: opened on demand, closed when idle, within a budget of memory, by a policy."""

import asyncio
from time import monotonic
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from tests.remote.replies import chat, json_reply
from tests.remote.server import Server
from tests.server.conftest import PATIENCE, serving

from talu import ModelSpec, OpenAICompatibleBackend, ScriptedModel, ValidationError
from talu.exceptions import EndpointError, ModelNotFoundError
from talu.router import Fallback
from talu.server import ServerOptions, create_app
from talu.server.failures import Failure
from talu.server.models import Models

A, B = (ModelSpec("talu/pocket", name=name) for name in "ab")
ONE = 8_000_000  # bytes: weights and a full context of talu/pocket
SUM = [{"role": "user", "content": "What is 2+2?"}]
CHAT = "/v1/chat/completions"


def post(server: Any, model: str, **fields: Any) -> httpx2.Response:
    body = {"model": model, "messages": SUM, "temperature": 0, **fields}
    return httpx2.post(server.url + CHAT, json=body, timeout=60, headers={"x-api-key": "client"})


def states(server: Any) -> dict[str, str]:
    listed = httpx2.get(f"{server.url}/v1/models").json()["data"]
    return {model["id"]: model["talu"]["state"] for model in listed}


def test_a_model_is_opened_by_its_first_request() -> None:
    with serving(A, B) as server:
        assert states(server) == {"a": "unloaded", "b": "unloaded"}
        assert post(server, "b").json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
        assert states(server) == {"a": "unloaded", "b": "loaded"}


def test_both_sdks_list_the_models(pocket) -> None:
    with Anthropic(base_url=pocket.url, api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["talu/pocket"]
        assert client.models.retrieve("talu/pocket").display_name == "talu/pocket"


def test_an_idle_model_is_closed_and_opened_again_by_the_next_request() -> None:
    with serving(A, keep_alive=0.01) as server:
        for _ in range(2):
            assert post(server, "a").is_success
            end = monotonic() + PATIENCE
            while states(server) != {"a": "unloaded"}:
                assert monotonic() < end, "the model is open"


def test_a_model_in_use_is_not_closed() -> None:
    with serving(A, keep_alive=0.01) as server:
        fields: Any = {"stop_token_ids": [], "max_tokens": 300, "stream": True}
        with httpx2.stream(
            "POST", server.url + CHAT, json={"model": "a", "messages": SUM, **fields}
        ) as answer:
            text = answer.read().decode()
    assert '"finish_reason":"length"' in text


def test_a_model_takes_the_place_of_the_one_used_longest_ago() -> None:
    with serving(A, B, memory=ONE) as server:
        for used, other in ("ab", "ba", "ab"):
            assert post(server, used).is_success
            assert states(server) == {used: "loaded", other: "unloaded"}


def test_models_that_fit_together_stay_open() -> None:
    with serving(A, B, memory=2 * ONE) as server:
        for name in "abab":
            assert post(server, name).is_success
        assert states(server) == {"a": "loaded", "b": "loaded"}


def test_a_model_in_use_keeps_its_memory() -> None:
    async def main() -> None:
        models = Models([A, B], [], memory=ONE)
        async with models.use("a"), models.use("a"):
            with pytest.raises(Failure) as failure:
                async with models.use("b"):
                    pass
        assert (failure.value.status, failure.value.retry_after) == (503, 5)
        async with models.use("b"):
            pass
        await models.close()

    asyncio.run(main())


def test_a_model_that_exceeds_the_memory_is_an_error_at_the_start() -> None:
    with pytest.raises(ValidationError, match=r"takes .* MB with a cache for one full context"):
        create_app(["talu/pocket"], ServerOptions(memory=1_000_000))


def test_a_budget_needs_the_files_of_all_models() -> None:
    with pytest.raises(ModelNotFoundError):
        create_app(["acme/missing"], ServerOptions(memory=ONE))
    with pytest.raises(ValidationError, match="memory is not for models of a policy"):
        create_app([A, B], ServerOptions(memory=ONE), policy=Fallback())


def test_a_policy_is_a_model_that_chooses_among_the_others() -> None:
    down = EndpointError("it is down", "SERVER_ERROR", transient=True)
    first = ModelSpec("first", ScriptedModel([down], [down]))
    second = ModelSpec("second", ScriptedModel("Hi.", "Hi."))
    with serving(first, second, policy=Fallback(name="any")) as server:
        whole = post(server, "any").json()
        assert (whole["model"], whole["choices"][0]["talu"]["model"]) == ("any", "second")
        assert '"content":"Hi."' not in post(server, "first", stream=True).text
        listed = httpx2.get(f"{server.url}/v1/models").json()["data"]
    assert {each["id"]: each["talu"]["kind"] for each in listed} == {
        "first": "remote",
        "second": "remote",
        "any": "policy",
    }


def test_a_gateway_keeps_its_key_and_sends_no_key_of_a_client() -> None:
    with Server() as upstream:
        upstream.plan(chat("Hel", "lo."))
        backend = OpenAICompatibleBackend(base_url=upstream.base_url, api_key="of-the-server")
        with serving(ModelSpec("big", backend)) as server:
            answer = post(server, "big")
            assert states(server) == {"big": "ready"}
        request = upstream.request
    assert answer.json()["choices"][0]["message"]["content"] == "Hello."
    assert request.values("authorization") == ["Bearer of-the-server"]
    assert request.values("x-api-key") == []
    assert "of-the-server" not in answer.text


@pytest.mark.parametrize(("status", "expected"), [(429, 429), (401, 502), (500, 502), (400, 400)])
def test_a_failure_behind_a_gateway_is_told_by_status(status: int, expected: int) -> None:
    error = {"error": {"message": "no", "type": "x"}}
    with Server() as upstream:
        upstream.plan(json_reply(error, status, (("retry-after", "300"),)))
        backend = OpenAICompatibleBackend(
            base_url=upstream.base_url, api_key="of-the-server", max_retries=0
        )
        with serving(ModelSpec("big", backend)) as server:
            answer = post(server, "big")
    assert answer.status_code == expected
    assert status != 429 or answer.headers["retry-after"] == "300"
    assert "of-the-server" not in answer.text

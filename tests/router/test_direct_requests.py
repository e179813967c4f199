"""Requests that name a model of a policy: they count and teach the policy like its own."""

import asyncio
from typing import Any

import pytest
from tests.router.scripted import model

from talu import AsyncClient
from talu.exceptions import EndpointError, ModelNotFoundError
from talu.router import Fallback, LeastBusy, ModelSpec
from talu.router.policy_backend import DirectBackend


def state(client: Any, number: int = 0) -> Any:
    return client.router.status().targets[number]


@pytest.mark.parametrize("how", ["model=", "ask_all", "race"])
def test_the_policy_sees_requests_that_name_a_model(how: str) -> None:
    async def main() -> tuple[int, str | None]:
        entered, go_on = asyncio.Event(), asyncio.Event()
        client = AsyncClient(
            [
                ModelSpec("a", model("a", [entered.set, go_on.wait, "late"])),
                ModelSpec("b", model("b", "now")),
            ],
            policy=LeastBusy(),
        )
        asked = {
            "model=": lambda: client.ask("hi", model="a"),
            "ask_all": lambda: client.ask_all("hi", models=["a"]),
            "race": lambda: client.race("hi", models=["a"]),
        }
        task: asyncio.Future[object] = asyncio.ensure_future(asked[how]())
        await entered.wait()
        running, answer = state(client).running, await client.ask("hi")
        go_on.set()
        await task
        return running, answer.model

    assert asyncio.run(main()) == (1, "b")


def test_the_policy_heeds_the_time_that_a_server_has_named_to_another_request(faces: Any) -> None:
    busy = EndpointError("too many", "RATE_LIMITED", retry_after=60.0, transient=True)
    first = model("a", [busy], "never")
    client = faces.client_of(first, model("b", "now"), policy=Fallback())
    with pytest.raises(EndpointError):
        faces.run(client.ask("hi", model="a"))
    answer = faces.run(client.ask("hi"))
    assert (answer.model, len(first.requests)) == ("b", 1)


def test_a_model_that_cannot_be_opened_pauses_whoever_asked_for_it(faces: Any) -> None:
    specs = [ModelSpec("/no/such/folder", name="a"), ModelSpec("b", model("b", "Hello."))]
    client = faces.face.client_class(specs, policy=Fallback())
    with pytest.raises(ModelNotFoundError):
        faces.run(client.ask("hi", model="a"))
    assert state(client).cooling_s > 50
    assert "/no/such/folder" in state(client).cooling_reason


def test_a_backend_object_that_was_not_made_has_no_attributes() -> None:
    with pytest.raises(AttributeError, match="_backend"):
        _ = DirectBackend.__new__(DirectBackend).count

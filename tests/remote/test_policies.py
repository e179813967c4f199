"""Policies over models behind endpoints."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.remote.replies import chat, failure
from tests.remote.server import Server

from talu import ModelSpec, OpenAICompatibleBackend
from talu.router import Fallback

Serve = Callable[..., Server]


def spec(server: Server, name: str, **options: Any) -> ModelSpec:
    return ModelSpec("m", OpenAICompatibleBackend(server.base_url, **options), name=name)


@pytest.mark.parametrize(("retries", "asked"), [(None, 1), (1, 2)])
def test_another_model_is_asked_at_once_unless_retries_were_asked_for(
    faces, serve: Serve, retries: int | None, asked: int
) -> None:
    broken, good = serve(always=lambda _: failure(503)), serve(chat("Hi"))
    models = [spec(broken, "a", max_retries=retries), spec(good, "b")]
    client = faces.face.client_class(models, policy=Fallback())
    answer = faces.run(client.ask("Hello?"))
    assert (answer, answer.model, len(broken.requests)) == ("Hi", "b", asked)
    tried = [(each.model, each.error) for each in answer.attempts]
    assert tried == [("a", "SERVER_ERROR")] * asked + [("b", None)]
    faces.run(client.close())


def test_the_last_model_repeats_its_request(faces, serve: Serve) -> None:
    broken = serve(always=lambda _: failure(503))
    second = serve(failure(503), failure(429), chat("Hi"))
    models = [spec(broken, "a"), spec(second, "b")]
    client = faces.face.client_class(models, policy=Fallback())
    assert faces.run(client.ask("Hello?")) == "Hi"
    assert (len(broken.requests), len(second.requests)) == (1, 3)
    faces.run(client.close())

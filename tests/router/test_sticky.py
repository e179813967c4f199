"""Conversations that stay with their model."""

import subprocess
import sys
from typing import Any

import pytest

from talu import Client, ModelSpec
from talu.backends.scripted import ScriptedModel
from talu.exceptions import EndpointError, ValidationError
from talu.router import Fallback, Policy, Sticky
from talu.types import Request

LONG = "Tell me about the old town, its river, its bridges, its markets and its people. " * 3


def models(*names: str) -> list[ModelSpec]:
    return [ModelSpec(name, ScriptedModel(*["x"] * 40, model=name)) for name in names]


def test_every_turn_of_a_chat_is_answered_by_one_model(faces: Any) -> None:
    client = faces.face.client_class(models("a", "b", "c"), policy=Sticky())
    asked = []
    for number in range(8):
        chat = client.chat(system="Be brief.")
        asked.append({faces.run(chat.send(f"{number} {turn}")).model for turn in "123"})
    # Three models for eight conversations; each conversation has the model of its first message.
    assert all(len(each) == 1 for each in asked)
    assert len(set.union(*asked)) > 1


def test_another_process_finds_the_same_model() -> None:
    program = (
        "from talu.router import Sticky, TargetStatus\n"
        "from talu.types import Request\n"
        "targets = [TargetStatus(model=name) for name in 'abcdef']\n"
        "ask = lambda text: Request(messages=({'role': 'user', 'content': text},))\n"
        "print([Sticky().order(ask(str(n)), targets) for n in range(20)])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().startswith("[['")


def test_a_conversation_whose_model_fails_moves_to_the_next_one(faces: Any) -> None:
    down = EndpointError("it is down", "SERVER_ERROR", transient=True)
    specs = [ModelSpec(n, ScriptedModel([down], [down], "x", model=n)) for n in ("a", "b")]
    specs.append(ModelSpec("c", ScriptedModel("from c", model="c")))
    answer = faces.run(faces.face.client_class(specs, policy=Sticky()).ask("hi"))
    assert (answer.model, answer.text) == ("c", "from c")


def test_a_model_of_this_process_that_has_the_prompt_in_its_cache_goes_first(faces: Any) -> None:
    other = [ModelSpec(name, ScriptedModel(*["x"] * 9, model=name)) for name in ("a", "b", "c")]
    client = faces.face.client_class(
        [*other, ModelSpec("talu/pocket", name="pocket")], policy=Sticky(name="any")
    )
    order = Sticky().order(
        Request(messages=({"role": "user", "content": LONG},)),
        client.router.status().targets,
    )
    assert order[0] != "pocket"  # by the text alone, another model
    assert faces.run(client.ask(LONG, max_tokens=1)).model == order[0]
    faces.run(client.ask(LONG, model="pocket", max_tokens=1))
    answer = faces.run(client.ask(LONG, max_tokens=1))
    assert answer.model == "pocket"
    assert (answer.usage.cached_tokens or 0) > answer.usage.prompt_tokens / 2
    assert faces.run(client.ask("Something else.", max_tokens=1)).notes == ()
    faces.run(client.close())


def test_the_cached_tokens_of_a_local_model_are_those_that_its_next_answer_reports() -> None:
    with Client("talu/pocket") as client:
        request = Request(messages=({"role": "user", "content": LONG},))
        local: Any = client.router.backend()
        client.ask("Hello", max_tokens=1)
        cached, tokens = local.cached_tokens(request)
        assert tokens == local.count(request)
        assert cached < tokens / 2
        client.ask(LONG, max_tokens=1)
        cached, _ = local.cached_tokens(request)
        assert client.ask(LONG, max_tokens=1).usage.cached_tokens == cached > tokens / 2


class Orders(Policy):
    """A policy that returns what the test gives it."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self._order = order

    def order(self, request: Any, targets: Any) -> list[str]:
        return self._order


@pytest.mark.parametrize("order", [[], ["d"], ["a", "a"]])
def test_a_policy_that_returns_wrong_names_is_an_error(faces: Any, order: list[str]) -> None:
    client = faces.face.client_class(models("a", "b"), policy=Orders(order))
    with pytest.raises(ValidationError, match=r"Orders.order must return .* models 'a'"):
        faces.run(client.ask("hi"))


def test_a_policy_may_leave_out_models(faces: Any) -> None:
    client = faces.face.client_class(models("a", "b"), policy=Orders(["b"]))
    assert faces.run(client.ask("hi")).model == "b"
    assert Fallback.prefers_cached is False

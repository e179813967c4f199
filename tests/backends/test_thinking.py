"""``allow_thinking`` switches the reasoning of a model on or off."""

from collections.abc import Iterator
from typing import Any

import pytest

from talu import Client, ValidationError

POCKET = "talu/pocket"
BEGINS = (  # a template that begins reasoning unless its switch is off
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking is not defined or enable_thinking %}<think>\n"
    "{% else %}<think>\n\n</think>\n\n{% endif %}"
)
ALWAYS = BEGINS.split("{% if")[0] + "<think>\n"
PLAIN = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(POCKET) as opened:
        yield opened


def ask(client: Client, template: str, **settings: Any) -> Any:
    return client.ask("What is 2+2?", chat_template=template, seed=1, max_tokens=40, **settings)


def test_the_switch_of_the_template_is_set(client: Client) -> None:
    assert ask(client, BEGINS, allow_thinking=True).prompt.endswith("<think>\n")
    assert ask(client, BEGINS, allow_thinking=False).prompt.endswith("</think>\n\n")
    assert ask(client, BEGINS).prompt.endswith("<think>\n")


def test_reasoning_that_a_template_always_begins_has_no_tokens_if_it_is_not_allowed(
    client: Client,
) -> None:
    assert ask(client, ALWAYS, max_thinking_tokens=7).reasoning
    answer = ask(client, ALWAYS, allow_thinking=False)
    assert not answer.reasoning
    assert answer.text


def test_a_template_without_reasoning_is_noted(client: Client) -> None:
    answer = ask(client, PLAIN, allow_thinking=True)
    assert any("no reasoning that allow_thinking" in note for note in answer.notes)
    assert ask(client, PLAIN, allow_thinking=False).notes == ask(client, PLAIN).notes


@pytest.mark.parametrize(
    "settings",
    [
        {"allow_thinking": False, "max_thinking_tokens": 9},
        {"allow_thinking": False, "extra_context": {"enable_thinking": True}},
        {"allow_thinking": True, "extra_context": {"thinking": False}},
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    client: Client, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match="contradict each other") as refused:
        ask(client, BEGINS, **settings)
    assert refused.value.details["param"] == "allow_thinking"

from datetime import datetime
from pathlib import Path

import pytest

import talu.models
from talu.exceptions import TemplateError, TemplateUndefinedError, ValidationError
from talu.template.render import render
from talu.tokenizer.files import read_templates

ASK = [{"role": "user", "content": "Hi"}]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_conversation_becomes_a_prompt() -> None:
    assert render(CHATML, ASK) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_generation_prompt_can_be_left_out() -> None:
    assert render(CHATML, ASK, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


def test_special_tokens_are_variables_of_the_template() -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    assert render(source, ASK, tokens={"bos_token": "<s>", "eos_token": "</s>"}) == "<s>Hi</s>"


def test_an_empty_list_of_tools_is_none_as_in_transformers() -> None:
    source = "{{ tools is none }} {{ documents is none }}"
    assert render(source, ASK) == "True True"
    assert render(source, ASK, tools=[{"type": "function"}]) == "False True"


def test_extra_variables_reach_the_template() -> None:
    source = "{{ 'off' if enable_thinking is false }} {{ documents[0].title }}"
    extra = {"enable_thinking": False, "documents": [{"title": "A"}]}
    assert render(source, ASK, extra=extra) == "off A"


def test_an_extra_variable_cannot_replace_an_argument() -> None:
    with pytest.raises(ValidationError, match="'messages'"):
        render(CHATML, ASK, extra={"messages": []})


def test_a_variable_that_json_cannot_express_is_named_by_argument_and_place() -> None:
    with pytest.raises(
        ValidationError, match=r"extra_context\['a'\]\[1\] is of type set"
    ) as caught:
        render(CHATML, ASK, extra={"a": [1, {2}]})
    assert caught.value.details == {"param": "extra_context", "where": "extra_context['a'][1]"}


def test_text_of_a_message_is_never_run_as_a_template() -> None:
    content = "{{ 7 * 7 }}{% for x in y %}{# #}"
    assert content in render(CHATML, [{"role": "user", "content": content}])


def test_the_callers_messages_are_not_changed() -> None:
    message = {"role": "assistant", "content": "4", "reasoning": "Hm."}
    render(CHATML, [message])
    assert message == {"role": "assistant", "content": "4", "reasoning": "Hm."}


def test_the_date_can_be_given() -> None:
    source = "{{ strftime_now('%Y-%m-%d') }}"
    assert render(source, ASK, now=datetime(2026, 1, 2)) == "2026-01-02"
    assert render(source, ASK) == datetime.now().strftime("%Y-%m-%d")


def test_a_template_may_refuse_a_conversation() -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}"
    with pytest.raises(TemplateError, match=r"refuses the conversation: No system!"):
        render(source, [{"role": "system", "content": "x"}])


def test_an_undefined_variable_is_an_error_only_when_strict() -> None:
    assert render("a{{ nobody }}", ASK) == "a"
    with pytest.raises(TemplateUndefinedError, match="nobody"):
        render("a{{ nobody }}", ASK, strict=True)


def test_the_bundled_models_template_shows_system_and_tools() -> None:
    template = read_templates(Path(talu.models.__path__[0]) / "pocket")["default"]
    messages = [{"role": "system", "content": "You are a pirate."}, *ASK]
    tool = {"type": "function", "function": {"name": "get_time", "parameters": {}}}
    prompt = render(template, messages, tools=[tool])
    assert all(word in prompt for word in ("You are a pirate.", "get_time", "Hi"))

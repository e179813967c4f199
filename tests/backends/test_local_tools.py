"""Tools of local models: choices are enforced, arguments fit, and what was done is said."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.remote.llama import gguf as smollm2

from talu.backends.local import LocalModel
from talu.config import GenerationConfig
from talu.exceptions import StructuredOutputError, ValidationError
from talu.structured.values import Choice
from talu.types import (
    Done,
    Event,
    FinishReason,
    LocalBackend,
    Request,
    TextDelta,
    ToolCallDelta,
    ToolCallEvent,
)

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["celsius", "kelvin"]},
    },
    "required": ["city", "unit"],
}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "the weather", "parameters": PARAMETERS},
}
NOW = {"type": "function", "function": {"name": "now", "description": "the time"}}
TOOLS = (WEATHER, NOW)
SCHEMAS = {"get_weather": PARAMETERS, "now": NOTHING}
ASK = ({"role": "user", "content": "What is the weather in Paris?"},)
SEEDS = range(6)


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    opened = LocalModel("talu/pocket")
    yield opened
    opened.close()


def answer(model: LocalModel, seed: int = 0, **request: Any) -> list[Event]:
    settings = {"max_tokens": 300, "temperature": 1.0, "seed": seed}
    config = GenerationConfig(**{**settings, **request.pop("config", {})})
    asked = {"messages": ASK, "tools": TOOLS, "config": config, **request}
    generation = model.generate(Request(**asked))
    generation.start()
    return list(generation)


def calls(events: list[Event]) -> list[ToolCallEvent]:
    return [event for event in events if isinstance(event, ToolCallEvent)]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def done(events: list[Event]) -> Done:
    (last,) = [event for event in events if isinstance(event, Done)]
    return last


@pytest.mark.parametrize("choice", ["required", "now"])
def test_a_call_that_a_stop_sequence_prevents_is_noted(model: LocalModel, choice: str) -> None:
    events = answer(model, tool_choice=choice, config={"stop_sequences": ["<tool_call>"]})
    assert (calls(events), done(events).finish_reason) == ([], FinishReason.STOP)
    assert f"the model called no tool although tool_choice is '{choice}'" in done(events).notes


@pytest.mark.parametrize("seed", SEEDS)
def test_a_required_call_is_made_and_fits_its_schema(model: LocalModel, seed: int) -> None:
    asked = ({"role": "user", "content": "Hello!"},)
    events = answer(model, seed, messages=asked, tool_choice="required")
    assert text(events) == ""
    assert calls(events)
    assert done(events).finish_reason is FinishReason.TOOL_CALLS
    for call in calls(events):
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


@pytest.mark.parametrize("name", ["get_weather", "now"])
def test_the_named_tool_is_called(model: LocalModel, name: str) -> None:
    for seed in SEEDS:
        assert {call.name for call in calls(answer(model, seed, tool_choice=name))} == {name}


def test_no_call_is_made_if_none_may_be(model: LocalModel) -> None:
    assert calls(answer(model, config={"temperature": 0.0}))  # it would
    for seed in SEEDS:
        events = answer(model, seed, tool_choice="none")
        assert calls(events) == []
        assert "<tool_call>" not in text(events)


def test_a_call_that_the_model_chose_fits_its_schema(model: LocalModel) -> None:
    found = [call for seed in SEEDS for call in calls(answer(model, seed))]
    assert found
    for call in found:
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def test_at_most_one_call_is_made_if_that_is_asked(model: LocalModel) -> None:
    asked = {"tool_choice": "required", "config": {"logit_bias": {0: -1e5, 2: -1e5}}}
    for seed in SEEDS:
        assert len(calls(answer(model, seed, **asked))) > 1
        assert len(calls(answer(model, seed, parallel_tool_calls=False, **asked))) == 1


def test_streamed_pieces_join_to_the_arguments(model: LocalModel) -> None:
    events = answer(model, tool_choice="required")
    (call, *_) = calls(events)
    pieces = [each for each in events if isinstance(each, ToolCallDelta)]
    own = [each.arguments for each in pieces if each.call_id == call.call_id]
    assert "".join(own) == call.arguments
    assert len(own) > 2


def test_ids_are_nine_letters_and_digits(model: LocalModel) -> None:
    ids = [call.call_id for seed in SEEDS for call in calls(answer(model, seed))]
    assert all(len(each) == 9 and each.isalnum() for each in ids)
    assert len(set(ids)) == len(ids)


def test_an_answer_is_calls_or_has_the_form(model: LocalModel) -> None:
    """With a format, an answer is text that fits it, or calls."""
    form = {"response_format": Choice(["yes", "no"])}
    kinds = set()
    for seed in range(12):
        events = answer(model, seed, config={**form, "temperature": 3.0})
        kinds.add(bool(calls(events)))
        assert calls(events) or text(events) in ("yes", "no")
    asked = answer(model, tool_choice="none", config=form)
    assert text(asked) in ("yes", "no")
    assert kinds >= {True}


def test_thinking_comes_before_calls_and_forms(model: LocalModel) -> None:
    form = {"response_format": Choice(["yes", "no"]), "max_thinking_tokens": 4}
    for choice in ("auto", "required", "none"):
        events = answer(model, tool_choice=choice, config=form)
        assert calls(events) or text(events) in ("yes", "no")
        assert bool(calls(events)) or choice != "required"


def test_a_tool_choice_that_names_no_tool_is_refused(model: LocalModel) -> None:
    with pytest.raises(ValidationError, match="is the name of no tool") as refused:
        answer(model, tool_choice="get_whether")
    assert refused.value.details["param"] == "tool_choice"


def test_a_call_that_has_to_be_made_needs_tools(model: LocalModel) -> None:
    with pytest.raises(ValidationError, match="needs tools"):
        answer(model, tools=(), tool_choice="required")


def test_arguments_that_nothing_fits_are_refused(model: LocalModel) -> None:
    schema = {"type": "object", "properties": {"a": False}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    with pytest.raises(StructuredOutputError, match="parameters of the tool 'f'"):
        answer(model, tools=(tool,))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_template_that_knows_no_tools_gets_the_prompted_format(
    model: LocalModel, seed: int
) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    events = answer(model, seed, chat_template=template, tool_choice="required")
    assert calls(events)
    assert any("does not show tools" in note for note in done(events).notes)
    assert "get_weather" in done(events).prompt


def test_calls_of_the_history_are_text_where_the_template_forgets_them(model: LocalModel) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    history = (
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
    )
    prompt = model.render(Request(messages=history, chat_template=template))[0]
    assert '{"name": "now", "arguments": {}}' in prompt
    assert "<tool_response>\nnoon\n</tool_response>" in prompt


def test_without_tools_no_grammar_is_made() -> None:
    opened = LocalModel("talu/pocket", LocalBackend(num_threads=1))  # an engine of its own
    answer(opened, tools=())
    engine = opened._engine
    assert engine._grammars is None
    opened.close()


TEMPLATES = Path(sys.prefix) / "share" / "templates"
SOURCES = {path.stem: path.read_text() for path in sorted(TEMPLATES.glob("*.jinja"))}
LEFT_OUT = {  # templates that this model cannot use
    "GigaChat3-10B-A1.8B": "a prompt longer than its context",
    "GigaChat3.1-10B-A1.8B": "a prompt longer than its context",
    "unsloth-mistral-Devstral-Small-2507": "a prompt longer than its context",
    "Mistral-Small-3.2-24B-Instruct-2506": "a prompt longer than its context",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "a prompt longer than its context",
    "ibm-granite-granite-3.3-2B-Instruct": "a prompt longer than its context",
    "Cohere2MoE": "reasoning whose end is no token of its vocabulary",
    "Kimi-K3": "reasoning whose end is no token of its vocabulary",
    "fireworks-ai-llama-3-firefunction-v2": "fails without variables of its own",
    "meetkai-functionary-medium-v3.1": "fails without a bos_token",
    "meetkai-functionary-medium-v3.2": "fails without a bos_token",
    "CohereForAI-c4ai-command-r-plus-tool_use": "fails if an argument has no description",
    "muse-glimmer": "fails if an argument has no description",
}


@pytest.mark.parametrize(
    "name",
    [each for each in SOURCES if each not in LEFT_OUT],
)
def test_calls_of_a_real_model_fit_whatever_its_template(model: LocalModel, name: str) -> None:
    """At temperature 1, with the weights of another model, unless it never ends reasoning."""
    events = answer(model, chat_template=SOURCES[name], tool_choice="required")
    thinks = done(events).finish_reason is FinishReason.LENGTH
    assert calls(events) or thinks
    for call in calls(events):
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def test_a_stop_sequence_between_arguments_leaves_no_call(model: LocalModel) -> None:
    config = {"temperature": 0.0, "stop_sequences": ["<parameter=unit"]}
    template = SOURCES["Qwen3-Coder"]
    events = answer(model, chat_template=template, tool_choice="get_weather", config=config)
    assert (calls(events), done(events).finish_reason) == ([], FinishReason.STOP)
    assert "the answer ended within a call: the call is not complete" in done(events).notes


def test_a_marker_that_is_a_special_token_is_seen_and_a_spelled_one_is_text(
    model: LocalModel,
) -> None:
    template = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% for c in m.tool_calls or [] %}<|im_start|>{{ c.function.name }}: "
        "{{ c.function.arguments | tojson }}{% endfor %}\n{% endfor %}assistant:"
    )
    events = answer(model, chat_template=template, tool_choice="required")
    assert calls(events)
    assert text(events) == ""
    special = model.tokenize("<|im_start|>", special_tokens=False)
    assert special[0] in [token for event in events for token in getattr(event, "tokens", ())]


def test_a_real_model_calls_in_the_format_of_a_template_that_it_never_saw() -> None:
    opened = LocalModel(str(smollm2()))
    asked = ({"role": "user", "content": "What is the weather in Paris?"},)
    for name in ("Qwen-Qwen2.5-7B-Instruct", "Qwen3-Coder"):
        events = answer(
            opened,
            messages=asked,
            chat_template=SOURCES[name],
            tool_choice="get_weather",
            parallel_tool_calls=False,
            config={"temperature": 0.0, "max_tokens": 80},
        )
        (call,) = calls(events)
        assert json.loads(call.arguments)["city"].startswith("Paris")
    hello = ({"role": "user", "content": "Say hello."},)
    for choice in ("auto", "none"):
        events = answer(opened, messages=hello, tool_choice=choice, config={"temperature": 0.0})
        assert text(events)
        assert calls(events) == []
    opened.close()


def test_a_format_may_end_with_the_token_that_ends_the_answer(model: LocalModel) -> None:
    """As that of a template which writes it after calls, but not after text."""
    template = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}: "
        "{{ c.function.arguments | tojson }}</call><|im_end|>{% endfor %}{% endfor %}assistant:"
    )
    events = answer(model, chat_template=template, tool_choice="now")
    assert [call.name for call in calls(events)] == ["now"]
    assert done(events).notes == ()


@pytest.mark.parametrize("tool", [{}, {"type": "function", "function": {"name": 3}}])
def test_a_tool_without_a_name_is_refused(model: LocalModel, tool: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="has no name"):
        answer(model, tools=(tool,))


def test_text_that_is_free_needs_no_masks() -> None:
    opened = LocalModel(str(smollm2()), LocalBackend(num_threads=1))  # an engine of its own
    hello = ({"role": "user", "content": "Say hello."},)
    events = answer(opened, messages=hello, config={"temperature": 0.0, "max_tokens": 8})
    assert text(events)
    assert opened._engine._worker._masks._thread is None
    opened.close()


def test_a_call_after_a_free_text_fits_its_schema(model: LocalModel) -> None:
    """At a temperature at which the model alone writes nothing that fits."""
    (marker,) = model.tokenize("<tool_call>", special_tokens=False)
    config = {"temperature": 5.0, "logit_bias": {marker: 10.0}}
    found = [answer(model, seed, config=config) for seed in range(30)]
    after_text = [events for events in found if text(events).strip() and calls(events)]
    assert after_text
    for events in found:
        for call in calls(events):
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def test_a_report_names_the_keywords_that_a_grammar_of_calls_cannot_hold(model: LocalModel) -> None:
    schema = {**PARAMETERS, "not": {"required": ["days"]}, "minProperties": 1}
    tools = ({"type": "function", "function": {"name": "f", "parameters": schema}}, NOW)
    for choice in ("auto", "required"):
        reports = done(answer(model, tools=tools, tool_choice=choice)).tool_reports
        assert set(reports) == {"f", "now"}
        assert set(reports["f"].checked) == {"#/not", "#/not/required"}
        assert "#/properties/days/maximum" in reports["f"].enforced
        assert "#/additionalProperties" not in reports["f"].enforced  # it is not in the schema
    assert done(answer(model, tools=())).tool_reports == {}

"""A template that does not show calls may spell their format in what it tells the model."""

from typing import Any

import pytest
from tools.tool_formats_table import joined

from talu.backends.local.tool_prompt import AS_TEXT, DESCRIBED, shown
from talu.tool_formats.derive import derive
from talu.tool_formats.instructions import instructed
from talu.tool_formats.prompted import PROMPTED
from talu.tool_formats.reader import Reader

HERMES = (
    "{%- if tools %}<|im_start|>system\nThe tools are <tools>"
    "{%- for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n"
    "For each function call, return a json object within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    "<|im_end|>\n{% endif %}"
    "{%- for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "", "parameters": {"type": "object"}},
}
CALLS = [
    {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"n": 1}'}},
    {"id": "b", "type": "function", "function": {"name": "add", "arguments": '{"n": 2}'}},
]
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "a", "content": "1"},
    {"role": "tool", "tool_call_id": "b", "content": "2"},
]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            'Return <tool_call>\n{"name": <function-name>, "arguments": <args>}\n</tool_call>.',
            '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        ),
        (
            'a list like functools[{"name": [function name], "arguments": [as JSON]}, ...]',
            'functools[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"a": [1]}}]',
        ),
        (
            'Write <|tool_call|>{"name": "NAME", "parameters": {"KEY": "VALUE"}} to call.',
            '<|tool_call|>{"name": "f", "parameters": {}}',
        ),
        (
            'Write <fn>{"name": $NAME, "arguments": $ARGUMENTS}</fn>.',
            '<fn>{"name": "f", "arguments": {}}</fn>\n<fn>{"name": "g", "arguments": {}}</fn>',
        ),
    ],
    ids=["tags", "list", "token", "short tags"],
)
def test_an_example_in_json_says_how_calls_are_written(text: str, written: str) -> None:
    form = instructed(text)
    assert form is not None
    reader = Reader(form, {})
    answer = joined([*reader.push(written), *reader.finish()])
    assert [name for name, _ in answer.calls] == ["f", "g"][: written.count('"name"')]
    assert (answer.text, reader.notes) == ("", ())


@pytest.mark.parametrize(
    "text",
    [
        "You can call functions.",
        'Respond with {"name": "NAME", "arguments": {}}',  # any JSON would be a call
        '<a>{"name": <n>, "arguments": <a>}</a> or <b>{"name": <n>, "arguments": <a>}</b>',
        '<a>{"name": <n>, "arguments": <a>}</b>',
        '<tools>{"name": "add", "parameters": {"type": "object", "properties": {}}}</tools> '
        '<tool_call>{"name": "add", "description": "d"}</tool_call>',
        "respond only with <|tool_call|> followed by a JSON list of tools used",
    ],
    ids=["prose", "bare", "two", "other end", "no example", "words"],
)
def test_what_is_no_clear_example_says_nothing(text: str) -> None:
    assert instructed(text) is None


def test_a_template_that_does_not_show_calls_is_read_by_its_instructions() -> None:
    found = derive(HERMES)
    assert (found.shows_calls, found.reason) == (False, "the template does not show calls")
    assert found.format == PROMPTED
    prompt = shown(HERMES, HISTORY[:1], [TOOL], [])
    assert (prompt.messages, prompt.notes) == (HISTORY[:1], ())  # the template says it all
    assert [tool["function"]["name"] for tool in prompt.tools] == ["add"]


def test_the_calls_of_the_history_are_text_in_the_format_of_the_instructions() -> None:
    source = HERMES.replace("<tool_call>\\n", "<fn>").replace("<tool_call>\n", "<fn>")
    source = source.replace("\n</tool_call>", "</fn>").replace('"arguments"', '"parameters"')
    prompt = shown(source, HISTORY, [TOOL], [])
    first = '<fn>{"name": "add", "parameters": {"n": 1}}</fn>'
    second = '<fn>{"name": "add", "parameters": {"n": 2}}</fn>'
    assert prompt.messages[1] == {"role": "assistant", "content": f"{first}\n{second}"}
    assert prompt.notes == (AS_TEXT,)
    assert prompt.calls is not None
    reader = Reader(prompt.calls, {})
    read = joined([*reader.push(prompt.messages[1]["content"]), *reader.finish()])
    assert [arguments for _, arguments in read.calls] == [{"n": 1}, {"n": 2}]


def test_a_template_without_an_example_gets_the_prompted_format() -> None:
    source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    prompt = shown(source, HISTORY, [TOOL], [])
    assert prompt.notes == (AS_TEXT, DESCRIBED)
    assert prompt.calls == PROMPTED


@pytest.mark.parametrize("part", ['{"name": ', "<a", "[", '{"name": "a", "arguments": ', "{ "])
def test_a_long_text_of_beginnings_is_read_in_linear_time(part: str) -> None:
    assert instructed(part * (200_000 // len(part))) is None

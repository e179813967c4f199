from types import SimpleNamespace
from typing import Any

import pytest

from talu.exceptions import ValidationError
from talu.template.adaptation import adapt
from talu.template.render import render, traits

PARTS = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}}
TEXT_ONLY = "{% for m in messages %}<{{ m.role }}>{{ m.content + '' }}{% endfor %}"
PARTS_ONLY = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% for part in m.content %}{{ part.text }}|{% endfor %}{% endfor %}"
)
BOTH = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}{{ part.text }}|{% endfor %}{% endif %}{% endfor %}"
)


def calls(arguments: str, content: str = "{{ m.content }}") -> str:
    return (
        "{% for m in messages %}" + content + "{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}(" + arguments + "){% endfor %}{% endfor %}"
    )


def call_message(**changes: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": None, "tool_calls": [CALL]} | changes]


@pytest.mark.parametrize(
    ("source", "content", "prompt"),
    [
        (TEXT_ONLY, "Hello", "<user>Hello"),
        (TEXT_ONLY, PARTS, "<user>Hello\nthere"),
        (PARTS_ONLY, "Hello", "<user>Hello|"),
        (PARTS_ONLY, PARTS, "<user>Hello|there|"),
        (BOTH, "Hello", "Hello"),
        (BOTH, PARTS, "Hello|there|"),
    ],
)
def test_content_is_given_in_the_form_that_the_template_supports(
    source: str, content: object, prompt: str
) -> None:
    assert render(source, [{"role": "user", "content": content}]) == prompt


@pytest.mark.parametrize("arguments", ['{"a": "é"}', {"a": "é"}])
@pytest.mark.parametrize(
    "shown", ["{{ c.function.arguments | tojson }}", "{{ c.function.arguments + '' }}"]
)
def test_arguments_are_given_in_the_form_that_the_template_supports(
    arguments: object, shown: str
) -> None:
    call = CALL | {"function": {"name": "f", "arguments": arguments}}
    messages = call_message(content="", tool_calls=[call])
    assert render(calls(shown), messages) == 'f({"a": "é"})'


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "7"])
def test_arguments_that_are_not_an_object_are_left_unchanged(arguments: str) -> None:
    call = CALL | {"function": {"name": "f", "arguments": arguments}}
    source = calls("{{ c.function.arguments if c.function.arguments is string else 'x' }}")
    assert render(source, call_message(content="", tool_calls=[call])) == f"f({arguments})"


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize(
    "shown",
    [
        "{{ m.content + '' }}",
        "{{ m.content }}",
        "{% if m.content is not none %}{% continue %}{% endif %}",
    ],
    ids=["wants text", "prints None", "wants none"],
)
def test_a_call_without_content_is_shown(content: str | None, shown: str) -> None:
    source = calls("{{ c.function.arguments | tojson }}", shown)
    assert render(source, call_message(content=content)) == 'f({"a": "é"})'


def test_missing_content_is_not_filled_in_if_the_template_handles_it() -> None:
    source = calls("{{ c.function.arguments | tojson }}", "{{ 'none' if 'content' not in m }}")
    message = call_message()[0]
    del message["content"]
    assert render(source, [message]) == 'nonef({"a": "é"})'


def test_reasoning_is_accepted_under_every_name() -> None:
    source = "{% for m in messages %}{{ m.reasoning_content }}{{ m.thinking }}{% endfor %}"
    for name in ("reasoning_content", "thinking", "reasoning"):
        message = {"role": "assistant", "content": "4", name: "Hm."}
        assert render(source, [message]) == "Hm.Hm."


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ("Hello", r"messages\[1\]"),
        ({"content": "Hello"}, r"messages\[1\] is not an object with a role"),
        ({"role": 1, "content": "Hello"}, r"messages\[1\]"),
        ({"role": "user", "content": 7}, r"messages\[1\]\['content'\]"),
        ({"role": "user", "content": {"type": "text"}}, r"messages\[1\]\['content'\]"),
        ({"role": "user", "content": b"Hello"}, r"messages\[1\]\['content'\] is of type bytes"),
        ({"role": "user", "content": ["Hello"]}, r"\['content'\]\[0\] is not a text part"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            r"\['content'\]\[0\] is not a text part",
        ),
        ({"role": "assistant", "tool_calls": "f()"}, r"messages\[1\]\['tool_calls'\]"),
        ({"role": "assistant", "tool_calls": ["f()"]}, r"messages\[1\]\['tool_calls'\]"),
        (
            {"role": "user", "content": "x", "when": object()},
            r"messages\[1\]\['when'\] is of type obj",
        ),
    ],
)
def test_a_malformed_message_is_an_error_that_names_its_place(message: Any, where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        render(TEXT_ONLY, [{"role": "user", "content": "x"}, message])


def test_a_conversation_in_the_right_form_is_not_changed() -> None:
    everything = SimpleNamespace(
        text=True,
        parts=True,
        arguments=True,
        short_ids=False,
        empty=lambda content: content,
    )
    call = CALL | {"function": {"name": "f", "arguments": {"a": 1}}}
    messages = [{"role": "user", "content": PARTS}, *call_message(tool_calls=[call])]
    assert adapt(messages, everything) == messages


@pytest.mark.parametrize(
    ("source", "system", "tools"),
    [
        (TEXT_ONLY, True, False),
        (PARTS_ONLY, True, False),
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", False, False),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{{ messages[0].content }}{{ tools | tojson }}",
            False,
            True,
        ),
        ("{% for t in tools %}{{ t.function.name }}{% endfor %}" + TEXT_ONLY, True, True),
    ],
)
def test_what_a_template_shows_is_found_by_rendering(
    source: str, system: bool, tools: bool
) -> None:
    assert (traits(source).system_role, traits(source).tools) == (system, tools)


def test_ids_of_calls_have_the_shape_that_the_template_wants() -> None:
    strict = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
        "{{ c.id }}={{ c.function.arguments | tojson }};{% endfor %}{{ m.tool_call_id or '' }}"
        "{% endfor %}"
    )
    result = {"role": "tool", "tool_call_id": "call_0123456789", "content": "r"}
    message = call_message(tool_calls=[CALL | {"id": "call_0123456789"}])[0]
    call_id, _, rest = render(strict, [message, result]).partition("=")
    assert (len(call_id), call_id.isalnum()) == (9, True)
    assert rest.endswith(call_id)
    kept = [CALL | {"id": "abcDEF123"}]
    assert render(strict, call_message(tool_calls=kept)).startswith("abcDEF123=")


def test_ids_stay_where_the_template_takes_any() -> None:
    anything = calls("{{ c.function.arguments | tojson }}|{{ c.id }}")
    long = [CALL | {"id": "call_0123456789"}]
    assert "call_0123456789" in render(anything, call_message(tool_calls=long, content=""))

"""Conversion of OpenAI-style dictionaries to items and back, without loss."""

import json
import time

import pytest

from talu.chat.items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    ItemStatus,
    MessageItem,
    MessageRole,
    ReasoningItem,
)
from talu.chat.messages import messages_from_items, without_unfinished_calls
from talu.chat.parsing import items_from_messages
from talu.exceptions import ValidationError

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
HISTORY = [
    {"role": "system", "content": "S"},
    {"role": "developer", "content": "D"},
    {"role": "user", "content": "Add 1."},
    {"role": "assistant", "content": "", "tool_calls": [CALL, {**CALL, "id": "c2"}]},
    {"role": "tool", "content": "1", "tool_call_id": "c1"},
    {"role": "tool", "content": "2", "tool_call_id": "c2"},
    {"role": "assistant", "content": "Done.", "reasoning_content": "Easy."},
    {"role": "user", "content": ""},
    {"role": "user", "name": "Ann", "content": "Hi."},
    {"role": "assistant", "name": "Bo", "content": "Hi, Ann."},
    {"role": "user", "name": "Ann", "content": "Add."},
    {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c3"}]},
    {"role": "tool", "name": "add", "content": "3", "tool_call_id": "c3"},
]


def test_a_history_with_tools_and_reasoning_comes_back_as_it_was() -> None:
    assert messages_from_items(items_from_messages(HISTORY)) == HISTORY


def test_each_message_becomes_items_of_its_kind() -> None:
    kinds = [type(item) for item in items_from_messages(HISTORY)]
    assert kinds == [
        *[MessageItem] * 3,
        *[FunctionCallItem] * 2,
        *[FunctionCallOutputItem] * 2,
        ReasoningItem,
        *[MessageItem] * 5,
        FunctionCallItem,
        FunctionCallOutputItem,
    ]


def test_text_beside_tool_calls_stays_in_the_same_message() -> None:
    message = {"role": "assistant", "content": "I add.", "tool_calls": [CALL]}
    assert messages_from_items(items_from_messages([message])) == [message]


def test_content_may_be_text_parts_and_arguments_an_object() -> None:
    items = items_from_messages(
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": "ä"}}}],
            },
        ]
    )
    assert items[0].text == "ab"
    assert json.loads(items[1].arguments) == {"a": "ä"}


def test_empty_keys_are_ignored() -> None:
    dumped = {"role": "assistant", "content": "a", "refusal": None, "annotations": []}
    (item,) = items_from_messages([dumped])
    assert (item.role, item.text) == (MessageRole.ASSISTANT, "a")


WRONG = [
    ("text", "messages must be a list"),
    ({"role": "user"}, "messages must be a list"),
    (3, "messages must be a list"),
    (["a"], r"messages\[0\] must be a dictionary, got 'a'"),
    ([{"content": "a"}], r"messages\[0\]\['role'\] must be one of .* got None"),
    ([{"role": "usr", "content": "a"}], r"got 'usr'; did you mean 'user'"),
    ([{"role": 3, "content": "a"}], r"messages\[0\]\['role'\]"),
    ([{"role": "user"}], r"messages\[0\]\['content'\] is missing"),
    ([{"role": "user", "content": None}], r"messages\[0\]\['content'\] must be text"),
    ([{"role": "user", "content": 3}], r"messages\[0\]\['content'\] must be text"),
    ([{"role": "user", "content": ["a"]}], r"messages\[0\]\['content'\]\[0\] must be a text part"),
    (
        [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "image"}]}],
        r"messages\[1\]\['content'\]\[0\] must be a text part",
    ),
    (
        [{"role": "user", "content": "a", "tool_calls": [CALL]}],
        r"messages\[0\]\['tool_calls'\] is not a key of a message of role 'user'",
    ),
    ([{"role": "user", "content": "a", "name": ""}], r"messages\[0\]\['name'\] must be printable"),
    ([{"role": "user", "content": "a", "name": 3}], r"messages\[0\]\['name'\] must be printable"),
    (
        [{"role": "assistant", "name": "a", "tool_calls": [CALL]}],
        r"messages\[0\]\['name'\] needs content",
    ),
    (
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}],
            }
        ],
        r"messages\[0\]\['content'\]\[0\]\['cache_control'\] is not a key of a text part",
    ),
    (
        [{"role": "user", "content": "a", "cache_control": {"type": "x"}}],
        r"messages\[0\]\['cache_control'\] is not a key of a message of role 'user'",
    ),
    (
        [{"role": "assistant", "tool_calls": [CALL | {"extra": 1}]}],
        r"\['tool_calls'\]\[0\]\['extra'\] is not a key of a tool call",
    ),
    (
        [{"role": "assistant", "tool_calls": [CALL | {"type": "custom"}]}],
        r"\['tool_calls'\]\[0\]\['type'\] must be 'function', got 'custom'",
    ),
    (
        [
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "function": {"name": "f", "strict": 1}}],
            }
        ],
        r"\['function'\]\['strict'\] is not a key of a function call",
    ),
    (
        [
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": {1}}}}],
            }
        ],
        r"\['function'\]\['arguments'\] must be plain JSON",
    ),
    ([{"role": "user", "contents": "a"}], r"\['contents'\] .*; did you mean 'content'"),
    ([{"role": "assistant", "tool_calls": 3}], r"messages\[0\]\['tool_calls'\] must be a list"),
    ([{"role": "assistant", "tool_calls": [3]}], r"\['tool_calls'\]\[0\] must be a dictionary"),
    ([{"role": "assistant", "tool_calls": [{}]}], r"\['tool_calls'\]\[0\]\['id'\]"),
    ([{"role": "assistant", "tool_calls": [{"id": "c"}]}], r"\[0\]\['function'\] must be a dict"),
    (
        [{"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}],
        r"\['function'\]\['name'\] must be text",
    ),
    (
        [
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": 3}}],
            }
        ],
        r"\['function'\]\['arguments'\] must be JSON text",
    ),
    (
        [{"role": "tool", "content": "1", "tool_call_id": "c9"}],
        r"messages\[0\]\['tool_call_id'\] must be the id of a tool call .* got 'c9'",
    ),
    (
        [*HISTORY[:5], HISTORY[4]],
        r"messages\[5\]\['tool_call_id'\] is that of a call that has a result already: 'c1'",
    ),
    (
        [HISTORY[3], {"role": "tool", "tool_call_id": "c1"}],
        r"messages\[1\]\['content'\] is missing",
    ),
]


@pytest.mark.parametrize(("messages", "match"), WRONG)
def test_a_malformed_message_is_named_by_index_and_key(messages, match) -> None:
    with pytest.raises(ValidationError, match=match) as caught:
        items_from_messages(messages)
    assert caught.value.details["param"] == "messages"


def test_ten_thousand_tool_results_are_read_in_linear_time() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = []
    for number in range(10_000):
        history.append({"role": "assistant", "tool_calls": [call | {"id": f"c{number}"}]})
        history.append({"role": "tool", "tool_call_id": f"c{number}", "content": "1"})
    began = time.process_time()
    assert len(items_from_messages(history)) == 20_000
    assert time.process_time() - began < 4


def call(name: str, *, complete: bool) -> FunctionCallItem:
    status = ItemStatus.COMPLETED if complete else ItemStatus.INCOMPLETE
    return FunctionCallItem(name=name, call_id="call_0", arguments="{}", status=status)


RESULT = FunctionCallOutputItem(call_id="call_0", output="3")


def test_an_unfinished_call_without_a_result_is_left_out_with_a_note() -> None:
    kept, (note,) = without_unfinished_calls([call("a", complete=False)])
    assert kept == []
    assert note.startswith("a tool call was not sent")


def test_an_unfinished_call_is_kept_together_with_its_result() -> None:
    items = [call("a", complete=False), RESULT]
    assert without_unfinished_calls(items) == (items, ())


def test_a_result_belongs_to_the_last_call_before_it_where_ids_are_repeated() -> None:
    answered, unanswered = call("a", complete=True), call("b", complete=False)
    assert without_unfinished_calls([answered, RESULT, unanswered])[0] == [answered, RESULT]
    assert without_unfinished_calls([unanswered, answered, RESULT])[0] == [answered, RESULT]

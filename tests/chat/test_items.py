"""Conversation items, and a chat's view of them."""

from dataclasses import FrozenInstanceError

import pytest

from talu.chat import (
    ContentType,
    ConversationItems,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputText,
    ItemStatus,
    ItemType,
    MessageItem,
    MessageRole,
    OutputText,
    ReasoningItem,
    ReasoningText,
)
from talu.exceptions import ValidationError

ITEMS = [
    MessageItem.create("system", "S"),
    MessageItem.create("User", [InputText("a"), InputText("b")]),
    ReasoningItem(content=(ReasoningText("Hm"),), status=ItemStatus.INCOMPLETE),
    MessageItem.create(MessageRole.ASSISTANT, "c"),
    FunctionCallItem(name="f", call_id="c1", arguments="{}"),
    FunctionCallOutputItem(call_id="c1", output="1"),
]


@pytest.fixture
def view() -> ConversationItems:
    return ConversationItems(ITEMS)


def test_an_item_has_a_type_and_is_immutable() -> None:
    assert [item.type for item in ITEMS] == [
        ItemType.MESSAGE,
        ItemType.MESSAGE,
        ItemType.REASONING,
        ItemType.MESSAGE,
        ItemType.FUNCTION_CALL,
        ItemType.FUNCTION_CALL_OUTPUT,
    ]
    with pytest.raises(FrozenInstanceError):
        ITEMS[0].role = MessageRole.USER


def test_ids_differ_and_times_are_milliseconds() -> None:
    assert len({item.id for item in ITEMS}) == len(ITEMS)
    assert 1_700_000_000_000 < ITEMS[0].created_at_ms < 4_000_000_000_000


def test_the_text_of_a_message_is_that_of_all_parts() -> None:
    assert ITEMS[1].text == "ab"
    assert ITEMS[1].to_message_dict() == {"role": "user", "content": "ab"}


def test_assistant_messages_have_output_text_and_others_input_text() -> None:
    assert ITEMS[3].content == (OutputText("c"),)
    assert ITEMS[0].content == (InputText("S"),)
    assert (OutputText.type, InputText.type) == (ContentType.OUTPUT_TEXT, ContentType.INPUT_TEXT)


@pytest.mark.parametrize("part", [InputText, OutputText, ReasoningText])
def test_a_part_has_text_and_a_dictionary_form(part) -> None:
    assert part("a").to_dict() == {"type": part.type.name.lower(), "text": "a"}
    for wrong in (None, 5, b"a", ["a"]):
        with pytest.raises(ValidationError, match="text must be text, got") as caught:
            part(wrong)
        assert caught.value.details["param"] == "text"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"role": "user", "content": (InputText("a"),)}, "role"),
        ({"role": 1, "content": (InputText("a"),)}, "role"),
        ({"role": MessageRole.USER, "content": "a"}, "content"),
        ({"role": MessageRole.USER, "content": [InputText("a")]}, "content"),
        ({"role": MessageRole.USER, "content": ("a",)}, "content"),
    ],
)
def test_a_message_made_by_its_fields_is_checked_and_names_create(fields, param) -> None:
    with pytest.raises(ValidationError, match=rf"{param} must be .*; create\(\) takes") as caught:
        MessageItem(**fields)
    assert caught.value.details["param"] == param


@pytest.mark.parametrize(
    ("name", "value"), [("id", 5), ("status", 2), ("created_at_ms", 1.5), ("hidden", "no")]
)
def test_the_common_fields_of_items_are_checked(name, value) -> None:
    for kind, fields in (
        (MessageItem, {"role": MessageRole.USER, "content": (InputText("a"),)}),
        (FunctionCallItem, {"name": "f", "call_id": "c1", "arguments": "{}"}),
    ):
        with pytest.raises(ValidationError, match=f"{name} must be of type .*, got") as caught:
            kind(**fields, **{name: value})
        assert caught.value.details == {"param": name, "value": value}


def test_an_unknown_role_names_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="known are system, user, assistant, developer"):
        MessageItem.create("king", "a")


def test_the_view_is_a_sequence(view) -> None:
    assert len(view) == 6
    assert view[0] is view.first is ITEMS[0]
    assert view[-1] is view.last is ITEMS[-1]
    assert view[1:3] == ITEMS[1:3]
    assert list(view) == ITEMS
    assert ITEMS[2] in view
    with pytest.raises(IndexError):
        view[6]


def test_the_view_finds_the_system_text_and_filters(view) -> None:
    assert view.system == "S"
    assert view.filter_by_role("user") == [ITEMS[1]]
    assert view.filter_by_type(ReasoningItem) == [ITEMS[2]]


def test_filtering_by_a_value_that_is_not_a_class_is_refused(view) -> None:
    with pytest.raises(ValidationError, match=r"kind must be a class of items.*got 'message'"):
        view.filter_by_type("message")


def test_an_empty_view_has_no_first_last_and_system() -> None:
    empty = ConversationItems([])
    assert (empty.first, empty.last, empty.system) == (None, None, None)
    assert repr(empty) == "ConversationItems([])"


def test_repr_shows_the_conversation(view) -> None:
    assert repr(view) == (
        "ConversationItems([\n"
        "  system: 'S',\n"
        "  user: 'ab',\n"
        "  reasoning (incomplete): 'Hm',\n"
        "  assistant: 'c',\n"
        "  call c1: f({}),\n"
        "  output c1: '1',\n"
        "])"
    )


def test_types_roles_and_states_compare_equal_to_their_values() -> None:
    system, _, reasoning, _, call, output = ITEMS
    assert system.role == "system"
    assert [item.type for item in (system, reasoning, call, output)] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert (system.status, reasoning.status) == ("completed", "incomplete")
    assert [part.type for part in system.content] == ["input_text"]
    assert f"{system.role}" == str(system.role) == "system"
    assert system.role != "System"
    assert {"system": 1}[system.role] == 1


def test_a_message_can_have_a_name() -> None:
    item = MessageItem.create("user", "Hi", name="Ann")
    assert item.to_message_dict() == {"role": "user", "name": "Ann", "content": "Hi"}
    assert repr(ConversationItems([item])) == "ConversationItems([\n  user Ann: 'Hi',\n])"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257, "\ud800", 3])
def test_a_name_is_printable_text_of_bounded_length(name) -> None:
    with pytest.raises(ValidationError, match="name must be printable text of 1 to 256") as caught:
        MessageItem.create("user", "Hi", name=name)
    assert caught.value.details["param"] == "name"

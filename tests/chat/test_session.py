"""Chats: their content, editing, forking, counting and serialization."""

import asyncio
import copy
import json
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from talu.backends.scripted import ScriptedModel
from talu.chat import (
    AsyncChat,
    Chat,
    ConversationItems,
    InputText,
    ItemStatus,
    MessageItem,
    ReasoningItem,
)
from talu.client import AsyncClient, Client
from talu.config import GenerationConfig
from talu.exceptions import StateError, ValidationError
from talu.router import ModelSpec
from talu.types import ReasoningDelta, ToolCallEvent

ITEM = MessageItem.create("user", "a")
CALL = {"type": "function_call", "name": "add", "call_id": "c1", "arguments": "{}"}


def texts(chat) -> list[str]:
    return [item.text for item in chat.items]


@pytest.fixture
def chat() -> Chat:
    return Chat(system="S", messages=[{"role": "user", "content": "q"}])


def test_the_system_message_is_the_first_item_and_can_be_changed_and_removed() -> None:
    chat = Chat()
    assert chat.system is None
    chat.append("user", "q")
    chat.system = "one"
    chat.system = "two"
    assert chat.system == "two"
    assert texts(chat) == ["two", "q"]
    chat.system = ""
    assert texts(chat) == ["q"]
    chat.system = None
    assert chat.system is None


def test_items_is_a_live_view_that_cannot_be_changed(chat) -> None:
    items = chat.items
    chat.append("assistant", "a")
    assert isinstance(items, ConversationItems)
    assert [item.text for item in items] == ["S", "q", "a"]
    assert items[-1] is items.last
    with pytest.raises(TypeError):
        items[0] = items[1]


def test_messages_is_a_read_only_copy_in_openais_form(chat) -> None:
    messages = chat.messages
    assert messages == [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]
    assert json.loads(json.dumps(messages)) == messages
    for change in (
        lambda: messages.append({}),
        lambda: messages.clear(),
        lambda: messages.__setitem__(0, {}),
        lambda: messages.__iadd__([{}]),
    ):
        with pytest.raises(TypeError, match=r"use chat\.append"):
            change()


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda messages: pickle.loads(pickle.dumps(messages))]
)
def test_a_copy_of_messages_may_be_changed(chat, copied) -> None:
    messages = copied(chat.messages)
    assert messages == chat.messages
    messages.append({"role": "user", "content": "more"})
    assert len(chat.messages) == len(messages) - 1


def test_messages_are_listed_for_a_reader_with_the_beginnings_of_long_texts(chat) -> None:
    chat.append("assistant", "one\ntwo").append("user", "x" * 80).append("user", "x" * 81)
    assert repr(chat.messages).splitlines() == [
        "MessageList([",
        "  system: 'S',",
        "  user: 'q',",
        "  assistant: 'one\\ntwo',",
        f"  user: '{'x' * 80}',",
        f"  user: '{'x' * 80}…',",
        "])",
    ]
    assert repr(Chat().messages) == "MessageList([])"


def test_reasoning_and_calls_of_tools_are_listed_with_their_message() -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    calls = [{"id": "c1", "type": "function", "function": function}]
    chat = Chat(
        messages=[
            {"role": "assistant", "content": "Sum", "reasoning_content": "?", "tool_calls": calls},
            {"role": "tool", "content": "1", "tool_call_id": "c1"},
        ]
    )
    assert repr(chat.messages).splitlines()[1:-1] == [
        """  assistant: 'Sum', reasoning: '?', call c1: add('{"a": 1}'),""",
        "  tool c1: '1',",
    ]


def test_editing_methods_change_the_history_and_can_be_chained(chat) -> None:
    assert chat.append("ASSISTANT", "a").append_hidden("user", "h").insert(1, "user", "i") is chat
    assert texts(chat) == ["S", "i", "q", "a", "h"]
    assert [item.hidden for item in chat.items] == [False] * 4 + [True]
    assert texts(chat.remove(1).pop()) == ["S", "q", "a"]
    assert texts(chat.clear()) == ["S"]
    assert texts(chat.reset()) == []


def test_append_adds_the_given_item_itself(chat) -> None:
    item = MessageItem.create("assistant", "a")
    assert chat.append(item).items.last is item


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (lambda chat: chat.append("king", "a"), ValidationError, "unknown role 'king'"),
        (lambda chat: chat.append({"role": "user"}), ValidationError, "unknown role {'role'"),
        (lambda chat: chat.append(chat.items), ValidationError, "unknown role ConversationItems"),
        (lambda chat: chat.append("user"), ValidationError, "content is missing"),
        (lambda chat: chat.append("user", 3), ValidationError, "content must be text"),
        (lambda chat: chat.append(ITEM, "b"), ValidationError, "already has content"),
        (lambda chat: chat.append(ITEM, hidden=True), ValidationError, "already has content"),
        (lambda chat: chat.append("user", "b", hidden="no"), ValidationError, "hidden must be"),
        (lambda chat: chat.insert("0", "user", "a"), ValidationError, "whole number, got '0'"),
        (lambda chat: chat.insert(True, "user", "a"), ValidationError, "whole number, got True"),
        (lambda chat: chat.remove(None), ValidationError, "whole number, got None"),
    ],
)
def test_a_wrong_edit_is_refused_and_changes_nothing(chat, edit, error, match) -> None:
    with pytest.raises(error, match=match):
        edit(chat)
    assert texts(chat) == ["S", "q"]


@pytest.mark.parametrize(
    ("edit", "code", "match"),
    [
        (lambda chat: chat.insert(3, "user", "a"), "INSERT", "no item at index 3: it can be 0 to"),
        (lambda chat: chat.insert(-1, "user", "a"), "INSERT", "no item at index -1"),
        (lambda chat: chat.remove(-1), "REMOVE", "no item at index -1"),
        (lambda chat: chat.remove(2), "REMOVE", "no item at index 2: it can be 0 to 1"),
        (lambda chat: chat.remove(10**30), "REMOVE", "no item at index 1000"),
        (lambda chat: chat.reset().remove(0), "REMOVE", "the chat is empty"),
        (lambda chat: chat.reset().pop(), "POP", "no item to drop"),
    ],
)
def test_a_missing_item_is_an_error_with_a_code_for_each_method(chat, edit, code, match) -> None:
    with pytest.raises(StateError, match=match) as caught:
        edit(chat)
    assert caught.value.code == f"STATE_{code}_FAILED"
    assert chat.append("user", "still editable")


def test_settings_of_the_chat_are_copied() -> None:
    config = GenerationConfig(seed=1)
    chat = Chat(config=config)
    config.seed = 2
    assert chat.config == GenerationConfig(seed=1)


def test_metadata_is_copied_deeply(chat) -> None:
    given = {"tags": ["a"]}
    chat.metadata = given
    fork, stored = chat.fork(), chat.to_dict()
    restored = Chat.from_dict(stored)
    for other in (given, stored["metadata"]):
        other["tags"].append("b")
    fork.metadata["tags"] = restored.metadata["tags"] = ["c"]
    assert chat.metadata == {"tags": ["a"]}
    assert fork.metadata == restored.metadata == {"tags": ["c"]}


METADATA_CHANGES = {  # a change of {"a": 1, "b": 2}, and the metadata after it
    "set": (lambda m: m.__setitem__("c", [3]), {"a": 1, "b": 2, "c": [3]}),
    "del": (lambda m: m.__delitem__("a"), {"b": 2}),
    "update": (lambda m: m.update({"a": 3}, c=4), {"a": 3, "b": 2, "c": 4}),
    "|=": (lambda m: m.__ior__({"a": 3}), {"a": 3, "b": 2}),
    "setdefault": (lambda m: m.setdefault("c", {"d": None}), {"a": 1, "b": 2, "c": {"d": None}}),
    "setdefault of a key that is there": (lambda m: m.setdefault("a", 5), {"a": 1, "b": 2}),
    "pop": (lambda m: m.pop("a"), {"b": 2}),
    "pop of a missing key": (lambda m: m.pop("x", None), {"a": 1, "b": 2}),
    "popitem": (lambda m: m.popitem(), {"a": 1}),
    "clear": (lambda m: m.clear(), {}),
}


@pytest.mark.parametrize("name", METADATA_CHANGES)
def test_metadata_changes_like_a_dictionary(name) -> None:
    change, after = METADATA_CHANGES[name]
    chat, plain = Chat(metadata={"a": 1, "b": 2}), {"a": 1, "b": 2}
    result = change(chat.metadata)
    assert result == change(plain)
    assert chat.metadata == plain == after


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


INEXACT = {  # values that JSON would change: (value, words of the error)
    "number as a key": ({"a": {1: "x"}}, r"metadata\['a'\] has the key 1, .*give '1'"),
    "tuple": ({"a": [(1, 2)]}, r"metadata\['a'\]\[0\] is a tuple.*give a list"),
    "set": ({"a": {1}}, "metadata must be plain JSON.*set is not JSON"),
    "bytes": ({"a": b"x"}, "metadata must be plain JSON.*bytes is not JSON"),
    "not a number": ({"a": float("nan")}, "metadata must be plain JSON.*not JSON compliant"),
    "huge number": ({"a": 10**5000}, "metadata must be plain JSON"),
    "long text": ({"a": "x" * 1_000_001}, "at most 1,000,000"),
    "deep list": ({"a": nested(101)}, "nested at most 100"),
}


@pytest.mark.parametrize("name", INEXACT)
def test_metadata_that_json_would_change_is_refused_and_leaves_the_old(name) -> None:
    values, words = INEXACT[name]
    chat = Chat(metadata={"k": 1})
    for change in (
        lambda: Chat(metadata=values),
        lambda: setattr(chat, "metadata", values),
        lambda: chat.metadata.update(values),
        lambda: chat.metadata.__setitem__("a", values["a"]),
    ):
        with pytest.raises(ValidationError, match=words) as caught:
            change()
        assert caught.value.details["param"] == "metadata"
        assert chat.metadata == {"k": 1}
    with pytest.raises(ValidationError, match="metadata has the key 5"):
        chat.metadata[5] = "five"


def test_a_list_or_dictionary_inside_metadata_is_read_only() -> None:
    chat = Chat(metadata={"tags": ["a"], "user": {"id": 1}})
    for change in (
        lambda: chat.metadata["tags"].append("b"),
        lambda: chat.metadata["user"].update(id=2),
        lambda: chat.metadata["user"].__setitem__("id", 2),
    ):
        with pytest.raises(TypeError, match="assign a new value to its key"):
            change()
    assert chat.metadata == {"tags": ["a"], "user": {"id": 1}}


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.copy()],
)
def test_a_copy_of_metadata_is_a_plain_dictionary(copied) -> None:
    chat = Chat(metadata={"tags": ["a", {"deep": []}]})
    other = copied(chat.metadata)
    other["tags"].append("b")
    other["tags"][1]["deep"].append(1)
    assert (type(other), other) == (dict, {"tags": ["a", {"deep": [1]}, "b"]})
    assert chat.metadata == {"tags": ["a", {"deep": []}]}


def test_a_copy_of_a_value_inside_metadata_can_be_changed() -> None:
    chat = Chat(metadata={"tags": [["a"]], "user": {"ids": [1]}})
    tags, user = chat.metadata["tags"].copy(), chat.metadata["user"].copy()
    tags[0].append("b")
    user["ids"].append(2)
    assert (tags, user) == ([["a", "b"]], {"ids": [1, 2]})


def test_a_reader_in_another_thread_never_finds_unchanged_metadata_missing() -> None:
    chat = Chat(metadata={"kept": 1, "changed": 0})
    metadata, missing, done = chat.metadata, [], threading.Event()

    def read() -> None:
        while not done.is_set():
            if metadata.get("kept") != 1 or "changed" not in metadata:
                missing.append(dict(metadata))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader = threading.Thread(target=read)
    try:
        reader.start()
        for number in range(2000):
            metadata["changed"] = number
    finally:
        done.set()
        reader.join()
        sys.setswitchinterval(before)
    assert missing == []


def test_metadata_of_a_closed_or_dropped_chat_cannot_be_changed() -> None:
    chat = Chat(metadata={"k": 1})
    metadata = chat.metadata
    chat.close()
    with pytest.raises(StateError, match="closed"):
        metadata["k"] = 2
    del chat
    with pytest.raises(StateError, match=r"no longer exists.*keep a reference"):
        metadata["k"] = 2
    assert metadata == {"k": 1}


def test_changing_the_result_of_to_dict_does_not_change_the_chat(chat) -> None:
    chat.config = GenerationConfig(stop_sequences=["x"])
    chat.to_dict()["config"]["stop_sequences"].append("y")
    assert chat.config == GenerationConfig(stop_sequences=["x"])


def test_an_unknown_marker_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"marker must be one of '', 'pinned'"):
        Chat(marker="starred")


def test_a_model_in_place_of_the_client_is_named() -> None:
    with pytest.raises(ValidationError, match="client must be a Client, got 'talu/pocket'"):
        Chat(client="talu/pocket")


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"metadata": "pinned"}, "metadata"),
        ({"config": {}}, "config"),
        ({"profile": "w"}, "profile"),
    ],
)
def test_a_wrong_argument_of_a_chat_is_named(arguments, param) -> None:
    with pytest.raises(ValidationError, match=f"{param} must be") as caught:
        Chat(**arguments)
    assert caught.value.details["param"] == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config", {"seed": 1}),
        ("metadata", [1]),
        ("metadata", {"x": object()}),
        ("title", 5),
        ("marker", None),
    ],
)
def test_an_invalid_attribute_is_refused_and_keeps_its_old_value(chat, name, value) -> None:
    before = getattr(chat, name)
    with pytest.raises(ValidationError, match=f"{name} (must|cannot) be"):
        setattr(chat, name, value)
    assert getattr(chat, name) == before


def test_two_system_messages_are_refused() -> None:
    with pytest.raises(ValidationError, match="mutually exclusive"):
        Chat(system="one", messages=[{"role": "system", "content": "two"}])


def test_a_fork_is_independent_and_has_the_session_of_its_parent(faces) -> None:
    chat = faces.chat("a", "b", system="S", session_id="one", marker="pinned", metadata={"k": 1})
    faces.run(chat.send("q"))
    fork = chat.fork()
    assert texts(fork) == texts(chat)
    assert (fork.session_id, fork.parent_session_id, fork.marker) == (None, "one", "")
    assert (fork.metadata, fork.client) == ({"k": 1}, chat.client)
    fork.append("user", "only here")
    fork.metadata["k"] = 2
    fork.config.seed = 3
    assert texts(chat) == ["S", "q", "a"]
    assert (chat.metadata, chat.config) == ({"k": 1}, GenerationConfig())
    assert faces.run(fork.fork().send("q")).text == "b"


def test_regenerate_replaces_the_last_turn_with_new_items(faces) -> None:
    model = ScriptedModel("a1", "a2", "b2", "c2")
    chat = faces.client_of(model).chat(system="S")
    faces.run(chat.send("q1"))
    faces.run(chat.send("q2"))
    old = list(chat.items)
    assert faces.run(chat.regenerate()).text == "b2"
    assert texts(chat) == ["S", "q1", "a1", "q2", "b2"]
    assert [new.id == item.id for new, item in zip(chat.items, old, strict=True)] == [True] * 3 + [
        False
    ] * 2
    faces.run(chat.regenerate("other"))
    assert texts(chat) == ["S", "q1", "a1", "other", "c2"]
    assert [m["content"] for m in model.requests[3].messages] == ["S", "q1", "a1", "other"]


def test_a_failed_regenerate_keeps_the_old_answer(faces) -> None:
    chat = faces.chat("a", [ValueError("broken")])
    faces.run(chat.send("q"))
    with pytest.raises(ValueError, match="broken"):
        faces.run(chat.regenerate())
    assert texts(chat) == ["q", "a"]


def test_an_item_that_is_sent_twice_is_two_items_and_only_the_last_is_answered_again(faces) -> None:
    chat = faces.chat("a1", "a2", "a3")
    for _ in range(2):
        faces.run(chat.send(ITEM))
    faces.run(chat.regenerate())
    assert texts(chat) == ["a", "a1", "a", "a3"]
    assert chat.items[0] is ITEM
    assert len({item.id for item in chat.items}) == 4


def test_an_item_added_twice_is_copied_the_second_time() -> None:
    chat = Chat(messages=[ITEM, ITEM]).append(ITEM).insert(0, ITEM)
    assert texts(chat) == ["a"] * 4
    assert len({item.id for item in chat.items}) == 4
    assert chat.items[1] is ITEM


def test_a_chat_cannot_be_edited_while_its_model_is_opened() -> None:
    async def edit_before_the_model_is_open() -> None:
        async with AsyncClient("talu/pocket") as client:
            chat = client.chat(messages=[{"role": "user", "content": "q"}])
            answering = asyncio.create_task(chat.regenerate(max_tokens=1))
            await asyncio.sleep(0)  # it waits for the thread that opens the model
            with pytest.raises(StateError, match="not finished"):
                chat.clear()
            await answering
            assert len(chat.append("user", "editable again")) == 3

    asyncio.run(edit_before_the_model_is_open())


def test_regenerate_without_a_user_message_is_refused(faces) -> None:
    with pytest.raises(StateError, match="no user message") as caught:
        faces.run(faces.chat(system="S").regenerate())
    assert caught.value.code == "STATE_REGENERATE_NO_USER"


def test_a_chat_without_a_client_holds_its_history_and_does_not_answer() -> None:
    with Chat() as chat, pytest.raises(StateError, match="has no model") as caught:
        chat.send("Hi")
    assert caught.value.code == "STATE_NO_ROUTER"


def test_without_a_model_there_are_no_tokens_to_count() -> None:
    with pytest.raises(StateError, match="no model to count tokens with") as caught:
        Chat().count_tokens("Hi")
    assert caught.value.code == "STATE_NO_MODEL"


def test_a_closed_chat_only_shows_its_attributes(faces) -> None:
    chat = faces.chat("a")
    faces.run(chat.close())
    faces.run(chat.close())
    for use in (
        lambda: chat.items,
        lambda: chat.system,
        lambda: chat.messages,
        lambda: chat.append("user", "q"),
        lambda: faces.run(chat.send("q")),
        lambda: faces.run(chat("q")),
        lambda: chat.count_tokens(),
        lambda: chat.fork(),
        lambda: chat.to_dict(),
        lambda: chat.to_json(),
        lambda: setattr(chat, "system", "S"),
        lambda: setattr(chat, "config", GenerationConfig(seed=1)),
        lambda: setattr(chat, "marker", "pinned"),
        lambda: setattr(chat, "metadata", {"a": 1}),
        lambda: setattr(chat, "title", "T"),
    ):
        with pytest.raises(StateError, match="chat has been closed") as caught:
            use()
        assert caught.value.code == "CHAT_CLOSED"
    assert (chat.config, chat.marker, chat.metadata, chat.title) == (
        GenerationConfig(),
        "",
        {},
        None,
    )
    assert "closed" in repr(chat)


def test_closing_a_chat_stops_its_unfinished_answer_and_leaves_the_client_open(faces) -> None:
    model = ScriptedModel("one two three", "other")
    client = faces.client_of(model)
    chat = client.chat()
    stream = faces.run(chat("Hi"))
    faces.run(chat.close())
    assert faces.read(stream) == []
    assert faces.run(client.ask("Hi")).text == "other"


def test_closing_a_chat_ends_the_answer_that_another_thread_waits_for() -> None:
    seen, gate = threading.Event(), threading.Event()
    model = ScriptedModel("before", ["one", seen.set, gate.wait, "two", "three"])
    chat = Client(ModelSpec("m", model)).chat()
    chat.send("Hi")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat.send, "Hi")
        assert seen.wait(30)
        chat.close()
        gate.set()
        assert (answer.result(30).text, answer.result().finish_reason) == ("one", "cancelled")


def test_closing_a_chat_ends_the_answer_that_another_task_waits_for() -> None:
    async def main() -> None:
        seen, gate = asyncio.Event(), asyncio.Event()
        model = ScriptedModel(["one", seen.set, gate.wait, "two", "three"])
        chat = AsyncClient(ModelSpec("m", model)).chat()
        sending = asyncio.create_task(chat.send("Hi"))
        await seen.wait()
        await chat.close()
        gate.set()
        answer = await sending
        assert (answer.text, answer.finish_reason) == ("one", "cancelled")

    asyncio.run(main())


def test_a_chat_of_a_closed_client_shows_its_history_and_does_not_answer(faces) -> None:
    client = faces.client("a")
    chat = client.chat()
    faces.run(chat.send("q"))
    faces.run(client.close())
    assert texts(chat) == ["q", "a"]
    with pytest.raises(StateError, match="client has been closed"):
        faces.run(chat.send("q"))


def test_last_response_is_the_latest_answer_streamed_or_not(faces) -> None:
    chat = faces.chat("a", "b")
    assert chat.last_response is None
    assert faces.run(chat.send("q")) is chat.last_response
    stream = faces.run(chat("q"))
    assert stream is chat.last_response
    faces.run(stream.close())


def test_chats_of_one_client_do_not_mix_even_when_their_streams_alternate(faces) -> None:
    client = faces.client("a1 a2", "b1 b2")
    alice, bob = client.chat(system="A"), client.chat(system="B")
    one, two = faces.run(alice("to alice")), faces.run(bob("to bob"))
    if faces.name == "sync":
        pieces = [piece for pair in zip(one, two, strict=True) for piece in pair]
        assert pieces == ["a1", "b1", " a2", " b2", "", ""]
    faces.read(one), faces.read(two)
    assert texts(alice) == ["A", "to alice", "a1 a2"]
    assert texts(bob) == ["B", "to bob", "b1 b2"]


@pytest.mark.parametrize(
    "message",
    [
        "one two",
        InputText("one two"),
        {"type": "text", "text": "one two"},
        ["one ", InputText("two")],
        [{"type": "input_text", "text": "one "}, "two"],
        MessageItem.create("user", "one two"),
    ],
)
def test_a_message_may_be_text_parts_or_an_item(faces, message) -> None:
    model = ScriptedModel("a")
    faces.run(faces.client_of(model).ask(message))
    assert list(model.requests[0].messages) == [{"role": "user", "content": "one two"}]


def test_a_list_of_messages_is_sent_in_order(faces) -> None:
    model = ScriptedModel("a")
    chat = faces.client_of(model).chat()
    faces.run(chat.send([MessageItem.create("developer", "d"), "one", "two"]))
    assert [(m["role"], m["content"]) for m in model.requests[0].messages] == [
        ("developer", "d"),
        ("user", "onetwo"),
    ]


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (3, "cannot hold 3"),
        (None, "cannot hold None"),
        (b"bytes", "cannot hold b'bytes'"),
        ([["nested"]], "cannot hold"),
        ({"type": "image", "image_url": "x"}, "takes text only"),
        ({"type": "text"}, "use text, InputText"),
        ({"type": "telepathy"}, "use text, InputText"),
    ],
)
def test_a_message_of_another_type_is_refused(faces, message, match) -> None:
    chat = faces.chat("a")
    with pytest.raises(ValidationError, match=match):
        faces.run(chat.send(message))
    assert len(chat.items) == 0


def test_an_empty_message_is_a_message(faces) -> None:
    chat = faces.chat("a", "b")
    faces.run(chat.send(""))
    faces.run(chat.send([]))
    assert texts(chat) == ["", "a", "", "b"]


def test_counting_tokens_counts_the_next_prompt_and_changes_nothing(faces) -> None:
    chat = faces.chat(system="one two")
    assert chat.count_tokens() == 3
    assert chat.count_tokens("three") == 5
    assert len(chat.items) == 1
    assert faces.chat().count_tokens() == 0


def test_preview_shows_the_prompt_of_the_next_answer(faces) -> None:
    chat = faces.chat(system="S").append("user", "q")
    assert chat.preview_prompt() == "system: S\nuser: q"
    with pytest.raises(ValidationError, match="add_generation_prompt must be True or False"):
        chat.preview_prompt(GenerationConfig())


def test_the_context_length_is_the_models(faces) -> None:
    assert faces.client_of(ScriptedModel(max_context_length=99)).chat().max_context_length == 99
    assert Chat().max_context_length is None


def test_the_template_of_a_call_overrides_that_of_the_chat(faces) -> None:
    class Template:
        source = "call"

    model = ScriptedModel("a", "b")
    chat = faces.client_of(model).chat(chat_template="chat")
    faces.run(chat.send("q"))
    faces.run(chat.send("q", chat_template=Template()))
    assert [request.chat_template for request in model.requests] == ["chat", "call"]


def test_a_stored_chat_comes_back_item_by_item(faces) -> None:
    steps = [ReasoningDelta("Hm"), "a", ToolCallEvent("c1", "add", "{}")]
    chat = faces.chat(
        steps,
        "one two",
        system="S",
        config=GenerationConfig(seed=1, stop_sequences=["x"]),
        session_id="s",
        parent_session_id="p",
        marker="pinned",
        metadata={"k": [1]},
        chat_template="T",
    )
    faces.run(chat.send("q"))
    faces.read_some(faces.run(chat.submit_tool_results({"c1": "r"}, stream=True)), 1)
    chat.append_hidden("user", "h")
    chat.title = "T"
    stored = json.loads(json.dumps(chat.to_dict()))
    again = type(chat).from_dict(stored, client=chat.client)
    assert list(again.items) == list(chat.items)
    assert again.to_dict() == chat.to_dict()
    assert again.title == "T"
    assert again.items.filter_by_type(ReasoningItem)[0].text == "Hm"
    assert again.items[-2].status is ItemStatus.INCOMPLETE
    assert type(again) is {"sync": Chat, "async": AsyncChat}[faces.name]


def test_to_json_gives_text_that_messages_accepts(faces) -> None:
    chat = faces.chat("Zwölf 🙂", system='Say "ja"\n')
    faces.run(chat.send("8 + 4 = ?"))
    text = chat.to_json()
    assert json.loads(text) == chat.messages == chat.to_dict()["messages"]
    assert "Zwölf 🙂" in text
    assert faces.client("a").chat(messages=json.loads(text)).messages == chat.messages
    assert Chat().to_json() == "[]"


def test_a_chat_restored_from_messages_alone_continues(faces) -> None:
    client = faces.client("a")
    data = {"messages": [{"role": "user", "content": "q"}]}
    chat = type(client.chat()).from_dict(data, client=client)
    faces.run(chat.send("more"))
    assert texts(chat) == ["q", "more", "a"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"version": 2}, "stored in version 2; this talu reads 1"),
        ({"items": [{"type": "message"}]}, r"items\[0\] is not a record"),
        ({"items": [{"type": "dream"}]}, r"items\[0\] is not a record .*dream"),
        ({"items": [3]}, r"items\[0\] is not a record"),
        ({"items": [CALL | {"name": 5}]}, r"items\[0\] .*name must be of type str, got 5"),
        ({"items": [CALL | {"created_at_ms": "now"}]}, "created_at_ms must be of type int"),
        ({"items": [CALL | {"hidden": "no"}]}, "hidden must be of type bool"),
        ({"items": [{"type": "message", "role": "king", "content": []}]}, "KING"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]\['content'\] is missing"),
        ({"items": [], "config": {"heat": 1}}, "unknown generation parameter 'heat'"),
        ({"items": [], "marker": "x"}, "marker must be"),
        ({"config": [1]}, r"config of a stored chat must be of type dict, got \[1\]"),
        ({"items": {}}, "items of a stored chat must be of type list"),
        ({"model": 3}, "model of a stored chat must be of type str"),
        ([], r"a stored chat is a dictionary, got \[\]"),
        ({}, "a stored chat needs items or messages"),
        ({"items": None, "messages": []}, "items of a stored chat must be of type list, got None"),
        ({"items": [], "config": None}, "config of a stored chat must be of type dict, got None"),
        ({"items": [], "metadata": None}, "metadata of a stored chat must be .* dict, got None"),
        ({"items": [], "marker": None}, "marker of a stored chat must be of type str, got None"),
        ({"items": [], "version": True}, "version of a stored chat must be of type int"),
        ({"title": "T"}, "a stored chat needs items or messages"),
        ({"foo": 1, "items": []}, "'foo' is not a key of a stored chat"),
        ({"itmes": []}, "'itmes' is not a key of a stored chat; did you mean 'items'"),
        ({"items": [], "title": "x" * 1001}, "title must be text of at most 1000 characters"),
    ],
)
def test_the_error_for_a_damaged_stored_chat_says_where(data, match) -> None:
    with pytest.raises(ValidationError, match=match):
        Chat.from_dict(data)


@pytest.mark.parametrize("wrong", [[1], "a", None, 5])
def test_metadata_that_is_not_a_dictionary_is_refused(wrong) -> None:
    with pytest.raises(ValidationError, match="metadata must be a dictionary"):
        Chat().metadata = wrong


@pytest.mark.parametrize("title", ["x" * 1001, "\ud800", 3, b"T"])
def test_a_title_that_cannot_be_stored_is_refused(title) -> None:
    chat = Chat()
    with pytest.raises(ValidationError, match="title must be text of at most 1000"):
        chat.title = title
    assert chat.title is None


@pytest.mark.parametrize("id_", ["", "x" * 201, "a\nb", "\ud800", "a\x00b", 7])
@pytest.mark.parametrize("name", ["session_id", "parent_session_id"])
def test_an_id_that_cannot_be_stored_is_refused(name, id_) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be printable text of 1 to 200"):
        Chat(**{name: id_})


def test_an_array_in_the_place_of_a_text_is_refused() -> None:
    array = np.zeros(3)
    for arguments in ({"system": array}, {"marker": array}, {"session_id": array}):
        with pytest.raises(ValidationError, match="must be"):
            Chat(**arguments)
    with pytest.raises(ValidationError, match=r"messages\[0\]\['role'\]"):
        Chat(messages=[{"role": array, "content": "a"}])


def test_a_note_says_when_the_template_does_not_show_names() -> None:
    history = [{"role": "user", "name": "Ann", "content": "Hi"}]
    shows = "{% for m in messages %}{{ m.role }} {{ m.name }}: {{ m.content }}{% endfor %}"
    note = "the chat template does not show the model the names of messages"
    with Client("talu/pocket") as client:
        for template, messages, noted in (
            (None, history, True),
            (shows, history, False),
            (None, [], False),
        ):
            chat = client.chat(messages=messages, chat_template=template)
            assert (note in chat.send("Who am I?", max_tokens=1).notes) is noted

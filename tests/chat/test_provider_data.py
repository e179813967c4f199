"""The data that a provider wants back with its reasoning and its tool calls."""

import json

import pytest

from talu import Client, Profile
from talu.backends.scripted import ScriptedModel
from talu.chat import Chat, FunctionCallItem, Hook, ReasoningItem
from talu.exceptions import TaluError, ValidationError
from talu.hooks.otel_messages import input_messages, output_messages
from talu.template import PromptTemplate
from talu.types import ReasoningDelta, ReasoningEnd, ToolCallEvent

SIGNED = {"provider": "anthropic", "signature": "c2lnbmVk"}
REDACTED = {"provider": "anthropic", "redacted": "b3BhcXVl"}
CALL = {"provider": "anthropic", "extra": {"thought": ["dG9rZW4="]}}
SCRIPT = [
    ReasoningDelta("First", provider="anthropic"),
    ReasoningDelta(" this."),
    ReasoningEnd(SIGNED),
    ReasoningEnd(REDACTED),
    ReasoningDelta(" Then that.", provider="anthropic"),
    "Done.",
    ToolCallEvent("c1", "add", "{}", CALL),
    ToolCallEvent("c2", "add", "{}"),
]
MESSAGE = {
    "role": "assistant",
    "content": "Done.",
    "reasoning_content": "First this. Then that.",
    "provider_data": {
        "provider": "anthropic",
        "reasoning": [
            {"text": "First this.", "signature": "c2lnbmVk"},
            {"text": "", "redacted": "b3BhcXVl"},
            {"text": " Then that."},
        ],
    },
    "tool_calls": [
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "add", "arguments": "{}"},
            "provider_data": CALL,
        },
        {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{}"}},
    ],
}
SECRETS = ("c2lnbmVk", "b3BhcXVl", "dG9rZW4=")


def reasoning(chat) -> list[tuple[str, object]]:
    return [(item.text, item.provider_data) for item in chat.items.filter_by_type(ReasoningItem)]


def test_each_block_of_reasoning_becomes_an_item_with_its_data(faces) -> None:
    chat = faces.chat(SCRIPT)
    answer = faces.run(chat.send("Hi"))
    assert reasoning(chat) == [
        ("First this.", SIGNED),
        ("", REDACTED),
        (" Then that.", {"provider": "anthropic"}),
    ]
    assert answer.reasoning == "First this. Then that."
    calls = chat.items.filter_by_type(FunctionCallItem)
    assert [call.provider_data for call in calls] == [CALL, None]


def test_the_next_request_carries_the_data_back(faces) -> None:
    model = ScriptedModel(SCRIPT, "more")
    chat = faces.client_of(model).chat()
    faces.run(chat.send("Hi"))
    results = {call["id"]: "1" for call in MESSAGE["tool_calls"]}
    faces.run(chat.submit_tool_results(results))
    assert model.requests[1].messages[1] == MESSAGE


def test_reasoning_of_a_local_model_has_no_data(faces) -> None:
    chat = faces.chat([ReasoningDelta("hm"), "Hi"])
    faces.run(chat.send("Hi"))
    assert reasoning(chat) == [("hm", None)]
    assert "provider_data" not in chat.messages[1]


def test_messages_restore_the_same_items(faces) -> None:
    chat = faces.chat(SCRIPT)
    faces.run(chat.send("Hi"))
    again = Chat(messages=json.loads(chat.to_json()))
    assert reasoning(again) == reasoning(chat)
    assert again.messages == chat.messages


@pytest.mark.usefixtures("home")
def test_a_profile_keeps_the_data(faces) -> None:
    chat = faces.client(SCRIPT, profile=Profile("work")).chat()
    faces.run(chat.send("Hi"))
    again = faces.client("", profile=Profile("work")).chat(session_id=chat.session_id)
    assert list(again.items) == list(chat.items)


@pytest.mark.usefixtures("home")
def test_an_exported_profile_keeps_the_data(faces, tmp_path) -> None:
    chat = faces.client(SCRIPT, profile=Profile("work")).chat()
    faces.run(chat.send("Hi"))
    Profile("work").export(tmp_path / "chats.jsonl")
    Profile("other").import_(tmp_path / "chats.jsonl")
    again = faces.client("", profile=Profile("other")).chat(session_id=chat.session_id)
    assert list(again.items) == list(chat.items)


def test_a_dictionary_of_the_chat_keeps_the_data_and_a_fork_too(faces) -> None:
    chat = faces.chat(SCRIPT)
    faces.run(chat.send("Hi"))
    assert list(Chat.from_dict(json.loads(json.dumps(chat.to_dict()))).items) == list(chat.items)
    assert list(chat.fork().items) == list(chat.items)


def test_an_item_without_data_is_stored_as_before(faces) -> None:
    chat = faces.chat([ReasoningDelta("hm"), ToolCallEvent("c1", "add", "{}")])
    faces.run(chat.send("Hi"))
    assert "provider_data" not in json.dumps(chat.to_dict())


def test_a_change_of_the_messages_does_not_change_the_items(faces) -> None:
    chat = faces.chat(SCRIPT)
    faces.run(chat.send("Hi"))
    chat.messages[1]["provider_data"]["reasoning"][0]["signature"] = "changed"
    chat.messages[1]["tool_calls"][0]["provider_data"]["extra"]["thought"].clear()
    assert chat.messages[1] == MESSAGE


def test_of_two_providers_before_one_message_the_last_one_counts() -> None:
    chat = Chat()
    other = Chat(
        messages=[MESSAGE, {"role": "assistant", "content": "x", "reasoning_content": "y"}]
    )
    blocks = other.items.filter_by_type(ReasoningItem)
    chat._history.items += [*blocks, other.items[-1]]
    assert chat.messages == [{"role": "assistant", "content": "x", "reasoning_content": "y"}]


def test_texts_for_people_do_not_show_the_data(faces) -> None:
    seen = []

    class Spy(Hook):
        def for_generation(self, generation):
            seen.append(generation)
            return self

        def on_generation_end(self, chat, response, *, error=None):
            seen.append(output_messages(response))

    client = faces.client(SCRIPT, SCRIPT, hooks=[Spy()])
    chat = client.chat()
    answer = faces.run(chat.send("Hi"))
    faces.run(chat.submit_tool_results({call.id: "1" for call in answer.tool_calls}))
    generation = seen[2]
    assert generation.messages[1]["reasoning_content"] == MESSAGE["reasoning_content"]
    shown = [generation, input_messages(generation), seen[1], seen[3], chat.messages, chat.items]
    shown += [list(chat.items), answer, answer.to_dict(), answer.tool_calls, SCRIPT]
    text = repr(shown)
    assert [secret for secret in SECRETS if secret in text] == []


def test_a_template_sees_neither_the_data_nor_the_reasoning_it_belongs_to() -> None:
    template = PromptTemplate("{% for m in messages %}{{ m }}{% endfor %}")
    text = template.apply([{"role": "user", "content": "Hi"}, MESSAGE])
    assert [secret for secret in (*SECRETS, "provider_data", "First") if secret in text] == []
    assert "Done." in text
    assert text.count("'name': 'add'") == 2


def test_a_local_model_notes_that_it_does_not_see_the_reasoning_of_another() -> None:
    with Client("talu/pocket") as client:
        chat = client.chat(messages=[{"role": "user", "content": "Hi"}, MESSAGE])
        results = {call["id"]: "1" for call in MESSAGE["tool_calls"]}
        answer = chat.submit_tool_results(results, max_tokens=1, temperature=0)
        assert "First" not in answer.prompt
        assert [note for note in answer.notes if "reasoning of other providers" in note]
        plain = client.chat(messages=[{"role": "user", "content": "Hi"}])
        assert plain.send("And?", max_tokens=1, temperature=0).notes == ()


DEEP: list[object] = []
for _ in range(200):
    DEEP = [DEEP]
WRONG = {
    "text": ("anthropic", "must be a dictionary with the name"),
    "no provider": ({"signature": "x"}, "must be a dictionary with the name"),
    "empty provider": ({"provider": ""}, "must be a dictionary with the name"),
    "a text of its own": ({"provider": "a", "text": "x"}, 'without a key "text"'),
    "bytes": ({"provider": "a", "b": b"x"}, "must be plain JSON"),
    "too large": ({"provider": "a", "b": "x" * 1_000_001}, "at most 1,000,000 characters"),
    "too deep": ({"provider": "a", "b": DEEP}, "nested at most 100 levels"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_data_of_a_backend_fails_the_turn_and_leaves_the_history(faces, wrong) -> None:
    data, message = WRONG[wrong]
    for event in (ReasoningEnd(data), ToolCallEvent("c1", "add", "{}", data)):
        chat = faces.chat([event])
        with pytest.raises(ValidationError, match=f"provider_data .*{message}") as caught:
            faces.run(chat.send("Hi"))
        assert len(str(caught.value)) < 500
        assert len(chat.items) == 0


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_data_in_an_item_is_refused(wrong) -> None:
    data, message = WRONG[wrong]
    with pytest.raises(ValidationError, match=message):
        ReasoningItem(content=(), provider_data=data)
    with pytest.raises(ValidationError, match=message):
        FunctionCallItem(name="add", call_id="c1", arguments="{}", provider_data=data)


MESSAGES = {
    "not a dictionary": ({"provider_data": "x"}, r"\['provider_data'\] must be a dictionary"),
    "no blocks": ({"provider_data": {"provider": "a"}}, "must be a dictionary"),
    "unknown key": (
        {"provider_data": {"provider": "a", "reasoning": [], "reasoningg": 1}},
        "did you mean 'reasoning'",
    ),
    "block without text": (
        {"provider_data": {"provider": "a", "reasoning": [{"signature": "x"}]}},
        r"\['reasoning'\]\[0\] must be a dictionary with a text",
    ),
    "block of another provider": (
        {"provider_data": {"provider": "a", "reasoning": [{"text": "x", "provider": "b"}]}},
        r"\['reasoning'\]\[0\]\['provider'\] is not allowed",
    ),
    "no provider": (
        {"provider_data": {"reasoning": [{"text": "x"}]}},
        "must be a dictionary with the name of the provider",
    ),
    "other text": (
        {
            "reasoning_content": "y",
            "provider_data": {"provider": "a", "reasoning": [{"text": "x"}]},
        },
        r"\['reasoning_content'\] must be the joined texts",
    ),
    "lone surrogate": (
        {"provider_data": {"provider": "a", "reasoning": [{"text": "\ud800"}]}},
        "surrogate",
    ),
    "tool call": (
        {"tool_calls": [{**MESSAGE["tool_calls"][1], "provider_data": {"x": 1}}]},
        r"\['tool_calls'\]\[0\]\['provider_data'\] must be a dictionary with the name",
    ),
}


@pytest.mark.parametrize("wrong", MESSAGES)
def test_wrong_data_in_a_message_is_refused_with_its_place(wrong) -> None:
    keys, message = MESSAGES[wrong]
    with pytest.raises(TaluError, match=rf"messages\[0\].*{message}"):
        Chat(messages=[{"role": "assistant", "content": "Hi", **keys}])

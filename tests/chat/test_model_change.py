"""A chat that changes its model between turns."""

import pytest

from talu import Client, Profile
from talu.backends.scripted import ScriptedModel
from talu.chat import Chat
from talu.exceptions import StateError, ValidationError
from talu.router import ModelSpec
from talu.types import ReasoningDelta, ReasoningEnd, ToolCallEvent


def models(*second: str) -> list[ScriptedModel]:
    return [
        ScriptedModel("from one", "again one", model="one"),
        ScriptedModel(*second, model="two"),
    ]


def test_the_next_answer_comes_from_the_new_model_with_the_whole_history(faces) -> None:
    one, two = models("from two")
    chat = faces.client_of(one, two).chat()
    faces.run(chat.send("Hi"))
    chat.model = "two"
    answer = faces.run(chat.send("And?"))
    assert (answer.text, answer.model, chat.model) == ("from two", "two", "two")
    assert [message["content"] for message in two.requests[0].messages] == [
        "Hi",
        "from one",
        "And?",
    ]
    assert [item.generation["model"] for item in chat.items.filter_by_role("assistant")] == [
        "one",
        "two",
    ]


def test_the_chat_can_return_to_its_first_model(faces) -> None:
    chat = faces.client_of(*models("from two")).chat()
    faces.run(chat.send("Hi"))
    chat.model = "two"
    faces.run(chat.send("And?"))
    chat.model = "one"
    assert faces.run(chat.send("Well?")).text == "again one"


def test_regenerate_asks_the_new_model(faces) -> None:
    chat = faces.client_of(*models("from two")).chat()
    faces.run(chat.send("Hi"))
    chat.model = "two"
    assert faces.run(chat.regenerate()).text == "from two"
    assert [item.text for item in chat.items] == ["Hi", "from two"]


def test_a_fork_keeps_the_new_model_and_other_chats_keep_theirs(faces) -> None:
    client = faces.client_of(*models("from two"))
    chat, other = client.chat(), client.chat()
    before = chat.fork()
    chat.model = "two"
    assert (chat.fork().model, before.model, other.model) == ("two", "one", "one")


def test_an_unknown_model_is_refused_and_the_nearest_is_named(faces) -> None:
    client = faces.client_of(ScriptedModel("a", model="large"), ScriptedModel(model="small"))
    chat = client.chat()
    with pytest.raises(ValidationError, match="did you mean 'small'") as caught:
        chat.model = "smal"
    assert caught.value.details["param"] == "model"
    for wrong in (None, 3, ["small"]):
        with pytest.raises(ValidationError, match="'large', 'small'"):
            chat.model = wrong
    assert chat.model == "large"
    assert faces.run(chat.send("Hi")).text == "a"


def test_a_change_is_refused_while_an_answer_is_read(faces) -> None:
    chat = faces.client_of(*models()).chat()
    refused = []

    def change(_piece: str) -> None:
        with pytest.raises(StateError) as caught:
            chat.model = "two"
        refused.append(caught.value.code)

    faces.run(chat.send("Hi", on_token=change))
    assert set(refused) == {"STATE_BUSY"}
    assert chat.model == "one"
    chat.model = "two"
    assert chat.model == "two"


def test_the_same_model_does_not_end_an_unread_stream(faces) -> None:
    chat = faces.client_of(*models()).chat()
    stream = faces.run(chat("Hi"))
    chat.model = "one"
    assert "".join(faces.read(stream)) == "from one"


def test_a_closed_chat_and_a_chat_without_a_model_refuse_it(faces) -> None:
    chat = faces.client_of(*models()).chat()
    faces.run(chat.close())
    for refusing in (chat, Chat()):
        with pytest.raises(StateError):
            refusing.model = "two"


@pytest.mark.usefixtures("home")
def test_the_change_is_stored_at_once(faces) -> None:
    client = faces.client_of(*models("from two"), profile=Profile("work"))
    chat = client.chat()
    faces.run(chat.send("Hi"))
    chat.model = "two"
    assert Profile("work").sessions()[0]["model"] == "two"
    again = faces.client_of(*models("more"), profile=Profile("work")).chat(
        session_id=chat.session_id
    )
    assert again.model == "two"
    assert faces.run(again.send("And?")).text == "more"


def test_a_local_model_gets_the_tool_calls_but_not_the_reasoning_of_a_remote_one() -> None:
    script = [
        ReasoningDelta("secret thought", provider="anthropic"),
        ReasoningEnd({"provider": "anthropic", "signature": "c2lnbmVk"}),
        "I add.",
        ToolCallEvent("c1", "add", '{"a": 1}'),
    ]
    remote = ModelSpec("remote", ScriptedModel(script, "more"))
    with Client([remote, "talu/pocket"]) as client:
        chat = client.chat()
        chat.send("Hi")
        chat.model = "talu/pocket"
        chat.submit_tool_results({"c1": 2}, max_tokens=2, temperature=0)
        prompt = chat.last_response.prompt
        assert [text for text in ("secret thought", "c2lnbmVk") if text in prompt] == []
        assert '{"name": "add", "arguments": {"a": 1}}' in prompt
        chat.model = "remote"
        chat.send("Well?")
        assert chat.messages[1]["provider_data"]["provider"] == "anthropic"

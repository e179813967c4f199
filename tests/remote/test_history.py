"""The history of a chat with remote models: after a break, and with several providers."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.server import Cut, Gate, Server

from talu import AnthropicBackend, ModelSpec, OpenAICompatibleBackend, ScriptedModel
from talu.chat import ItemStatus, ReasoningItem
from talu.exceptions import EndpointError
from talu.types import ReasoningDelta

Serve = Callable[..., Server]
CUT = replies.stream(replies.delta("Once"), replies.delta(" upon"), Cut())
THOUGHT = replies.delta(reasoning_content="secret thought")
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": 1}}

NOT_SENT = "the reasoning of other models in the history was not sent"


def chat_spec(server: Server, name: str = "chat") -> ModelSpec:
    return ModelSpec(name, OpenAICompatibleBackend(base_url=server.base_url, max_retries=0))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chat_goes_on_from_what_had_arrived_before_a_break(
    faces: Any, serve: Serve, stream: bool
) -> None:
    server = serve(CUT, replies.chat(" a time"))
    client = faces.face.client_class(chat_spec(server))
    chat = client.chat()
    with pytest.raises(EndpointError) as caught:
        faces.read(faces.run(chat("Hi"))) if stream else faces.run(chat.send("Hi"))
    assert caught.value.code == "STREAM_BROKEN"
    assert caught.value.details["response"].text == "Once upon"
    assert [item.text for item in chat.items] == ["Hi", "Once upon"]
    assert chat.items.last.status is ItemStatus.INCOMPLETE
    assert faces.run(chat.send("Go on.")).text == " a time"
    assert [message["content"] for message in server.requests[1].json["messages"]] == [
        "Hi",
        "Once upon",
        "Go on.",
    ]
    faces.run(client.close())


def test_a_tool_call_that_came_before_a_break_is_not_sent_back(faces: Any, serve: Serve) -> None:
    """A server refuses a conversation in which a tool call has no result."""
    pieces = (replies.message_start(), *replies.text_block(0, "Let me look."))
    server = serve(
        replies.stream(*pieces, *replies.block(1, TOOL), Cut()), replies.message("Found.")
    )
    backend = AnthropicBackend(base_url=server.url, max_retries=0)
    other = serve(replies.chat("Well."))
    client = faces.face.client_class([ModelSpec("messages", backend), chat_spec(other)])
    chat = client.chat()
    with pytest.raises(EndpointError) as caught:
        faces.run(chat.send("Where?"))
    assert [call.name for call in caught.value.details["response"].tool_calls] == ["look"]
    answers = [faces.run(chat.send("Go on."))]
    chat.model = "chat"
    answers.append(faces.run(chat.send("And?")))
    for answer in answers:
        assert any("a tool call was not sent to the model" in note for note in answer.notes)
    sent = [message["content"] for message in server.requests[1].json["messages"]]
    assert [[part["type"] for part in content] for content in sent] == [["text"]] * 3
    assert other.requests[0].json["messages"][:2] == [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Let me look."},
    ]
    faces.run(client.close())


def test_reasoning_that_a_reader_stopped_names_its_provider(faces: Any, serve: Serve) -> None:
    gate = Gate()
    server = serve(replies.stream(THOUGHT, replies.delta("Hi"), gate, replies.delta("never")))
    client = faces.face.client_class(chat_spec(server))
    chat = client.chat()
    faces.read_some(faces.run(chat("Hi")), 1)
    gate.open()
    (reasoning,) = chat.items.filter_by_type(ReasoningItem)
    assert reasoning.text == "secret thought"
    assert reasoning.provider_data["provider"]
    faces.run(client.close())


def test_another_provider_gets_the_tool_calls_and_no_reasoning(faces: Any, serve: Serve) -> None:
    thinking = replies.stream(
        replies.message_start(),
        *replies.thinking_block(0, "sig-1", "secret thought"),
        *replies.text_block(1, "Let me look."),
        *replies.block(2, TOOL),
        *replies.message_end("tool_use"),
    )
    first = serve(thinking, replies.message("Well."))
    second = serve(
        replies.stream(THOUGHT, *replies.chat_events("Found.")), replies.chat("Still there.")
    )
    backend = AnthropicBackend(base_url=first.url, max_retries=0)
    client = faces.face.client_class([ModelSpec("messages", backend), chat_spec(second)])
    chat = client.chat()
    faces.run(chat.send("Where?"))
    chat.model = "chat"
    found = faces.run(chat.submit_tool_results({"toolu_1": "here"}))
    assert (found.text, NOT_SENT in found.notes) == ("Found.", True)
    assert second.requests[0].json["messages"][1] == {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [
            {
                "id": "toolu_1",
                "type": "function",
                "function": {"name": "look", "arguments": '{"a": 1}'},
            }
        ],
    }
    chat.model = "messages"
    well = faces.run(chat.send("And?"))
    assert (well.text, NOT_SENT in well.notes) == ("Well.", True)
    sent = first.requests[1].json["messages"]
    assert sent[1]["content"] == [
        {"type": "thinking", "thinking": "secret thought", "signature": "sig-1"},
        {"type": "text", "text": "Let me look."},
        TOOL,
    ]
    assert sent[3]["content"] == [{"type": "text", "text": "Found."}]
    assert b"secret" not in second.requests[0].body
    faces.run(client.close())


def test_reasoning_that_its_own_server_does_not_want_back_is_left_out_without_a_note(
    faces: Any, serve: Serve
) -> None:
    server = serve(replies.stream(THOUGHT, *replies.chat_events("Hi")), replies.chat("Well."))
    client = faces.face.client_class(chat_spec(server))
    chat = client.chat()
    faces.run(chat.send("Hi"))
    assert NOT_SENT not in faces.run(chat.send("And?")).notes
    assert b"secret" not in server.requests[1].body
    faces.run(client.close())


def test_the_reasoning_of_a_local_model_is_not_sent_and_a_note_says_so(
    faces: Any, serve: Serve
) -> None:
    server = serve(replies.chat("Well."))
    local = ModelSpec("local", ScriptedModel([ReasoningDelta("secret thought"), "Hi"]))
    client = faces.face.client_class([local, chat_spec(server)])
    chat = client.chat()
    faces.run(chat.send("Hi"))
    chat.model = "chat"
    assert NOT_SENT in faces.run(chat.send("And?")).notes
    assert b"secret" not in server.requests[0].body
    faces.run(client.close())

"""A request is answered without a chat, observed by the hooks of the client, and not stored."""

from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.chat import Hook
from talu.chat.completion import acomplete, complete
from talu.chat.requests import chat_request
from talu.config import GenerationConfig
from talu.exceptions import GenerationError, StateError, ValidationError
from talu.profile import Profile, list_sessions
from talu.types import Request, StopFlag

ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
AFTER_A_TOOL = [
    {"role": "user", "content": "Add."},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "4"},
]
PARTS = [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]


class Seen(Hook):
    """Records what the hooks are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def for_generation(self, generation) -> Hook:
        self.told.append((generation.operation, generation.stream, generation.messages))
        return self

    def on_generation_start(self, chat, input_text, *, config=None) -> None:
        self.told.append((chat, input_text, config.given))

    def on_generation_end(self, chat, response, *, error=None) -> None:
        self.told.append((chat, response and response.text, error and error.code))


def answer(faces, client, messages, *, stream: bool = False, **settings) -> Any:
    call = complete if faces.name == "sync" else acomplete
    request = chat_request(messages, GenerationConfig(**settings))
    return faces.run(call(client, request, stream=stream))


@pytest.mark.parametrize("messages", [ASKED, AFTER_A_TOOL, PARTS], ids=["user", "tool", "parts"])
def test_the_model_gets_the_messages_as_they_are(faces, messages) -> None:
    model = ScriptedModel("Hello there")
    got = answer(faces, faces.client_of(model), messages, seed=3)
    assert (got.text, got.finish_reason, got.chat) == ("Hello there", "stop", None)
    assert [message["role"] for message in model.requests[0].messages] == [
        message["role"] for message in messages
    ]
    assert model.requests[0].config.given == {"seed": 3}


def test_a_streamed_answer_is_read_in_pieces(faces) -> None:
    stream = answer(faces, faces.client("Hello there"), ASKED, stream=True)
    assert faces.read(stream) == ["Hello", " there", ""]
    assert stream.finish_reason == "stop"


def test_hooks_observe_it(faces) -> None:
    for stream in (False, True):
        seen = Seen()
        got = answer(faces, faces.client("one", hooks=[seen]), ASKED, stream=stream, seed=5)
        if stream:
            faces.read(got)
        assert seen.told == [
            ("chat", stream, tuple(ASKED)),
            (None, "Hi", {"seed": 5}),
            (None, "one", None),
        ]


def test_hooks_get_no_text_of_the_user_when_a_tool_result_is_answered(faces) -> None:
    seen = Seen()
    answer(faces, faces.client("one", hooks=[seen]), AFTER_A_TOOL)
    assert seen.told[1] == (None, "", {})


def test_a_failure_is_raised_and_observed(faces) -> None:
    seen = Seen()
    client = faces.client([GenerationError("no memory")], hooks=[seen])
    with pytest.raises(GenerationError, match="no memory"):
        answer(faces, client, ASKED)
    assert seen.told[-1] == (None, None, "GENERATION_FAILED")


def test_nothing_is_stored(faces, home) -> None:
    answer(faces, faces.client("one", profile=Profile("work")), ASKED)
    assert list_sessions(profile="work") == []


def test_the_answer_cannot_be_continued(faces) -> None:
    got = answer(faces, faces.client("one"), ASKED)
    with pytest.raises(StateError, match="does not belong to a chat"):
        faces.run(got.append("more"))


def test_a_stream_that_is_closed_in_the_middle_keeps_its_text(faces) -> None:
    model = ScriptedModel("one two three")
    stream = answer(faces, faces.client_of(model), ASKED, stream=True)
    faces.read_some(stream, 1)
    faces.run(stream.close())
    assert (stream.text, stream.finish_reason, model.active) == ("one", "cancelled", 0)


def test_a_stop_flag_ends_it(faces) -> None:
    flag = StopFlag()
    flag.signal()
    call = complete if faces.name == "sync" else acomplete
    request = chat_request(ASKED, GenerationConfig())
    got = faces.run(call(faces.client("one"), request, stop_flag=flag))
    assert got.finish_reason == "cancelled"


@pytest.mark.parametrize("messages", [[], ASKED[:1], [{"role": "assistant", "content": "Hi"}]])
def test_messages_that_leave_nothing_to_answer_are_refused(messages) -> None:
    with pytest.raises(ValidationError, match="must end with a user message") as caught:
        chat_request(messages, GenerationConfig())
    assert caught.value.details["param"] == "messages"


def test_a_prompt_is_continued_by_the_same_call(faces) -> None:
    call = complete if faces.name == "sync" else acomplete
    seen = Seen()
    got = faces.run(call(faces.client("one", hooks=[seen]), Request(prompt="Once")))
    assert got.text == "one"
    assert seen.told[0] == ("text_completion", False, None)
    assert seen.told[1] == (None, "Once", {})

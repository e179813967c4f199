"""A connection that breaks after the first piece: what had arrived of the answer is kept."""

import pickle

import pytest

from talu import Profile
from talu.backends.scripted import ScriptedModel
from talu.chat import FunctionCallItem, Hook, ItemStatus, MessageItem, ReasoningItem
from talu.exceptions import EndpointError, GenerationError, StateError, StorageError
from talu.types import ReasoningDelta, ToolCallEvent

INCOMPLETE = ItemStatus.INCOMPLETE


def broken(*pieces: object) -> list[object]:
    """A script whose connection breaks after these pieces."""
    return [*pieces, EndpointError("the connection broke", "STREAM_BROKEN", transient=True)]


def ask(faces, chat, *, stream: bool) -> EndpointError:
    """The error of an answer, read as a stream or as a whole."""
    with pytest.raises(EndpointError, match="the connection broke") as caught:
        faces.read(faces.run(chat("Hi"))) if stream else faces.run(chat.send("Hi"))
    return caught.value


def told(chat) -> list[tuple[str, ItemStatus]]:
    return [(item.text, item.status) for item in chat.items]


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request) -> bool:
    return request.param


def test_the_history_keeps_the_question_and_the_text_as_incomplete(faces, stream) -> None:
    chat = faces.chat(broken("Once", " upon"))
    ask(faces, chat, stream=stream)
    assert told(chat) == [("Hi", ItemStatus.COMPLETED), ("Once upon", INCOMPLETE)]
    assert chat.items[-1].generation["finish_reason"] == "error"


def test_the_error_has_the_partial_answer(faces, stream) -> None:
    chat = faces.chat(broken(ReasoningDelta("hm"), "Once", ToolCallEvent("c1", "add", "{}")))
    answer = ask(faces, chat, stream=stream).details["response"]
    assert (answer.text, answer.reasoning) == ("Once", "hm")
    assert [call.name for call in answer.tool_calls] == ["add"]
    assert answer.finish_reason == "error"
    assert answer.usage.completion_tokens == 1
    assert chat.last_response.text == "Once"


PIECES = {
    "reasoning": ([ReasoningDelta("hm")], [ReasoningItem, MessageItem]),
    "tool call": ([ToolCallEvent("c1", "add", "{}")], [FunctionCallItem]),
    "text": (["Once"], [MessageItem]),
}


@pytest.mark.parametrize("kind", PIECES)
def test_every_kind_of_piece_is_kept(faces, stream, kind) -> None:
    pieces, kinds = PIECES[kind]
    chat = faces.chat(broken(*pieces))
    ask(faces, chat, stream=stream)
    assert [type(item) for item in chat.items[1:]] == kinds
    assert {item.status for item in chat.items[1:]} == {INCOMPLETE}


@pytest.mark.parametrize("pieces", [(), ("",)], ids=["nothing", "an empty piece"])
def test_before_the_first_piece_the_turn_is_rolled_back(faces, stream, pieces) -> None:
    chat = faces.chat(broken(*pieces))
    error = ask(faces, chat, stream=stream)
    assert "response" not in error.details
    assert told(chat) == []


def test_another_failure_in_the_middle_is_rolled_back(faces) -> None:
    chat = faces.chat(["Once", GenerationError("the connection broke")])
    with pytest.raises(GenerationError, match="the connection broke"):
        faces.run(chat.send("Hi"))
    assert told(chat) == []


def test_the_chat_goes_on_after_a_break(faces, stream) -> None:
    model = ScriptedModel(broken("Once"), "upon a time")
    chat = faces.client_of(model).chat()
    ask(faces, chat, stream=stream)
    assert faces.run(chat.send("Go on.")).text == "upon a time"
    assert list(model.requests[1].messages) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Once"},
        {"role": "user", "content": "Go on."},
    ]
    assert [status for _, status in told(chat)].count(INCOMPLETE) == 1


CALL = ToolCallEvent("call_0", "add", "{}")


def sent_after(faces, chat, model) -> tuple[list[str], tuple[str, ...]]:
    """What the next request has of each message, and the notes of its answer."""
    answer = faces.run(chat.send("Go on."))
    roles = [
        message["role"] + " with a call" * ("tool_calls" in message)
        for message in model.requests[-1].messages
    ]
    return roles, answer.notes


def test_a_tool_call_of_a_broken_answer_is_not_sent_back_and_a_note_says_so(faces, stream) -> None:
    model = ScriptedModel(broken("Once", CALL, CALL), "fine")
    chat = faces.client_of(model).chat()
    ask(faces, chat, stream=stream)
    roles, (note,) = sent_after(faces, chat, model)
    assert roles == ["user", "assistant", "user"]
    assert note.startswith("2 tool calls were not sent to the model: the answer was incomplete")
    ids = [call.call_id for call in chat.items.filter_by_type(FunctionCallItem)]
    assert ids == ["call_0", "call_0_2"]  # the second one was given an id of its own


def test_a_tool_call_of_a_cancelled_answer_is_not_sent_back_either(faces) -> None:
    model = ScriptedModel(["Once", CALL, " upon", " a"], "fine")
    chat = faces.client_of(model).chat()
    faces.read_some(faces.run(chat("Hi")), 2)
    assert sent_after(faces, chat, model)[0] == ["user", "assistant", "user"]


def test_the_calls_of_a_complete_answer_wait_for_results_before_another_question(faces) -> None:
    model = ScriptedModel(["One", CALL], "fine")
    chat = faces.client_of(model).chat()
    faces.run(chat.send("Hi"))
    before = list(chat.items)
    with pytest.raises(StateError, match="wait for a result") as refused:
        sent_after(faces, chat, model)
    assert refused.value.code == "STATE_OPEN_CALLS"
    assert list(chat.items) == before


def test_the_partial_answer_can_be_continued_or_asked_for_again(faces, stream) -> None:
    chat = faces.chat(broken("Once"), "upon", "again")
    answer = ask(faces, chat, stream=stream).details["response"]
    assert faces.run(answer.append("Go on.", stream=False)).text == "upon"
    assert [text for text, _ in told(chat)] == ["Hi", "Once", "Go on.", "upon"]
    chat.pop().pop()
    assert faces.run(chat.regenerate()).text == "again"
    assert told(chat) == [("Hi", ItemStatus.COMPLETED), ("again", ItemStatus.COMPLETED)]


def test_a_fork_has_the_partial_answer_too(faces, stream) -> None:
    chat = faces.chat(broken("Once"), "upon")
    ask(faces, chat, stream=stream)
    fork = chat.fork()
    assert told(fork) == told(chat)
    assert faces.run(fork.send("Go on.")).text == "upon"


def test_a_stream_keeps_its_text_and_says_that_it_failed(faces) -> None:
    chat = faces.chat(broken("Once", " upon"))
    answer = faces.run(chat("Hi"))
    with pytest.raises(EndpointError):
        faces.read(answer)
    assert faces.read(answer) == []
    assert str(answer) == "Once upon"
    assert "failed" in repr(answer)
    assert chat.last_response.text == "Once upon"


def test_regenerate_keeps_the_old_answer_and_puts_the_text_into_the_error(faces) -> None:
    chat = faces.chat("fine", broken("Once"), "new")
    faces.run(chat.send("Hi"))
    before = list(chat.items)
    with pytest.raises(EndpointError) as caught:
        faces.run(chat.regenerate("Hello"))
    assert list(chat.items) == before
    partial = caught.value.details["response"]
    assert (partial.text, partial.finish_reason) == ("Once", "error")
    with pytest.raises(StateError, match="failed"):
        faces.run(partial.append("Go on."))
    assert chat.last_response.text == "fine"
    assert faces.run(chat.regenerate("Hello")).text == "new"


def test_hooks_see_one_end_with_the_error(faces, stream) -> None:
    seen = []

    class Spy(Hook):
        def on_generation_end(self, chat, response, *, error=None):
            seen.append((response, error))

    chat = faces.client(broken("Once"), hooks=[Spy()]).chat()
    error = ask(faces, chat, stream=stream)
    assert seen == [(None, error)]


@pytest.mark.usefixtures("home")
def test_a_profile_stores_the_partial_answer(faces, stream) -> None:
    chat = faces.client(broken("Once"), profile=Profile("work")).chat()
    ask(faces, chat, stream=stream)
    again = faces.client("upon", profile=Profile("work")).chat(session_id=chat.session_id)
    assert list(again.items) == list(chat.items)
    assert faces.run(again.send("Go on.")).text == "upon"


@pytest.mark.usefixtures("home")
def test_a_profile_keeps_the_old_answer_of_a_regeneration_that_breaks(faces) -> None:
    client = faces.client("fine", broken("Once"), profile=Profile("work"))
    chat = client.chat()
    faces.run(chat.send("Hi"))
    with pytest.raises(EndpointError):
        faces.run(chat.regenerate("Hello"))
    again = faces.client("", profile=Profile("work")).chat(session_id=chat.session_id)
    assert list(again.items) == list(chat.items)


@pytest.mark.usefixtures("home")
def test_the_break_is_raised_even_if_the_partial_answer_cannot_be_stored(
    faces, stream, monkeypatch
) -> None:
    profile = Profile("work")
    chat = faces.client(broken("Once"), "upon", profile=profile).chat()

    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(profile.database, "save", full)
        error = ask(faces, chat, stream=stream)
    assert "the disk is full" in error.__notes__[0]
    assert [text for text, _ in told(chat)] == ["Hi", "Once"]
    faces.run(chat.send("Go on."))
    again = faces.client("", profile=Profile("work")).chat(session_id=chat.session_id)
    assert list(again.items) == list(chat.items)


def test_a_raw_completion_has_its_text_in_the_error(faces) -> None:
    client = faces.client(broken("Once"))
    with pytest.raises(EndpointError) as caught:
        faces.run(client.raw_complete("It was"))
    assert caught.value.details["response"].text == "Once"


def test_ask_has_the_text_in_the_error(faces) -> None:
    with pytest.raises(EndpointError) as caught:
        faces.run(faces.client(broken("Once")).ask("Hi"))
    assert caught.value.details["response"].text == "Once"


def test_the_error_of_a_whole_answer_can_be_pickled(faces) -> None:
    error = ask(faces, faces.chat(broken("Once")), stream=False)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.details["response"].text) == ("STREAM_BROKEN", "Once")

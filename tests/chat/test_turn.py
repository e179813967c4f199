"""A turn is a transaction: committed at the end, partly when cancelled, rolled back on failure."""

import threading

import pytest

from talu.backends.scripted import ScriptedModel
from talu.chat import ItemStatus, MessageRole, ReasoningItem, ReasoningPiece
from talu.client import Client
from talu.exceptions import GenerationError, StateError, ValidationError
from talu.router import ModelSpec
from talu.types import (
    Done,
    FinishReason,
    ReasoningDelta,
    StopFlag,
    TextDelta,
    Timings,
    ToolCallEvent,
    Usage,
)


def roles(chat) -> list[str]:
    return [item.role.name.lower() for item in chat.items]


def test_question_and_answer_are_committed_together_at_the_end(faces) -> None:
    chat = faces.chat("Hello there")
    stream = faces.run(chat("Hi"))
    assert len(chat.items) == 0
    assert faces.read(stream) == ["Hello", " there", ""]
    assert roles(chat) == ["user", "assistant"]
    assert [item.text for item in chat.items] == ["Hi", "Hello there"]
    assert {item.status for item in chat.items} == {ItemStatus.COMPLETED}


def test_send_gives_the_text_that_streaming_gives(faces) -> None:
    whole = faces.run(faces.chat("one two three").send("Hi"))
    pieces = faces.read(faces.run(faces.chat("one two three")("Hi")))
    assert whole.text == "".join(pieces) == "one two three"


def test_the_model_sees_the_system_message_and_all_turns_before(faces) -> None:
    model = ScriptedModel("first", "second")
    chat = faces.client_of(model).chat(system="Be kind.")
    faces.run(chat.send("one"))
    faces.run(chat.send("two"))
    assert list(model.requests[1].messages) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "two"},
    ]


def test_leaving_the_loop_keeps_the_partial_answer_as_incomplete(faces) -> None:
    model = ScriptedModel("one two three", "more")
    chat = faces.client_of(model).chat()
    stream = faces.run(chat("Hi"))
    assert faces.read_some(stream, 2) == ["one", " two"]
    assert stream.text == "one two"
    assert stream.finish_reason == "cancelled"
    assert chat.items.last.text == "one two"
    assert chat.items.last.status is ItemStatus.INCOMPLETE
    assert model.active == 0
    assert faces.run(chat.send("again")).text == "more"


def test_closing_a_stream_stops_the_backend_at_once(faces) -> None:
    model = ScriptedModel("one two three")
    chat = faces.client_of(model).chat()
    stream = faces.run(chat("Hi"))
    pieces = iter(stream) if faces.name == "sync" else aiter(stream)
    faces.run(next(pieces) if faces.name == "sync" else anext(pieces))
    assert model.active == 1
    faces.run(stream.close())
    faces.run(stream.close())
    assert model.active == 0
    assert chat.items.last.text == "one"


def test_a_stream_that_is_closed_unread_leaves_no_trace(faces) -> None:
    chat = faces.chat("one two three", "more")
    stream = faces.run(chat("Hi"))
    faces.run(stream.close())
    assert len(chat.items) == 0
    assert stream.finish_reason == "cancelled"
    assert faces.read(stream) == []
    assert faces.run(chat.send("Hi")).text == "more"


def test_cancel_keeps_the_text_so_far_and_ends_later_reading(faces) -> None:
    chat = faces.chat("one two three")
    stream = faces.run(chat("Hi", on_token=lambda piece: stream.cancel()))
    faces.read(stream)
    assert stream.text == "one"
    assert faces.read(stream) == []
    assert chat.items.last.status is ItemStatus.INCOMPLETE


def test_an_error_before_the_first_token_leaves_the_history_as_it_was(faces) -> None:
    chat = faces.chat("fine", [GenerationError("no memory")], "fine again")
    faces.run(chat.send("one"))
    before = list(chat.items)
    with pytest.raises(GenerationError, match="no memory"):
        faces.run(chat.send("two"))
    assert list(chat.items) == before
    assert faces.run(chat.send("three")).text == "fine again"


def test_an_error_in_the_middle_of_a_stream_rolls_back_and_keeps_the_text_in_the_answer(faces):
    chat = faces.chat(["par", "tial", GenerationError("broken")])
    stream = faces.run(chat("Hi"))
    with pytest.raises(GenerationError, match="broken"):
        faces.read(stream)
    assert len(chat.items) == 0
    assert stream.finish_reason is None
    assert faces.read(stream) == []
    assert str(stream) == "partial"


class _Half:
    """A generation that ends after one piece, for both kinds of readers."""

    def __init__(self) -> None:
        self._pieces = ["half"]

    def start(self) -> "_Done":
        return _Done()

    def __next__(self) -> TextDelta:
        if not self._pieces:
            raise StopIteration
        return TextDelta(self._pieces.pop())

    def __aiter__(self) -> "_Half":
        return self

    async def __anext__(self) -> TextDelta:
        if not self._pieces:
            raise StopAsyncIteration
        return TextDelta(self._pieces.pop())

    def close(self) -> None:
        pass

    def aclose(self) -> "_Done":
        return _Done()


class _Done:
    """An awaitable that is done already."""

    def __await__(self):
        return iter(())


def test_a_stream_without_a_last_event_is_an_error(faces) -> None:
    class Broken(ScriptedModel):
        def generate(self, request):
            return _Half()

        def agenerate(self, request):
            return _Half()

    with pytest.raises(GenerationError, match="without its last event"):
        faces.run(faces.client_of(Broken()).chat().send("Hi"))


def test_settings_that_the_backend_would_ignore_are_refused_by_name(faces) -> None:
    class Plain(ScriptedModel):
        settings = ("max_tokens", "seed")

    model = Plain("one", "two")
    client = faces.client_of(model)
    assert faces.run(client.ask("Hi", seed=1, max_tokens=5, top_k=None)) == "one"
    for call in (client.ask, client.raw_complete, client.chat().send):
        with pytest.raises(
            ValidationError, match="has no top_k and no min_p: leave them"
        ) as caught:
            faces.run(call("Hi", top_k=3, min_p=0.1, seed=1))
        assert caught.value.details["settings"] == ["top_k", "min_p"]
    assert len(model.requests) == 1


def test_two_answers_at_once_on_one_chat_are_refused(faces) -> None:
    chat = faces.chat("one two", "three")
    stream = faces.run(chat("Hi"))
    reader = aiter(stream) if faces.name == "async" else iter(stream)
    assert faces.run(anext(reader) if faces.name == "async" else next(reader)) == "one"
    for attempt in (chat, chat.send):
        with pytest.raises(StateError, match="not finished") as caught:
            faces.run(attempt("Again"))
        assert caught.value.code == "STATE_BUSY"
    with pytest.raises(StateError, match="not finished"):
        chat.append("user", "no")
    faces.run(stream.close())
    assert faces.run(chat.send("Again")).text == "three"


@pytest.mark.parametrize("stream", [True, False])
def test_the_next_call_of_a_chat_ends_an_unread_answer(faces, stream) -> None:
    model = ScriptedModel("one", "two")
    chat = faces.client_of(model).chat()
    unread = faces.run(chat("Hi"))
    answer = faces.run(chat.send("Again", stream=stream))
    if stream:
        faces.read(answer)
    assert [item.text for item in chat.items] == ["Again", "two"]
    assert unread.finish_reason == "cancelled"
    assert repr(unread).endswith("cancelled before it was read)")
    assert model.active == 0
    for read in (faces.read, lambda stream: faces.run(stream.append("more")), str):
        with pytest.raises(StateError, match="ended unread when its chat") as caught:
            read(unread)
        assert caught.value.code == "STATE_SUPERSEDED"


def test_an_edit_ends_an_unread_blocking_stream() -> None:
    chat = Client(ModelSpec("m", ScriptedModel("one"))).chat()
    unread = chat("Hi")
    chat.append("user", "Note")
    assert [item.text for item in chat.items] == ["Note"]
    assert unread.finish_reason == "cancelled"


def test_an_error_of_on_token_reaches_the_caller_and_rolls_back(faces) -> None:
    def fail(piece) -> None:
        raise KeyError("mine")

    chat = faces.chat("one two")
    with pytest.raises(KeyError):
        faces.run(chat.send("Hi", on_token=fail))
    assert len(chat.items) == 0


def test_on_token_gets_every_piece_that_has_text_streamed_or_not(faces) -> None:
    for stream in (True, False):
        seen = []
        chat = faces.chat(["a", TextDelta("", (5,)), "b"])
        answer = faces.run(chat.send("Hi", stream=stream, on_token=seen.append))
        if stream:
            faces.read(answer)
        assert seen == ["a", "b"]


def test_an_async_on_token_is_awaited_by_async_and_refused_by_sync(faces) -> None:
    seen = []

    async def take(piece) -> None:
        seen.append(piece)

    chat = faces.chat("one")
    if faces.name == "async":
        faces.run(chat.send("Hi", on_token=take))
        assert seen == ["one"]
    else:
        with pytest.raises(ValidationError, match=r"take.* is async: give it to Async") as wrong:
            chat("Hi", on_token=take)  # at the call, before anything is generated
        assert wrong.value.details["param"] == "on_token"
        assert chat.send("Hi").text == "one"
        with pytest.raises(ValidationError, match="is async: give it to AsyncClient"):
            faces.chat("one").send("Hi", on_token=lambda piece: take(piece))


def test_reasoning_becomes_an_item_before_the_message(faces) -> None:
    chat = faces.chat([ReasoningDelta("Let me ", (1,)), ReasoningDelta("think.", (2,)), "Four."])
    stream = faces.run(chat("2+2?"))
    assert "".join(faces.read(stream)) == "Four."
    assert stream.reasoning == "Let me think."
    kinds = [type(item).__name__ for item in chat.items]
    assert kinds == ["MessageItem", "ReasoningItem", "MessageItem"]
    assert chat.items.filter_by_type(ReasoningItem)[0].text == "Let me think."


def test_reasoning_is_streamed_in_pieces_without_text(faces) -> None:
    chat = faces.chat([ReasoningDelta("Let me ", (1,)), ReasoningDelta("think.", (2,)), "Four."])
    first, second, *rest = faces.read(faces.run(chat("2+2?")))
    assert [type(piece) for piece in (first, second)] == [ReasoningPiece, ReasoningPiece]
    assert [(p.reasoning, p.id, str(p)) for p in (first, second)] == [
        ("Let me ", 1, ""),
        ("think.", 2, ""),
    ]
    assert rest == ["Four.", ""]


def test_reasoning_is_passed_to_the_template_with_its_message(faces) -> None:
    model = ScriptedModel([ReasoningDelta("Hm."), "Four."], "Five.")
    chat = faces.client_of(model).chat()
    faces.run(chat.send("2+2?"))
    faces.run(chat.send("2+3?"))
    answer = {"role": "assistant", "content": "Four.", "reasoning_content": "Hm."}
    assert model.requests[1].messages[1] == answer


def test_tool_calls_become_items_and_are_sent_back_in_openais_format(faces) -> None:
    model = ScriptedModel([ToolCallEvent("c1", "add", '{"a": 1}')], "Done.")
    chat = faces.client_of(model).chat()
    answer = faces.run(chat.send("Add."))
    assert answer.finish_reason == "tool_calls"
    assert [(c.id, c.name, c.arguments) for c in answer.tool_calls] == [("c1", "add", '{"a": 1}')]
    faces.run(chat.submit_tool_results({"c1": 2}))
    assert model.requests[1].messages[2]["content"] == "2"
    assert model.requests[1].messages[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        ],
    }


def test_usage_and_notes_come_from_the_last_event(faces) -> None:
    done = Done(
        FinishReason.LENGTH, Usage(7, 2, 3), Timings(), "m", "P", "END", notes=("cut the context",)
    )
    answer = faces.run(faces.chat(["a", done]).send("Hi"))
    assert (answer.usage, answer.finish_reason, answer.prompt) == (Usage(7, 2, 3), "length", "P")
    assert (answer.stop_sequence, answer.notes) == ("END", ("cut the context",))
    assert answer.usage.total_tokens == 9


def test_an_answer_records_how_it_was_generated(faces) -> None:
    chat = faces.chat("one", config=None)
    faces.run(chat.send("Hi", seed=3))
    made = chat.items.last.generation
    assert made == {"model": "scripted", "finish_reason": "stop", "config": {"seed": 3}}


def test_settings_of_a_call_reach_the_model_and_do_not_persist(faces) -> None:
    model = ScriptedModel("a", "b")
    chat = faces.client_of(model).chat()
    chat.config.temperature = 0.1
    faces.run(chat.send("one", seed=1))
    faces.run(chat.send("two"))
    assert model.requests[0].config.given == {"temperature": 0.1, "seed": 1}
    assert model.requests[1].config.given == {"temperature": 0.1}
    assert chat.config.given == {"temperature": 0.1}


def test_cancelling_from_another_thread_ends_the_reading_with_usage(faces) -> None:
    come, go = threading.Event(), threading.Event()
    model = ScriptedModel(["one", lambda: (come.set(), go.wait())[1], "two", "three"])
    chat = faces.client_of(model).chat()
    stream = faces.run(chat("Hi"))

    def cancel() -> None:
        come.wait()
        stream.cancel()
        go.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    pieces = faces.read(stream)
    thread.join()
    assert pieces == ["one", ""]
    assert pieces[-1].finish_reason == stream.finish_reason == "cancelled"
    assert stream.usage.completion_tokens == 1
    assert chat.items.last.status is ItemStatus.INCOMPLETE
    assert model.active == 0


def test_an_empty_answer_is_a_message_with_empty_text(faces) -> None:
    chat = faces.chat([])
    answer = faces.run(chat.send("Hi"))
    assert answer.text == ""
    assert chat.items.last.role is MessageRole.ASSISTANT
    assert chat.items.last.text == ""


def test_a_stop_flag_calls_earlier_and_later_listeners_and_keeps_none_alive() -> None:
    class Listener:
        def hear(self) -> None:
            heard.append(self.name)

    heard: list[str] = []
    flag = StopFlag()
    early, late, gone = Listener(), Listener(), Listener()
    early.name, late.name, gone.name = "early", "late", "gone"
    flag.when_signalled(early.hear)
    flag.when_signalled(gone.hear)
    del gone
    assert not flag.is_set()
    flag.signal()
    flag.when_signalled(late.hear)
    assert flag.is_set()
    assert heard == ["early", "late"]


def test_an_edit_with_an_unread_async_stream_says_how_to_end_it_and_that_works(awaited) -> None:
    chat = awaited.chat("one two")
    stream = awaited.run(chat("q"))
    with pytest.raises(StateError, match=r"chat\.last_response\.close\(\) \(awaited") as caught:
        chat.append("user", "x")
    assert caught.value.code == "STATE_BUSY"
    assert chat.last_response is stream
    awaited.run(chat.last_response.close())
    assert [item.text for item in chat.append("user", "x").items] == ["x"]

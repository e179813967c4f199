"""Answers: their text, their pieces, and continuing a conversation from them."""

import asyncio
import gc
import inspect
import json
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter

import pytest

from talu.backends.scripted import ScriptedModel
from talu.chat import OutputText, StreamingResponse
from talu.client import AsyncClient, Client
from talu.exceptions import GenerationError, StateError
from talu.router import ModelSpec
from talu.types import (
    Done,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallEvent,
    Usage,
)


def answer_of(faces, *steps, stream: bool = False):
    answer = faces.run(faces.chat(list(steps)).send("Hi", stream=stream))
    if stream:
        faces.read(answer)
    return answer


def texts(chat) -> list[str]:
    return [item.text for item in chat.items]


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_compares_and_reads_like_its_text(faces, stream) -> None:
    answer = answer_of(faces, " Hello", " World", stream=stream)
    text = " Hello World"
    assert answer == text
    assert text == answer
    assert answer == answer_of(faces, text)
    assert answer != "something else"
    assert answer != 3
    assert hash(answer) == hash(text)
    assert len(answer) == len(text)
    assert f"{answer:>15}|{answer:.3}" == f"{text:>15}|{text:.3}"
    assert "World" in answer
    assert answer in answer_of(faces, text, "!")
    assert (answer + "!", "<" + answer) == (text + "!", "<" + text)
    assert (answer.lower(), answer.upper(), answer.strip()) == (
        text.lower(),
        text.upper(),
        text.strip(),
    )
    assert answer.split() == ["Hello", "World"]
    assert answer.split("o", 1) == text.split("o", 1)
    assert answer.startswith(" H")
    assert answer.endswith(("x", "d"))
    assert answer.replace("o", "0", 1) == text.replace("o", "0", 1)


def test_a_whole_answer_is_not_iterable_and_says_how_to_read_pieces(faces) -> None:
    with pytest.raises(TypeError, match="stream=True"):
        iter(answer_of(faces, "a"))


def test_pieces_are_texts_with_token_attributes(faces) -> None:
    logprob = TokenLogprob(7, "a", -0.5, [(7, "a", -0.5)])
    stream = faces.run(faces.chat([TextDelta("a", (6, 7), (logprob,)), "b"])("Hi"))
    first, second, last = faces.read(stream)
    assert (first, first.id, first.logprob, first.finish_reason) == ("a", 7, -0.5, None)
    assert (second, second.id, second.logprob) == ("b", 2, None)
    assert (last, last.id, last.finish_reason) == ("", -1, "stop")
    assert stream.tokens == [6, 7, 2]
    assert stream.logprobs == [logprob]


def test_a_second_iteration_gives_nothing(faces) -> None:
    stream = faces.run(faces.chat("one two")("Hi"))
    assert len(faces.read(stream)) == 3
    assert faces.read(stream) == []


def test_a_stream_read_to_the_end_has_all_attributes_of_a_whole_answer(faces) -> None:
    done = Done(FinishReason.LENGTH, Usage(3, 1), Timings(1.0, 2.0, 3.0), "x", "the prompt")
    for stream in (True, False):
        answer = answer_of(faces, "a", done, stream=stream)
        assert (answer.finish_reason, answer.usage, answer.timings) == (
            "length",
            Usage(3, 1),
            Timings(1.0, 2.0, 3.0),
        )
        assert (answer.model, answer.prompt, answer.tokens) == ("scripted", "the prompt", [0])


def test_an_unfinished_stream_has_only_text_and_model(faces) -> None:
    stream = faces.run(faces.chat("a b")("Hi"))
    assert (stream.finish_reason, stream.usage, stream.timings, stream.prompt) == (None,) * 4
    assert stream.model == "scripted"
    with pytest.raises(TypeError, match="no length before it is read"):
        len(stream)
    assert stream
    assert "pending" in repr(stream)
    faces.read(stream)
    assert repr(stream).endswith(", exhausted)")
    faces.run(stream.close())


def test_to_dict_can_be_written_as_json_and_has_all_known_values(faces) -> None:
    call = ToolCallEvent("c1", "add", "{}")
    values = answer_of(faces, ReasoningDelta("Hm"), "a", call).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert (values["text"], values["finish_reason"], values["reasoning"]) == (
        "a",
        "tool_calls",
        "Hm",
    )
    assert values["usage"]["total_tokens"] == 3
    assert values["timings"]["total_ms"] is None  # not known, which is not 0
    assert values["tool_calls"][0]["function"] == {"name": "add", "arguments": "{}"}
    assert "notes" not in values
    assert "logprobs" not in values


def test_to_dict_has_prompt_and_tokens(faces) -> None:
    values = answer_of(faces, "one two").to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["prompt"] == "user: Hi"
    assert values["tokens"] == [0]


def test_presence_and_frequency_penalty_keep_an_answer_from_repeating_its_tokens(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    settings = {"temperature": 0, "max_tokens": 60, "stop_token_ids": []}

    def tokens(**penalties) -> list[int]:
        return faces.run(client.ask("Tell me a story about a fox.", **settings, **penalties)).tokens

    plain = tokens()
    assert tokens(presence_penalty=0, frequency_penalty=None) == plain
    for penalty in ("presence_penalty", "frequency_penalty"):
        changed = tokens(**{penalty: 2})
        assert changed[0] == plain[0]  # the prompt does not count
        assert len(set(tokens(**{penalty: -2}))) < len(set(plain)) <= len(set(changed))
    faces.run(client.close())


def test_an_answer_reports_the_drawn_seed(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    settings = {"temperature": 1.5, "max_tokens": 20}
    chat = client.chat()
    answer = faces.run(chat.send("Tell me a story.", **settings))
    assert 0 <= answer.seed < 2**53
    assert answer.to_dict()["seed"] == chat.items.last.generation["seed"] == answer.seed
    again = faces.run(client.ask("Tell me a story.", **settings, seed=answer.seed))
    assert (again, again.tokens, again.seed) == (answer, answer.tokens, answer.seed)
    assert faces.run(client.ask("Hi", seed=7, max_tokens=1)).seed == 7
    stream = faces.run(chat("Hi", max_tokens=2))
    assert stream.seed is None
    faces.read(stream)
    assert stream.seed is not None
    faces.run(client.close())


def test_to_dict_has_log_probabilities_that_were_asked_for(faces) -> None:
    entry = TokenLogprob(5, "a", -0.5, [(5, "a", -0.5), (6, "b", -1.0)])
    values = answer_of(faces, TextDelta("a", (5,), (entry,))).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["logprobs"] == [
        {
            "token": 5,
            "token_str": "a",
            "logprob": -0.5,
            "top_logprobs": [[5, "a", -0.5], [6, "b", -1.0]],
        }
    ]


def test_content_is_the_text_as_one_part_and_the_same_list_each_time(faces) -> None:
    answer = answer_of(faces, "a")
    assert answer.content == [OutputText("a")]
    assert answer.content is answer.content


def test_repr_names_the_class_and_shortens_the_text(faces) -> None:
    shown = repr(answer_of(faces, "x" * 60))
    assert shown.startswith(type(answer_of(faces, "a")).__name__)
    assert "x" * 50 + "…" in shown
    assert "total_tokens=3" in shown


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_attribute_is_refused_with_the_nearest_name(faces, stream) -> None:
    answer = faces.run(faces.chat("a").send("q", stream=stream))
    with pytest.raises(
        AttributeError, match=r"Response' object has no attribute 'txt'; did you mean 'text'"
    ):
        attrgetter("txt")(answer)
    if stream:
        faces.run(answer.close())


def test_append_to_the_latest_answer_continues_its_chat(faces) -> None:
    chat = faces.chat("a1", "a2", "a3")
    answer = faces.run(chat.send("q1"))
    answer = faces.run(answer.append("q2"))
    answer = faces.run(answer.append("q3"))
    assert answer.chat is chat
    assert texts(chat) == ["q1", "a1", "q2", "a2", "q3", "a3"]


def test_append_to_an_older_answer_continues_in_a_fork(faces) -> None:
    model = ScriptedModel("a1", "a2", "b2", "c2")
    chat = faces.client_of(model).chat(system="S")
    first = faces.run(chat.send("q1"))
    faces.run(chat.send("q2"))
    branch = faces.run(first.append("x2"))
    other = faces.run(first.append("y2"))
    assert texts(chat) == ["S", "q1", "a1", "q2", "a2"]
    assert texts(branch.chat) == ["S", "q1", "a1", "x2", "b2"]
    assert texts(other.chat) == ["S", "q1", "a1", "y2", "c2"]
    assert [m["content"] for m in model.requests[2].messages] == ["S", "q1", "a1", "x2"]
    assert len({id(chat), id(branch.chat), id(other.chat)}) == 3


def test_append_to_an_answer_of_a_closed_chat_is_refused_even_if_it_would_fork(faces) -> None:
    chat = faces.chat("a1", "a2", "b2")
    first, second = faces.run(chat.send("q1")), faces.run(chat.send("q2"))
    faces.run(chat.close())
    for answer in (first, second):
        with pytest.raises(StateError) as caught:
            faces.run(answer.append("x2"))
        assert caught.value.code == "CHAT_CLOSED"


def test_a_stream_that_is_left_early_has_usage(faces) -> None:
    stream = faces.run(faces.chat("one two three")("Hi there"))
    faces.read_some(stream, 2)
    assert (stream.finish_reason, stream.usage) == ("cancelled", Usage(3, 2))
    assert stream.timings is not None
    assert stream.prompt == "user: Hi there"


@pytest.mark.parametrize("stop", ["cancel", "close"])
def test_a_loop_that_ends_its_own_stream_still_gets_the_finish_reason(faces, stop) -> None:
    async def read_async() -> list:
        pieces = []
        async for piece in stream:
            pieces.append(piece)
            if len(pieces) == 2:
                ending = getattr(stream, stop)()
                if ending is not None:
                    await ending
        return pieces

    def read() -> list:
        pieces = []
        for piece in stream:
            pieces.append(piece)
            if len(pieces) == 2:
                getattr(stream, stop)()
        return pieces

    stream = faces.run(faces.chat("one two three")("Hi there"))
    pieces = faces.run(read_async()) if faces.name == "async" else read()
    assert [piece.finish_reason for piece in pieces] == [None, None, "cancelled"]
    assert pieces[-1] == ""
    assert "".join(pieces) == stream.text
    assert faces.read(stream) == []


def test_append_to_an_answer_that_was_regenerated_branches_from_the_old_one(faces) -> None:
    chat = faces.chat("old", "new", "branch")
    old = faces.run(chat.send("q"))
    faces.run(chat.regenerate())
    branch = faces.run(old.append("more"))
    assert texts(branch.chat) == ["q", "old", "more", "branch"]
    assert texts(chat) == ["q", "new"]


def test_append_to_a_stream_reads_the_rest_first_and_streams(faces) -> None:
    chat = faces.chat("one two", "three")
    stream = faces.run(chat("q1"))
    second = faces.run(stream.append("q2"))
    assert type(second) is type(stream)
    assert faces.read(second) == ["three", ""]
    assert second.chat is chat
    assert texts(chat) == ["q1", "one two", "q2", "three"]


def test_append_to_an_older_stream_branches_exactly_there(faces) -> None:
    chat = faces.chat("a1", "a2", "b2")
    first = faces.run(chat("q1"))
    faces.read(first)
    faces.read(faces.run(chat("q2")))
    branch = faces.run(first.append("x2", stream=False))
    assert texts(branch.chat) == ["q1", "a1", "x2", "b2"]


def test_append_keeps_the_streaming_mode_by_default(faces) -> None:
    chat = faces.chat("a", "b", "c")
    whole = faces.run(chat.send("q"))
    stream = faces.run(whole.append("q", stream=True))
    assert faces.read(stream) == ["b", ""]
    assert type(faces.run(stream.append("q", stream=False))) is type(whole)


def test_append_to_an_answer_without_a_chat_is_refused(faces) -> None:
    answer = faces.run(faces.client("a").raw_complete("Hi"))
    with pytest.raises(StateError, match="does not belong to a chat") as caught:
        faces.run(answer.append("more"))
    assert caught.value.code == "STATE_NO_CHAT"


def test_append_to_a_failed_answer_is_refused(faces) -> None:
    stream = faces.run(faces.chat(["a", GenerationError("broken")])("Hi"))
    with pytest.raises(GenerationError, match="broken"):
        faces.read(stream)
    with pytest.raises(StateError, match="nothing to continue"):
        faces.run(stream.append("more"))


def test_append_takes_settings_like_send(faces) -> None:
    model = ScriptedModel("a", "b")
    answer = faces.run(faces.client_of(model).ask("Hi"))
    faces.run(answer.append("more", seed=3))
    assert model.requests[1].config.given == {"seed": 3}


def sync_stream(*scripts, model: ScriptedModel | None = None) -> StreamingResponse:
    return Client(ModelSpec("m", model or ScriptedModel(*scripts))).chat()("Hi")


def test_text_of_a_sync_stream_reads_the_rest() -> None:
    stream = sync_stream("one two three")
    assert stream.text == str(stream) == "one two three"
    assert list(stream) == []


def test_text_of_a_sync_stream_read_in_its_own_loop_ends_the_loop() -> None:
    stream = sync_stream("one two three")
    assert [stream.text for _ in stream] == ["one two three"]


def test_a_sync_stream_read_from_inside_its_generation_is_refused() -> None:
    stream = Client(ModelSpec("m", ScriptedModel("one two"))).chat()(
        "Hi", on_token=lambda piece: stream.text
    )
    with pytest.raises(StateError, match="being read already"):
        list(stream)


def test_dropping_the_iterator_of_a_sync_stream_stops_the_backend() -> None:
    model = ScriptedModel("one two three")
    stream = sync_stream(model=model)
    pieces = iter(stream)
    next(pieces)
    assert model.active == 1
    del pieces
    assert model.active == 0
    assert stream.text == "one"


def test_dropping_a_sync_stream_with_its_chat_stops_the_backend() -> None:
    model = ScriptedModel("one two three")
    pieces = Client(ModelSpec("m", model)).stream("Hi")
    next(pieces)
    del pieces
    gc.collect()
    assert model.active == 0


def test_leaving_a_sync_stream_closes_the_backends_events_even_if_others_hold_them() -> None:
    class Holding(ScriptedModel):
        def generate(self, request):
            self.held = super().generate(request)
            return self.held

    model = Holding("one two three")
    for _ in sync_stream(model=model):
        break
    assert model.active == 0


def test_leaving_a_sync_stream_inside_an_event_loop_stops_the_backend_at_once() -> None:
    async def main() -> None:
        model = ScriptedModel("one two three")
        for _ in sync_stream(model=model):
            break
        assert model.active == 0

    asyncio.run(main())


def test_a_sync_stream_is_a_context_manager_that_stops_the_generation() -> None:
    model = ScriptedModel("one two three")
    with sync_stream(model=model) as stream:
        for piece in stream:
            assert piece == "one"
            break
    assert model.active == 0
    assert stream.finish_reason == "cancelled"


def test_text_of_an_async_stream_is_the_text_so_far_and_awaiting_it_reads_the_rest() -> None:
    async def main() -> None:
        client = AsyncClient(ModelSpec("m", ScriptedModel("one two three")))
        stream = await client.chat()("Hi")
        assert stream.text == ""
        assert await anext(aiter(stream)) == "one"
        await stream.close()
        assert stream.text == "one"

    asyncio.run(main())


def test_awaiting_an_async_stream_gives_the_stream_itself_read_to_its_end() -> None:
    async def main() -> None:
        client = AsyncClient(ModelSpec("m", ScriptedModel("one two three")))
        stream = await client.chat()("Hi")
        assert await stream is stream
        assert stream.text == "one two three"

    asyncio.run(main())


def test_an_async_stream_is_a_context_manager_that_stops_the_generation_at_once() -> None:
    async def main() -> None:
        model = ScriptedModel("one two three")
        async with await AsyncClient(ModelSpec("m", model)).chat()("Hi") as stream:
            async for piece in stream:
                assert piece == "one"
                break
        assert model.active == 0
        assert stream.finish_reason == "cancelled"

    asyncio.run(main())


def test_an_async_stream_whose_loop_was_left_has_ended_before_the_next_await() -> None:
    async def main() -> None:
        for go_on in (
            lambda stream: stream.chat.send("more"),
            lambda stream: stream.append("more", stream=False),
            lambda stream: stream.wait(),
        ):
            model = ScriptedModel("one two three", "four")
            stream = await AsyncClient(ModelSpec("m", model)).chat()("Hi")
            async for _ in stream:
                break
            await go_on(stream)
            assert (stream.text, stream.finish_reason) == ("one", "cancelled")
            assert model.active == 0

    asyncio.run(main())


def test_a_reader_that_pauses_keeps_its_async_stream() -> None:
    async def main() -> None:
        stream = await AsyncClient(ModelSpec("m", ScriptedModel("one two", "x"))).chat()("Hi")
        reader = aiter(stream)
        assert await anext(reader) == "one"
        with pytest.raises(StateError, match="an answer that is not finished"):
            await stream.chat.send("more")
        assert [piece async for piece in reader] == [" two", ""]

    asyncio.run(main())


def test_an_async_stream_can_be_closed_while_another_task_reads_it() -> None:
    async def main() -> None:
        seen, gate = asyncio.Event(), asyncio.Event()
        model = ScriptedModel(["one", seen.set, gate.wait, "two", "three"])
        stream = await AsyncClient(ModelSpec("m", model)).chat()("Hi")
        reading = asyncio.create_task(stream.wait())
        await seen.wait()
        await stream.close()
        gate.set()
        await reading
        assert (stream.text, stream.finish_reason) == ("one", "cancelled")
        assert model.active == 0

    asyncio.run(main())


def test_a_sync_stream_can_be_closed_while_another_thread_reads_it() -> None:
    seen, gate = threading.Event(), threading.Event()
    model = ScriptedModel(["one", seen.set, gate.wait, "two", "three"])
    stream = sync_stream(model=model)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, stream)
        assert seen.wait(30)
        stream.close()
        gate.set()
        assert reading.result(30) == ["one", ""]
    assert (stream.finish_reason, model.active) == ("cancelled", 0)


def test_a_second_reader_of_a_stream_is_refused_while_the_first_waits(faces) -> None:
    refused = []

    def read_too() -> None:
        second = iter(stream) if faces.name == "sync" else aiter(stream)
        step = partial(next, second) if faces.name == "sync" else partial(anext(second).send, None)
        with pytest.raises(StateError, match="read already") as caught:
            step()
        refused.append(caught.value.code)

    stream = faces.run(faces.chat(["one", read_too, " two"])("Hi"))
    assert faces.read(stream) == ["one", " two", ""]
    assert refused == ["STATE_BUSY"]
    assert stream.finish_reason == "stop"


def test_a_refused_reader_does_not_disturb_the_current_one() -> None:
    async def main() -> None:
        async def read_too() -> None:
            with pytest.raises(StateError, match="read already"):
                await anext(aiter(stream))

        model = ScriptedModel(["one", read_too, " two", " three"])
        stream = await AsyncClient(ModelSpec("m", model)).chat()("Hi")
        pieces = aiter(stream)
        assert [await anext(pieces), await anext(pieces)] == ["one", " two"]
        await stream._settle()
        assert [piece async for piece in pieces] == [" three", ""]

    asyncio.run(main())


def test_cancelling_races_with_a_reader_that_stops(monkeypatch) -> None:
    seen, gate = threading.Event(), threading.Event()
    model = ScriptedModel(["one", seen.set, gate.wait, "two", "three"])
    stream = sync_stream(model=model)
    with ThreadPoolExecutor(1) as pool:
        pieces = iter(stream)
        assert next(pieces) == "one"
        reading = pool.submit(next, pieces)
        assert seen.wait(30)

        def state(generator) -> str:
            gate.set()
            reading.result(30)
            return inspect.getgeneratorstate(generator)

        monkeypatch.setattr("talu.chat.interrupts.getgeneratorstate", state)
        stream.cancel()
    assert (stream.finish_reason, model.active) == ("cancelled", 0)


def test_cancelling_a_task_stops_its_generation_and_keeps_the_text_so_far() -> None:
    async def main() -> None:
        gate, seen = asyncio.Event(), asyncio.Event()
        model = ScriptedModel(["one", gate.wait, "two"], "again")
        chat = AsyncClient(ModelSpec("m", model)).chat()

        async def read() -> None:
            async for _ in await chat("Hi"):
                seen.set()

        task = asyncio.create_task(read())
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.active == 0
        assert chat.last_response.text == "one"
        assert (await chat.send("more")).text == "again"

    asyncio.run(main())


def test_cancelling_a_task_that_waits_for_a_whole_answer_stops_its_generation() -> None:
    async def main() -> None:
        gate, seen = asyncio.Event(), asyncio.Event()
        model = ScriptedModel(["one", gate.wait, "two"])
        chat = AsyncClient(ModelSpec("m", model)).chat()
        task = asyncio.create_task(chat.send("Hi", on_token=lambda piece: seen.set()))
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.active == 0
        assert [item.text for item in chat.items] == ["Hi", "one"]

    asyncio.run(main())


def test_a_whole_answer_keeps_nothing_of_its_call_alive(faces) -> None:
    class Count:
        pieces = 0

        def __call__(self, piece) -> None:
            self.pieces += 1

    count = Count()
    answer = faces.run(faces.chat("one two").send("Hi", on_token=count))
    gone = weakref.ref(count)
    assert count.pieces == 2
    del count
    gc.collect()
    assert gone() is None
    assert answer == "one two"


def test_sync_calls_work_inside_a_running_event_loop() -> None:
    async def main() -> str:
        return sync_stream("one two").text

    assert asyncio.run(main()) == "one two"


def test_an_interrupted_whole_answer_has_the_usage_so_far() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    chat = Client(ModelSpec("m", ScriptedModel(["one", interrupt]))).chat()
    with pytest.raises(KeyboardInterrupt):
        chat.send("Hi")
    answer = chat.last_response
    assert (answer.text, answer.finish_reason) == ("one", "cancelled")
    assert answer.to_dict()["finish_reason"] == "cancelled"
    assert answer.usage.completion_tokens == 1

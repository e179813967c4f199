"""Questions without a chat: a text, a conversation, many texts, whole or streamed; and tokens."""

import asyncio
import itertools
import os
import signal
import threading
from array import array
from functools import partial
from typing import Any

import numpy as np
import pytest

import talu
from talu import (
    AsyncClient,
    Client,
    CompletionOptions,
    GenerationError,
    ModelSpec,
    ScriptedModel,
    StopFlag,
    TokenizerError,
    ValidationError,
)
from talu.chat import MessageItem
from talu.config import FIELDS
from talu.exceptions import TaluError

CALL = {"id": "c1", "type": "function", "function": {"name": "sum", "arguments": "{}"}}
TOOL_TURN = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "4", "tool_call_id": "c1"},
]


def test_a_question_may_have_a_system_message(faces) -> None:
    model = ScriptedModel("Arr.", "Arr.")
    client = faces.client_of(model)
    faces.run(client.ask("Hi", system="You are a pirate."))
    faces.read(client.stream("Hi", system="You are a pirate."))
    for request in model.requests:
        assert [message["role"] for message in request.messages] == ["system", "user"]


def test_a_conversation_is_answered_after_its_last_message(faces) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    model = ScriptedModel("d", "d")
    client = faces.client_of(model)
    answer = faces.run(client.ask(messages))
    assert answer == "d"
    assert [message["content"] for message in answer.chat.messages] == ["S", "a", "b", "c", "d"]
    assert faces.read(client.stream(messages))[0] == "d"
    for request in model.requests:
        assert list(request.messages) == messages


def test_a_conversation_that_ends_with_a_tool_result_is_answered(faces) -> None:
    model = ScriptedModel("It is 4.")
    answer = faces.run(faces.client_of(model).ask(TOOL_TURN))
    assert list(model.requests[0].messages) == TOOL_TURN
    assert [message["role"] for message in answer.chat.messages][-2:] == ["tool", "assistant"]


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_a_conversation_must_end_with_a_user_message_or_tool_result(faces, role: str) -> None:
    with pytest.raises(ValidationError, match="must end with a user message or a tool result"):
        faces.run(faces.client("a").ask([{"role": role, "content": "x"}]))


def test_a_wrong_message_is_named(faces) -> None:
    wrong = [{"role": "user", "content": "x"}, "text"]
    with pytest.raises(ValidationError, match=r"messages\[1\]"):
        faces.run(faces.client("a").ask(wrong))


def test_a_second_system_message_is_refused(faces) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]
    with pytest.raises(ValidationError, match="mutually exclusive"):
        faces.run(faces.client("a").ask(messages, system="T"))


def test_content_parts_are_one_message(faces) -> None:
    model = ScriptedModel("b")
    answer = faces.run(faces.client_of(model).ask([{"type": "text", "text": "a"}]))
    assert answer == "b"


def many(count: int) -> list[str]:
    return [f"What is {number} + {number}?" for number in range(1, count + 1)]


SOURCES = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "generator": iter,
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_is_answered_in_order(source: str) -> None:
    with Client("talu/pocket") as client:
        single = [client.ask(text, temperature=0).text for text in many(5)]
        together = client.ask(SOURCES[source](many(5)), temperature=0)
        assert [answer.text for answer in together] == single

        async def main() -> list[str]:
            async with AsyncClient("talu/pocket") as awaited:
                answers = await awaited.ask(SOURCES[source](many(5)), temperature=0)
                return [answer.text for answer in answers]

        assert asyncio.run(main()) == single


def test_an_empty_batch_gives_an_empty_list(faces) -> None:
    assert faces.run(faces.client().ask([])) == []


def test_many_texts_run_at_the_same_time() -> None:
    meeting = threading.Barrier(8)
    scripts = [[lambda: meeting.wait(20), "here"] for _ in range(8)]
    client = Client(ModelSpec("m", ScriptedModel(*scripts)))
    assert client.ask([f"text {number}" for number in range(8)]) == ["here"] * 8


def test_a_text_that_fails_is_named_and_stops_the_others(faces) -> None:
    def fails() -> None:
        raise GenerationError("no")

    model = ScriptedModel(["a"], [fails], *(["b"] for _ in range(100)))
    with pytest.raises(GenerationError, match="no") as caught:
        faces.run(faces.client_of(model).ask(["text"] * 102))
    assert caught.value.details["index"] in range(102)
    assert model.active == 0


def test_a_stop_flag_ends_many_answers() -> None:
    flag = StopFlag()
    model = ScriptedModel(*([flag.signal, "never said"] for _ in range(4)))
    answers = Client(ModelSpec("m", model)).ask(["a", "b", "c", "d"], stop_flag=flag)
    assert {answer.finish_reason for answer in answers} == {"cancelled"}


def test_ctrl_c_stops_many_answers() -> None:
    interrupts = [lambda: os.kill(os.getpid(), signal.SIGINT), *["word"] * 20_000]
    model = ScriptedModel(interrupts, *(["word"] * 20_000 for _ in range(40)))
    client = Client(ModelSpec("m", model))
    with pytest.raises(KeyboardInterrupt):
        client.ask(["text"] * 41)
    for thread in threading.enumerate():
        if thread.name.startswith(
            "talu-ask"
        ):  # one that started during the interrupt ends by itself
            thread.join(20)
            assert not thread.is_alive()
    assert len(model.requests) < 41


def test_cancelling_a_task_stops_many_answers() -> None:
    async def main() -> None:
        entered = asyncio.Event()
        model = ScriptedModel(*([entered.set, asyncio.Event().wait] for _ in range(4)))
        task = asyncio.create_task(AsyncClient(ModelSpec("m", model)).ask(["text"] * 4))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.active == 0

    asyncio.run(main())


def test_many_texts_share_one_time_limit(faces) -> None:
    with pytest.raises(GenerationError, match="timeout=1e-09"):
        faces.run(faces.client("a", "b").ask(["a", "b"], timeout=1e-9))


@pytest.mark.parametrize("prompt", [{1: "a"}, 7, None, {1: 2}.values(), b"bytes"])
def test_a_prompt_of_another_type_is_refused(faces, prompt: Any) -> None:
    with pytest.raises(ValidationError):
        faces.run(faces.client("a").ask(prompt))


def test_a_stream_answers_one_question(faces) -> None:
    with pytest.raises(ValidationError, match="ask takes a list of texts"):
        faces.client("a").stream(["a", "b"])


def test_help_shows_the_settings() -> None:
    text = str(Client.ask.__doc__)
    assert [name for name in FIELDS if f"``{name}``" not in text] == []


def test_a_prompt_that_token_ids_replace_is_noted(faces) -> None:
    client = faces.client("a", "b", "c")
    ids = talu.CompletionOptions(token_ids=[1, 2])
    noted = faces.run(client.raw_complete("text", completion_opts=ids))
    assert [note for note in noted.notes if "not used: token_ids" in note]
    assert not faces.run(client.raw_complete("", completion_opts=ids)).notes
    assert not faces.run(client.raw_complete("text")).notes


# Awaiting a stream


def test_awaiting_a_stream_raises_before_the_first_piece() -> None:
    async def main() -> None:
        async with AsyncClient("talu/pocket") as client:
            long = client.stream("word " * 3000)
            with pytest.raises(GenerationError, match="context"):
                await long
            pieces = await client.stream("What is 2+2?", temperature=0)
            assert "".join([piece async for piece in pieces]) == "2 + 2 = 4."
        missing = AsyncClient("/no/such/folder").stream("q")
        with pytest.raises(talu.ModelError):
            await missing

    asyncio.run(main())


def test_an_awaited_stream_that_is_not_read_is_stopped_when_it_is_closed() -> None:
    async def main() -> None:
        model = ScriptedModel("one two three", "four")
        client = AsyncClient(ModelSpec("m", model))
        pieces = await client.stream("q")
        assert len(model.requests) == 1
        await pieces.aclose()
        await pieces.aclose()
        assert [piece async for piece in pieces] == []
        assert model.active == 0

    asyncio.run(main())


def test_awaiting_twice_asks_once() -> None:
    async def main() -> None:
        model = ScriptedModel("one two")
        pieces = AsyncClient(ModelSpec("m", model)).stream("q")
        await pieces
        await pieces
        assert [piece async for piece in pieces] == ["one", " two", ""]
        assert len(model.requests) == 1

    asyncio.run(main())


def test_an_error_thrown_into_a_stream_stops_it() -> None:
    async def main() -> None:
        model = ScriptedModel("one two")
        pieces = AsyncClient(ModelSpec("m", model)).stream("q")
        assert await anext(pieces) == "one"
        with pytest.raises(KeyError):
            await pieces.athrow(KeyError("x"))
        assert model.active == 0

    asyncio.run(main())


# Tokens


def test_tokens_are_those_that_the_model_reads(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    ids = faces.run(client.tokenize("What is 2+2?"))
    answer = faces.run(client.raw_complete("What is 2+2?", max_tokens=1))
    assert faces.run(client.count_tokens("What is 2+2?")) == len(ids)
    assert answer.usage.prompt_tokens == len(ids)
    assert faces.run(client.detokenize(ids)) == "What is 2+2?"
    faces.run(client.close())


def test_messages_are_counted_as_the_prompt_that_they_make(faces) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "What is 2+2?"}]
    client = faces.face.client_class("talu/pocket")
    counted = faces.run(client.count_tokens(messages))
    assert faces.run(client.ask(messages, max_tokens=1)).usage.prompt_tokens == counted
    faces.run(client.close())


def test_special_tokens_are_counted_where_they_are_added_and_left_out_of_a_text(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    ids = faces.run(client.tokenize("<|im_end|>x", special_tokens=False))
    assert faces.run(client.detokenize(ids)) == "x"
    assert faces.run(client.detokenize(ids, skip_special_tokens=False)) == "<|im_end|>x"
    faces.run(client.close())


def test_token_ids_may_be_in_any_sequence_or_array(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    ids = faces.run(client.tokenize("What is 2+2?"))
    answer = faces.run(
        client.raw_complete(
            "", completion_opts=CompletionOptions(token_ids=ids), max_tokens=4, temperature=0
        )
    )
    for kind in (tuple, np.array, partial(np.array, dtype=np.uint16), partial(array, "q")):
        assert faces.run(client.detokenize(kind(ids))) == "What is 2+2?"
        again = faces.run(
            client.raw_complete(
                "",
                completion_opts=CompletionOptions(token_ids=kind(ids)),
                max_tokens=4,
                temperature=0,
            )
        )
        assert again.text == answer.text
    faces.run(client.close())


def test_a_lone_surrogate_is_located_in_the_text_of_the_user(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    chat, user = client.chat(), {"role": "user"}
    for where, call in {
        "the message": lambda: client.ask("ab\ud800"),
        "a part of the message": lambda: client.ask([{"type": "text", "text": "ab\ud800"}]),
        r"messages\[0\]\['content'\]": lambda: client.ask([user | {"content": "ab\ud800"}]),
        "a text of message 0": lambda: client.ask(MessageItem.create("user", "ab\ud800")),
        "a text of extra_context": lambda: client.ask("Hi", extra_context={"a": ["ab\ud800"]}),
        "the text": lambda: client.raw_complete("ab\ud800"),
        "text 0": lambda: client.embed("ab\ud800"),
        "text 1": lambda: client.embed_batch(["ok", "ab\ud800"], pooling="mean"),
        "content": lambda: chat.append("user", "ab\ud800"),
        "system": lambda: setattr(chat, "system", "ab\ud800"),
    }.items():
        with pytest.raises(TaluError, match=rf"(^|: ){where} is not valid .* at character 2;"):
            faces.run(call())
    assert len(chat) == 0
    with pytest.raises(TokenizerError, match="the message is not valid") as caught:
        faces.run(client.ask(["ok", "ab\ud800"], max_tokens=1))
    assert caught.value.details["index"] == 1
    faces.run(client.close())


def test_wrong_tokens_are_named(faces) -> None:
    client = faces.face.client_class("talu/pocket")
    wrong = ([10**9], [-1], ["a"], "ab", b"ab", {1, 2}, {1: 2}, np.array([[1]]), np.array([1.5]))
    for ids in (*wrong, np.array(1), (number for number in [1])):
        with pytest.raises(ValidationError, match="ids"):
            faces.run(client.detokenize(ids))
    with pytest.raises(ValidationError, match="text must be a str, got 7"):
        faces.run(client.tokenize(7))
    faces.run(client.close())


class Table:
    """A table of which iterating gives the names of the columns, as a DataFrame does."""

    columns = ("q",)

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.parametrize(
    ("prompt", "remedy"),
    [
        ({"a", "b"}, "a list, which is ordered"),
        (Table(), "a column of the table"),
        (itertools.repeat("again"), "at most 100,000 prompts"),
        (["again"] * 100_001, "at most 100,000 prompts"),
    ],
)
def test_a_batch_without_order_or_end_is_refused(prompt, remedy: str) -> None:
    client = Client(ModelSpec("m", ScriptedModel()))
    with pytest.raises(ValidationError, match=remedy) as caught:
        client.ask(prompt)
    assert caught.value.details["param"] == "prompt"

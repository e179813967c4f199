"""The class of an answer that a type checker infers, for each value of ``stream=``."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, Literal, get_overloads, get_type_hints

import pytest

from talu import AsyncChat, AsyncClient, Chat, Client, ValidationError
from talu.chat import AsyncResponse, AsyncStreamingResponse, Response, StreamingResponse

SYNC = {
    Chat: ["__call__", "send", "regenerate"],
    Response: ["append"],
    StreamingResponse: ["append"],
}
ASYNC = {
    AsyncChat: ["__call__", "send", "regenerate"],
    AsyncResponse: ["append"],
    AsyncStreamingResponse: ["append"],
}
CALLS = [
    (kind, name, whole, streamed)
    for calls, whole, streamed in (
        (SYNC, Response, StreamingResponse),
        (ASYNC, AsyncResponse, AsyncStreamingResponse),
    )
    for kind, names in calls.items()
    for name in names
]


@pytest.mark.parametrize(("kind", "name", "whole", "streamed"), CALLS)
def test_the_class_of_an_answer_is_known_for_each_value_of_stream(
    kind: Any, name: str, whole: type, streamed: type
) -> None:
    known = {"Chat": Chat, "AsyncChat": AsyncChat}
    hints = [get_type_hints(form, localns=known) for form in get_overloads(getattr(kind, name))]
    assert {str(hint["stream"]): hint["return"] for hint in hints} == {
        str(Literal[True]): streamed,
        str(Literal[False]): whole,
        str(bool): whole | streamed,
    }


def test_the_vectors_of_an_iteration_have_a_type_for_each_value_of_as_numpy() -> None:
    for method, kind in (
        (Client.embed_iter, Generator),
        (AsyncClient.aembed_iter, AsyncGenerator),
    ):
        hints = [get_type_hints(form) for form in get_overloads(method)]
        assert {str(hint["as_numpy"]): hint["return"] for hint in hints} == {
            str(Literal[False]): kind[list[float]],
            str(Literal[True]): kind[Any],  # an array of NumPy, which is not imported here
        }


def test_stream_must_be_a_boolean(faces) -> None:
    chat = faces.chat("a")
    with pytest.raises(ValidationError, match="stream must be True or False, got 'no'"):
        faces.run(chat.send("Hi", stream="no"))
    assert faces.run(chat.send("Hi")) == "a"

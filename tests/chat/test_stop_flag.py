"""``stop_flag=`` ends answers from any thread."""

import gc
import threading

import pytest

from talu import Client, ModelSpec, StopFlag, ValidationError
from talu.backends.scripted import ScriptedModel
from talu.chat import ItemStatus


def ways(client, chat, flag):
    """Every call that generates, as (name, call)."""
    return {
        "ask": lambda: client.ask("q", stop_flag=flag),
        "raw_complete": lambda: client.raw_complete("q", stop_flag=flag),
        "send": lambda: chat.send("q", stop_flag=flag),
        "call": lambda: chat("q", stream=False, stop_flag=flag),
        "regenerate": lambda: chat.regenerate(stop_flag=flag),
        "append": lambda: chat.last_response.append("q", stop_flag=flag),
    }


@pytest.mark.parametrize("way", ["ask", "raw_complete", "send", "call", "regenerate", "append"])
def test_a_flag_that_is_set_ends_every_kind_of_answer_as_cancelled(faces, way) -> None:
    flag = StopFlag()
    client = faces.client("first", "one two three", "whole")
    chat = client.chat()
    faces.run(chat.send("before"))
    flag.signal()
    answer = faces.run(ways(client, chat, flag)[way]())
    assert (answer.text, answer.finish_reason) == ("", "cancelled")
    flag.reset()
    assert faces.run(client.ask("q", stop_flag=flag)).text == "whole"


def test_a_flag_ends_only_the_streams_that_were_given_it(faces) -> None:
    flag = StopFlag()
    script = ["one", flag.signal, " two", " three"]
    client = faces.client(script, "a b c", "d e f")
    stopped, other = client.chat(), client.chat()
    untouched = faces.run(other("q"))
    answer = faces.run(stopped("q", stop_flag=flag))
    assert "".join(faces.read(untouched)) == "one two three"
    assert (flag.is_set(), bool(flag)) == (True, True)
    assert "".join(faces.read(answer)) == ""
    assert stopped.items[-1].status is ItemStatus.INCOMPLETE


def test_cancelling_one_answer_does_not_signal_the_callers_flag(faces) -> None:
    flag = StopFlag()
    chat = faces.chat("one two three", "four")
    answer = faces.run(chat("q", stop_flag=flag))
    faces.read_some(answer, 1)
    assert not flag.is_set()
    assert faces.run(chat.send("q", stop_flag=flag)).text == "four"


def test_stream_of_a_client_takes_a_flag(faces) -> None:
    flag = StopFlag()
    flag.signal()
    pieces = faces.read(faces.client("one two").stream("q", stop_flag=flag))
    assert [piece.finish_reason for piece in pieces] == ["cancelled"]


def test_a_flag_from_another_thread_ends_an_answer_that_is_waited_for(faces) -> None:
    flag, reached = StopFlag(), threading.Event()
    client = faces.client(["one", reached.set, *(" more" for _ in range(10**6))])
    signaller = threading.Thread(target=lambda: reached.wait() and flag.signal())
    signaller.start()
    answer = faces.run(client.ask("q", stop_flag=flag))
    signaller.join()
    assert answer.finish_reason == "cancelled"
    assert len(answer.text) < 5 * 10**6


def test_a_value_that_is_not_a_flag_is_refused_and_the_chat_stays_usable(faces) -> None:
    chat = faces.chat("a")
    with pytest.raises(ValidationError, match="stop_flag must be a StopFlag, got True") as caught:
        faces.run(chat.send("q", stop_flag=True))
    assert caught.value.details == {"param": "stop_flag"}
    with pytest.raises(ValidationError, match="on_token must be a function"):
        faces.run(chat.send("q", on_token="print"))
    assert faces.run(chat.send("q")).text == "a"


def test_a_flag_that_outlives_many_answers_does_not_grow() -> None:
    flag = StopFlag()
    model = ScriptedModel(*["a"] * 50)
    with Client(ModelSpec("scripted", model)) as client:
        for _ in range(50):
            client.ask("q", stop_flag=flag)
    model.requests.clear()
    gc.collect()
    assert not flag._callbacks

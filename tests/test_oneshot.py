"""Answers without a client."""

import gc

import pytest

import talu
from talu import (
    CompletionOptions,
    ModelSpec,
    ScriptedModel,
    StateError,
    StopFlag,
    ValidationError,
)
from talu.exceptions import GenerationError, ModelNotFoundError


def scripted(*scripts) -> tuple[ScriptedModel, ModelSpec]:
    model = ScriptedModel(*scripts)
    return model, ModelSpec("scripted", model)


def test_ask_answers_like_a_client_and_closes_the_model() -> None:
    model, spec = scripted("Hello there.")
    answer = talu.ask(spec, "Hi", system="S", max_tokens=5)
    assert (answer.text, answer.model, model.closed) == ("Hello there.", "scripted", True)
    assert [m["content"] for m in model.requests[0].messages] == ["S", "Hi"]
    assert model.requests[0].config.given == {"max_tokens": 5}


def test_an_answer_without_a_client_cannot_be_continued() -> None:
    answer = talu.ask(scripted("a")[1], "q")
    assert answer.chat is None
    with pytest.raises(StateError, match="one-shot") as caught:
        answer.append("more")
    assert caught.value.code == "STATE_NO_CHAT"


def test_stream_gives_pieces_and_closes_the_model_at_the_end() -> None:
    model, spec = scripted("one two three")
    pieces = talu.stream(spec, "q")
    assert not model.closed
    assert "".join(pieces) == "one two three"
    assert model.closed


@pytest.mark.parametrize("read", [0, 1])
def test_dropping_a_stream_stops_the_generation_and_closes_the_model(read: int) -> None:
    model, spec = scripted("one two three")
    pieces = talu.stream(spec, "q")
    for _ in range(read):
        next(pieces)
    del pieces
    gc.collect()
    assert (model.active, model.closed) == (0, True)


def test_a_wrong_request_raises_at_the_call_and_closes_the_model() -> None:
    model, spec = scripted()
    with pytest.raises(GenerationError):
        talu.stream(spec, "q")
    assert model.closed
    with pytest.raises(ValidationError, match="did you mean 'max_tokens'"):
        talu.stream(spec, "q", max_token=5)
    with pytest.raises(ValidationError, match="'stream'"):
        talu.ask(spec, "q", stream=True)
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        talu.ask("./nowhere", "q")


def test_a_stop_flag_ends_the_answer() -> None:
    flag = StopFlag()
    model, spec = scripted("one two three")
    pieces = talu.stream(spec, "q", stop_flag=flag)
    read = [next(pieces)]
    flag.signal()
    assert [piece.finish_reason for piece in read + list(pieces)][-1] == "cancelled"
    assert talu.ask(scripted("one two")[1], "q", stop_flag=flag).finish_reason == "cancelled"
    raw = talu.raw_complete(scripted("one two")[1], "q", stop_flag=flag)
    assert (raw.finish_reason, model.closed) == ("cancelled", True)
    with pytest.raises(ValidationError, match="stop_flag must be a StopFlag"):
        talu.ask(spec, "q", stop_flag=True)


def test_raw_complete_sends_the_text_unchanged() -> None:
    model, spec = scripted("b")
    assert talu.raw_complete(spec, "a", system="S").text == "b"
    assert (model.requests[0].prompt, model.closed) == ("S\n\na", True)
    model, spec = scripted("b")
    talu.raw_complete(spec, "", completion_opts=CompletionOptions([1, 2]))
    assert model.requests[0].token_ids == (1, 2)

"""Copies: values support pickle and deepcopy; for live objects the error names the alternative."""

import copy
import pickle

import pytest

from talu import GenerationConfig, Profile, PromptTemplate, StopFlag
from talu.chat import Token
from talu.exceptions import StateError, TaluError, ValidationError
from talu.hooks import LoggingHook, MetricsHook, OpenTelemetryHook
from talu.types import ReasoningDelta, TextDelta, TokenLogprob, ToolCallEvent

COPIES = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}
EVERY_WAY = {**COPIES, "copy": copy.copy}
LOGPROB = TokenLogprob(7, "a", -0.5, [(7, "a", -0.5), (8, "b", -1.5)])
SCRIPT = [
    ReasoningDelta("hm", (3,)),
    TextDelta("Zoë \ud800 🦊", (7,), (LOGPROB,)),
    ToolCallEvent("c1", "add", '{"a": 1}'),
]

by_copy = pytest.mark.parametrize("made", COPIES.values(), ids=COPIES)
in_every_way = pytest.mark.parametrize("made", EVERY_WAY.values(), ids=EVERY_WAY)


@by_copy
def test_a_copy_of_an_answer_has_the_same_attributes(faces, made) -> None:
    answer = faces.run(faces.chat(SCRIPT).send("q", logprobs=True))
    copied = made(answer)
    assert type(copied) is type(answer)
    assert copied == answer
    assert copied.to_dict() == answer.to_dict()
    assert repr(copied) == repr(answer)
    for name in ("tokens", "logprobs", "prompt", "content", "finish_reason", "usage", "timings"):
        assert getattr(copied, name) == getattr(answer, name), name
    assert copied.logprobs[0].top_logprobs is not answer.logprobs[0].top_logprobs


@by_copy
def test_a_copy_of_an_answer_has_no_chat_and_says_why_nothing_can_be_appended(faces, made) -> None:
    chat = faces.chat("one", "two")
    answer = faces.run(chat.send("q"))
    copied = made(answer)
    assert copied.chat is None
    with pytest.raises(
        StateError, match=r"does not belong to a chat, because it is a .* copy"
    ) as caught:
        faces.run(copied.append("more"))
    assert caught.value.code == "STATE_NO_CHAT"
    assert made(copied).to_dict() == answer.to_dict()
    assert faces.run(answer.append("more")).chat is chat


def test_a_shallow_copy_of_an_answer_is_the_answer(faces) -> None:
    answer = faces.run(faces.chat("one").send("q"))
    assert copy.copy(answer) is answer


@in_every_way
def test_the_values_of_an_answer_copy_to_equal_values(faces, made) -> None:
    chat = faces.chat("one two")
    stream = faces.run(chat("q"))
    pieces = faces.read(stream)
    values = [
        *pieces,
        stream.usage,
        stream.timings,
        stream.finish_reason,
        stream.to_dict(),
        stream.content,
        list(chat.items),
        chat.messages,
        LOGPROB,
        GenerationConfig(seed=3, stop_sequences=["x"], chat_template=PromptTemplate("{{ x }}")),
    ]
    for value in values:
        assert made(value) == value
    copied = made(Token("a", id=5, logprob=-0.5))
    assert (copied, copied.id, copied.logprob, copied.finish_reason) == ("a", 5, -0.5, None)


@in_every_way
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.usefixtures("home")
def test_a_live_object_cannot_be_copied_and_the_error_names_the_alternative(
    faces, made, stream
) -> None:
    client = faces.client("one two", profile=Profile("work"), hooks=[MetricsHook()])
    chat = client.chat()
    answer = faces.run(chat("q", stream=stream))
    at_work = {
        r"Client cannot be copied or pickled: make another one with the same models": client,
        r"Chat cannot .*: fork\(\) makes an independent one; to_dict\(\)": chat,
        r"Profile cannot .*: open it again by its name": client.profile,
        r"Router cannot .*: make another one, or a client": client.router,
        r"HookManager cannot .*: make a new one with the same hooks": client.hooks,
        r"MetricsHook cannot .*: snapshot\(\) returns the counts as values": client.hooks.hooks[0],
        r"OpenTelemetryHook cannot .*: share the hook itself": OpenTelemetryHook(),
        r"StopFlag cannot .*: share the flag itself": StopFlag(),
    }
    if stream:
        at_work |= {r"StreamingResponse cannot .*: read it, and take its text": answer}
    for message, handle in at_work.items():
        with pytest.raises(StateError, match=message) as caught:
            made(handle)
        assert caught.value.code == "STATE_NOT_COPYABLE"
    if stream:
        assert "".join(faces.read(answer)) == "one two"  # the client still works


@in_every_way
def test_an_error_keeps_its_code_and_its_details(made) -> None:
    for error in (ValidationError("no", details={"param": "x"}), TaluError("no", "CODE")):
        copied = made(error)
        assert type(copied) is type(error)
        assert (str(copied), copied.code, copied.details) == ("no", error.code, error.details)


@by_copy
def test_the_logging_hook_can_be_pickled(made) -> None:
    assert isinstance(made(LoggingHook(level=10)), LoggingHook)

"""Clients with a policy: which model answers, what is said about the others, what hooks see."""

import asyncio
import gc
import signal
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.router.scripted import model, tried

from talu import Client, Profile
from talu.backends.scripted import ScriptedModel, Step
from talu.bridge import run_in_background
from talu.chat import Hook
from talu.config import GenerationConfig
from talu.exceptions import (
    EndpointError,
    GenerationError,
    ModelNotFoundError,
    StateError,
    TaluError,
    ValidationError,
)
from talu.router import (
    ByCapability,
    CompletionOptions,
    Fallback,
    First,
    ModelSpec,
    OpenAICompatibleBackend,
    Policy,
    RoundRobin,
)
from talu.router.dispatch import CLOSING
from talu.types import (
    Capabilities,
    FinishReason,
    ReasoningDelta,
    StopFlag,
    TextDelta,
    ToolCallEvent,
)

Script = str | list[Step]


def down(**arguments: Any) -> EndpointError:
    return EndpointError("it is down", "ENDPOINT_UNREACHABLE", transient=True, **arguments)


class Recorder(Hook):
    """Records every event of a generation."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_generation_start(self, chat: Any, input_text: str, *, config: Any = None) -> None:
        self.events.append("start")

    def on_first_token(self, chat: Any, time_ms: float) -> None:
        self.events.append("first token")

    def on_attempt(self, chat: Any, attempt: Any) -> None:
        self.events.append((attempt.model, attempt.error))

    def on_generation_end(self, chat: Any, response: Any, *, error: Any = None) -> None:
        self.events.append(type(error).__name__ if error else str(response.finish_reason))


def test_the_next_model_answers_when_the_first_one_fails(faces: Any) -> None:
    hook = Recorder()
    with_policy = faces.client_of(
        model("a", [down()]), model("b", "Hello there."), policy=Fallback(), hooks=[hook]
    )
    answer = faces.run(with_policy.ask("hi"))
    assert (answer.text, answer.model) == ("Hello there.", "b")
    assert tried(answer) == [("a", "ENDPOINT_UNREACHABLE"), ("b", None)]
    assert answer.notes == ("'b' answered instead of 'a': it is down",)
    assert answer.to_dict()["attempts"][0]["reason"] == "it is down"
    first, second = answer.attempts
    assert 0 <= first.started_ms < second.started_ms
    assert second.first_token_ms is not None
    assert 0 <= second.first_token_ms <= second.duration_ms
    assert hook.events == ["start", "first token", *tried(answer), "stop"]


def test_the_answer_of_the_first_choice_has_one_attempt_and_no_note(faces: Any) -> None:
    client = faces.client_of(model("a", "Hello."), model("b"), policy=Fallback())
    answer = faces.run(client.ask("hi"))
    assert (tried(answer), answer.notes) == ([("a", None)], ())


def test_a_stream_falls_back_until_its_first_token(faces: Any) -> None:
    held_back = [TextDelta(""), down()]
    client = faces.client_of(model("a", held_back), model("b", "one two"), policy=Fallback())
    stream = client.stream("hi") if faces.name == "sync" else faces.run(client.stream("hi"))
    assert [str(piece) for piece in faces.read(stream)] == ["one", " two", ""]


@pytest.mark.parametrize(
    "first",
    [
        "text",
        TextDelta("", (1,)),
        ReasoningDelta("thinking"),
        ToolCallEvent("call_1", "now", "{}"),
    ],
    ids=["text", "token without text", "reasoning", "tool call"],
)
def test_no_other_model_continues_an_answer_that_is_read_as_it_comes(
    faces: Any, first: Step
) -> None:
    hook = Recorder()
    broken = EndpointError("it broke", "STREAM_BROKEN", transient=True)
    client = faces.client_of(
        model("a", [first, broken]), model("b", "never"), policy=Fallback(), hooks=[hook]
    )
    with pytest.raises(EndpointError, match="it broke") as caught:
        faces.run(client.chat().send("hi", on_token=lambda piece: None))
    assert tried(caught.value) == [("a", "STREAM_BROKEN")]
    assert hook.events == ["start", "first token", ("a", "STREAM_BROKEN"), "EndpointError"]
    status = client.router.status().targets
    assert [target.failures for target in status] == [1, 0]


def test_an_echo_of_the_prompt_is_not_a_token(faces: Any) -> None:
    echo = [TextDelta("Once upon", echo=True), down()]
    client = faces.client_of(model("a", echo), model("b", "a time"), policy=Fallback())
    options = CompletionOptions(echo_prompt=True)
    answer = faces.run(client.raw_complete("Once upon", completion_opts=options))
    assert tried(answer) == [("a", "ENDPOINT_UNREACHABLE"), ("b", None)]


@pytest.mark.parametrize(
    "error", [ValidationError("no"), StateError("no"), ZeroDivisionError("no")]
)
def test_an_error_that_every_model_would_raise_is_raised_at_once(
    faces: Any, error: Exception
) -> None:
    other = model("b", "never")
    client = faces.client_of(model("a", [error]), other, policy=Fallback())
    with pytest.raises(type(error), match="no"):
        faces.run(client.ask("hi"))
    assert other.requests == []


def test_when_all_models_fail_the_error_says_what_each_of_them_said(faces: Any) -> None:
    hook = Recorder()
    client = faces.client_of(
        model("a", [down(status=503)]),
        model("b", [EndpointError("no such key", "AUTHENTICATION_FAILED")]),
        policy=Fallback(wait=0),
        hooks=[hook],
    )
    with pytest.raises(EndpointError) as caught:
        faces.run(client.ask("hi"))
    error = caught.value
    assert str(error) == "no model answered: 'a': it is down; 'b': no such key"
    assert (error.code, error.status, error.transient) == ("ENDPOINT_UNREACHABLE", 503, True)
    assert tried(error) == [("a", "ENDPOINT_UNREACHABLE"), ("b", "AUTHENTICATION_FAILED")]
    assert hook.events == ["start", *tried(error), "EndpointError"]


def test_errors_of_different_kinds_are_an_error_of_the_generation(faces: Any) -> None:
    client = faces.client_of(
        model("a", [ModelNotFoundError("no folder")]), model("b", [down()]), policy=Fallback(wait=0)
    )
    with pytest.raises(GenerationError, match="'a': no folder; 'b': it is down") as caught:
        faces.run(client.ask("hi"))
    assert not isinstance(caught.value, EndpointError)
    assert isinstance(caught.value.__cause__, EndpointError)


def test_a_lone_model_raises_its_own_error(faces: Any) -> None:
    client = faces.client_of(model("a", [down()], "again"), policy=Fallback())
    with pytest.raises(EndpointError, match=r"^it is down$") as caught:
        faces.run(client.ask("hi"))
    assert tried(caught.value) == [("a", "ENDPOINT_UNREACHABLE")]
    # It is not locked out: a pause of a second would not be over in time.
    assert faces.run(client.ask("hi", timeout=0.9)).text == "again"


def test_a_model_that_cannot_be_opened_is_passed_over(faces: Any) -> None:
    specs = [ModelSpec("/no/such/folder", name="a"), ModelSpec("b", model("b", "Hello."))]
    client = faces.face.client_class(specs, policy=Fallback())
    answer = faces.run(client.ask("hi"))
    assert tried(answer) == [("a", "MODEL_NOT_FOUND"), ("b", None)]
    assert "/no/such/folder" in answer.notes[0]


class Narrow(ScriptedModel):
    """A model without a seed and without tools."""

    settings = ("max_tokens", "temperature")
    capabilities = Capabilities.of(settings)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (ModelSpec("openai::m", name="x"), "MISSING_KEY"),
        (ModelSpec("vllm::m", OpenAICompatibleBackend("ftp://a/v1"), name="x"), "INVALID_ARGUMENT"),
        (ModelSpec("vlmm::m", name="x"), "AMBIGUOUS_BACKEND"),
    ],
)
def test_a_model_with_a_wrong_configuration_fails_and_the_next_one_is_asked(
    faces: Any, monkeypatch: pytest.MonkeyPatch, wrong: ModelSpec, code: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    first, last = model("a", [down()]), model("c", "one", "two")
    specs = [ModelSpec("a", first), wrong, ModelSpec("c", last)]
    client = faces.face.client_class(specs, policy=Fallback())
    answer = faces.run(client.ask("hi"))
    assert tried(answer) == [("a", "ENDPOINT_UNREACHABLE"), ("x", code), ("c", None)]
    state = client.router.status().targets[1]
    assert (state.failures, state.cooling_s > 50) == (1, True)
    assert state.cooling_reason == answer.attempts[1].reason
    assert tried(faces.run(client.ask("hi"))) == [("c", None)]


def test_a_lone_model_with_a_wrong_configuration_raises_its_own_error(faces: Any) -> None:
    client = faces.face.client_class(ModelSpec("vlmm::m", name="x"), policy=Fallback())
    for _ in range(2):
        with pytest.raises(ValidationError) as caught:
            faces.run(client.ask("hi"))
        assert caught.value.code == "AMBIGUOUS_BACKEND"


def test_a_model_that_does_not_honour_a_setting_is_passed_over(faces: Any) -> None:
    narrow = Narrow("never", model="a")
    client = faces.client_of(narrow, model("b", "Hello."), policy=Fallback())
    answer = faces.run(client.ask("hi", seed=7))
    assert tried(answer) == [("a", "UNSUITABLE"), ("b", None)]
    assert answer.notes == ("'b' answered instead of 'a': it has no seed",)
    assert narrow.requests == []
    assert client.router.status().targets[0].failures == 0
    assert faces.run(client.ask("hi")).model == "a"  # without the setting


def test_when_no_model_honours_a_setting_the_error_names_it(faces: Any) -> None:
    client = faces.client_of(Narrow(model="a"), Narrow(model="b"), policy=Fallback())
    with pytest.raises(GenerationError, match="'a' and 'b': it has no seed; leave out"):
        faces.run(client.ask("hi", seed=7))


def test_a_lone_model_that_cannot_answer_is_named_and_its_error_is_public(faces: Any) -> None:
    client = faces.client_of(Narrow(model="a"), policy=Fallback())
    with pytest.raises(GenerationError, match="'a': it has no seed; leave out") as caught:
        faces.run(client.ask("hi", seed=7))
    assert type(caught.value) is type(caught.value.__cause__) is GenerationError
    assert (caught.value.code, caught.value.details["models"]) == ("UNSUITABLE", ["a"])


class Counting(ScriptedModel):
    """Remembers in which thread it counts tokens."""

    threads: ClassVar[list[threading.Thread]] = []

    def count(self, request: Any) -> int:
        self.threads.append(threading.current_thread())
        return super().count(request)


def test_tokens_are_not_counted_on_the_event_loop(awaited: Any) -> None:
    counting = Counting("x", model="a", max_context_length=9)
    client = awaited.client_of(counting, policy=ByCapability())
    assert awaited.run(client.ask("hi")) == "x"
    assert threading.current_thread() not in counting.threads
    assert len(counting.threads) == 1


def test_the_first_policy_asks_no_other_model(faces: Any) -> None:
    other = model("b", "never")
    client = faces.client_of(model("a", [down()]), other, policy=First())
    with pytest.raises(EndpointError, match="it is down"):
        faces.run(client.ask("hi"))
    assert other.requests == []


def test_by_capability_passes_over_a_model_without_room_or_ability(faces: Any) -> None:
    small = model("small", "never", max_context_length=4)
    client = faces.client_of(small, model("large", "Hello."), policy=ByCapability())
    answer = faces.run(client.ask("one two three four five"))
    assert answer.model == "large"
    assert "its context of 4 tokens has no room" in answer.notes[0]
    client = faces.client_of(
        Narrow(model="a"), model("b", "Hello."), policy=ByCapability(["tool_calling"])
    )
    assert faces.run(client.ask("hi")).notes[0].endswith("it has no tool_calling")


def test_a_policy_supports_what_one_of_its_models_supports(faces: Any) -> None:
    client = faces.client_of(Narrow(model="a"), model("b"), policy=Fallback())
    assert client.capabilities("a").tool_calling is False
    assert client.capabilities().tool_calling is client.capabilities("b").tool_calling is True


@pytest.mark.parametrize("ask", ["embed", "count_tokens", "tokenize"])
def test_what_depends_on_the_model_needs_the_name_of_one(ask: str) -> None:
    with Client([ModelSpec("a", model("a"))], policy=Fallback()) as client:
        with pytest.raises(TaluError, match=r"model 'fallback' .* as in model='a'"):
            getattr(client, ask)("hi")
        assert client.count_tokens("hi there", model="a") == 2


def test_a_named_model_is_asked_directly(faces: Any) -> None:
    client = faces.client_of(model("a", [down()]), model("b", "Hello."), policy=Fallback())
    answer = faces.run(client.ask("hi", model="b"))
    assert (answer.text, tried(answer)) == ("Hello.", [("b", None)])
    with pytest.raises(EndpointError):
        faces.run(client.ask("hi", model="a"))


def test_a_chat_keeps_the_policy_and_its_answers_name_the_model(faces: Any) -> None:
    client = faces.client_of(model("a", "one"), model("b", "two"), policy=RoundRobin())
    chat = client.chat()
    assert [faces.run(chat.send(text)).model for text in ("1", "2")] == ["a", "b"]
    assert chat.model == "roundrobin"
    assert [item.text for item in chat.items] == ["1", "one", "2", "two"]


def test_a_stored_chat_continues_with_the_policy(faces: Any, home: Path) -> None:
    def client() -> Any:
        return faces.client_of(
            model("a", [down()]), model("b", "Hello."), policy=Fallback(), profile=Profile("work")
        )

    first, second = client(), client()
    chat = first.chat(session_id="s1")
    faces.run(chat.send("hi"))
    again = second.chat(session_id="s1")
    assert (again.model, again.items[1].text) == ("fallback", "Hello.")
    assert again.items[1].generation["model"] == "b"
    faces.run(again.send("hi"))


def test_an_empty_answer_is_an_answer(faces: Any) -> None:
    client = faces.client_of(model("a", []), model("b", "never"), policy=Fallback())
    answer = faces.run(client.ask("hi"))
    assert (answer.text, answer.model, tried(answer)) == ("", "a", [("a", None)])


def test_a_stop_flag_ends_the_request_while_models_are_asked(faces: Any) -> None:
    flag = StopFlag()

    def stop() -> None:
        flag.signal()

    client = faces.client_of(model("a", [stop, down()]), model("b", "never"), policy=Fallback())
    answer = faces.run(client.ask("hi", stop_flag=flag))
    assert answer.finish_reason is FinishReason.CANCELLED
    assert answer.text == ""
    assert client.router.status().targets[0].running == 0


@pytest.mark.parametrize("method", ["order", "unfit"])
def test_a_stop_flag_ends_a_request_whose_policy_is_still_deciding(faces: Any, method: str) -> None:
    flag, decided = StopFlag(), threading.Event()

    def decide(*_: Any) -> Any:
        flag.signal()
        assert decided.wait(60)

    policy = type("Slow", (Fallback,), {method: decide})()
    other = model("a", "never")
    client = faces.client_of(other, policy=policy)
    try:
        answer = faces.run(client.ask("hi", stop_flag=flag))
    finally:
        decided.set()
    assert (answer, answer.finish_reason, other.requests) == ("", FinishReason.CANCELLED, [])

    async def closed() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(task for task in CLOSING if task.get_loop() is loop))

    faces.run(closed() if faces.name == "async" else run_in_background(closed))
    assert client.router.status().targets[0].running == 0


def test_ctrl_c_ends_a_request_and_releases_its_model() -> None:
    async def interrupted() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await asyncio.get_running_loop().create_future()

    scripted = model("a", [interrupted, "never"], ["x", interrupted, "never"], "again")
    with Client([ModelSpec("a", scripted)], policy=Fallback()) as client:
        for _ in range(2):  # before the first token, and after it
            with pytest.raises(KeyboardInterrupt):
                client.ask("hi")
        assert client.ask("hi").text == "again"
        for _ in range(5):
            run_in_background(lambda: asyncio.sleep(0))
        assert (client.router.status().targets[0].running, scripted.active) == (0, 0)


def test_a_stream_that_is_dropped_releases_its_model(faces: Any) -> None:
    scripted = model("a", "one two three")
    client = faces.client_of(scripted, policy=Fallback())
    stream = client.stream("hi") if faces.name == "sync" else faces.run(client.stream("hi"))
    assert [str(piece) for piece in faces.read_some(stream, 1)] == ["one"]
    del stream
    gc.collect()
    for _ in range(5 if faces.name == "async" else 0):  # the loop ends a dropped stream
        faces.run(asyncio.sleep(0))
    assert client.router.status().targets[0].running == 0
    assert scripted.active == 0


def test_running_requests_are_seen_in_the_status() -> None:
    seen = []

    def look() -> None:
        seen.append(client.router.status().targets[0].running)

    with Client(ModelSpec("a", model("a", ["x", look, "y"])), policy=Fallback()) as client:
        client.ask("hi")
        assert seen == [1]
        assert client.router.status().targets[0].running == 0


class Failing(Hook):
    def on_attempt(self, chat: Any, attempt: Any) -> None:
        raise ZeroDivisionError


def test_a_hook_that_fails_at_an_attempt_changes_nothing(
    faces: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Recorder()
    client = faces.client_of(model("a", "x"), policy=Fallback(), hooks=[Failing(), hook])
    faces.run(client.ask("hi"))
    assert hook.events == ["start", "first token", ("a", None), "stop"]
    assert "Failing.on_attempt failed" in caplog.text


def test_an_answer_without_a_policy_has_no_attempts(faces: Any) -> None:
    hook = Recorder()
    client = faces.client_of(model("a", "x"), hooks=[hook])
    answer = faces.run(client.ask("hi"))
    assert (answer.attempts, "attempts" in answer.to_dict()) == ((), False)
    assert hook.events == ["start", "first token", "stop"]


def test_a_request_that_has_ended_keeps_nothing_of_its_error() -> None:
    kept: list[weakref.ref[TaluError]] = []

    def fail() -> None:
        error = EndpointError("x", "SERVER_ERROR", transient=True)
        kept.append(weakref.ref(error))
        raise error

    with Client(
        [ModelSpec("a", model("a", [fail])), ModelSpec("b", model("b", "x"))], policy=Fallback()
    ) as client:
        client.ask("hi")
        for _ in range(3):  # the background loop forgets the request
            run_in_background(lambda: asyncio.sleep(0))
        gc.collect()
        assert kept[0]() is None


def test_the_settings_of_a_chat_reach_the_model_that_answers(faces: Any) -> None:
    second = model("b", "x")
    client = faces.client_of(model("a", [down()]), second, policy=Fallback())
    faces.run(client.ask("hi", config=GenerationConfig(seed=7)))
    assert second.requests[0].config.seed == 7


def test_a_policy_of_ones_own_orders_the_models(faces: Any) -> None:
    class Last(Policy):
        def order(self, request: Any, targets: Any) -> list[str]:
            return [target.model for target in reversed(targets)]

    client = faces.client_of(model("a"), model("b", "x"), policy=Last())
    assert faces.run(client.ask("hi")).model == "b"

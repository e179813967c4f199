"""One question to several models at once."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.router.scripted import down, model

from talu import Client, ModelSpec
from talu.backends.scripted import ScriptedModel, Step
from talu.chat import Hook
from talu.exceptions import EndpointError, GenerationError, StateError, ValidationError
from talu.router import Fallback, Policy
from talu.types import Done, FinishReason, StopFlag, Timings, Usage

Script = str | list[Step]


class Waiting:
    """A step that waits until the test lets it go on, or until its task is cancelled."""

    def __init__(self, faces: Any) -> None:
        self._event = threading.Event()
        self._blocks = faces.name == "sync"

    def __call__(self) -> Any:
        return self._event.wait(30) if self._blocks else self._poll()

    async def _poll(self) -> None:
        while not self._event.is_set():
            await asyncio.sleep(0)

    def go_on(self) -> None:
        self._event.set()


def test_the_answers_are_in_the_order_of_the_models(faces: Any) -> None:
    first = Waiting(faces)

    def second() -> None:
        first.go_on()

    client = faces.client_of(model("a", [first, "one"]), model("b", [second, "two"]))
    answers = faces.run(client.ask_all("hi"))
    assert [answer.text for answer in answers] == ["one", "two"]
    assert [answer.model for answer in answers] == ["a", "b"]


def test_an_exception_is_in_the_place_of_an_answer(faces: Any) -> None:
    client = faces.client_of(
        model("a", "one"), model("b", [down()]), model("c", [ZeroDivisionError("zero")])
    )
    first, second, third = faces.run(client.ask_all("hi", models=["b", "a", "c"]))
    assert str(first) == "it is down"
    assert isinstance(first, EndpointError)
    assert second.text == "one"
    assert isinstance(third, ZeroDivisionError)


def test_a_model_may_be_asked_several_times_and_so_may_a_policy(faces: Any) -> None:
    client = faces.client_of(
        model("a", "one", "two"), model("b", "three"), policy=Fallback(models=["b"])
    )
    answers = faces.run(client.ask_all("hi", models=["a", "a", "fallback"]))
    assert sorted(answer.text for answer in answers) == ["one", "three", "two"]


def test_settings_and_the_system_message_reach_every_model(faces: Any) -> None:
    models = [model("a", "x"), model("b", "x")]
    client = faces.client_of(*models)
    faces.run(client.ask_all("hi", system="Be brief.", seed=7))
    for each in models:
        assert each.requests[0].config.seed == 7
        assert each.requests[0].messages is not None
        assert [part["role"] for part in each.requests[0].messages] == ["system", "user"]


def test_a_backend_that_cancels_its_own_task_is_a_failure_of_its_model_only(faces: Any) -> None:
    def cancel() -> None:
        raise asyncio.CancelledError

    def client() -> Any:
        return faces.client_of(model("a", [cancel]), model("b", "two"))

    failed, answer = faces.run(client().ask_all("hi"))
    assert isinstance(failed, GenerationError)
    assert (str(failed), answer.text) == (
        "the request was cancelled by the code that ran it",
        "two",
    )
    assert faces.run(client().race("hi")).text == "two"


def test_the_fastest_complete_answer_wins_a_race_and_the_others_are_cancelled(faces: Any) -> None:
    waiting = Waiting(faces)
    slow = model("a", ["I begin", waiting, "and never end"])
    client = faces.client_of(slow, model("b", [down()]), model("c", "done"))
    answer = faces.run(client.race("hi"))
    assert (answer.text, answer.model) == ("done", "c")
    assert [each.model for each in answer.attempts] == ["a", "b", "c"]
    assert answer.attempts[2].error is None
    assert {each.error for each in answer.attempts[:2]} <= {"SLOWER", "SERVER_ERROR"}
    waiting.go_on()


def test_a_failure_does_not_win_a_race(faces: Any) -> None:
    failed = Waiting(faces)

    def fail() -> None:
        failed.go_on()
        raise down()

    client = faces.client_of(model("a", [fail]), model("b", [failed, "late, but good"]))
    answer = faces.run(client.race("hi"))
    assert answer.text == "late, but good"


def test_a_race_without_a_winner_says_what_each_model_said(faces: Any) -> None:
    client = faces.client_of(model("a", [down()]), model("b", [GenerationError("too long")]))
    with pytest.raises(GenerationError, match="'a': it is down; 'b': too long") as caught:
        faces.run(client.race("hi"))
    assert [each.error for each in caught.value.attempts] == ["SERVER_ERROR", "GENERATION_FAILED"]


def test_a_stop_flag_ends_all_answers(faces: Any) -> None:
    flag = StopFlag()
    scripts: list[Callable[[], ScriptedModel]] = [
        lambda: model("a", [flag.signal, "never"]),
        lambda: model("b", [flag.signal, "never"]),
    ]
    answers = faces.run(
        faces.client_of(*(make() for make in scripts)).ask_all("hi", stop_flag=flag)
    )
    assert [answer.finish_reason for answer in answers] == [FinishReason.CANCELLED] * 2
    flag.reset()
    answer = faces.run(faces.client_of(*(make() for make in scripts)).race("hi", stop_flag=flag))
    assert answer.finish_reason is FinishReason.CANCELLED


def test_a_race_whose_flag_is_signalled_already_gives_an_answer_that_is_cut_short(
    faces: Any,
) -> None:
    flag = StopFlag()
    flag.signal()
    client = faces.client_of(model("a", "never"), model("b", "never"))
    answer = faces.run(client.race("hi", stop_flag=flag))
    assert (answer, answer.finish_reason) == ("", FinishReason.CANCELLED)
    assert {each.error for each in answer.attempts} == {None, "CANCELLED"}


def test_answers_name_their_model_as_the_client_does(faces: Any) -> None:
    specs = [ModelSpec("one", model("x", *["hi"] * 4)), ModelSpec("two", model("x", *["hi"] * 4))]
    client = faces.face.client_class(specs, policy=Fallback())
    answers = faces.run(client.ask_all("hi", models=["two", "fallback", "one"]))
    assert [answer.model for answer in answers] == ["two", "one", "one"]
    answer = faces.run(client.race("hi", models=["two"]))
    assert (answer.model, answer.attempts[0].model) == ("two", "two")
    assert faces.run(client.ask("hi", model="two")).model == "two"
    chat = client.chat(model="two")
    assert (faces.run(chat.send("hi")).model, chat.items[-1].generation["model"]) == ("two", "two")


def test_the_time_limit_counts_for_all_models_together(faces: Any) -> None:
    def late() -> Any:
        return asyncio.sleep(0.05) if faces.name == "async" else threading.Event().wait(0.05)

    client = faces.client_of(model("a", [late, "x"], [late, "x"]), model("b", [late, "x"]))
    answers = faces.run(client.ask_all("hi", timeout=0.02))
    assert [answer.code for answer in answers] == ["GENERATION_TIMEOUT"] * 2
    with pytest.raises(GenerationError):
        faces.run(client.race("hi", models=["a"], timeout=0.02))


@pytest.mark.parametrize("method", ["ask_all", "race"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["aa"]}, "model 'aa' is not available here"),
        ({"models": "a"}, "models must be a list"),
        ({"models": []}, "models must be a list"),
        ({"models": ["a"] * 1001}, "models must be a list of 1 to 1,000"),
        ({"prompt": ["one", "two"]}, "answers one question"),
        ({"temperature": -1}, "temperature"),
        ({"sead": 7}, "did you mean 'seed'"),
        ({"timeout": 0}, "timeout must be"),
        ({"stop_flag": True}, "stop_flag must be"),
    ],
)
def test_wrong_arguments_are_errors_of_the_call(
    faces: Any, method: str, arguments: dict[str, Any], message: str
) -> None:
    client = faces.client_of(model("a"), model("b"))
    with pytest.raises(ValidationError, match=message):
        faces.run(getattr(client, method)(**{"prompt": "hi", **arguments}))


@pytest.mark.parametrize("method", ["ask_all", "race"])
def test_a_closed_client_asks_nobody(faces: Any, method: str) -> None:
    client = faces.client_of(model("a"))
    faces.run(client.close())
    with pytest.raises(StateError, match="closed"):
        faces.run(getattr(client, method)("hi"))


def test_ctrl_c_stops_all_models() -> None:
    entered = threading.Event()

    def interrupt() -> None:
        entered.set()
        raise KeyboardInterrupt

    with (
        Client(
            [ModelSpec("a", model("a", [interrupt])), ModelSpec("b", model("b", "x"))]
        ) as client,
        pytest.raises(KeyboardInterrupt),
    ):
        client.ask_all("hi")
    assert entered.is_set()


class Release(Hook):
    """Lets a model go on when a generation has ended."""

    def __init__(self, wait: Waiting) -> None:
        self._wait = wait

    def on_generation_end(self, chat: Any, response: Any, *, error: Any = None) -> None:
        self._wait.go_on()


def ending(reason: FinishReason, *steps: Step) -> list[Step]:
    return [*steps, Done(reason, Usage(), Timings(), "m")]


FLAWED = {
    "filtered": ending(FinishReason.CONTENT_FILTER, "part"),
    "empty": ending(FinishReason.STOP),
    "blank": ending(FinishReason.STOP, " \n"),
    "cut": ending(FinishReason.LENGTH, "part"),
}


@pytest.mark.parametrize("name", FLAWED)
def test_an_incomplete_answer_does_not_win_a_race(faces: Any, name: str) -> None:
    wait = Waiting(faces)
    models = (model("flawed", FLAWED[name]), model("good", [wait, "good"]))
    answer = faces.run(faces.client_of(*models, hooks=[Release(wait)]).race("hi"))
    assert (answer, answer.model, answer.notes) == ("good", "good", ())


def test_an_answer_of_the_length_that_the_call_allows_wins_a_race(faces: Any) -> None:
    client = faces.client_of(model("cut", FLAWED["cut"]))
    answer = faces.run(client.race("hi", max_tokens=5))
    assert (answer, answer.notes) == ("part", ())


def test_without_a_complete_answer_a_race_returns_one_with_text_and_a_note(faces: Any) -> None:
    client = faces.client_of(model("empty", FLAWED["empty"]), model("cut", FLAWED["cut"]))
    answer = faces.run(client.race("hi"))
    assert (answer, answer.finish_reason) == ("part", "length")
    (note,) = answer.notes
    assert note.startswith("no model gave a complete answer")
    assert [attempt.error for attempt in answer.attempts] == ["INCOMPLETE", None]


class Placed(ScriptedModel):
    """A model with a location."""

    @property
    def location(self) -> Any:
        return f"/models/{self.model}"


class Attempts(Hook):
    """Records the attempts of all generations."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, str | None]] = []
        self._changed = threading.Condition()

    def on_attempt(self, chat: Any, attempt: Any) -> None:
        with self._changed:
            self.seen.append((attempt.model, attempt.location, attempt.error))
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until so many attempts have been seen."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, 30)


def test_the_attempts_of_a_race_have_a_location_and_the_time_of_the_first_token(
    faces: Any,
) -> None:
    hook, begun, waiting = Attempts(), Waiting(faces), Waiting(faces)

    def begin() -> None:
        begun.go_on()

    client = faces.client_of(
        Placed(["one", begin, waiting, "two"], model="slow"),
        Placed([begun, "done"], model="fast"),
        hooks=[hook],
    )
    answer = faces.run(client.race("hi"))
    slow, fast = answer.attempts
    assert [each.location for each in (slow, fast)] == ["/models/slow", "/models/fast"]
    assert (slow.error, fast.error) == ("SLOWER", None)
    for each in (slow, fast):
        assert 0 < each.first_token_ms <= each.duration_ms
    assert ("fast", "/models/fast", None) in hook.seen
    waiting.go_on()


@pytest.mark.parametrize("policy", [None, Fallback()], ids=["no policy", "policy"])
def test_hooks_and_the_answer_say_the_same_of_a_model_that_was_slower(
    faces: Any, policy: Policy | None
) -> None:
    hook, begun, waiting = Attempts(), Waiting(faces), Waiting(faces)
    if policy is not None:  # all models are asked on one event loop
        begun._blocks = waiting._blocks = False

    def begin() -> None:
        begun.go_on()

    client = faces.client_of(
        model("slow", [begin, waiting, "late"]),
        model("fast", [begun, "done"]),
        policy=policy,
        hooks=[hook],
    )
    answer = faces.run(client.race("hi", models=["slow", "fast"]))
    assert [(each.model, each.error) for each in answer.attempts] == [
        ("slow", "SLOWER"),
        ("fast", None),
    ]
    waiting.go_on()
    if faces.name == "sync":  # its thread ends after the call
        hook.wait_for(2)
    assert sorted((name, error) for name, _, error in hook.seen) == [
        ("fast", None),
        ("slow", "SLOWER"),
    ]


def test_the_attempts_of_a_race_with_a_policy_name_the_models_that_it_asked(faces: Any) -> None:
    client = faces.client_of(
        model("a", [down()]), model("b", "done"), policy=Fallback(models=["a", "b"])
    )
    answer = faces.run(client.race("hi", models=["fallback"]))
    assert [(each.model, each.error) for each in answer.attempts] == [
        ("a", "SERVER_ERROR"),
        ("b", None),
    ]
    assert answer.model == "b"


def test_questions_to_all_models_report_no_attempts_without_a_router(faces: Any) -> None:
    hook = Attempts()
    client = faces.client_of(model("a", "x"), model("b", "y"), hooks=[hook])
    answers = faces.run(client.ask_all("hi"))
    assert ([answer.attempts for answer in answers], hook.seen) == ([(), ()], [])

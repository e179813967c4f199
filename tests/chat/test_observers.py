"""Hooks get exactly one start, one first token and one end for each generation."""

import functools
import logging

import pytest

from talu.backends.scripted import ScriptedModel
from talu.chat import Hook, HookManager
from talu.chat.interrupts import run
from talu.chat.io import SyncIO
from talu.chat.observers import Generation
from talu.config import GenerationConfig
from talu.exceptions import GenerationError, ValidationError
from talu.router import CompletionOptions
from talu.types import ReasoningDelta, TextDelta


class Log(Hook):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def on_generation_start(self, chat, input_text, *, config=None) -> None:
        self.calls.append(("start", input_text, config.seed))

    def on_first_token(self, chat, time_ms) -> None:
        assert time_ms >= 0
        self.calls.append(("first",))

    def on_generation_end(self, chat, response, *, error=None) -> None:
        self.calls.append(("end", response and response.text, error and str(error)))


class AsyncLog(Log):
    async def on_generation_start(self, chat, input_text, *, config=None) -> None:
        super().on_generation_start(chat, input_text, config=config)

    async def on_generation_end(self, chat, response, *, error=None) -> None:
        super().on_generation_end(chat, response, error=error)


class Failing(Hook):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def on_generation_start(self, chat, *args, **kwargs) -> None:
        raise self.error

    on_first_token = on_generation_end = on_generation_start


START = ("start", "Hi", 5)


@pytest.mark.parametrize("stream", [True, False])
def test_a_whole_answer_has_one_start_one_first_token_and_one_end(faces, stream) -> None:
    log = Log()
    chat = faces.client("one two", hooks=[log]).chat()
    answer = faces.run(chat.send("Hi", stream=stream, seed=5))
    if stream:
        faces.read(answer)
    assert log.calls == [START, ("first",), ("end", "one two", None)]


def test_reasoning_is_a_first_token(faces) -> None:
    log = Log()
    faces.run(faces.client([ReasoningDelta("Hm"), "one"], hooks=[log]).ask("Hi", seed=5))
    assert log.calls == [START, ("first",), ("end", "one", None)]


def test_an_error_before_the_first_token_has_an_end_and_no_first_token(faces) -> None:
    log = Log()
    client = faces.client([GenerationError("broken")], hooks=[log])
    with pytest.raises(GenerationError):
        faces.run(client.ask("Hi", seed=5))
    assert log.calls == [START, ("end", None, "broken")]


def test_a_request_that_the_backend_refuses_has_an_end(faces) -> None:
    log = Log()
    with pytest.raises(GenerationError, match="one more"):
        faces.run(faces.client(hooks=[log]).ask("Hi", seed=5))
    assert log.calls == [START, ("end", None, "the scripted model has 0 answers, this is one more")]


def test_an_error_in_the_middle_has_one_end(faces) -> None:
    log = Log()
    client = faces.client(["one", GenerationError("broken")], hooks=[log])
    with pytest.raises(GenerationError):
        faces.run(client.ask("Hi", seed=5))
    assert log.calls == [START, ("first",), ("end", None, "broken")]


def test_leaving_the_loop_has_one_end_with_the_partial_answer(faces) -> None:
    log = Log()
    chat = faces.client("one two", hooks=[log]).chat()
    stream = faces.run(chat("Hi", seed=5))
    faces.read_some(stream, 1)
    faces.run(stream.close())
    assert log.calls == [START, ("first",), ("end", "one", None)]


def test_a_stream_that_is_closed_unread_has_one_end(faces) -> None:
    log = Log()
    stream = faces.run(faces.client("one two", hooks=[log]).chat()("Hi", seed=5))
    faces.run(stream.close())
    faces.run(stream.close())
    assert log.calls == [START, ("end", "", None)]


def test_regenerating_is_a_separate_generation(faces) -> None:
    log = Log()
    chat = faces.client("one", "two", hooks=[log]).chat()
    faces.run(chat.send("Hi", seed=5))
    faces.run(chat.regenerate(seed=5))
    assert log.calls[3:] == [START, ("first",), ("end", "two", None)]


def test_a_raw_completion_is_observed_with_no_chat(faces) -> None:
    class Chats(Hook):
        def on_generation_end(self, chat, response, *, error=None) -> None:
            seen.append((chat, response.text))

    seen: list = []
    faces.run(faces.client("one", hooks=[Chats()]).raw_complete("Hi"))
    assert seen == [(None, "one")]


@pytest.mark.parametrize("token", ["one", TextDelta("one")], ids=["with ids", "without ids"])
def test_an_echo_of_the_prompt_is_not_a_first_token(faces, token: str | TextDelta) -> None:
    class First(Log):
        def on_first_token(self, chat, time_ms) -> None:
            told.append("token")

    told: list[str] = []
    echo = TextDelta("the prompt", echo=True)
    model = ScriptedModel([echo, lambda: told.append("echoed"), token, lambda: told.append("more")])
    options = CompletionOptions(echo_prompt=True)
    client = faces.client_of(model, hooks=[First()])
    faces.run(client.raw_complete("the prompt", completion_opts=options))
    assert told == ["echoed", "token", "more"]


@pytest.mark.parametrize("error", [KeyError("a"), OSError("b"), GenerationError("c")])
def test_a_failing_hook_is_logged_and_does_not_affect_the_generation(faces, caplog, error) -> None:
    log = Log()
    client = faces.client("one", hooks=[Failing(error), log])
    with caplog.at_level(logging.WARNING, "talu.hooks"):
        assert faces.run(client.ask("Hi", seed=5)).text == "one"
    assert log.calls == [START, ("first",), ("end", "one", None)]
    assert next(r.message for r in caplog.records) == "Failing.on_generation_start failed"


def test_a_failure_is_a_warning_only_the_first_time(faces, caplog) -> None:
    hook = Failing(KeyError("a"))
    client = faces.client("one", "two", "three", hooks=[hook])
    with caplog.at_level(logging.DEBUG, "talu.hooks"):
        faces.run(client.ask("Hi"))
        faces.run(client.ask("Hi"))
        hook.error = OSError("b")
        faces.run(client.ask("Hi"))
    levels = [(r.levelname, r.exc_info[0]) for r in caplog.records if "start" in r.message]
    assert levels == [("WARNING", KeyError), ("DEBUG", KeyError), ("WARNING", OSError)]


def test_an_interrupted_hook_does_not_prevent_the_calls_of_others(faces) -> None:
    class Interrupt(Hook):
        def on_generation_start(self, chat, input_text, *, config=None) -> None:
            raise KeyboardInterrupt

    log = Log()
    client = faces.client("one", hooks=[Interrupt(), log])
    with pytest.raises(KeyboardInterrupt):
        faces.run(client.ask("Hi", seed=5))
    assert log.calls == [START, ("end", None, "")]


def test_a_keyboard_interrupt_in_a_hook_is_not_swallowed(faces) -> None:
    class Interrupt(Hook):
        def on_first_token(self, chat, time_ms) -> None:
            raise KeyboardInterrupt

    chat = faces.client("one", "two", hooks=[Interrupt()]).chat()
    with pytest.raises(KeyboardInterrupt):
        faces.run(chat.send("Hi"))
    chat.client.hooks.remove(chat.client.hooks.hooks[0])
    assert faces.run(chat.send("Hi")).text == "two"


def test_hooks_added_and_removed_later_count_for_existing_chats(faces) -> None:
    log = Log()
    client = faces.client("one", "two", "three")
    chat = client.chat()
    faces.run(chat.send("Hi"))
    client.hooks.add(log)
    faces.run(chat.send("Hi", seed=5))
    client.hooks.remove(log)
    faces.run(chat.send("Hi"))
    assert log.calls == [START, ("first",), ("end", "two", None)]


def test_hooks_are_called_in_their_order(faces) -> None:
    class Name(Hook):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_generation_start(self, chat, input_text, *, config=None) -> None:
            called.append(self.name)

    called: list[str] = []
    faces.run(faces.client("one", hooks=[Name("a"), Name("b"), Name("c")]).ask("Hi"))
    assert called == ["a", "b", "c"]


def test_an_event_is_delivered_once() -> None:
    log = Log()
    generation = Generation(
        operation="chat",
        model="m",
        chat=None,
        input_text="Hi",
        messages=(),
        config=GenerationConfig(seed=5),
        stream=False,
    )
    io = SyncIO(ScriptedModel)
    observation = HookManager([log]).observe(generation, io.call)
    run(observation.start())
    observation.note_first_token()
    for _ in range(2):
        run(observation.deliver())
    for _ in range(2):
        observation.ending = None, KeyError("a")
        run(observation.deliver())
    assert log.calls == [START, ("first",), ("end", None, "'a'")]


def test_a_generation_keeps_the_hooks_it_started_with(faces) -> None:
    early, late = Log(), Log()
    client = faces.client("one two", hooks=[early])
    stream = faces.run(client.chat()("Hi", seed=5))
    client.hooks.remove(early)
    client.hooks.add(late)
    faces.read(stream)
    assert early.calls == [START, ("first",), ("end", "one two", None)]
    assert late.calls == []


@pytest.mark.parametrize("stream", [True, False])
def test_a_hook_is_asked_for_an_observer_of_each_generation(faces, stream) -> None:
    class Observer(Log):
        def for_generation(self, generation) -> Hook:
            seen.append(generation)
            log = Log()
            logs.append(log)
            return log

    seen, logs = [], []
    client = faces.client("one", "two", hooks=[Observer()])
    chat = client.chat(system="S")
    answer = faces.run(chat.send("Hi", seed=5, stream=stream))
    if stream:
        faces.read(answer)
    faces.run(client.raw_complete("Go", seed=5))
    assert [log.calls[0] for log in logs] == [START, ("start", "Go", 5)]
    assert [log.calls[-1] for log in logs] == [("end", "one", None), ("end", "two", None)]
    first, second = seen
    assert (first.operation, first.model, first.chat) == ("chat", "scripted", chat)
    assert (first.input_text, first.config.seed, first.stream) == ("Hi", 5, stream)
    assert [message["role"] for message in first.messages] == ["system", "user"]
    assert (second.operation, second.chat, second.messages) == ("text_completion", None, None)


@pytest.mark.parametrize("given", [None, 3])
def test_an_observer_that_is_not_a_hook_is_logged(faces, caplog, given) -> None:
    class Wrong(Hook):
        def for_generation(self, generation) -> Hook:
            return given

    log = Log()
    assert faces.run(faces.client("one", hooks=[Wrong(), log]).ask("Hi", seed=5)).text == "one"
    assert [record.message for record in caplog.records] == ["Wrong.for_generation failed"]
    assert log.calls[-1] == ("end", "one", None)


@pytest.mark.parametrize("unknown", [Hook(), None])
def test_an_unregistered_hook_cannot_be_removed(unknown) -> None:
    manager = HookManager([hook := Hook()])
    with pytest.raises(ValidationError, match=r"no hook .* to remove; there are"):
        manager.remove(unknown)
    assert manager.hooks == [hook]


def test_hooks_must_be_iterable() -> None:
    with pytest.raises(ValidationError, match="hooks must be a list of hooks, got 5"):
        HookManager(5)


def test_the_list_of_hooks_is_a_copy() -> None:
    manager = HookManager([Hook()])
    manager.hooks.clear()
    assert len(manager.hooks) == 1


def test_a_hook_must_be_an_instance_of_hook() -> None:
    with pytest.raises(ValidationError, match=r"must be an instance of a subclass of talu\.chat"):
        HookManager([print])


def test_async_hooks_are_awaited_by_async_and_refused_by_sync(faces) -> None:
    log = AsyncLog()
    if faces.name == "sync":
        with pytest.raises(ValidationError, match="is async: give it to AsyncClient"):
            faces.client("one", hooks=[log])
    else:
        faces.run(faces.client("one", hooks=[log]).ask("Hi", seed=5))
        assert log.calls == [START, ("first",), ("end", "one", None)]


async def awaited(hook: Hook, chat, time_ms: float) -> None:
    """An async callback, to be hidden in another callable."""


class Callback:
    async def __call__(self, chat, time_ms: float) -> None:
        """An async callback without a function."""


@pytest.mark.parametrize("callback", [functools.partial(awaited, None), Callback()])
def test_an_async_callback_is_recognised_in_any_form(callback) -> None:
    hook = Hook()
    hook.on_first_token = callback
    with pytest.raises(ValidationError, match="on_first_token is async"):
        HookManager([hook], allow_async=False)
    assert HookManager([hook]).hooks == [hook]


def test_for_generation_must_not_be_async(faces) -> None:
    class Wrong(Hook):
        async def for_generation(self, generation) -> Hook:
            return self

    with pytest.raises(ValidationError, match="only the callbacks can be awaited"):
        faces.client("one", hooks=[Wrong()])


def test_a_model_that_cannot_be_opened_starts_no_generation(faces) -> None:
    log = Log()
    client = faces.client_of(ScriptedModel(), hooks=[log])
    client.router.close()
    with pytest.raises(RuntimeError, match="closed"):
        faces.run(client.ask("Hi"))
    assert log.calls == []

"""Clients: construction, single questions, choice of a model, closing."""

import asyncio
import gc
import inspect
import weakref
from collections.abc import AsyncGenerator

import pytest

from talu import AsyncClient, Client, CompletionOptions, GenerationConfig, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel
from talu.exceptions import (
    EmptyPromptError,
    EndpointError,
    GenerationError,
    StateError,
    ValidationError,
)
from talu.types import FinishReason


def test_making_a_client_touches_neither_disk_nor_network(faces) -> None:
    client = faces.face.client_class("/no/such/folder")
    assert client.models == ["/no/such/folder"]


def test_ask_answers_without_a_history(faces) -> None:
    model = ScriptedModel("four", "five")
    client = faces.client_of(model)
    assert faces.run(client.ask("2+2?")).text == "four"
    assert faces.run(client.ask("2+3?")).text == "five"
    assert list(model.requests[1].messages) == [{"role": "user", "content": "2+3?"}]


def test_append_continues_the_answer_of_ask(faces) -> None:
    answer = faces.run(faces.client("four", "five").ask("2+2?"))
    again = faces.run(answer.append("and one more?"))
    assert [item.text for item in again.chat.items] == ["2+2?", "four", "and one more?", "five"]


def test_stream_gives_pieces_of_text(faces) -> None:
    pieces = faces.read(faces.client("one two").stream("Hi"))
    assert pieces == ["one", " two", ""]
    assert all(isinstance(piece, str) for piece in pieces)


def test_leaving_a_loop_over_a_sync_stream_stops_the_generation() -> None:
    model = ScriptedModel("one two three")
    for piece in Client(ModelSpec("m", model)).stream("Hi"):
        assert (piece, model.active) == ("one", 1)
        break
    gc.collect()
    assert model.active == 0


def test_leaving_a_loop_over_an_async_stream_stops_the_generation_a_moment_later() -> None:
    async def main() -> None:
        model = ScriptedModel("one two three")
        async for piece in AsyncClient(ModelSpec("m", model)).stream("Hi"):
            assert (piece, model.active) == ("one", 1)
            break
        for _ in range(2):
            await asyncio.sleep(0)
        assert model.active == 0

    asyncio.run(main())


def test_every_call_can_choose_a_model(faces) -> None:
    client = faces.client_of(
        ScriptedModel("a1", model="a"),
        ScriptedModel("b1", "b2", "b3", "b4", model="b"),
    )
    assert faces.run(client.ask("q", model="b")).text == "b1"
    assert faces.read(client.stream("q", model="b")) == ["b2", ""]
    assert faces.run(client.chat(model="b").send("q")).model == "b"
    assert faces.run(client.raw_complete("q", model="b")).text == "b4"
    assert faces.run(client.ask("q")).text == "a1"


def test_changing_the_default_model_does_not_change_existing_chats(faces) -> None:
    client = faces.client_of(ScriptedModel("a1", model="a"), ScriptedModel("b1", model="b"))
    older = client.chat()
    client.default_model = "b"
    assert faces.run(client.ask("q")).model == "b"
    assert faces.run(older.send("q")).model == "a"


def test_every_call_refuses_an_unknown_model(faces) -> None:
    client = faces.client("a")
    for use in (
        lambda: faces.run(client.ask("q", model="x")),
        lambda: client.stream("q", model="x"),
        lambda: client.chat(model="x"),
        lambda: faces.run(client.raw_complete("q", model="x")),
    ):
        with pytest.raises(ValidationError, match="model 'x' is not available here"):
            use()


def test_keywords_override_config(faces) -> None:
    model = ScriptedModel("a", "b", "c")
    client = faces.client_of(model)
    config = GenerationConfig(seed=1, top_k=2)
    faces.run(client.ask("q", config=config, seed=3))
    faces.read(client.stream("q", config=config, seed=3))
    faces.run(client.raw_complete("q", config=config, seed=3))
    assert [request.config.given for request in model.requests] == [{"seed": 3, "top_k": 2}] * 3
    assert config.given == {"seed": 1, "top_k": 2}


@pytest.mark.parametrize("keyword", ["temprature", "stream", "on_token"])
def test_an_unknown_setting_is_refused_at_the_call(faces, keyword) -> None:
    client = faces.client("a")
    for use in (
        lambda **kw: faces.run(client.ask("q", **kw)),
        lambda **kw: client.stream("q", **kw),
        lambda **kw: faces.run(client.raw_complete("q", **kw)),
    ):
        with pytest.raises(ValidationError, match=f"'{keyword}'") as caught:
            use(**{keyword: 1})
        assert caught.value.details["param"] == keyword


def test_a_message_that_cannot_be_sent_raises_when_the_stream_is_made(faces) -> None:
    client = faces.client("a")
    with pytest.raises(ValidationError, match="a message cannot hold None"):
        client.stream(None)
    with pytest.raises(ValidationError, match="stop_flag must be"):
        client.stream("q", stop_flag=True)
    assert "".join(faces.read(client.stream("q"))) == "a"


def test_a_request_that_the_model_refuses_raises_when_the_stream_is_made() -> None:
    with pytest.raises(GenerationError, match="one more"):
        Client(ModelSpec("m", ScriptedModel())).stream("q")


def test_a_chat_starts_from_a_list_of_dictionaries(faces) -> None:
    model = ScriptedModel("a")
    history = [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]
    chat = faces.client_of(model).chat(messages=history)
    faces.run(chat.send("more"))
    assert list(model.requests[0].messages) == [*history, {"role": "user", "content": "more"}]


def test_a_raw_completion_sends_the_prompt_unchanged(faces) -> None:
    model = ScriptedModel("a", "b", "c")
    client = faces.client_of(model)
    answer = faces.run(client.raw_complete("Once upon"))
    assert (answer.text, answer.chat, answer.finish_reason) == ("a", None, FinishReason.STOP)
    faces.run(client.raw_complete("Once upon", system="A tale."))
    options = CompletionOptions(token_ids=[1, 2], continue_from_token_id=3, echo_prompt=True)
    faces.run(client.raw_complete("", completion_opts=options))
    first, second, third = model.requests
    assert (first.prompt, first.messages, first.token_ids) == ("Once upon", None, None)
    assert second.prompt == "A tale.\n\nOnce upon"
    assert (third.token_ids, third.continue_from_token_id, third.echo_prompt) == ((1, 2), 3, True)


def test_an_empty_raw_prompt_is_refused(faces) -> None:
    client = faces.client("a")
    for arguments in ({}, {"completion_opts": CompletionOptions(token_ids=[])}):
        with pytest.raises(EmptyPromptError, match="prompt is empty"):
            faces.run(client.raw_complete("", **arguments))


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"prompt": 3}, "prompt"),
        ({"system": 3}, "system"),
        ({"chat_template": "x"}, "chat_template"),
        ({"extra_context": {"a": 1}}, "extra_context"),
        ({"completion_opts": {"echo_prompt": True}}, "completion_opts"),
        ({"system": "S", "completion_opts": CompletionOptions(token_ids=[1])}, "system"),
        ({"completion_opts": CompletionOptions(token_ids=["1"])}, "token_ids"),
        ({"completion_opts": CompletionOptions(token_ids="12")}, "token_ids"),
        ({"completion_opts": CompletionOptions(continue_from_token_id=-1)}, "continue_from"),
        ({"completion_opts": CompletionOptions(echo_prompt="yes")}, "echo_prompt"),
    ],
)
def test_a_raw_completion_refuses_options_that_need_a_template(faces, arguments, param) -> None:
    client = faces.client("a")
    with pytest.raises(ValidationError) as caught:
        faces.run(client.raw_complete(**{"prompt": "q"} | arguments))
    assert caught.value.details["param"].startswith(param)


def test_a_closed_client_refuses_every_call_but_still_names_its_models(faces) -> None:
    client = faces.client("a")
    faces.run(client.close())
    faces.run(client.close())
    for use in (
        lambda: faces.run(client.ask("q")),
        lambda: client.stream("q"),
        lambda: client.chat(),
        lambda: faces.run(client.raw_complete("q")),
    ):
        with pytest.raises(StateError, match="client has been closed") as caught:
            use()
        assert caught.value.code == "STATE_CLOSED"
    assert (client.models, client.default_model) == (["scripted"], "scripted")
    assert "closed" in repr(client)


def test_a_with_block_closes_the_client_after_an_error() -> None:
    model = ScriptedModel("a")
    with pytest.raises(KeyError), Client(ModelSpec("m", model)) as client:
        raise KeyError(client.ask("q").text)
    assert model.closed


def test_an_async_with_block_closes_the_client_after_an_error() -> None:
    model = ScriptedModel("a")

    async def main() -> None:
        async with AsyncClient(ModelSpec("m", model)) as client:
            raise KeyError((await client.ask("q")).text)

    with pytest.raises(KeyError):
        asyncio.run(main())
    assert model.closed


def test_dropping_a_client_closes_its_models(faces) -> None:
    model = ScriptedModel("a")
    client = faces.client_of(model)
    faces.run(client.ask("q"))
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert model.closed


def test_a_client_does_not_keep_its_chats_alive(faces) -> None:
    client = faces.client("a")
    chat = weakref.ref(client.chat())
    gc.collect()
    assert chat() is None


def test_a_client_that_could_not_be_made_has_a_repr(faces) -> None:
    kind = faces.face.client_class
    assert repr(kind.__new__(kind)) == f"{kind.__name__}(not made)"


def test_repr_shows_the_models_and_no_secrets(faces) -> None:
    client = faces.face.client_class("gpt-4", base_url="http://h/v1", api_key="K3Y")
    assert "gpt-4" in repr(client)
    assert "K3Y" not in repr(client) + repr(client.router) + repr(vars(client))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": []}, "at least one model"),
        ({"model": 3}, "must be a name, a path or a ModelSpec"),
        ({"model": "a", "gpu_layers": 0, "base_url": "http://h"}, "exclude each other"),
        ({"model": "a", "profile": "work"}, "profile must be a Profile"),
        ({"model": "a", "hooks": [3]}, "a hook must be"),
        ({"model": "a", "hooks": 3}, "hooks must be a list"),
    ],
)
def test_a_wrong_constructor_argument_is_refused(faces, arguments, match) -> None:
    with pytest.raises(ValidationError, match=match):
        faces.face.client_class(**arguments)


WRONG = {
    "base_url": 7,
    "api_key": b"secret",
    "org_id": 7,
    "timeout_ms": "5",
    "max_retries": 1.5,
    "gpu_layers": "all",
    "use_mmap": 1,
    "num_threads": True,
}


@pytest.mark.parametrize("name", WRONG)
def test_an_option_of_a_wrong_type_is_named(faces, name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be .* or None, got") as caught:
        faces.face.client_class("a", **{name: WRONG[name]})
    assert "secret" not in str(caught.value)


def test_a_profile_may_follow_the_model_by_position(faces) -> None:
    profile = Profile("work")
    assert faces.face.client_class("a", profile).profile is profile
    with pytest.raises(ValidationError, match=r"profile must be a Profile"):
        faces.face.client_class("a", "work")


def test_a_system_message_may_be_given_by_position(faces) -> None:
    assert faces.client("a").chat("You are a pirate.").system == "You are a pirate."


def test_a_server_that_is_not_there_is_named_when_it_is_used(faces) -> None:
    client = faces.face.client_class("gpt-4", base_url="http://localhost:1/v1", max_retries=0)
    with pytest.raises(EndpointError, match=r"localhost:1/v1'?: the connection was refused"):
        faces.run(client.ask("q"))


def test_the_methods_of_the_client_page_that_are_coroutines() -> None:
    assert inspect.iscoroutinefunction(AsyncClient.ask)
    assert inspect.iscoroutinefunction(AsyncClient.close)
    assert inspect.iscoroutinefunction(AsyncClient.raw_complete)
    assert not inspect.iscoroutinefunction(AsyncClient.chat)
    client = AsyncClient(ModelSpec("m", ScriptedModel("a")))
    assert isinstance(client.stream("q"), AsyncGenerator)

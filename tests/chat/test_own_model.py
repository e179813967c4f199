"""Chats created from a model's name, without a client."""

import gc
from weakref import ref

import pytest

from talu import Client, Profile
from talu.backends.scripted import ScriptedModel
from talu.chat import AsyncChat, Chat, Hook
from talu.exceptions import ModelNotFoundError, StateError, ValidationError
from talu.router import LocalBackend, ModelSpec


@pytest.fixture
def chat_class(faces) -> type:
    return {"sync": Chat, "async": AsyncChat}[faces.name]


def test_a_chat_of_a_model_answers_like_one_of_a_client(faces, chat_class) -> None:
    settings = {"temperature": 0, "max_tokens": 8}
    client = faces.face.client_class("talu/pocket")
    wanted = faces.run(client.chat(system="You are a pirate.").send("Hello!", **settings))
    chat = chat_class("talu/pocket", system="You are a pirate.")
    answer = faces.run(chat.send("Hello!", **settings))
    assert (answer.text, answer.model) == (wanted.text, "talu/pocket")
    assert (chat.model, chat.router.models, chat.owns_client) == (
        "talu/pocket",
        ["talu/pocket"],
        True,
    )
    faces.run(chat.close())
    faces.run(client.close())


def test_nothing_is_opened_before_it_is_used(chat_class) -> None:
    chat = chat_class("./nowhere", system="S")
    assert [item.text for item in chat.items] == ["S"]
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        chat.count_tokens()


def test_repr_says_whether_the_chat_owns_its_model(faces, chat_class) -> None:
    name = chat_class.__name__
    assert repr(chat_class("m", system="S")) == f"{name}(model='m', standalone, 1 items)"
    assert repr(faces.chat("a")) == f"{name}(model='scripted', attached, 0 items)"
    assert repr(chat_class()) == f"{name}(model=None, 0 items)"


def test_closing_the_chat_releases_its_model(faces, chat_class) -> None:
    model = ScriptedModel("a")
    chat = chat_class(ModelSpec("scripted", model))
    faces.run(chat.send("q"))
    assert not model.closed
    faces.run(chat.close())
    faces.run(chat.close())
    assert model.closed


def test_a_chat_of_a_client_does_not_close_it(faces) -> None:
    model = ScriptedModel("a", "b")
    client = faces.client_of(model)
    chat = client.chat()
    faces.run(chat.send("q"))
    faces.run(chat.close())
    assert (chat.owns_client, chat.client, chat.router) == (False, client, client.router)
    assert faces.run(client.ask("q")).text == "b"


def test_dropping_a_chat_releases_its_model(faces, chat_class) -> None:
    model = ScriptedModel("a")
    chat = chat_class(ModelSpec("scripted", model))
    faces.run(chat.send("q"))
    del chat
    gc.collect()
    assert model.closed


def test_a_fork_answers_until_the_chat_that_owns_the_model_is_closed(faces, chat_class) -> None:
    chat = chat_class(ModelSpec("scripted", ScriptedModel("a", "b")))
    faces.run(chat.send("q"))
    fork = chat.fork()
    assert not fork.owns_client
    assert faces.run(fork.send("more")).text == "b"
    faces.run(fork.close())
    fork = chat.fork()
    faces.run(chat.close())
    with pytest.raises(StateError, match="closed"):
        faces.run(fork.send("still there?"))


def test_options_of_the_model_are_given_by_a_spec(chat_class) -> None:
    chat = chat_class(ModelSpec("talu/pocket", LocalBackend(gpu_layers=4)))
    with pytest.raises(ValidationError, match="gpu_layers=4"):
        chat.count_tokens("q")
    with pytest.raises(TypeError, match="gpu_layers"):
        chat_class("talu/pocket", gpu_layers=4)


def test_hooks_are_added_to_the_chats_own_client(faces, chat_class) -> None:
    seen = []

    class Starts(Hook):
        def on_generation_start(self, chat, input_text, *, config=None) -> None:
            seen.append(input_text)

    chat = chat_class(ModelSpec("scripted", ScriptedModel("a")))
    chat.client.hooks.add(Starts())
    faces.run(chat.send("q"))
    assert seen == ["q"]


def test_with_a_client_the_model_is_one_of_its_models(faces, chat_class) -> None:
    client = faces.client_of(ScriptedModel("a"), ScriptedModel("b", model="other"))
    assert faces.run(chat_class("other", client=client).send("q")).text == "b"
    with pytest.raises(ValidationError, match="'talu/pocket' is not available here"):
        chat_class("talu/pocket", client=client)


def test_a_profile_stores_the_chat(faces, chat_class, home) -> None:
    profile = Profile("work")
    chat = chat_class(ModelSpec("scripted", ScriptedModel("a")), profile=profile)
    faces.run(chat.send("q"))
    again = chat_class(profile=profile, session_id=chat.session_id)
    assert list(again.items) == list(chat.items)
    assert [record["session_id"] for record in profile.sessions()] == [chat.session_id]


def test_a_restored_chat_uses_the_given_model(faces, chat_class) -> None:
    chat = chat_class(ModelSpec("scripted", ScriptedModel("a")))
    faces.run(chat.send("q"))
    stored = chat.to_dict()
    assert chat_class.from_dict(stored).model == "scripted"
    again = chat_class.from_dict(stored, ModelSpec("scripted", ScriptedModel("b")))
    assert faces.run(again.send("more")).text == "b"
    assert len(again.items) == 4


def test_a_fork_of_a_chat_without_a_model_has_no_model(chat_class) -> None:
    chat = chat_class.from_dict({"model": "./nowhere", "messages": []}).fork()
    assert (chat.model, chat.client, chat.router) == ("./nowhere", None, None)
    with pytest.raises(StateError, match="has no model"):
        chat.count_tokens("q")


@pytest.mark.parametrize("use", ["send", "stream", "ask", "regenerate", "raw"])
def test_a_client_that_is_dropped_frees_its_model_without_the_cyclic_collector(use: str) -> None:
    gc.collect()
    gc.disable()
    try:
        client = Client("talu/pocket")
        chat = client.chat()
        match use:
            case "send":
                chat.send("Hi", max_tokens=2)
            case "stream":
                assert list(chat("Hi", max_tokens=2))
            case "ask":
                client.ask("Hi", max_tokens=2).append("More", max_tokens=2)
            case "regenerate":
                chat.send("Hi", max_tokens=2)
                chat.regenerate(max_tokens=2)
            case "raw":
                client.raw_complete("Hi", max_tokens=2)
        dropped = ref(client)
        del chat, client
        assert dropped() is None
    finally:
        gc.enable()


def test_the_latest_answer_is_there_after_its_stream_was_dropped() -> None:
    with Client("talu/pocket") as client:
        chat = client.chat()
        text = "".join(map(str, chat("Hi", max_tokens=3)))
        assert chat.last_response == text
        assert chat.last_response.usage.completion_tokens == 3
        chat.last_response.append("More", max_tokens=1)
        assert len(chat) == 4

"""The promises of the client page, one test for each, on both clients where they apply."""

import asyncio
import inspect
import math
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_overloads, get_type_hints

import pytest

from talu import (
    AsyncClient,
    Client,
    CompletionOptions,
    GenerationConfig,
    ModelSpec,
    OpenAICompatibleBackend,
    Profile,
    ScriptedModel,
    StateError,
    ValidationError,
)
from talu.chat import AsyncChat, AsyncResponse, Chat, Hook, HookManager, Response
from talu.exceptions import IOError, ModelNotFoundError
from talu.router import Capabilities, Router

MODEL = "talu/pocket"
GREEDY = GenerationConfig(temperature=0, max_tokens=16)
OPTIONS = {  # of both constructors, in the order of the page
    "profile": None,
    "hooks": None,
    "base_url": None,
    "api_key": None,
    "org_id": None,
    "timeout_ms": None,
    "max_retries": None,
    "gpu_layers": None,
    "use_mmap": None,
    "num_threads": None,
}
EMPTY = inspect.Parameter.empty
ANSWER = {"prompt": EMPTY, "model": None, "config": None}
EMBED = {"model": None, "pooling": "last", "normalize": True}
METHODS: dict[str, dict[str, Any]] = {  # the page's parameters in their order, with defaults
    "ask": ANSWER,
    "stream": ANSWER,
    "chat": {
        "system": None,
        "messages": None,
        "model": None,
        "config": None,
        "session_id": None,
        "parent_session_id": None,
        "marker": "",
        "metadata": None,
        "chat_template": None,
        "offline": False,
    },
    "raw_complete": {
        "prompt": EMPTY,
        "system": None,
        "model": None,
        "config": None,
        "completion_opts": None,
    },
    "embed": {"text": EMPTY, **EMBED},
    "embed_batch": {"texts": EMPTY, **EMBED},
    "embedding_dim": {"model": None},
    "capabilities": {"model": None},
    "close": {},
}
PROPERTIES = {"default_model": str, "models": list[str], "hooks": HookManager, "router": Router}


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[Client]:
    """Stays open, so that every other client of the model shares its engine."""
    with Client(MODEL) as client:
        client.ask("Hello!", max_tokens=1)
        yield client


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


# Signatures and types


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_constructor_takes_the_model_ten_options_and_more_by_keyword(kind: type) -> None:
    model, *others = inspect.signature(kind).parameters.values()
    assert (model.name, model.default) == ("model", EMPTY)
    options, more = others[: len(OPTIONS)], others[len(OPTIONS) :]
    assert [(option.name, option.default) for option in options] == list(OPTIONS.items())
    assert {option.kind for option in options} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert {option.kind for option in more} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_parameters_of_the_page_in_order(kind: type, name: str) -> None:
    parameters = list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
    given = [(p.name, p.default) for p in parameters if p.kind is not p.VAR_KEYWORD]
    assert given[: len(METHODS[name])] == list(METHODS[name].items())


@pytest.mark.parametrize(("kind", "answer"), [(Client, Response), (AsyncClient, AsyncResponse)])
def test_methods_and_properties_annotate_what_they_return(kind: type, answer: type) -> None:
    def given(member: Any) -> Any:
        return get_type_hints(member)["return"]

    one, many, _either = get_overloads(kind.ask)
    assert (given(one), given(many)) == (answer, list[answer])
    assert given(kind.raw_complete) is answer
    assert given(kind.chat) is {Client: Chat, AsyncClient: AsyncChat}[kind]
    lists, _array = get_overloads(kind.embed_batch)
    assert given(kind.embed) == list[float]
    assert given(lists).__orig_bases__ == (list[list[float]],)
    assert (given(kind.embedding_dim), given(kind.capabilities)) == (int, Capabilities)
    for name, wanted in PROPERTIES.items():
        assert given(getattr(kind, name).fget) == wanted


def test_only_methods_that_wait_are_coroutines(faces) -> None:
    awaited = {"ask", "raw_complete", "close"}
    for name in METHODS:
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name)) == (name in awaited), name
        assert not inspect.iscoroutinefunction(getattr(Client, name))
    stream = faces.client("a").stream("q")
    assert hasattr(stream, {"sync": "__next__", "async": "__anext__"}[faces.name])
    faces.read(stream)


# Behaviour


def test_no_model_is_refused(faces) -> None:
    with pytest.raises(ValidationError, match="at least one model"):
        faces.face.client_class([])


def test_a_closed_client_refuses_every_method_and_may_be_closed_again(faces) -> None:
    client = faces.client("a")
    chat = client.chat()
    faces.run(client.close())
    faces.run(client.close())
    uses = {
        "ask": lambda: faces.run(client.ask("q")),
        "stream": lambda: client.stream("q"),
        "chat": lambda: client.chat(),
        "raw_complete": lambda: faces.run(client.raw_complete("q")),
        "embed": lambda: client.embed("q"),
        "embed_batch": lambda: client.embed_batch(["q"]),
        "embedding_dim": lambda: client.embedding_dim(),
        "capabilities": lambda: client.capabilities(),
    }
    assert uses.keys() == METHODS.keys() - {"close"}
    if faces.name == "async":
        uses["aembed"] = lambda: faces.run(client.aembed("q"))
        uses["aembed_batch"] = lambda: faces.run(client.aembed_batch(["q"]))
    for use in (*uses.values(), lambda: faces.run(chat.send("q")), lambda: faces.run(chat("q"))):
        with pytest.raises(StateError, match="client has been closed") as caught:
            use()
        assert caught.value.code == "STATE_CLOSED"
    assert (list(chat.items), client.models) == ([], ["scripted"])


def test_an_error_in_a_with_block_closes_the_client(faces) -> None:
    model = ScriptedModel("a")
    client = faces.client_of(model)

    def leave() -> None:
        with client:
            client.ask("q")
            raise KeyError

    async def leave_awaited() -> None:
        async with client:
            await client.ask("q")
            raise KeyError

    with pytest.raises(KeyError):
        faces.run(leave_awaited()) if faces.name == "async" else leave()
    assert model.closed


def test_adding_and_removing_hooks_affects_existing_chats(faces) -> None:
    class Starts(Hook):
        count = 0

        def on_generation_start(self, chat, input_text, *, config=None) -> None:
            self.count += 1

    hook, client = Starts(), faces.client("a", "b", "c")
    chat = client.chat()
    counts = []
    for change in (lambda: None, lambda: client.hooks.add(hook), lambda: client.hooks.remove(hook)):
        change()
        faces.run(chat.send("q"))
        counts.append(hook.count)
    assert counts == [0, 1, 1]


def test_calling_a_chat_streams_unless_told_otherwise(faces) -> None:
    chat = faces.chat("one two", "three")
    pieces = faces.read(faces.run(chat("q")))
    assert "".join(pieces) == "one two"
    assert all(isinstance(piece, str) for piece in pieces)
    whole = faces.run(chat("q", stream=False))
    assert isinstance(whole, {"sync": Response, "async": AsyncResponse}[faces.name])
    assert whole.text == "three"


def test_append_continues_and_items_has_every_turn(faces) -> None:
    chat = faces.chat("one", "two", system="S")
    response = faces.run(chat("first"))
    faces.read(response)
    faces.read(faces.run(response.append("second")))
    assert [item.text for item in chat.items] == ["S", "first", "one", "second", "two"]


def test_messages_restore_the_history(faces) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    history = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
        {"role": "assistant", "content": "a"},
    ]
    assert faces.chat(messages=history).messages == history


def test_an_answer_prints_as_its_text_and_questions_are_independent(faces) -> None:
    model = ScriptedModel("one", "two")
    client = faces.client_of(model)
    assert [str(faces.run(client.ask(q))) for q in ("a", "b")] == ["one", "two"]
    assert [[m["content"] for m in r.messages] for r in model.requests] == [["a"], ["b"]]


def test_stream_yields_text(faces) -> None:
    pieces = faces.read(faces.client("one two").stream("q"))
    assert all(isinstance(piece, str) for piece in pieces)
    assert "".join(pieces) == "one two"


def test_a_raw_completion_works_with_and_without_options(client: Client) -> None:
    plain = client.raw_complete("Once upon a time", config=GREEDY)
    options = CompletionOptions(echo_prompt=True)
    echo = client.raw_complete("Once upon a time", completion_opts=options, config=GREEDY)
    assert (plain.finish_reason, echo.text) == ("length", "Once upon a time" + plain.text)


def test_embeddings_have_the_right_width_and_length_and_reflect_meaning(client: Client) -> None:
    mat, same = "The cat sits on the mat.", "A cat is sitting on a mat."
    vectors = [client.embed(text, pooling="mean") for text in (mat, same, "What is 17 + 25?")]
    assert {len(vector) for vector in vectors} == {client.embedding_dim()}
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-4) for vector in vectors)
    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2])
    with pytest.raises(ValidationError, match="Invalid pooling strategy 'max'"):
        client.embed(mat, pooling="max")


def test_a_batch_of_embeddings_equals_single_calls_in_order(client: Client) -> None:
    texts = ["The cat.", "What is 17 + 25? " * 9, "Hello!"]
    singles = [client.embed(text) for text in texts]
    for vector, single in zip(client.embed_batch(texts), singles, strict=True):
        assert vector == pytest.approx(single, abs=1e-3)
    assert client.embed_batch([]) == []


def test_capabilities_of_the_default_model_a_name_and_a_spec(client: Client) -> None:
    assert (
        client.capabilities() == client.capabilities(MODEL) == client.capabilities(ModelSpec(MODEL))
    )
    remote = ModelSpec("gpt-4", OpenAICompatibleBackend())
    assert client.capabilities(remote).logprobs


def test_local_and_remote_options_are_mutually_exclusive(faces) -> None:
    with pytest.raises(ValidationError, match=r"num_threads.*base_url.*exclude each other"):
        faces.face.client_class(MODEL, num_threads=2, base_url="http://localhost/v1")


def test_two_clients_of_one_model_share_one_engine(client: Client, faces) -> None:
    other = faces.face.client_class(MODEL)
    assert other.router.backend()._engine is client.router.backend()._engine
    faces.run(other.close())
    assert client.ask("Hello!", max_tokens=1).tokens


def test_chats_in_threads_give_the_answers_of_a_sequential_run(client: Client) -> None:
    questions = [f"What is {a} + {b}?" for a in range(1, 5) for b in range(1, 5)]

    def answer(question: str) -> list[int]:
        return client.chat(config=GREEDY).send(question).tokens

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(answer, questions)) == [answer(question) for question in questions]


def test_tasks_run_concurrently_and_do_not_block_the_loop(client: Client) -> None:
    order: list[int] = []
    turns = 0

    async def read(awaited: AsyncClient, number: int) -> None:
        async for _ in awaited.stream(
            "Tell me a story.", max_tokens=32, seed=number, stop_token_ids=[]
        ):
            order.append(number)

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    async def main() -> None:
        async with AsyncClient(MODEL) as awaited:
            ticker = asyncio.create_task(turn())
            await asyncio.gather(*(read(awaited, number) for number in range(4)))
            ticker.cancel()

    asyncio.run(main())
    firsts = [order.index(number) for number in range(4)]
    lasts = [len(order) - 1 - order[::-1].index(number) for number in range(4)]
    assert max(firsts) < min(lasts)
    assert turns >= 10


def test_a_profile_stores_sessions_and_markers_in_its_folder(faces, home: Path) -> None:
    client = faces.client("one", "two", profile=Profile("work"))
    chat = client.chat(marker="archived")
    faces.run(chat.send("q"))
    assert (home / ".talu" / "db" / "work" / "talu.db").is_file()
    assert [record["marker"] for record in Profile("work").sessions()] == ["archived"]
    again = client.chat(session_id=chat.session_id)
    assert ([item.text for item in again.items], again.marker) == (["q", "one"], "archived")


def test_nothing_is_written_without_a_profile(faces, home: Path) -> None:
    faces.run(faces.client("one").chat(session_id="s", marker="pinned").send("q"))
    assert list(home.iterdir()) == []


def test_offline_opens_no_socket(faces, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    client = faces.face.client_class([MODEL, "nobody/nothing"])
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert faces.run(client.chat(offline=True).send("Hello!", max_tokens=1)).tokens
    with pytest.raises((ModelNotFoundError, IOError), match="nobody/nothing"):
        faces.run(client.chat(model="nobody/nothing", offline=True).send("Hello!"))
    faces.run(client.close())

"""The examples of the page that describes the clients, run on the model in the package."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.remote.replies import chat, failure
from tests.remote.server import Gate, Reply, Server

from talu import (
    AsyncClient,
    Client,
    CompletionOptions,
    EndpointError,
    GenerationConfig,
    Profile,
    PromptTemplate,
    ScriptedModel,
    StateError,
    StopFlag,
)
from talu.chat import (
    AsyncResponse,
    AsyncStreamingResponse,
    Hook,
    MessageItem,
    MessageRole,
    Response,
    StreamingResponse,
    Token,
)
from talu.router import LocalBackend, ModelSpec, OpenAICompatibleBackend

MODEL = "talu/pocket"
PIRATE = "You are a pirate."
GREEDY = GenerationConfig(temperature=0, max_tokens=24)


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[Client]:
    """Stays open, so that every other client of the model shares its engine."""
    with Client(MODEL) as client:
        client.ask("Hello!", max_tokens=1)
        yield client


# Asking


def test_an_answer_prints_as_its_text() -> None:
    client = Client(MODEL)
    response = client.ask("What is 2 + 2?", temperature=0)
    assert f"{response}" == str(response) == response.text
    assert "4" in response
    client.close()


def test_two_questions_are_independent(client: Client) -> None:
    first = client.ask("Hello!", config=GREEDY)
    client.ask("What is the capital of France?", config=GREEDY)
    again = client.ask("Hello!", config=GREEDY)
    assert (again.text, again.usage.prompt_tokens) == (first.text, first.usage.prompt_tokens)
    assert len(first.chat.items) == 2


def test_append_continues_an_answer(client: Client) -> None:
    answer = client.ask("Hello!", config=GREEDY)
    more = answer.append("What is 2 + 3?", GREEDY)
    assert more.chat is answer.chat
    assert len(more.chat.items) == 4


def test_settings_are_given_as_keywords_or_as_a_config(client: Client) -> None:
    config = GenerationConfig(temperature=0, max_tokens=3)
    answer = client.ask("Tell me a story.", config=config)
    longer = client.ask("Tell me a story.", config=config, max_tokens=6)
    assert (len(answer.tokens), len(longer.tokens)) == (3, 6)
    assert longer.tokens[:3] == answer.tokens
    assert (answer.finish_reason, config.max_tokens) == ("length", 3)


def test_a_stream_gives_the_answer_piece_by_piece(client: Client) -> None:
    text = ""
    for chunk in client.stream("Tell me a story.", config=GREEDY):
        assert isinstance(chunk, str)
        text += chunk
    assert text == client.ask("Tell me a story.", config=GREEDY).text


def test_a_with_block_closes_the_client() -> None:
    with Client(MODEL) as client:
        assert client.ask("Hello!", max_tokens=2).tokens
    with pytest.raises(StateError, match="closed"):
        client.ask("Hello!")


# Conversations


def test_a_chat_streams_when_it_is_called_and_continues_with_append(client: Client) -> None:
    chat = client.chat(system=PIRATE, config=GREEDY)
    response = chat("Hello!")
    assert isinstance(response, StreamingResponse)
    pieces = list(response)
    assert all(isinstance(piece, Token) for piece in pieces)
    assert "".join(pieces) == str(response)
    response = response.append("What is 2 + 3?")
    assert str(response)
    assert [(item.role, bool(item.text)) for item in chat.items] == [
        (MessageRole.SYSTEM, True),
        (MessageRole.USER, True),
        (MessageRole.ASSISTANT, True),
        (MessageRole.USER, True),
        (MessageRole.ASSISTANT, True),
    ]
    assert chat.items[-1].text in repr(chat.items)


def test_send_returns_the_whole_answer_unless_told_to_stream(client: Client) -> None:
    chat = client.chat(config=GREEDY)
    whole = chat.send("Hello!")
    streamed = client.chat(config=GREEDY).send("Hello!", stream=True)
    assert (type(whole), type(streamed)) == (Response, StreamingResponse)
    assert whole == streamed
    assert client.chat(config=GREEDY)("Hello!", stream=False) == whole


def test_chats_of_one_client_are_independent(client: Client) -> None:
    alice, bob = client.chat(system=PIRATE, config=GREEDY), client.chat(config=GREEDY)
    answers = [alice.send("Hello!"), bob.send("Hello!")]
    assert answers[0] != answers[1]
    assert answers[1] == client.ask("Hello!", config=GREEDY)
    assert (len(alice.items), len(bob.items)) == (3, 2)


def test_appending_to_an_older_answer_branches(client: Client) -> None:
    chat = client.chat(config=GREEDY)
    first = chat.send("Hello!")
    chat.send("What is 2 + 2?")
    branch = first.append("What is 2 + 3?")
    assert branch.chat is not chat
    assert [len(chat.items), len(branch.chat.items)] == [4, 4]
    assert list(branch.chat.items)[:2] == list(chat.items)[:2]


def test_a_chat_starts_from_messages(client: Client) -> None:
    history = [
        {"role": "system", "content": PIRATE},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Arr!"},
    ]
    chat = client.chat(messages=history, config=GREEDY)
    assert chat.messages == history
    response = chat.send("What is 2 + 3?")
    assert "Arr!" in response.prompt
    assert client.chat(messages=chat.messages).messages == chat.messages


def test_a_chat_has_the_attributes_of_the_page(client: Client) -> None:
    chat = client.chat(
        system=PIRATE,
        model=MODEL,
        config=GREEDY,
        session_id="one",
        parent_session_id="zero",
        marker="pinned",
        metadata={"user": 7},
        chat_template=PromptTemplate("{{ messages[-1].content }}"),
        offline=True,
    )
    assert (chat.session_id, chat.parent_session_id, chat.marker) == ("one", "zero", "pinned")
    assert (chat.metadata, chat.system, chat.config) == ({"user": 7}, PIRATE, GREEDY)
    assert chat.send("Once", max_tokens=1).prompt == "Once"


def test_the_prompt_uses_the_template_of_the_model_or_the_chat_or_none(client: Client) -> None:
    asked = [{"role": "user", "content": "Once"}]
    default = client.chat(messages=asked).preview_prompt()
    assert default == client.chat(messages=asked, chat_template=None).preview_prompt()
    without = client.chat(messages=asked).preview_prompt(add_generation_prompt=False)
    assert default.startswith(without)
    assert len(without) < len(default)
    assert client.chat(messages=asked, chat_template=PromptTemplate.RAW).preview_prompt() == "Once"
    own = GenerationConfig(chat_template="Q: {{ messages[0].content }}")
    assert client.chat(messages=asked).preview_prompt(config=own) == "Q: Once"


def test_a_message_can_be_counted_before_it_is_sent(client: Client) -> None:
    chat = client.chat(config=GREEDY)
    assert chat.count_tokens() == 0
    count = chat.count_tokens("Hello!")
    assert 0 < count < chat.max_context_length
    assert len(chat.items) == 0
    assert chat.send("Hello!").usage.prompt_tokens == count


def test_another_thread_can_stop_an_answer(client: Client) -> None:
    stop = StopFlag()
    chat = client.chat()
    pieces = chat(
        "Tell me a story.", max_tokens=200, stop_flag=stop, on_token=lambda _: stop.signal()
    )
    assert len(list(pieces)) < 100
    assert pieces.finish_reason == "cancelled"
    stream = chat("Another one.", max_tokens=200)
    next(iter(stream))
    stream.cancel()
    assert stream.finish_reason == "cancelled"


# Raw completion


def test_a_raw_completion_uses_only_the_prompt(client: Client) -> None:
    response = client.raw_complete("Once upon a time", max_tokens=4)
    assert (response.prompt, response.usage.completion_tokens) == ("Once upon a time", 4)
    with_system = client.raw_complete("Once upon a time", system="A tale.", max_tokens=1)
    assert with_system.prompt == "A tale.\n\nOnce upon a time"


def test_completion_options_set_token_ids_a_first_token_and_an_echo(
    client: Client,
) -> None:
    prompt = "Once upon a time"
    plain = client.raw_complete(prompt, config=GREEDY)
    echo = client.raw_complete(prompt, None, None, GREEDY, CompletionOptions(echo_prompt=True))
    assert echo.text == prompt + plain.text
    first, *rest = plain.tokens
    options = CompletionOptions(continue_from_token_id=first)
    onwards = client.raw_complete(prompt, completion_opts=options, config=GREEDY)
    assert onwards.tokens[: len(rest)] == rest
    ids = CompletionOptions(token_ids=plain.tokens[:5])
    assert client.raw_complete("", completion_opts=ids, max_tokens=1).usage.prompt_tokens == 5


# Embeddings


def test_an_embedding_has_the_width_of_the_model_and_length_one(client: Client) -> None:
    vector = client.embed("The cat sits on the mat.")
    assert len(vector) == client.embedding_dim()
    assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-4)
    assert not math.isclose(math.hypot(*client.embed("The cat.", normalize=False)), 1, abs_tol=0.1)


def test_a_search_finds_the_sentence_that_means_the_same(client: Client) -> None:
    sentences = ["What is 17 + 25?", "A cat is sitting on a mat.", "Tell me a joke."]
    vectors = client.embed_batch(sentences, pooling="mean")
    query = client.embed("The cat sits on the mat.", pooling="mean")
    scores = [sum(a * b for a, b in zip(query, vector, strict=True)) for vector in vectors]
    assert scores.index(max(scores)) == 1


# Models


def test_capabilities_describe_the_opened_model(client: Client) -> None:
    capable = client.capabilities()
    assert capable == client.capabilities(MODEL) == client.capabilities(ModelSpec(MODEL))
    assert (capable.streaming, capable.logprobs, capable.embeddings) == (True, True, True)
    assert (capable.tool_calling, capable.json_schema) == (True, True)


def test_options_of_a_local_model_are_keywords_or_in_a_spec() -> None:
    flat = Client(MODEL, gpu_layers=0, use_mmap=True, num_threads=1)
    spec = Client(ModelSpec(MODEL, LocalBackend(0, True, 1)))
    assert flat.router.targets == spec.router.targets
    with flat, spec:
        assert flat.ask("Hello!", config=GREEDY) == spec.ask("Hello!", config=GREEDY)


def test_a_name_chooses_one_of_several_models() -> None:
    other = ModelSpec("other", ScriptedModel(*["I am the other."] * 5, model="other"))
    with Client([MODEL, other]) as client:
        assert (client.models, client.default_model) == ([MODEL, "other"], MODEL)
        assert client.ask("Who are you?", model="other") == "I am the other."
        assert "".join(client.stream("Who are you?", model="other")) == "I am the other."
        assert client.chat(model="other").send("Who are you?").model == "other"
        assert client.raw_complete("Who", model="other") == "I am the other."
        assert client.ask("Who are you?", max_tokens=1).model == MODEL
        client.default_model = "other"
        assert client.ask("Who are you?").model == "other"


# Models behind an endpoint


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with OpenAI's protocol."""
    with Server(always=lambda _: chat("Hello", " there.")) as server:
        yield server


def test_a_provider_prefix_uses_its_variable(server: Server, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-page")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    client = Client("openai::gpt-4o")
    response = client.ask("Hello!")
    assert (str(response), response.model) == ("Hello there.", "openai::gpt-4o")
    assert server.request.json["model"] == "gpt-4o"
    assert server.request.values("authorization") == ["Bearer sk-page"]
    client.close()


def test_an_address_and_a_key_are_arguments(server: Server) -> None:
    client = Client("gpt-4", base_url=server.base_url, api_key="sk-mine", org_id="org-1")
    assert "".join(client.stream("Hello!")) == "Hello there."
    assert server.request.json["model"] == "gpt-4"
    assert server.request.values("authorization") == ["Bearer sk-mine"]
    assert server.request.values("openai-organization") == ["org-1"]
    client.close()


def test_a_spec_says_where_a_model_runs(server: Server) -> None:
    spec = ModelSpec(
        ref="gpt-4", backend=OpenAICompatibleBackend(base_url=server.base_url, api_key="sk-mine")
    )
    with Client(spec) as client:
        chat = client.chat(system=PIRATE)
        response = chat("Hello!")
        assert "".join(response) == "Hello there."
        response = response.append("And now?")
        assert str(response) == "Hello there."
        assert client.capabilities(spec).streaming
    first, second, _ = server.requests
    assert [message["role"] for message in first.json["messages"]] == ["system", "user"]
    assert [message["role"] for message in second.json["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_local_and_remote_models_stand_in_one_list(server: Server) -> None:
    remote = ModelSpec("gpt-4", OpenAICompatibleBackend(server.base_url))
    with Client([MODEL, remote]) as client:
        assert client.ask("Hello!", config=GREEDY).model == MODEL
        assert client.ask("Hello!", model="gpt-4") == "Hello there."


def test_a_remote_request_is_repeated_and_limited_in_time() -> None:
    with Server(failure(503), failure(503), chat("At last.")) as server:
        client = Client("gpt-4", base_url=server.base_url, timeout_ms=30_000, max_retries=2)
        answer = client.ask("Hello!")
        assert (answer, len(server.requests)) == ("At last.", 3)
        client.close()
    with Server(failure(503)) as server:
        client = Client("gpt-4", base_url=server.base_url, max_retries=0)
        with pytest.raises(EndpointError, match="status 503"):
            client.ask("Hello!")
        client.close()
    gate = Gate()
    with Server(Reply(before=(gate,))) as server:
        client = Client("gpt-4", base_url=server.base_url, timeout_ms=100, max_retries=0)
        with pytest.raises(EndpointError) as caught:
            client.ask("Hello!")
        assert caught.value.code == "ENDPOINT_TIMEOUT"
        client.close()


def test_an_async_client_talks_to_a_server(server: Server) -> None:
    async def main() -> None:
        async with AsyncClient("gpt-4", base_url=server.base_url) as client:
            response = await client.ask("Hello!")
            assert str(response) == "Hello there."
            chat = client.chat()
            pieces = [piece async for piece in await chat("Hello!")]
            assert "".join(pieces) == "Hello there."

    asyncio.run(main())


# Hooks and profiles


def test_a_hook_is_called_at_start_first_token_and_end() -> None:
    class Metrics(Hook):
        def __init__(self) -> None:
            self.seen: list[object] = []

        def on_generation_start(self, chat, input_text, *, config=None) -> None:
            self.seen.append(input_text)

        def on_first_token(self, chat, time_ms) -> None:
            self.seen.append(time_ms > 0)

        def on_generation_end(self, chat, response, *, error=None) -> None:
            self.seen.append((response.usage.completion_tokens, error))

    metrics = Metrics()
    with Client(MODEL, hooks=[metrics]) as client:
        client.ask("Hello!", max_tokens=2)
        client.hooks.remove(metrics)
        client.ask("Hello!", max_tokens=2)
    assert metrics.seen == ["Hello!", True, (2, None)]


def test_a_profile_stores_chats_and_a_session_id_restores_them(home: Path) -> None:
    with Client(MODEL, profile=Profile("work")) as client:
        chat = client.chat(system=PIRATE, marker="pinned", config=GREEDY)
        chat.send("Hello!")
    assert (home / ".talu" / "db" / "work" / "talu.db").is_file()
    with Client(MODEL, profile=Profile("work")) as client:
        again = client.chat(session_id=chat.session_id)
        assert list(again.items) == list(chat.items)
        assert (again.marker, again.config) == ("pinned", GREEDY)
        assert again.send("What is 2 + 3?").chat is again
        assert len(client.chat().items) == 0


# Async


def test_an_async_client_answers_many_at_once(client: Client) -> None:
    questions = ["Hello!", "What is 2 + 2?", "What is the capital of France?"]

    async def main() -> list[AsyncResponse]:
        async with AsyncClient(MODEL) as awaited:
            return await asyncio.gather(*(awaited.ask(q, config=GREEDY) for q in questions))

    answers = asyncio.run(main())
    assert {type(answer) for answer in answers} == {AsyncResponse}
    assert answers == [client.ask(question, config=GREEDY) for question in questions]


def test_an_async_stream_is_read_without_awaiting_the_call(client: Client) -> None:
    async def main() -> str:
        async with AsyncClient(MODEL) as awaited:
            return "".join([c async for c in awaited.stream("Tell me a story.", config=GREEDY)])

    assert asyncio.run(main()) == client.ask("Tell me a story.", config=GREEDY).text


def test_async_chats_stream_and_continue(client: Client) -> None:
    async def main() -> None:
        awaited = AsyncClient(MODEL)
        alice = awaited.chat(system=PIRATE, config=GREEDY)
        bob = awaited.chat(config=GREEDY)
        response = await alice("Hello!")
        assert isinstance(response, AsyncStreamingResponse)
        streamed = "".join([piece async for piece in response])
        assert str(response) == streamed
        assert (await bob.send("Hello!")).text != streamed
        response = await response.append("What is 2 + 3?")
        assert await response is response
        assert len(alice.items) == 5
        assert isinstance(alice.items[-1], MessageItem)
        assert alice.items[-1].text == response.text
        await awaited.close()
        with pytest.raises(StateError, match="closed"):
            await alice.send("Hello!")

    asyncio.run(main())


def test_the_async_client_has_raw_completions_embeddings_and_profiles(
    client: Client, home: Path
) -> None:
    async def main() -> None:
        async with AsyncClient(MODEL, profile=Profile()) as awaited:
            raw = await awaited.raw_complete("Once upon a time", config=GREEDY)
            assert raw == client.raw_complete("Once upon a time", config=GREEDY)
            vector = await awaited.aembed("The cat.")
            assert vector == awaited.embed("The cat.") == client.embed("The cat.")
            assert awaited.embedding_dim() == len(vector)
            assert awaited.capabilities() == client.capabilities()
            await awaited.chat(session_id="one").send("Hello!", GREEDY)
        assert [record["session_id"] for record in Profile().sessions()] == ["one"]

    asyncio.run(main())

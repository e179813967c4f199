"""The one place that chooses formats: a function of what the file, the network and options say."""

from typing import Any

import pytest

from talu import _native
from talu.exceptions import ModelError
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.layout import Role, choose_format, choose_kv_dtype, choose_layout
from talu.weights.mixtures import Kind, Part
from talu.weights.tensors import ENCODINGS, NUMBERS, Encoding, Tensor

AUTO, STORED = LocalBackend(), LocalBackend(weight_format="stored")
MATRIX, NORM = (8, 64), (64,)


class Halves:
    """Rows that nobody reads."""

    count, width = 8, 128

    def read(self, start: int, stop: int) -> Any:
        raise NotImplementedError


def chosen(
    encoding: str = "F32",
    options: LocalBackend = AUTO,
    *,
    shape: tuple[int, ...] = MATRIX,
    multiplied: bool = True,
    generates: bool = False,
    offered: tuple[str, ...] = ("f32", "f16", "bf16", "i16"),
) -> str | None:
    role = Role(name="w", shape=shape, part=Part(multiplied=multiplied), generates=generates)
    return choose_format(role, ENCODINGS.get(encoding, Encoding(encoding)), options, offered)


@pytest.mark.parametrize("encoding", ["F32", "F16", "BF16"])
def test_a_chat_model_keeps_the_numbers_of_its_file(encoding: str) -> None:
    assert chosen(encoding, generates=True) == encoding.lower()


def test_an_encoder_multiplies_f32_matrices_as_integers_unless_told_otherwise() -> None:
    assert chosen() == "i16"
    assert chosen("BF16") == "bf16"
    assert chosen(options=STORED) == "f32"


def test_a_table_of_embeddings_keeps_its_numbers() -> None:
    assert chosen(multiplied=False) == "f32"


def test_vectors_are_floats_for_every_executor() -> None:
    assert chosen("BF16", shape=NORM, offered=()) == "vector"


def test_an_executor_gets_no_format_that_it_does_not_offer() -> None:
    assert chosen(offered=("f32",)) == "f32"
    assert chosen("F16", offered=("f32",)) is None


def test_the_error_for_a_tensor_names_the_encodings_that_the_executor_can_store() -> None:
    encoding = ENCODINGS["F16"]
    parts = {NUMBERS: Halves()}
    half = Tensor(name="w", file="f", shape=MATRIX, encoding=encoding, parts=parts)
    role = Role(name="w", shape=MATRIX, part=Part(), generates=True)
    with pytest.raises(ModelError, match=r"'w' has type F16; supported are F32, BF16$"):
        choose_layout([role], Checkpoint("f", {"w": half}), AUTO, ("f32", "bf16"))


@pytest.mark.parametrize("shape", [MATRIX, NORM])
def test_an_unknown_encoding_has_no_format(shape: tuple[int, ...]) -> None:
    assert chosen("Q9", shape=shape) is None


def test_blocks_are_stored_as_the_file_has_them_where_the_executor_can() -> None:
    assert chosen("Q4_K", generates=True, offered=("f32", "q4_k")) == "q4_k"
    assert chosen("Q4_K", multiplied=False, offered=("f32", "q4_k")) == "q4_k"
    assert chosen("Q4_K", offered=("f32",)) is None
    assert chosen("Q4_K", shape=NORM, offered=("f32", "q4_k")) is None


def quantised(
    weight_format: Any, part: Part | None = None, *, shape: tuple[int, ...] = MATRIX
) -> str | None:
    wanted = Role(name="w", shape=shape, part=part or Part(), generates=True)
    offered = ("bf16", *_native.rotated_formats(), *_native.block_formats())
    options = LocalBackend(weight_format=weight_format)
    return choose_format(wanted, ENCODINGS["BF16"], options, offered)


def test_four_bits_are_for_matrices_that_are_only_multiplied_and_not_protected() -> None:
    assert (
        quantised("q4") == quantised("q4", Part("down")) == quantised("q4", Part("query")) == "r4"
    )
    assert quantised("q4", Part("table", multiplied=False)) == "r8"
    kinds: tuple[Kind, ...] = ("key", "value", "attention output", "output")
    assert {quantised("q4", Part(kind)) for kind in kinds} == {"r8"}
    assert quantised("q8") == "r8"
    assert quantised("q4", shape=(8, 96)) == "bf16"
    assert quantised("q4", shape=NORM) == "vector"


def test_a_mixture_of_gguf_gives_each_matrix_its_type() -> None:
    assert quantised("q4_k_m", shape=(8, 256)) == "q4_k"
    assert quantised("q4_k_m", Part("key"), shape=(8, 256)) == "q6_k"
    assert quantised("q4_k_m") == "q5_0"
    assert quantised("q4_k_m", shape=(8, 80)) == "bf16"
    assert quantised("q4_k_m", shape=NORM) == "vector"


def test_the_native_kernels_have_a_format_for_every_encoding_that_is_read() -> None:
    for encoding in ENCODINGS:
        assert chosen(encoding, STORED, offered=tuple(_native.formats())) is not None


def test_the_cache_is_exact_where_the_weights_are_unless_told_otherwise() -> None:
    exact = {"a": "f32", "b": "i16", "c": "vector"}
    assert choose_kv_dtype(AUTO, exact) == "f32"
    assert choose_kv_dtype(AUTO, exact | {"d": "bf16"}) == "f16"
    assert choose_kv_dtype(LocalBackend(kv_dtype="bf16"), exact) == "bf16"

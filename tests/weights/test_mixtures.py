"""The types of matrices in the mixtures of GGUF files."""

import pytest

from talu import _native
from talu.types import WEIGHT_FORMATS
from talu.weights.mixtures import MIXTURES, Part, type_in


def down(mixture: str, layers: int, columns: int = 512) -> list[str | None]:
    return [type_in(mixture, Part("down", layer=i, layers=layers), columns) for i in range(layers)]


@pytest.mark.parametrize("mixture", ["q4_0", "q4_1", "q5_0", "q5_1"])
def test_a_mixture_that_is_named_like_a_type_keeps_more_bits_for_tables(mixture: str) -> None:
    for kind in ("query", "key", "value", "attention output", "down", "other"):
        assert type_in(mixture, Part(kind), 512) == mixture.upper()  # type: ignore[arg-type]
    assert type_in(mixture, Part("table", multiplied=False), 512) == "Q6_K"
    assert type_in(mixture, Part("output"), 512) == "Q6_K"


def test_keys_values_and_half_of_the_last_matrices_of_mlps_have_more_bits() -> None:
    assert type_in("q4_k_m", Part("key"), 256) == type_in("q4_k_m", Part("value"), 256) == "Q6_K"
    assert type_in("q4_k_m", Part("query"), 256) == "Q4_K"
    more = [i for i, kind in enumerate(down("q4_k_m", 16)) if kind == "Q5_K"]
    assert more == [0, 1, 4, 7, 10, 13, 14, 15]
    assert down("q4_k_m", 1) == ["Q5_K"]


def test_rows_that_large_blocks_do_not_divide_have_a_type_with_small_blocks() -> None:
    assert type_in("q4_k_m", Part(), 192) == "Q5_0"
    assert type_in("q5_k_m", Part(), 192) == "Q5_1"
    assert type_in("q6_k", Part(), 192) == "Q8_0"
    assert type_in("q4_0", Part(), 192) == "Q4_0"
    assert type_in("q8_0", Part(), 80) is None


def test_every_mixture_is_a_weight_format_and_has_only_types_that_are_encoded() -> None:
    assert {*MIXTURES} <= {*WEIGHT_FORMATS}
    encoded = {name.upper() for name in _native.encoded_formats()}
    for mixture in MIXTURES:
        for kind in ("table", "output", "key", "down", "other"):
            for columns in (32, 256):
                assert type_in(mixture, Part(kind), columns) in encoded  # type: ignore[arg-type]

"""Rows of float32 in the encodings of files: their parts, and weights that cannot be encoded."""

import gguf
import numpy as np
import pytest
from gguf import quants
from numpy.typing import NDArray

from talu.exceptions import ModelError
from talu.sources.quantised.groups import Groups
from talu.weights.encode import encode_rows, encoding_named, encodings
from talu.weights.tensors import BLOCKS


class Stored:
    """Rows of a part that were encoded."""

    def __init__(self, rows: NDArray[np.uint8]) -> None:
        self._rows = rows
        self.count, self.width = rows.shape

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self._rows[start:stop]


def weights(rows: int = 7, columns: int = 256) -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((rows, columns)).astype(np.float32)


@pytest.mark.parametrize("name", encodings())
def test_parts_have_the_sizes_that_the_encoding_says(name: str) -> None:
    kind, rows = encoding_named(name), weights()
    parts = encode_rows(name, rows, name="w")
    sizes = {part: 256 // kind.columns * size for part, size in kind.parts.items()}
    assert {part: array.shape for part, array in parts.items()} == {
        part: (7, size) for part, size in sizes.items()
    }


def test_blocks_of_gguf_are_decoded_by_the_gguf_package() -> None:
    rows = weights()
    blocks = encode_rows("Q6_K", rows, name="w")[BLOCKS]
    found = quants.dequantize(blocks, gguf.GGMLQuantizationType.Q6_K)
    assert np.abs(found - rows).max() < 0.1


@pytest.mark.parametrize("scale_type", ["F16", "BF16"])
@pytest.mark.parametrize(("bits", "size"), [(2, 32), (3, 64), (4, 64), (5, 128), (6, 32), (8, 128)])
def test_groups_of_mlx_are_read_by_the_reader_of_mlx_folders(
    bits: int, size: int, scale_type: str
) -> None:
    rows = weights()
    parts = encode_rows(f"AFFINE{bits}_{size}_{scale_type}", rows, name="w")
    tensor = Groups(
        name="w", file="f", shape=(7, 256), bits=bits, size=size, kind="AFFINE",
        scale_type=scale_type, scales=Stored(parts["scales"]), offsets=Stored(parts["minimums"]),
        codes=Stored(parts["codes"]),
    ).tensor()  # fmt: skip
    assert tensor.floats is not None
    found = tensor.floats.read(0, 7).view(np.float32)
    step = np.ptp(rows) / (2**bits - 1)
    assert np.abs(found - rows).max() < 1.2 * step + 0.02


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65520.0])
@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "AFFINE4_64_F16"])
def test_the_first_weight_that_cannot_be_encoded_is_named(name: str, value: float) -> None:
    rows = weights()
    rows[3, 17] = rows[5, 2] = value
    with pytest.raises(ModelError) as caught:
        encode_rows(name, rows, name="blk.0.up", start=100)
    assert str(caught.value) == (
        f"tensor 'blk.0.up': the weight in row 103, column 17 is {value:g}, but "
        f"in {name} weights are finite and at most 65504"
    )


def test_scales_in_bf16_hold_larger_weights() -> None:
    rows = weights()
    rows[0, 1] = 1e20
    encode_rows("AFFINE4_64_BF16", rows, name="w")
    rows[0, 1] = 1e31
    with pytest.raises(ModelError, match=r"row 0, column 1 is 1e\+31, but in AFFINE4_64_BF16"):
        encode_rows("AFFINE4_64_BF16", rows, name="w")


def test_rows_that_are_no_whole_number_of_blocks_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r"'w' has rows of 96 numbers, but Q4_K stores blocks of 256"
    ):
        encode_rows("Q4_K", weights(columns=96), name="w")


def test_no_rows_have_no_bytes() -> None:
    assert encode_rows("Q4_0", weights(rows=0), name="w")[BLOCKS].shape == (0, 144)

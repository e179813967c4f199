"""Chooses the type of each matrix in the mixtures of types that GGUF files have, such as Q4_K_M.

The names and the usual types are those of llama.cpp. Which matrices are worth more bits was
measured with codes chosen by talu (docs/decisions/0029-encoded-weights.md).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["BLOCK", "MIXTURES", "Kind", "Mixture", "Part", "type_in"]

Kind = Literal["table", "output", "query", "key", "value", "attention output", "down", "other"]


class Part(NamedTuple):
    """What a network does with one of its matrices.

    Attributes:
        kind: ``"table"`` of embeddings, also if it is the output layer too; ``"output"`` layer;
            queries, keys, values or output of attention; the matrix after the activation of an MLP
            (``"down"``); or another one.
        multiplied: it is only used in products, not as a table.
        layer: its number, from 0.
        layers: how many there are.
    """

    kind: Kind = "other"
    multiplied: bool = True
    layer: int = 0
    layers: int = 1


class Mixture(NamedTuple):
    """The types of the matrices of a network.

    Attributes:
        file_type: the number that GGUF has for the whole.
        usual: the type of most matrices.
        table: of tables of embeddings and of the output layer.
        keys: of the keys and values of attention.
        down: of the second matrix of an MLP, in half of the layers.
    """

    file_type: int
    usual: str
    table: str
    keys: str
    down: str


MIXTURES: Mapping[str, Mixture] = {
    "q4_0": Mixture(2, "Q4_0", table="Q6_K", keys="Q4_0", down="Q4_0"),
    "q4_1": Mixture(3, "Q4_1", table="Q6_K", keys="Q4_1", down="Q4_1"),
    "q5_0": Mixture(8, "Q5_0", table="Q6_K", keys="Q5_0", down="Q5_0"),
    "q5_1": Mixture(9, "Q5_1", table="Q6_K", keys="Q5_1", down="Q5_1"),
    "q8_0": Mixture(7, "Q8_0", table="Q8_0", keys="Q8_0", down="Q8_0"),
    "q4_k_s": Mixture(14, "Q4_K", table="Q6_K", keys="Q5_K", down="Q4_K"),
    "q4_k_m": Mixture(15, "Q4_K", table="Q6_K", keys="Q6_K", down="Q5_K"),
    "q5_k_s": Mixture(16, "Q5_K", table="Q6_K", keys="Q5_K", down="Q5_K"),
    "q5_k_m": Mixture(17, "Q5_K", table="Q6_K", keys="Q6_K", down="Q6_K"),
    "q6_k": Mixture(18, "Q6_K", table="Q6_K", keys="Q6_K", down="Q6_K"),
}
# For rows that are not a multiple of 256 numbers: the type with blocks of 32 that is as good.
SMALL_BLOCKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
BLOCK = 32  # the columns of a quantised matrix are a multiple of this


def type_in(mixture: str, part: Part, columns: int) -> str | None:
    """The type of a matrix, by its name in GGUF.

    Args:
        mixture: from ``MIXTURES``.
        part: of the matrix in its network.
        columns: numbers in its rows.

    Returns:
        the type; None if no block divides the rows.
    """
    if columns % BLOCK:
        return None
    kind = _type(MIXTURES[mixture], part)
    return kind if columns % 256 == 0 else SMALL_BLOCKS.get(kind, kind)


def _type(mixture: Mixture, part: Part) -> str:
    if part.kind in ("table", "output"):
        return mixture.table
    if part.kind in ("key", "value"):
        return mixture.keys
    return mixture.down if part.kind == "down" and _matters(part) else mixture.usual


def _matters(part: Part) -> bool:
    """Whether a layer is in the first or last eighth, or each third of the others."""
    first = part.layers // 8
    inner = part.layer - first
    return inner < 0 or part.layer >= 7 * part.layers // 8 or inner % 3 == 2

"""Chooses the number format in which an executor stores each weight, and that of its KV cache.

This is the only place that chooses: sources say how a file has the numbers, and executors pack what
is chosen here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from talu.exceptions import ModelError
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.tensors import ARRAY_TYPES, Encoding

__all__ = ["VECTOR", "Role", "choose_format", "choose_kv_format", "choose_layout"]

VECTOR = "vector"  # the format of one-dimensional tensors: float32
INTEGERS = "i16"
EXACT = {"f32", INTEGERS}  # formats whose models get keys and values in f32


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a network does with one of its weights.

    Attributes:
        name: in the network.
        shape: as the network reads it.
        multiplied: it is only used in products, not as a table of embeddings.
        generates: the network computes logits.
    """

    name: str
    shape: tuple[int, ...]
    multiplied: bool
    generates: bool


def choose_format(
    role: Role, encoding: Encoding, options: LocalBackend, offered: Collection[str]
) -> str | None:
    """The format in which to store a weight; None if the executor has none for it.

    Args:
        role: what the network does with the weight.
        encoding: how its file has it.
        options: what the caller asks for.
        offered: the formats of matrices that the executor has.
    """
    if len(role.shape) == 1:
        return VECTOR if encoding.name in ARRAY_TYPES else None
    own = encoding.name.lower()  # stores exactly what the file has
    rounds = options.weight_format == "auto" and role.multiplied and not role.generates
    if own == "f32" and rounds and INTEGERS in offered:
        return INTEGERS
    return own if own in offered else None


def choose_layout(
    roles: Collection[Role],
    tensors: Checkpoint,
    options: LocalBackend,
    offered: Collection[str],
) -> dict[str, str]:
    """The format of each weight of a network, by name.

    Args:
        roles: of all weights.
        tensors: the logical tensors by the names of the network.
        options: what the caller asks for.
        offered: see ``choose_format``.

    Raises:
        ModelError: a tensor cannot be stored; the message names it.
    """
    layout = {}
    for role in roles:
        tensor = tensors[role.name]
        chosen = choose_format(role, tensor.encoding, options, offered)
        if chosen is None:
            raise tensor.unreadable(
                ARRAY_TYPES if len(role.shape) == 1 else offered_encodings(offered)
            )
        if len(role.shape) > 2:
            raise ModelError(
                f"tensor {role.name!r} of shape {role.shape} is neither matrix nor vector"
            )
        layout[role.name] = chosen
    return layout


def offered_encodings(offered: Collection[str]) -> list[str]:
    """The encodings that an executor stores as they are."""
    return [name.upper() for name in offered if name != INTEGERS]


def choose_kv_format(options: LocalBackend, layout: Mapping[str, str]) -> str:
    """The format of keys and values in the cache, for weights of this layout."""
    if options.kv_format != "auto":
        return options.kv_format
    return "f32" if {*layout.values()} <= {*EXACT, VECTOR} else "f16"

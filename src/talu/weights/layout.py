"""Chooses the number format in which an executor stores each weight, and that of its KV cache.

This is the only place that chooses: sources say how a file has the numbers, and executors pack what
is chosen here.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from talu.exceptions import ModelError, ValidationError
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.tensors import ARRAY_TYPES, Encoding

__all__ = [
    "ROTATED",
    "ROTATED_COLUMNS",
    "VECTOR",
    "Role",
    "choose_computed",
    "choose_format",
    "choose_kv_format",
    "choose_layout",
    "conversions",
    "quantizes",
]

VECTOR = "vector"  # the format of one-dimensional tensors: float32
INTEGERS = "i16"
GROUPED = ("affine", "zeros")  # formats of matrices that files store as several tensors
AS_INTEGERS = "stored and multiplied as 16-bit integers with one scale for 128 columns"
ROTATED = ("r4", "r8")  # formats that quantise
ROTATED_COLUMNS = 64  # the columns of a rotated matrix are a multiple of this
EXACT = {"f32", INTEGERS}  # formats whose models get keys and values in f32


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a network does with one of its weights.

    Attributes:
        name: in the network.
        shape: as the network reads it.
        multiplied: it is only used in products, not as a table of embeddings.
        generates: the network computes logits.
        protected: quantisation to 4 bits keeps 8 for it.
    """

    name: str
    shape: tuple[int, ...]
    multiplied: bool
    generates: bool
    protected: bool = False


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
    if quantizes(options) and role.shape[-1] % ROTATED_COLUMNS == 0 and {*ROTATED} <= {*offered}:
        eight = options.weight_format == "q8" or role.protected or not role.multiplied
        return "r8" if eight else "r4"
    rounds = options.weight_format == "auto" and role.multiplied and not role.generates
    if own == "f32" and rounds and INTEGERS in offered:
        return INTEGERS
    return own if own in offered and own != INTEGERS else None


def choose_computed(options: LocalBackend, offered: Collection[str]) -> str | None:
    """The format of a matrix whose numbers are computed because its encoding has no format.

    16-bit integers have half the bytes of float32, and are closer to it than 16-bit floats.
    """
    wanted = "f32" if options.weight_format == "stored" else INTEGERS
    return next((each for each in (wanted, "f32") if each in offered), None)


def quantizes(options: LocalBackend) -> bool:
    """Whether the caller asks for quantised weights."""
    return options.weight_format in ("q8", "q4")


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
        if quantizes(options) and len(role.shape) > 1 and tensor.encoding.name not in ARRAY_TYPES:
            raise ValidationError(
                f"weight_format={options.weight_format!r} cannot be done: the weights in "
                f"{tensors.place} are quantised already (tensor {role.name[:100]!r} has type "
                f"{tensor.encoding.name[:40]}); leave it at 'auto', or take the original files",
                details={"param": "weight_format", "value": options.weight_format},
            )
        chosen = choose_format(role, tensor.encoding, options, offered)
        if chosen is None and tensor.floats is not None and len(role.shape) == 2:
            chosen = choose_computed(options, offered)
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


def conversions(tensors: Checkpoint, layout: Mapping[str, str]) -> list[str]:
    """Notes on the matrices that are not stored with the numbers of their file.

    Args:
        tensors: the logical tensors by the names of the network.
        layout: from ``choose_layout``.
    """
    changed = Counter(
        (tensors[name].encoding.name, chosen)
        for name, chosen in layout.items()
        if chosen not in (VECTOR, *ROTATED, tensors[name].encoding.name.lower())
    )
    notes = []
    for (encoding, chosen), count in sorted(changed.items()):
        if encoding == "F32":
            notes.append(
                f"the f32 matrices of linear layers are {AS_INTEGERS}; "
                "LocalBackend(weight_format='stored') keeps f32"
            )
        else:
            how = AS_INTEGERS if chosen == INTEGERS else f"stored as {chosen}"
            notes.append(f"{count} matrices in {encoding}, which has no kernels, are {how}")
    return notes


def offered_encodings(offered: Collection[str]) -> list[str]:
    """The encodings that an executor stores as they are."""
    own = (INTEGERS, *ROTATED)
    return [name.upper() for name in offered if name not in own and not name.startswith(GROUPED)]


def choose_kv_format(options: LocalBackend, layout: Mapping[str, str]) -> str:
    """The format of keys and values in the cache, for weights of this layout."""
    if options.kv_format != "auto":
        return options.kv_format
    return "f32" if {*layout.values()} <= {*EXACT, VECTOR} else "f16"

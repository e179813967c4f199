"""Chooses the number format in which an executor stores each weight, and that of its KV cache.

This is the only place that chooses: sources say how a file has the numbers, and executors pack what
is chosen here.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from talu.exceptions import ModelError, ValidationError
from talu.types import LocalBackend
from talu.weights.checkpoint import Checkpoint
from talu.weights.mixtures import BLOCK, MIXTURES, Part, type_in
from talu.weights.tensors import ARRAY_TYPES, Encoding, Tensor

__all__ = [
    "ROTATED",
    "ROTATED_COLUMNS",
    "SUMMED_COLUMNS",
    "VECTOR",
    "Role",
    "choose_computed",
    "choose_format",
    "choose_kv_dtype",
    "choose_layout",
    "conversions",
    "is_quantised",
    "quantisation_notes",
    "quantizes",
]

VECTOR = "vector"  # the format of one-dimensional tensors: float32
INTEGERS = "i16"
GROUPED = ("affine", "zeros")  # formats of matrices that files store as several tensors
AS_INTEGERS = "stored and multiplied as 16-bit integers with one scale for 128 columns"
ROTATED = ("r4", "r8")  # formats that quantise
ROTATED_COLUMNS = 64  # the columns of a rotated matrix are a multiple of this
SUMMED_COLUMNS = 64  # sample texts are used for matrices whose columns are a multiple of this
PROTECTED = ("key", "value", "attention output", "output")  # parts that q4 keeps in 8 bits
EXACT = {"f32", INTEGERS}  # formats whose models get keys and values in f32


class Role(NamedTuple):
    """What a network does with one of its weights.

    Attributes:
        name: in the network.
        shape: as the network reads it.
        part: of the weight in it.
        generates: the network computes logits.
    """

    name: str
    shape: tuple[int, ...]
    part: Part
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
    if quantizes(options) and (wanted := quantised(role, options.weight_format)) in offered:
        return wanted
    rounds = options.weight_format == "auto" and role.part.multiplied and not role.generates
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
    return options.weight_format in ("q8", "q4", *MIXTURES)


def is_quantised(tensor: Tensor, stored: str) -> bool:
    """Whether storing a tensor in a format means to choose codes for it."""
    floats = tensor.encoding.name in ARRAY_TYPES
    return floats and stored not in (VECTOR, INTEGERS, *map(str.lower, ARRAY_TYPES))


def quantised(role: Role, weight_format: str) -> str | None:
    """The format in which a matrix is quantised; None if its columns do not divide into blocks."""
    columns = role.shape[-1]
    if weight_format in MIXTURES:
        kind = type_in(weight_format, role.part, columns)
        return kind.lower() if kind else None
    if columns % ROTATED_COLUMNS:
        return None
    eight = weight_format == "q8" or role.part.kind in PROTECTED or not role.part.multiplied
    return "r8" if eight else "r4"


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
        if chosen not in (VECTOR, tensors[name].encoding.name.lower())
        and not is_quantised(tensors[name], chosen)
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


def quantisation_notes(
    options: LocalBackend, roles: Collection[Role], layout: Mapping[str, str]
) -> list[str]:
    """Notes on the matrices that are not quantised as the caller asks.

    Args:
        options: what the caller asks for.
        roles: of all weights.
        layout: from ``choose_layout``.
    """
    wanted = options.weight_format
    if not quantizes(options):
        return []
    mixed = wanted in MIXTURES
    matrices = [role for role in roles if len(role.shape) > 1]
    left = [role for role in matrices if layout[role.name] != quantised(role, wanted)]
    done = [role for role in matrices if role not in left]
    other = [role for role in done if mixed and uses_small_blocks(wanted, role)]
    unread = [role for role in done if role.part.multiplied and role.shape[-1] % SUMMED_COLUMNS]
    kinds = ", ".join(sorted({layout[role.name] for role in other}))
    columns = BLOCK if mixed else ROTATED_COLUMNS
    found = [
        (left, f"leaves {{}} as the file has them: their columns are not a multiple of {columns}"),
        (other, f"stores {{}} in {kinds}: their columns are not a multiple of 256"),
        (
            unread,
            "chooses the codes of {} without sample texts: their columns are not a multiple of "
            f"{SUMMED_COLUMNS}",
        ),
    ]
    return [
        f"weight_format={wanted!r} "
        + text.format(f"{len(some)} matrices, such as {some[0].name[:100]!r},")
        for some, text in found
        if some
    ]


def uses_small_blocks(mixture: str, role: Role) -> bool:
    """Whether a matrix has another type than in a network whose rows large blocks divide."""
    return type_in(mixture, role.part, role.shape[-1]) != type_in(mixture, role.part, 256)


def offered_encodings(offered: Collection[str]) -> list[str]:
    """The encodings that an executor stores as they are."""
    own = (INTEGERS, *ROTATED)
    return [name.upper() for name in offered if name not in own and not name.startswith(GROUPED)]


def choose_kv_dtype(options: LocalBackend, layout: Mapping[str, str]) -> str:
    """The format of keys and values in the cache, for weights of this layout."""
    if options.kv_dtype != "auto":
        return options.kv_dtype
    return "f32" if {*layout.values()} <= {*EXACT, VECTOR} else "f16"

"""Maps a network's tensor names to those of a checkpoint.

Checkpoints of a base class lack the prefix that a class with a head adds, and old files name the
weight and bias of a layer norm ``gamma`` and ``beta``.
"""

from collections.abc import Collection, Iterable, Iterator

from talu.models.decoder import HEAD, TABLE

__all__ = ["stored_names"]

OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def stored_names(
    wanted: Iterable[str], stored: Collection[str], *, prefix: str, tied: bool
) -> dict[str, str]:
    """The stored name of each tensor; unchanged if none of its spellings is stored.

    Args:
        wanted: tensor names of the network.
        stored: tensor names of the checkpoint.
        prefix: prefix of the network's names that the checkpoint may lack.
        tied: the embedding table is the output head, and may be stored under its name.
    """
    return {
        name: next((other for other in spellings(name, prefix, tied) if other in stored), name)
        for name in wanted
    }


def spellings(name: str, prefix: str, tied: bool) -> Iterator[str]:
    """The possible names of a tensor in a checkpoint, the usual one first."""
    for start in (name, name.removeprefix(prefix)):
        yield start
        for new, old in OLD_NAMES.items():
            if start.endswith(new):
                yield start.removesuffix(new) + old
    if name == TABLE and tied:
        yield HEAD

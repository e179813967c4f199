"""Finds the tensors of a network in a checkpoint that names them in another way.

Checkpoints of the base class lack the prefix that those of a class with a head have, and files of
before 2020 call the weight and the bias of a layer norm ``gamma`` and ``beta``.
"""

from collections.abc import Collection, Iterable, Iterator

from talu.models.decoder import HEAD, TABLE

__all__ = ["stored_names"]

OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def stored_names(
    wanted: Iterable[str], stored: Collection[str], *, prefix: str, tied: bool
) -> dict[str, str]:
    """For each name of a network the one that the checkpoint has for it, or else the same.

    Args:
        wanted: names that the network has.
        stored: names that the checkpoint has.
        prefix: what names of the network begin with, where the checkpoint may lack it.
        tied: the embedding table is the head, and may be stored under its name.
    """
    return {
        name: next((other for other in spellings(name, prefix, tied) if other in stored), name)
        for name in wanted
    }


def spellings(name: str, prefix: str, tied: bool) -> Iterator[str]:
    """The names that a tensor may have, the usual one first."""
    for start in (name, name.removeprefix(prefix)):
        yield start
        for new, old in OLD_NAMES.items():
            if start.endswith(new):
                yield start.removesuffix(new) + old
    if name == TABLE and tied:
        yield HEAD

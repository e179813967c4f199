"""Collects the stored tensors of the modules of a network, and checks them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from talu.error_text import shown
from talu.exceptions import ModelError
from talu.weights.tensors import Tensor

__all__ = ["FLOATS", "Module", "modules_of"]

FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True)
class Module:
    """The tensors of a part of a network, such as ``model.layers.0.mlp.up_proj``.

    Attributes:
        name: of the module.
        place: folder of the model, for messages.
        tensors: by the last word of their names, such as ``weight``.
    """

    name: str
    place: str
    tensors: Mapping[str, Tensor]

    def tensor(
        self, word: str, types: Collection[str], dimensions: Collection[int] = (2,)
    ) -> Tensor:
        """A tensor of one of these types, with one of these numbers of dimensions.

        Raises:
            ModelError: it is missing, or has another type or another number of dimensions.
        """
        found = self.tensors.get(word)
        if found is None:
            raise self.error(f"has no tensor {word!r}, which its quantisation needs")
        if found.encoding.name not in types:
            raise found.error(f"has type {found.encoding.name[:40]}, expected {' or '.join(types)}")
        if len(found.shape) not in dimensions or 0 in found.shape:
            raise found.error(
                f"has shape {found.shape}, expected {' or '.join(map(str, dimensions))} dimensions"
            )
        return found

    def shaped(self, word: str, types: Collection[str], shape: tuple[int, ...]) -> Tensor:
        """A tensor of one of these types, with this shape.

        Raises:
            ModelError: it is missing, or has another type or shape.
        """
        found = self.tensor(word, types, (len(shape),))
        if found.shape != shape:
            raise found.error(f"has shape {found.shape}, expected {shape}")
        return found

    def error(self, what: str) -> ModelError:
        """An error about the module, to be raised."""
        return ModelError(f"{self.place}: the quantised module {shown(self.name)} {what}")


def modules_of(place: str, tensors: Mapping[str, Tensor]) -> Sequence[Module]:
    """The modules with tensors of their own, by name."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, word = name.rpartition(".")
        found.setdefault(module, {})[word] = tensor
    return [Module(name, place, own) for name, own in sorted(found.items())]

"""Divides a budget of memory among the local models of a server."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from talu.error_text import shown, size_text
from talu.exceptions import ModelError, ValidationError
from talu.router.description import describe
from talu.router.spec import ModelSpec
from talu.types import LocalBackend

__all__ = ["Memory", "with_cache"]


class Need(NamedTuple):
    """The bytes of a model: its weights, and its keys and values."""

    weights: int
    cache: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.cache


class Memory:
    """A budget, and what each model takes of it.

    Each model has its weights, and for keys and values what is left of its share: so all models
    are open at once if their weights fit into the shares. A model with larger weights has a cache
    for a single full context.

    Attributes:
        needs: what each model takes, by name.
    """

    def __init__(self, budget: int, models: Sequence[ModelSpec]) -> None:
        """Read what the models need from their files.

        Raises:
            ValidationError: a model does not fit into the budget.
            ModelNotFoundError: a model is not on this machine.
            ModelError: a model cannot be used.
        """
        self._budget = budget
        self.needs = {spec.name: self._need(spec, budget // len(models)) for spec in models}

    def _need(self, spec: ModelSpec, share: int) -> Need:
        options = spec.backend if isinstance(spec.backend, LocalBackend) else LocalBackend()
        about = describe(spec.ref, options=options)
        if about.memory is None:
            raise ModelError(f"the model {shown(spec.name)} cannot be used: {about.problem}")
        least, weights = about.memory.cache, about.memory.weights
        if weights + least > self._budget:
            raise ValidationError(
                f"the model {shown(spec.name)} takes {size_text(weights + least)} with a cache for "
                f"one full context, and memory is {size_text(self._budget)}",
                details={"param": "memory"},
            )
        return Need(weights, options.kv_cache_bytes or max(least, share - weights))

    def fits(self, name: str, held: Iterable[str]) -> bool:
        """Whether there is room for a model beside these."""
        return sum(self.needs[each].total for each in (name, *held)) <= self._budget


def with_cache(spec: ModelSpec, cache: int | None) -> ModelSpec:
    """The model with this many bytes for keys and values; None leaves it as it is."""
    if cache is None:
        return spec
    options = spec.backend if isinstance(spec.backend, LocalBackend) else LocalBackend()
    options = replace(options, kv_cache_bytes=cache)
    return ModelSpec(spec.ref, options, name=spec.name, limits=spec.limits)

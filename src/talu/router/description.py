"""Describes a model on this machine by its reference."""

import importlib
import os

from talu.descriptions import ModelDescription
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.router.reference import split_reference
from talu.router.spec import path_reference
from talu.types import LocalBackend

__all__ = ["describe", "local_reference"]


def describe(
    model: str | os.PathLike[str],
    *,
    context: int | None = None,
    options: LocalBackend | None = None,
) -> ModelDescription:
    """Describe a model on this machine; its weights are not loaded, and nothing is downloaded.

    Args:
        model: a folder, a GGUF file, ``"talu/pocket"``, or the hub id of a model in the cache.
        context: tokens for which the memory is computed; None for what the model was trained for.
        options: as for opening the model.

    Raises:
        ValidationError: the model runs behind an endpoint, or an argument is out of range.
        ModelNotFoundError: there is no such model on this machine.
        ModelError: its files are damaged, or the architecture is not supported.
    """
    if context is not None and (type(context) is not int or context < 1):
        raise ValidationError(
            f"context={shown(context)} must be a whole number above 0", details={"param": "context"}
        )
    ref = local_reference(model, "described")
    local = importlib.import_module("talu.backends.local.description")
    about: ModelDescription = local.describe(ref, context, options)
    return about


def local_reference(model: str | os.PathLike[str], done: str) -> str:
    """The reference of a model on this machine.

    Args:
        model: a reference or a path.
        done: what only models on this machine are, for the error.

    Raises:
        ValidationError: the model runs behind an endpoint.
    """
    provider, ref = split_reference(
        path_reference(model) if isinstance(model, os.PathLike) else model
    )
    if provider is not None:
        raise ValidationError(
            f"{shown(model)} runs behind an endpoint; only models on this machine are {done}",
            details={"param": "model"},
        )
    return ref

"""Calls the ``tokenizers`` package, and converts its errors and panics to errors of talu."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from talu.exceptions import TokenizerError

__all__ = ["BackendError", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")


class BackendError(TokenizerError):
    """An error of the ``tokenizers`` package."""


def guarded(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the ``tokenizers`` package and convert its errors and Rust panics."""
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # its class cannot be imported
        if isinstance(error, TokenizerError) or not (panic or isinstance(error, Exception)):
            raise
        problem = f"{'panicked' if panic else type(error).__name__}: {str(error)[:200]}"
        raise BackendError(f"the tokenizers package failed: {problem}") from error

"""Gives warnings that point at the caller's line."""

import sys
import warnings

__all__ = ["warn"]


def warn(message: str) -> None:
    """Give a ``UserWarning`` that points at the innermost line outside talu."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "talu":
        frame = frame.f_back
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)

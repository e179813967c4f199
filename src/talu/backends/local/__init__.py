"""Runs models in this process, on talu's own engine."""

from talu.backends.local.model import LocalModel

__all__ = ["LocalModel"]

"""Servers that give prepared answers."""

from tests.remote.conftest import serve

__all__ = ["serve"]

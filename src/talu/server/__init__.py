"""Serves models to the clients of other programs' APIs; needs ``pip install "talu[server]"``.

The protocols themselves need nothing more than the library does.
"""

import importlib
from typing import TYPE_CHECKING

from talu.exceptions import DependencyError
from talu.server.options import ServerOptions

if TYPE_CHECKING:
    from talu.server.app import create_app
    from talu.server.running import serve

__all__ = ["ServerOptions", "create_app", "serve"]

PLACES = {"create_app": "talu.server.app", "serve": "talu.server.running"}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(PLACES[name]), name)
        except ModuleNotFoundError as error:
            raise DependencyError(
                f'the server needs the package {error.name!r}: pip install "talu[server]"',
                details={"package": error.name},
            ) from error

"""Serves models to the clients of other programs' APIs; needs ``pip install "talu[server]"``."""

from talu.exceptions import DependencyError

try:
    from talu.server.app import create_app
except ModuleNotFoundError as error:
    raise DependencyError(
        f'the server needs the package {error.name!r}: pip install "talu[server]"',
        details={"package": error.name},
    ) from error
from talu.server.options import ServerOptions

__all__ = ["ServerOptions", "create_app"]

"""Turns a lack of file descriptors into a typed error."""

import errno
from collections.abc import Generator
from contextlib import contextmanager

from talu.exceptions import ResourceError, TaluError

__all__ = ["NO_DESCRIPTOR", "descriptor_opens", "lacks_descriptors"]

NO_DESCRIPTOR = (
    "the system cannot open another file or connection: close some, or raise the limit (ulimit -n)"
)


def lacks_descriptors(error: BaseException) -> bool:
    """Whether an error of the system says that no file descriptor is left."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


@contextmanager
def descriptor_opens() -> Generator[None]:
    """Raise ``ResourceError`` in place of Python's own error when no file can be opened."""
    try:
        yield
    except OSError as error:
        if isinstance(error, TaluError) or not lacks_descriptors(error):
            raise
        raise ResourceError(NO_DESCRIPTOR) from error

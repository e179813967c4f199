"""Defines the type of arguments and options that are text: not empty, and valid UTF-8."""

import re

import click

__all__ = ["MAYBE_EMPTY", "NOT_EMPTY", "TEXT"]


class _Text(click.types.StringParamType):
    """Text that is not empty.

    Args:
        is_utf8: whether it has to be valid UTF-8, as paths need not.
        may_be_empty: whether the command itself checks for empty text.
    """

    def __init__(self, *, is_utf8: bool = True, may_be_empty: bool = False) -> None:
        self._is_utf8 = is_utf8
        self._may_be_empty = may_be_empty

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        name = _name(param)
        if not value and not self._may_be_empty:
            raise click.UsageError(f"{name} is empty.", ctx)
        if self._is_utf8:
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise click.UsageError(
                    f"{name} is not UTF-8: {_found(value, error.start)}; convert it, for example "
                    "with iconv -t UTF-8.",
                    ctx,
                ) from error
        return value


def _name(param: click.Parameter | None) -> str:
    """The long name of an option, such as --model, or the name of an argument on the help page."""
    if param is None:
        return "A text"
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    words = re.findall("[A-Z]+", param.human_readable_name)
    return f"The {words[0]}"


def _found(text: str, at: int) -> str:
    """What is not UTF-8 at this index; Python reads a wrong byte 0xNN as U+DCNN."""
    code = ord(text[at])
    is_byte = 0xDC80 <= code <= 0xDCFF
    what = f"the byte 0x{code - 0xDC00:02x}" if is_byte else f"the lone surrogate U+{code:04X}"
    return f"it has {what} at character {at}"


TEXT = _Text()
NOT_EMPTY = _Text(is_utf8=False)
MAYBE_EMPTY = _Text(may_be_empty=True)

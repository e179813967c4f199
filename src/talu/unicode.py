"""Checks texts for lone surrogates, which cannot be tokenized or written to a file."""

from talu.exceptions import TokenizerError

__all__ = ["check_unicode", "is_unicode"]


def is_unicode(text: str) -> bool:
    """Whether the text is valid Unicode: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_unicode(name: str, text: str) -> None:
    """Refuse a text that no tokenizer accepts.

    Raises:
        TokenizerError: it has a lone surrogate; the message names the place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{name} is not valid Unicode: it has a lone surrogate {text[error.start]!r} at "
            f"character {error.start}; decode its bytes with errors='replace'",
            details={"param": name, "position": error.start},
        ) from error

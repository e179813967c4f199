"""Checks texts for lone surrogates, which cannot be tokenized or written to a file."""

from talu.exceptions import TokenizerError

__all__ = ["REPLACE_SURROGATES", "check_unicode", "is_unicode"]

REPLACE_SURROGATES = (
    "read it with its real encoding, or replace what is not valid with "
    "text.encode(errors='replace').decode()"
)


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
            f"character {error.start}; {REPLACE_SURROGATES}",
            details={"param": name, "position": error.start},
        ) from error

"""What an answer has in common with the text that it holds."""

from abc import ABC, abstractmethod

__all__ = ["TextLike"]


class TextLike(ABC):
    """Compares, hashes, joins and searches like its ``text``; it is not a ``str``."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The text."""

    def __str__(self) -> str:
        return self.text

    def __format__(self, spec: str) -> str:
        return format(self.text, spec)

    def __len__(self) -> int:
        return len(self.text)

    def __contains__(self, part: "str | TextLike") -> bool:
        return (part.text if isinstance(part, TextLike) else part) in self.text

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextLike):
            return self.text == other.text
        return self.text == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __add__(self, other: str) -> str:
        return self.text + str(other) if isinstance(other, str | TextLike) else NotImplemented

    def __radd__(self, other: str) -> str:
        return other + self.text if isinstance(other, str) else NotImplemented

    def lower(self) -> str:
        """The text in lower case."""
        return self.text.lower()

    def upper(self) -> str:
        """The text in upper case."""
        return self.text.upper()

    def strip(self, chars: str | None = None) -> str:
        """The text without these characters, or white space, at its ends."""
        return self.text.strip(chars)

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        """The text's parts between separators."""
        return self.text.split(sep, maxsplit)

    def startswith(self, prefix: str | tuple[str, ...]) -> bool:
        """Whether the text begins so."""
        return self.text.startswith(prefix)

    def endswith(self, suffix: str | tuple[str, ...]) -> bool:
        """Whether the text ends so."""
        return self.text.endswith(suffix)

    def replace(self, old: str, new: str, count: int = -1) -> str:
        """The text with one text replaced by another."""
        return self.text.replace(old, new, count)

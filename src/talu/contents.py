"""Joins contents of messages."""

from typing import Any

__all__ = ["joined"]


def joined(first: Any, second: Any, between: str = "\n\n") -> Any:
    """Two contents of messages, of which one may be a list of parts, as one."""
    if isinstance(first, list) or isinstance(second, list):
        if between or not isinstance(first, list):
            return [*_parts(first), *_parts(second)]
        texts = [part.get("text", "") for part in first if isinstance(part, dict)]
        return "\n".join(map(str, texts))
    return f"{first}{between}{second}" if first and second else str(first or second or "")


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []

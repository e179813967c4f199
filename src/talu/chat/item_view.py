"""The live view of a chat's items."""

from collections.abc import Iterator, Sequence
from typing import overload

from talu.chat.items import (
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    ItemStatus,
    Kind,
    MessageItem,
    MessageRole,
    ReasoningItem,
)
from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["ConversationItems"]


class ConversationItems(Sequence[Item]):
    """The items of a chat as a read-only sequence that reflects later changes."""

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """The item at an index, or a list of items for a slice."""
        return list(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def first(self) -> Item | None:
        """The first item; None when there is none."""
        return self._items[0] if self._items else None

    @property
    def last(self) -> Item | None:
        """The last item; None when there is none."""
        return self._items[-1] if self._items else None

    @property
    def system(self) -> str | None:
        """Text of the system message at the start; None when there is none."""
        first = self.first
        if isinstance(first, MessageItem) and first.role is MessageRole.SYSTEM:
            return first.text
        return None

    def filter_by_type(self, kind: type[Kind]) -> list[Kind]:
        """All items of a class."""
        if not isinstance(kind, type):
            wrong = f"kind must be a class of items, such as MessageItem, got {shown(kind)}"
            raise ValidationError(wrong, details={"param": "kind", "value": kind})
        return [item for item in self._items if isinstance(item, kind)]

    def filter_by_role(self, role: MessageRole | str) -> list[MessageItem]:
        """All messages of a role."""
        wanted = MessageRole.named(role)
        return [item for item in self.filter_by_type(MessageItem) if item.role is wanted]

    def __repr__(self) -> str:
        lines = "".join(f"  {_line(item)},\n" for item in self._items)
        return f"ConversationItems([\n{lines}])" if lines else "ConversationItems([])"


def _line(item: Item) -> str:
    mark = "" if item.status is ItemStatus.COMPLETED else f" ({item.status.value})"
    match item:
        case MessageItem():
            named = "" if item.name is None else f" {item.name}"
            return f"{item.role.value}{named}{mark}: {shown(item.text)}"
        case ReasoningItem():
            return f"reasoning{mark}: {shown(item.text)}"
        case FunctionCallItem():
            return f"call {item.call_id}{mark}: {item.name}({item.arguments})"
        case FunctionCallOutputItem():
            return f"output {item.call_id}{mark}: {shown(item.output)}"
        case _:
            return f"{type(item).__name__}{mark}"

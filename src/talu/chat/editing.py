"""Access to a chat's history: reading it, and editing it as a transaction."""

from collections.abc import Callable
from typing import Any, Self

from talu.chat.attributes import ChatAttributes
from talu.chat.interrupts import Claim, Guard
from talu.chat.item_view import ConversationItems
from talu.chat.items import Item, MessageItem, MessageRole, distinct
from talu.chat.messages import MessageList, messages_from_items
from talu.error_text import shown
from talu.exceptions import StateError, ValidationError
from talu.unicode import check_unicode

__all__ = ["Editable"]


class Editable(ChatAttributes):
    """A chat whose items can be read and edited."""

    @property
    def items(self) -> ConversationItems:
        """All items, including the system message, as a live read-only sequence."""
        self._check_open()
        return ConversationItems(self._history.items)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """A read-only copy of the conversation as OpenAI-style dictionaries.

        ``client.chat(messages=chat.messages)`` restores it.
        """
        return MessageList(messages_from_items(self.items))

    @property
    def system(self) -> str | None:
        """Text of the system message, which is the first item; None and "" remove it."""
        return self.items.system

    @system.setter
    def system(self, text: str | None) -> None:
        if text is not None and not isinstance(text, str):
            wrong = f"system must be text, got {shown(text)}"
            raise ValidationError(wrong, details={"param": "system", "value": text})
        check_unicode("system", text or "")
        new = [MessageItem.create("system", text)] if text else []

        def change(items: list[Item]) -> None:
            items[: _system_of(items)] = new

        self._edit(change)

    def __len__(self) -> int:
        return len(self._history.items)

    def __bool__(self) -> bool:
        return True

    def append(
        self,
        role: MessageItem | MessageRole | str,
        content: str | None = None,
        *,
        hidden: bool = False,
    ) -> Self:
        """Add a message without generating: a role and a text, or a ``MessageItem``.

        An item that is already in the chat is added as a copy with a new id.

        Raises:
            ValidationError: the role, the content or the type of an argument is wrong.
        """
        item = _message(role, content, hidden=hidden)
        return self._edit(lambda items: items.extend(distinct([item], items)))

    def append_hidden(self, role: MessageRole | str, content: str) -> Self:
        """Add a message that the model sees but that should not be shown to a user."""
        return self.append(role, content, hidden=True)

    def insert(
        self,
        index: int,
        role: MessageItem | MessageRole | str,
        content: str | None = None,
        *,
        hidden: bool = False,
    ) -> Self:
        """Insert a message before the item at ``index``; ``len(chat)`` appends it.

        Raises:
            ValidationError: the role, the content or the type of an argument is wrong.
            StateError: there is no such index.
        """
        item = _message(role, content, hidden=hidden)

        def change(items: list[Item]) -> None:
            _check_index(index, len(items), "STATE_INSERT_FAILED")
            items[index:index] = distinct([item], items)

        return self._edit(change)

    def pop(self) -> Self:
        """Remove the last item; ``StateError`` when there is none."""

        def change(items: list[Item]) -> None:
            if not items:
                raise StateError("the chat has no item to drop", "STATE_POP_FAILED")
            items.pop()

        return self._edit(change)

    def remove(self, index: int) -> Self:
        """Remove the item at ``index``, counted from 0; ``StateError`` when there is none."""

        def change(items: list[Item]) -> None:
            _check_index(index, len(items) - 1, "STATE_REMOVE_FAILED")
            del items[index]

        return self._edit(change)

    def clear(self) -> Self:
        """Remove all items except the system message."""

        def change(items: list[Item]) -> None:
            del items[_system_of(items) :]

        return self._edit(change)

    def reset(self) -> Self:
        """Remove all items."""
        return self._edit(list[Item].clear)

    def _edit(self, change: Callable[[list[Item]], object]) -> Self:
        """Change the items in the store and then in memory, or in neither."""
        self._check_open()
        guard = Guard()
        guard.run(self._changed(change, guard))
        return self

    async def _changed(self, change: Callable[[list[Item]], object], claim: Claim) -> None:
        self._history.claim(claim)
        items = list(self._history.items)
        change(items)
        self._save(items)
        self._history.items[:] = items


def _message(
    role: MessageItem | MessageRole | str, content: str | None, *, hidden: bool
) -> MessageItem:
    if isinstance(role, MessageItem):
        if content is not None or hidden:
            wrong = "a MessageItem already has content and hidden: give the item alone"
            raise ValidationError(wrong, details={"param": "hidden" if hidden else "content"})
        return role
    who = MessageRole.named(role)
    if content is None:
        wrong = "content is missing: give the text of the message"
        raise ValidationError(wrong, "VALIDATION_MISSING_CONTENT", {"param": "content"})
    item = MessageItem.create(who, content, hidden=hidden)
    check_unicode("content", item.text)
    return item


def _system_of(items: list[Item]) -> int:
    """How many items at the start are the system message: one or none."""
    return int(ConversationItems(items).system is not None)


def _check_index(index: int, last: int, code: str) -> None:
    details = {"param": "index", "value": index}
    if not isinstance(index, int) or isinstance(index, bool):
        raise ValidationError(f"index must be a whole number, got {shown(index)}", details=details)
    if not 0 <= index <= last:
        held = f"it can be 0 to {last}" if last >= 0 else "the chat is empty"
        raise StateError(f"there is no item at index {shown(index)}: {held}", code, details)

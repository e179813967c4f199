"""Conversation items as immutable typed values, and the live view of a chat's items."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Self, TypeVar, overload

from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = [
    "ContentPart",
    "ContentType",
    "ConversationItems",
    "FunctionCallItem",
    "FunctionCallOutputItem",
    "InputText",
    "Item",
    "ItemStatus",
    "ItemType",
    "MessageItem",
    "MessageRole",
    "OutputText",
    "ReasoningItem",
    "ReasoningText",
    "check_name",
    "distinct",
]


class ItemType(StrEnum):
    """Kind of an item."""

    MESSAGE = "message"
    FUNCTION_CALL = "function_call"
    FUNCTION_CALL_OUTPUT = "function_call_output"
    REASONING = "reasoning"


class ItemStatus(StrEnum):
    """State of an item; a committed one is completed, or incomplete when it was cancelled."""

    IN_PROGRESS = "in_progress"
    WAITING = "waiting"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


class MessageRole(StrEnum):
    """Who speaks in a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    DEVELOPER = "developer"

    @classmethod
    def named(cls, name: "MessageRole | str") -> "MessageRole":
        """The role of this name in any case; ``ValidationError`` when there is none."""
        if isinstance(name, str) and name.upper() in cls.__members__:
            return cls[name.upper()]
        known = ", ".join(cls)
        raise ValidationError(
            f"unknown role {shown(name)}; known are {known}",
            "VALIDATION_INVALID_ROLE",
            {"param": "role", "value": name},
        )


class ContentType(StrEnum):
    """Kind of a content part."""

    INPUT_TEXT = "input_text"
    OUTPUT_TEXT = "output_text"
    REASONING_TEXT = "reasoning_text"


@dataclass(frozen=True, slots=True)
class _TextPart:
    """Base of content parts; all of them are texts so far."""

    type: ClassVar[ContentType]
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            wrong = f"text must be text, got {shown(self.text)}"
            raise ValidationError(wrong, details={"param": "text", "value": self.text})

    def to_dict(self) -> dict[str, str]:
        """The part as ``{"type": "input_text", "text": ...}``, or of another type."""
        return {"type": self.type.value, "text": self.text}


@dataclass(frozen=True, slots=True)
class InputText(_TextPart):
    """Text that was given to the model."""

    type: ClassVar[ContentType] = ContentType.INPUT_TEXT


@dataclass(frozen=True, slots=True)
class OutputText(_TextPart):
    """Text of an answer."""

    type: ClassVar[ContentType] = ContentType.OUTPUT_TEXT


@dataclass(frozen=True, slots=True)
class ReasoningText(_TextPart):
    """Text that the model thought before it answered."""

    type: ClassVar[ContentType] = ContentType.REASONING_TEXT


ContentPart = InputText | OutputText | ReasoningText


def _are_parts(parts: Sequence[object]) -> bool:
    return all(isinstance(part, ContentPart) for part in parts)


def _new_id() -> str:
    return f"item_{uuid.uuid4().hex}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


MAX_NAME_LENGTH = 256
COMMON = {"id": str, "status": ItemStatus, "created_at_ms": int, "hidden": bool}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Base of all items.

    Attributes:
        id: unique; a regenerated item has a new one.
        status: completed, or incomplete when the generation was cancelled.
        created_at_ms: milliseconds since 1970, UTC.
        hidden: part of the context, but not meant for the eyes of a user.
    """

    type: ClassVar[ItemType]
    id: str = field(default_factory=_new_id)
    status: ItemStatus = ItemStatus.COMPLETED
    created_at_ms: int = field(default_factory=_now_ms)
    hidden: bool = False

    def __post_init__(self) -> None:
        for name, kind in COMMON.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                wrong = f"{name} must be of type {kind.__name__}, got {shown(value)}"
                raise ValidationError(wrong, details={"param": name, "value": value})


def check_name(name: object) -> None:
    """``ValidationError`` unless this is None or a name of bounded length."""
    fits = isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME_LENGTH
    if name is not None and not fits:
        wanted = f"printable text of 1 to {MAX_NAME_LENGTH} characters"
        wrong = f"name must be {wanted}, got {shown(name)}"
        raise ValidationError(wrong, details={"param": "name", "value": name})


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageItem(Item):
    """A message of the system, the user or the model.

    Attributes:
        name: who speaks, among several of one role; None when it does not matter.
        generation: how an answer came about: model, finish reason and the settings asked for.
    """

    type: ClassVar[ItemType] = ItemType.MESSAGE
    role: MessageRole
    content: tuple[ContentPart, ...]
    generation: Mapping[str, object] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        Item.__post_init__(self)  # super() does not work in a class with slots
        if not isinstance(self.role, MessageRole):
            wrong = f"role must be a MessageRole, got {shown(self.role)}; create() takes its name"
            raise ValidationError(wrong, "VALIDATION_INVALID_ROLE", {"param": "role"})
        if not isinstance(self.content, tuple) or not _are_parts(self.content):
            wrong = (
                f"content must be a tuple of parts, got {shown(self.content)}; create() takes text"
            )
            raise ValidationError(wrong, "VALIDATION_MISSING_CONTENT", {"param": "content"})
        check_name(self.name)

    @classmethod
    def create(
        cls,
        role: MessageRole | str,
        content: str | Sequence[ContentPart],
        *,
        hidden: bool = False,
        name: str | None = None,
    ) -> Self:
        """A new message; ``role`` in any case, ``content`` as text or parts."""
        who = MessageRole.named(role)
        kind = OutputText if who is MessageRole.ASSISTANT else InputText
        parts = (kind(content),) if isinstance(content, str) else content
        if not isinstance(parts, Sequence) or not _are_parts(parts):
            raise ValidationError(
                f"content must be text or content parts, got {shown(content)}",
                "VALIDATION_MISSING_CONTENT",
                {"param": "content", "value": content},
            )
        return cls(role=who, content=tuple(parts), hidden=hidden, name=name)

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.content)

    def to_message_dict(self) -> dict[str, str]:
        """The message as ``{"role": ..., "content": ...}``, and its name if it has one."""
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role.value, **named, "content": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCallItem(Item):
    """A call of a tool; ``arguments`` is JSON text as the model wrote it."""

    type: ClassVar[ItemType] = ItemType.FUNCTION_CALL
    name: str
    call_id: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCallOutputItem(Item):
    """What the call ``call_id`` returned, as text, and the tool's name if it was given."""

    type: ClassVar[ItemType] = ItemType.FUNCTION_CALL_OUTPUT
    call_id: str
    output: str
    name: str | None = None

    def __post_init__(self) -> None:
        Item.__post_init__(self)  # super() does not work in a class with slots
        check_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningItem(Item):
    """What the model thought before the message that follows."""

    type: ClassVar[ItemType] = ItemType.REASONING
    content: tuple[ReasoningText, ...]

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.content)


Kind = TypeVar("Kind", bound=Item)


def distinct(items: Iterable[Kind], among: Iterable[Item] = ()) -> list[Kind]:
    """The items as they are, but a copy with a new id of one that is there or ``among`` already."""
    taken = {item.id for item in among}
    found = []
    for item in items:
        found.append(replace(item, id=_new_id()) if item.id in taken else item)
        taken.add(item.id)
    return found


class ConversationItems(Sequence[Item]):
    """The items of a chat as a read-only sequence; a kept view shows later changes."""

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """The item at an index, or a list for a slice."""
        return list(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def first(self) -> Item | None:
        """The first item, None when there is none."""
        return self._items[0] if self._items else None

    @property
    def last(self) -> Item | None:
        """The last item, None when there is none."""
        return self._items[-1] if self._items else None

    @property
    def system(self) -> str | None:
        """Text of the system message at the start, None when there is none."""
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

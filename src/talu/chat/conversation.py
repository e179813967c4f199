"""What the sync and the async chat share: the history, its editing, inspection and storage.

Knows a client only as a source of backends and hooks. Refuses to generate: that is ``session``.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from talu.chat.host import Host
from talu.chat.io import IO
from talu.chat.items import ConversationItems, Item, MessageItem, MessageRole
from talu.chat.kept import Kept
from talu.chat.messages import (
    Message,
    MessageList,
    items_from_messages,
    messages_from_items,
    user_items,
)
from talu.chat.records import (
    check_json,
    config_from_record,
    item_from_record,
    record_from_item,
)
from talu.chat.turn import History, OnToken, Turn
from talu.config import GenerationConfig, TemplateSource, merged, source_of
from talu.exceptions import StateError, ValidationError
from talu.protocols import Backend, Store
from talu.types import Request

__all__ = ["Conversation", "Draft"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A turn as it was asked for: checked, and not begun.

    Attributes:
        replaces: the item from which on the history is replaced; None adds to its end.
    """

    asked: tuple[MessageItem, ...]
    config: GenerationConfig
    replaces: MessageItem | None = None


class Conversation(Kept):
    """Base of ``Chat`` and ``AsyncChat``: a history of items and the defaults of its answers."""

    def __init__(
        self,
        client: Host | None = None,
        *,
        model: str | None = None,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        config: GenerationConfig | None = None,
        session_id: str | None = None,
        parent_session_id: str | None = None,
        marker: str = "",
        metadata: Mapping[str, Any] | None = None,
        chat_template: str | TemplateSource | None = None,
        offline: bool = False,
        store: Store | None = None,
    ) -> None:
        if client is not None and not hasattr(client, "router"):
            wrong = f"client must be a Client, got {client!r}: make a chat with client.chat()"
            raise ValidationError(wrong, details={"param": "client"})
        super().__init__(
            items_from_messages(messages or ()),
            model=client.router.name_of(model) if client else model,
            config=config,
            session_id=session_id,
            parent_session_id=parent_session_id,
            marker=marker,
            metadata=metadata,
            chat_template=chat_template,
        )
        self._client = client
        self._turn: Turn[Self] | None = None  # the latest
        self._closed = False
        self._offline = offline
        if system:
            if self.system is not None:
                wrong = "system= and a system message in messages= exclude each other"
                raise ValidationError(wrong, details={"param": "system"})
            self.system = system
        if store is not None:
            known = client.router.models if client and model is None else []
            self._keep_in(store, models=known, fresh=messages is not None)

    # What it holds

    @property
    def items(self) -> ConversationItems:
        """All items as a live read-only sequence, the system message included."""
        self._check_open()
        return ConversationItems(self._history.items)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as OpenAI-style dictionaries; a read-only copy.

        ``client.chat(messages=chat.messages)`` restores it.
        """
        return MessageList(messages_from_items(self.items))

    @property
    def system(self) -> str | None:
        """Text of the system message, which is the first item; None and "" remove it."""
        return self.items.system

    @system.setter
    def system(self, text: str | None) -> None:
        with self._editing() as items:
            old = 1 if ConversationItems(items).system is not None else 0
            items[:old] = [MessageItem.create("system", text)] if text else []

    @property
    def client(self) -> Host | None:
        """The client that the chat came from."""
        return self._client

    @property
    def max_context_length(self) -> int | None:
        """Tokens that prompt and answer may have together; opens the model; None when unknown."""
        return self._backend().max_context_length if self._client else None

    def __len__(self) -> int:
        return len(self._history.items)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self)} items"
        return f"{type(self).__name__}(model={self._model!r}, {state})"

    # Editing

    def append(
        self,
        role: MessageItem | MessageRole | str,
        content: str | None = None,
        *,
        hidden: bool = False,
    ) -> Self:
        """Add a message without generating: a role and a text, or a ``MessageItem``."""
        return self.insert(len(self), role, content, hidden=hidden)

    def append_hidden(self, role: MessageRole | str, content: str) -> Self:
        """Add a message that is in the context but not meant for the eyes of a user."""
        return self.append(role, content, hidden=True)

    def insert(
        self,
        index: int,
        role: MessageItem | MessageRole | str,
        content: str | None = None,
        *,
        hidden: bool = False,
    ) -> Self:
        """Put a message before the item at ``index``."""
        if isinstance(role, MessageItem):
            item = role
        elif content is None:
            wrong = "content is missing: give the text of the message"
            raise ValidationError(wrong, "VALIDATION_MISSING_CONTENT", {"param": "content"})
        else:
            item = MessageItem.create(role, content, hidden=hidden)
        with self._editing() as items:
            if not 0 <= index <= len(items):
                raise _no_such_index(index, len(items))
            items.insert(index, item)
        return self

    def pop(self) -> Self:
        """Drop the last item."""
        with self._editing() as items:
            if not items:
                raise StateError("the chat has no item to drop", "STATE_POP_FAILED")
            items.pop()
        return self

    def remove(self, index: int) -> Self:
        """Drop the item at ``index``, counted from 0."""
        with self._editing() as items:
            if not 0 <= index < len(items):
                raise _no_such_index(index, len(items))
            del items[index]
        return self

    def clear(self) -> Self:
        """Drop everything but the system message."""
        with self._editing() as items:
            del items[1 if ConversationItems(items).system is not None else 0 :]
        return self

    def reset(self) -> Self:
        """Drop everything."""
        with self._editing() as items:
            items.clear()
        return self

    def fork(self) -> Self:
        """An independent copy on the same client; its parent session is this chat's session.

        The copy of a stored chat is stored at once, under a new id; it shares the items on disk.
        """
        return self._forked_with(self.items)

    def _forked_with(self, items: Sequence[Item]) -> Self:
        copy = type(self)(
            self._client,
            model=self._model,
            config=self.config,
            parent_session_id=self.session_id,
            metadata=self.metadata,
            chat_template=self._template,
            offline=self._offline,
        )
        copy._history = History(items)
        copy._title = self._title
        if self._recording is not None:
            copy._recording = self._recording.fork()
            copy._session_id = copy._recording.session_id
            copy._store()
        return copy

    @contextmanager
    def _editing(self) -> Generator[list[Item]]:
        self._check_open()
        self._history.claim()
        before = list(self._history.items)
        try:
            yield self._history.items
            self._save(self._history.items)
        except BaseException:
            self._history.items[:] = before
            raise
        finally:
            self._history.release()

    # Inspection

    def count_tokens(self, message: Message | None = None) -> int:
        """Tokens of the prompt that the next answer would start from; opens the model.

        Args:
            message: counted as the user's next message; the chat does not change.
        """
        asked = user_items(message) if message is not None else []
        items = [*self.items, *asked]
        if not items:
            return 0
        return len(self._backend().render(self._request(items, self.config))[1])

    def preview_prompt(self, config: GenerationConfig | None = None) -> str:
        """The prompt that the next answer would start from, as the model's template renders it."""
        request = self._request(self.items, merged(self.config, config))
        return self._backend().render(request)[0]

    # As a dictionary

    def to_dict(self) -> dict[str, Any]:
        """Everything that ``from_dict`` needs to restore the chat, fit for JSON."""
        return {
            "version": FORMAT_VERSION,
            "model": self._model,
            "config": self.config.to_dict(only_given=True),
            "chat_template": source_of(self._template),
            "session_id": self.session_id,
            "parent_session_id": self.parent_session_id,
            "marker": self.marker,
            "metadata": self.metadata,
            "items": [record_from_item(item) for item in self.items],
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], client: Host | None = None) -> Self:
        """Restore a chat from ``to_dict``; ``items`` win over ``messages`` when both are there.

        Args:
            data: what ``to_dict`` gave.
            client: answers with its model of the same name, or its default model when it has
                none; without a client the chat holds its history only. A profile of the client
                does not store the chat.

        Raises:
            ValidationError: something in ``data`` is malformed or of a newer version.
        """
        version = data.get("version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise ValidationError(
                f"the chat was stored in version {version!r}; this talu reads {FORMAT_VERSION}",
                details={"param": "version"},
            )
        model = data.get("model")
        chat = cls(
            client,
            model=None if client and model not in client.router.models else model,
            messages=data.get("messages") if data.get("items") is None else None,
            config=config_from_record(data.get("config")),
            session_id=data.get("session_id"),
            parent_session_id=data.get("parent_session_id"),
            marker=data.get("marker", ""),
            metadata=data.get("metadata"),
            chat_template=data.get("chat_template"),
        )
        if data.get("items") is not None:
            records = enumerate(data["items"])
            chat._history = History(item_from_record(f"items[{i}]", item) for i, item in records)
        return chat

    # What the two faces build on

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the chat has been closed", "CHAT_CLOSED")

    def _host(self) -> Host:
        self._check_open()
        if self._client is None:
            raise StateError(
                "this chat has no client and only holds its history: make one with client.chat()",
                "STATE_NO_ROUTER",
            )
        return self._client

    def _backend(self) -> Backend:
        return self._host().router.backend(self._model, offline=self._offline)

    def _request(self, items: Iterable[Item], config: GenerationConfig) -> Request:
        template = config.chat_template if config.chat_template is not None else self._template
        return Request(
            messages=tuple(messages_from_items(items)),
            config=config,
            chat_template=source_of(template),
        )

    def _draft(
        self, message: Message, config: GenerationConfig | None, settings: Mapping[str, object]
    ) -> Draft:
        self._host()
        draft = Draft(tuple(user_items(message)), merged(self.config, config, settings=settings))
        if self._recording is not None:  # the settings are stored with the answer
            check_json("config", draft.config.to_dict(only_given=True))
        return draft

    def _draft_again(
        self,
        message: Message | None,
        config: GenerationConfig | None,
        settings: Mapping[str, object],
    ) -> Draft:
        """A draft that replaces everything from the last user message on."""
        asked = self.items.filter_by_role(MessageRole.USER)
        if not asked:
            wrong = "there is no user message to answer again"
            raise StateError(wrong, "STATE_REGENERATE_NO_USER")
        last = asked[-1]
        again = MessageItem.create(last.role, last.content, hidden=last.hidden)
        draft = self._draft(again if message is None else message, config, settings)
        return replace(draft, replaces=last)

    def _close(self) -> None:
        """Refuse further use, and stop what is under way, whoever reads it."""
        self._closed = True
        if self._turn is not None:
            self._turn.request.stop.signal()

    async def _begin(self, draft: Draft, io: IO, on_token: OnToken | None) -> Turn[Self]:
        """Claim the history and hand the request to the backend."""
        client = self._host()
        self._history.claim()
        try:
            items = self._history.items
            keep = items.index(draft.replaces) if draft.replaces else len(items)
            turn = Turn(
                chat=self,
                model=client.router.name_of(self._model),
                history=self._history,
                keep=keep,
                asked=draft.asked,
                store=self._save if self._recording is not None else None,
                input_text="\n".join(item.text for item in draft.asked),
                request=self._request([*items[:keep], *draft.asked], draft.config),
                io=io,
                hooks=client.hooks,
                on_token=on_token,
            )
            self._turn = turn
        except BaseException:
            self._history.release()
            raise
        return await turn.begin()


def _no_such_index(index: int, length: int) -> ValidationError:
    wrong = f"there is no item at index {index}: the chat has {length} items, counted from 0"
    return ValidationError(wrong, details={"param": "index", "value": index})

"""The attributes of a chat other than its items, and its connection to a store."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol

from talu.chat.history import History
from talu.chat.item_view import ConversationItems
from talu.chat.items import Item
from talu.chat.metadata import Metadata
from talu.chat.persistence import Persistence
from talu.chat.serialization import config_from_dict
from talu.config import GenerationConfig, TemplateSource, merged, source_of
from talu.error_text import shown
from talu.exceptions import StateError, ValidationError
from talu.json_values import json_copy
from talu.protocols import ChatRecord, Store, StoredRecord
from talu.types import Handle, check_marker
from talu.unicode import is_unicode

__all__ = ["ChatAttributes", "StoreOwner"]

MAX_ID_LENGTH = 200
MAX_TITLE_LENGTH = 1000


class StoreOwner(Protocol):
    """An object with a store, such as ``talu.Profile``."""

    @property
    def database(self) -> Store:
        """The store."""


class ChatAttributes(Handle):
    """Base of all chats: their attributes, and their connection to a store if they have one."""

    _closed = False
    _instead = "fork() makes an independent one; to_dict() and from_dict() carry it elsewhere"

    def __init__(
        self,
        items: Iterable[Item],
        *,
        model: str | None,
        config: GenerationConfig | None,
        session_id: str | None,
        parent_session_id: str | None,
        marker: str,
        metadata: Mapping[str, Any] | None,
        chat_template: str | TemplateSource | None,
    ) -> None:
        check_marker(marker)
        _check_id("session_id", session_id)
        _check_id("parent_session_id", parent_session_id)
        self._history = History(items)
        self._model = model
        self._config = merged(config)
        self._session_id = session_id
        self._parent_session_id = parent_session_id
        self._marker = marker
        self._metadata = Metadata({} if metadata is None else metadata, self)
        self._template = merged(settings={"chat_template": chat_template}).chat_template
        self._title: str | None = None
        self._persistence: Persistence | None = None

    @property
    def session_id(self) -> str | None:
        """Identifier of this chat; a stored chat always has one."""
        return self._session_id

    @property
    def parent_session_id(self) -> str | None:
        """Identifier of the chat that this one was forked from."""
        return self._parent_session_id

    @property
    def chat_template(self) -> str | TemplateSource | None:
        """The template that replaces the model's; None to use the model's."""
        return self._template

    @property
    def config(self) -> GenerationConfig:
        """Default settings of this chat; copied when set, and never changed by a call.

        Setting it is stored at once; a change of one of its fields is stored with the next turn or
        edit, or when the chat is closed.
        """
        return self._config

    @config.setter
    def config(self, config: GenerationConfig) -> None:
        self._check_open()
        self._config = merged(config)
        self._save_attributes()

    @property
    def marker(self) -> str:
        """A label to filter listings by: "", "pinned", "archived" or "deleted"."""
        return self._marker

    @marker.setter
    def marker(self, marker: str) -> None:
        self._check_open()
        check_marker(marker)
        self._marker = marker
        self._save_attributes()

    @property
    def metadata(self) -> dict[str, Any]:
        """Additional data about the chat, fit for JSON; copied when set.

        A change such as ``chat.metadata["user"] = "ada"`` is stored at once. A key that is not text
        and a value that JSON would change, such as a tuple, are refused. The lists and dictionaries
        inside are read-only: assign a new value to their key. ``copy()`` returns a plain
        dictionary.
        """
        return self._metadata

    @metadata.setter
    def metadata(self, metadata: Mapping[str, Any]) -> None:
        self._metadata.replace(metadata)

    @property
    def title(self) -> str | None:
        """A name for listings; None until it is set."""
        return self._title

    @title.setter
    def title(self, title: str | None) -> None:
        self._check_open()
        self._title = _checked_title(title)
        self._save_attributes()

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the chat has been closed", "CHAT_CLOSED")

    def _connect(self, store: Store, *, models: Sequence[str], fresh: bool) -> str | None:
        """Connect to a store and resume the stored session of this id, if there is one.

        Attributes passed by the caller take precedence over stored ones.

        Args:
            store: the store of the session.
            models: the stored model is used if it is one of these, or if the chat has none.
            fresh: the caller passed a history, so the store must not have one.

        Returns:
            The name of the stored model, if there is one.
        """
        persistence = Persistence(store, self._session_id)
        stored = persistence.restore()
        changed = True
        if stored is not None:
            if fresh:
                wrong = f"session {self._session_id!r} has a history: messages= would replace it"
                raise ValidationError(wrong, details={"param": "messages"})
            changed = self._take(*stored)
            if self._model is None or stored[0]["model"] in models:
                self._model = stored[0]["model"]
        self._session_id = persistence.session_id
        self._persistence = persistence
        if changed:
            self._save(self._history.items)
        return stored[0]["model"] if stored is not None else None

    def _take(self, record: StoredRecord, items: list[Item]) -> bool:
        """Adopt stored values for attributes not passed; return whether any was passed."""
        given = [self._config.given, self._marker, self._metadata, self._template]
        self._history = History(items)
        self._config = config_from_dict(record["config"]) | self._config
        self._marker = self._marker or record["marker"]
        self._metadata = self._metadata or Metadata(record["metadata"], self)
        self._template = self._template or record["chat_template"]
        self._parent_session_id = self._parent_session_id or record["parent_session_id"]
        self._title = record["title"]
        return any(given) or self._parent_session_id != record["parent_session_id"]

    def _save(self, items: Sequence[Item] | None) -> None:
        """Save to the store, if there is one; None keeps the stored history."""
        if self._persistence is not None:
            shown = self._history.items if items is None else items
            self._persistence.save(self._session_record(shown), items)

    def _save_attributes(self) -> None:
        """Save the current attributes; a running turn saves its own answer."""
        stored = self._persistence is not None and self._persistence.stored
        self._save(None if stored else self._history.items)

    def _session_record(self, items: Sequence[Item]) -> ChatRecord:
        return ChatRecord(
            session_id=str(self._session_id),
            parent_session_id=self._parent_session_id,
            title=self._title,
            model=self._model,
            system_prompt=ConversationItems(list(items)).system,
            config=deepcopy(self._config.to_dict(only_given=True)),
            chat_template=source_of(self._template),
            marker=self._marker,
            metadata=json_copy("metadata", self._metadata),
        )


def _checked_title(title: object) -> str | None:
    if title is None:
        return None
    if isinstance(title, str) and len(title) <= MAX_TITLE_LENGTH and is_unicode(title):
        return title
    wanted = f"text of at most {MAX_TITLE_LENGTH} characters without lone surrogates"
    wrong = f"title must be {wanted}, got {shown(title)}"
    raise ValidationError(wrong, details={"param": "title", "value": title})


def _check_id(name: str, value: object) -> None:
    fits = isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_ID_LENGTH
    if value is not None and not fits:
        wanted = f"must be printable text of 1 to {MAX_ID_LENGTH} characters"
        raise ValidationError(
            f"{name} {wanted}, got {shown(value)}", details={"param": name, "value": value}
        )

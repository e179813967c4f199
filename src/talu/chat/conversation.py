"""The base of the sync and async chats: client, prompt inspection and serialization."""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar, Self, Unpack

from talu.callers import warn
from talu.chat.answer import Latest
from talu.chat.attributes import StoreOwner
from talu.chat.editing import Editable
from talu.chat.history import History
from talu.chat.hosts import Host, OwnHost, check_host
from talu.chat.items import Item
from talu.chat.open_calls import ends_with
from talu.chat.parsing import items_from_messages
from talu.chat.requests import request_of
from talu.chat.serialization import (
    FORMAT_VERSION,
    check_chat_dict,
    config_from_dict,
    item_from_dict,
    item_to_dict,
)
from talu.chat.user_message import Message, user_items
from talu.checks import check_boolean
from talu.config import GenerationConfig, TemplateSource, merged, source_of
from talu.deadline import Deadline
from talu.error_text import kind_of, shown
from talu.exceptions import StateError, ValidationError
from talu.json_values import json_copy
from talu.protocols import Backend
from talu.router.abilities import counter, renderer
from talu.router.router import Router
from talu.router.spec import ModelInput
from talu.tools.use import ToolSettings, ToolUse, by_name, is_source
from talu.types import Request, StopFlag

__all__ = ["Conversation"]


class Conversation(Editable):
    """Base of ``Chat`` and ``AsyncChat``: a history of items and default settings."""

    _async_hooks: ClassVar[bool]

    def __init__(
        self,
        model: ModelInput | None = None,
        *,
        client: Host | None = None,
        profile: StoreOwner | None = None,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        config: GenerationConfig | None = None,
        session_id: str | None = None,
        parent_session_id: str | None = None,
        marker: str = "",
        metadata: Mapping[str, Any] | None = None,
        chat_template: str | TemplateSource | None = None,
        offline: bool = False,
        **tools: Unpack[ToolSettings],
    ) -> None:
        check_host(client)
        self._tools, unknown = ToolUse.of(tools, allow_async=self._async_hooks)
        if unknown:
            raise TypeError(f"{type(self).__name__}() has no argument {next(iter(unknown))!r}")
        self._tools.check()
        if profile is not None and not hasattr(profile, "database"):
            wrong = f"profile must be a Profile, got {kind_of(profile)}"
            raise ValidationError(wrong, details={"param": "profile"})
        self._own: OwnHost | None = None
        if client is None and model is not None:
            client = self._own = OwnHost(model, allow_async=self._async_hooks)
            model = client.router.default_model
        super().__init__(
            items_from_messages(() if messages is None else messages),
            model=client.router.name_of(model) if client is not None else None,
            config=config,
            session_id=session_id,
            parent_session_id=parent_session_id,
            marker=marker,
            metadata=metadata,
            chat_template=chat_template,
        )
        self._client = client
        self._latest = Latest()
        self._offline = check_boolean("offline", offline)
        if system is not None and (not isinstance(system, str) or system):
            if self.system is not None:
                wrong = "system= and a system message in messages= are mutually exclusive"
                raise ValidationError(wrong, details={"param": "system"})
            self.system = system
        if profile is not None:
            known = client.router.names if client and model is None else []
            before = self._connect(profile.database, models=known, fresh=messages is not None)
            self._warn_of_stored(system, before, chosen=self._own is None and model is not None)

    def _warn_of_stored(self, system: str | None, model: str | None, *, chosen: bool) -> None:
        """Warn of what the stored session has, and the caller may not expect.

        Args:
            system: the system message that the caller gave.
            model: the stored model.
            chosen: the caller chose another one of the client's models.
        """
        if system and self.system != system:
            warn(
                f"session {self.session_id!r} keeps its stored system message, not the one "
                "given as system=; set chat.system to replace it"
            )
        if model is not None and model != self._model and not chosen:
            warn(
                f"session {shown(self.session_id)} was stored with the model {shown(model)}, and "
                f"is continued with {shown(self._model)}, whose name is stored with the next "
                "change; to keep the model, open the session with a client that has it"
            )

    @property
    def client(self) -> Host | None:
        """The source of models and hooks: the client, or a minimal one that the chat owns.

        None for a chat that only holds its history.
        """
        return self._client

    @property
    def owns_client(self) -> bool:
        """Whether the chat was created from a model's name and owns that model."""
        return self._own is not None

    @property
    def router(self) -> Router | None:
        """The router of ``client``."""
        return self._client.router if self._client is not None else None

    @property
    def model(self) -> str | None:
        """The name of the model; None without a client. Set it to another of the client's models.

        The next answer comes from that model: the history is rendered anew for it, with the tool
        calls and without the reasoning of a remote model from another provider. The change is
        stored at once. Like an edit, it ends an unread stream, and raises ``StateError`` while an
        answer is being generated.
        """
        return self._model

    @model.setter
    def model(self, model: str) -> None:
        router = self._host().router
        if model is None:
            known = ", ".join(map(shown, router.names))
            wrong = f"model must be one of the client's models, {known}, got None"
            raise ValidationError(wrong, details={"param": "model", "value": None})
        name = router.name_of(model)
        if name != self._model:
            self._edit(lambda _: setattr(self, "_model", name))

    @property
    def max_context_length(self) -> int | None:
        """Maximum tokens of prompt and answer together; opens the model; None when unknown."""
        return self._backend().max_context_length if self._client is not None else None

    def __repr__(self) -> str:
        shown = [f"model={self._model!r}"]
        if self._client is not None:
            shown.append("standalone" if self.owns_client else "attached")
        shown.append("closed" if self._closed else f"{len(self)} items")
        return f"{type(self).__name__}({', '.join(shown)})"

    def fork(self) -> Self:
        """An independent copy on the same client; its parent session is this chat's session.

        The copy of a stored chat is stored at once, under a new id; both share the items on disk.
        A model that a chat owns is released when that chat is closed, not when a fork is.
        """
        return self._forked_with(self.items)

    def _ending_with(self, past: Sequence[Item], *, results: bool = False) -> Self:
        """See ``Continuable``."""
        items, last = self._history.items, past[-1]
        ends = ends_with(items, last) if results else bool(items) and items[-1] is last
        return self if ends else self._forked_with(past)

    def _forked_with(self, items: Sequence[Item]) -> Self:
        self._check_open()
        copy = type(self)(
            client=self._client,
            config=self.config,
            parent_session_id=self.session_id,
            metadata=self.metadata,
            chat_template=self._template,
            offline=self._offline,
        )
        copy._history = History(items)
        copy._model = self._model
        copy._title = self._title
        copy._tools = self._tools
        if self._persistence is not None:
            copy._persistence = self._persistence.fork()
            copy._session_id = copy._persistence.session_id
            copy._save_attributes()
        return copy

    # Inspection

    def count_tokens(self, message: Message | None = None) -> int:
        """The number of tokens of the next answer's prompt; opens the model.

        Args:
            message: counted as the user's next message; the chat does not change.

        Raises:
            StateError: the chat is closed or has no model.
        """
        added = user_items(message) if message is not None else []
        items = [*self.items, *added]
        if not items:
            return 0
        if self._client is None:
            wrong = "this chat has no model to count tokens with: make one with Chat('a model')"
            raise StateError(wrong, "STATE_NO_MODEL")
        request = self._shown(self._request(items, self.config))
        return counter(self._backend()).count(request)

    def preview_prompt(
        self, add_generation_prompt: bool = True, config: GenerationConfig | None = None
    ) -> str:
        """The rendered prompt of the next answer; opens the model.

        Args:
            add_generation_prompt: end with the start of the model's turn, as for an answer.
            config: settings that override the chat's ``config``, as in a call.
        """
        check_boolean("add_generation_prompt", add_generation_prompt)
        request = self._shown(self._request(self.items, merged(self.config, config)))
        shown = replace(request, add_generation_prompt=add_generation_prompt)
        return renderer(self._backend()).render(shown)[0]

    def _shown(self, request: Request) -> Request:
        """The request with the tools of the chat, whose sources are opened."""
        if not self._tools.tools:
            return request
        known = [t.open() if is_source(t) else [t] for t in self._tools.tools]
        tools = by_name(tool for each in known for tool in each)
        return replace(request, tools=tuple(tool.definition for tool in tools.values()))

    # Serialization

    def to_dict(self) -> dict[str, Any]:
        """The whole chat as a dictionary for JSON; ``from_dict`` restores it."""
        return {
            "version": FORMAT_VERSION,
            "model": self._model,
            "config": deepcopy(self.config.to_dict(only_given=True)),
            "chat_template": source_of(self._template),
            "session_id": self.session_id,
            "parent_session_id": self.parent_session_id,
            "marker": self.marker,
            "metadata": json_copy("metadata", self.metadata),
            "title": self.title,
            "items": [item_to_dict(item) for item in self.items],
            "messages": list(self.messages),
        }

    def to_json(self) -> str:
        """The list ``messages`` as JSON text.

        ``client.chat(messages=json.loads(text))`` restores the conversation. Unlike ``to_dict``, it
        has no ids, times, states, ``hidden`` flags and settings.
        """
        return json.dumps(self.messages, ensure_ascii=False)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], model: ModelInput | None = None, *, client: Host | None = None
    ) -> Self:
        """Restore a chat from ``to_dict``; ``items`` take precedence over ``messages``.

        Args:
            data: a dictionary from ``to_dict``.
            model: the model to use; one of the client's if there is a client.
            client: without ``model``, its model of the stored name is used, or its default model
                if it has none of that name. A profile of the client does not store the chat.
                Without client and model, the chat only holds its history.

        Raises:
            ValidationError: something in ``data`` is missing, unknown, malformed or of a newer
                version.
        """
        check_chat_dict(data)
        check_host(client)
        stored = data.get("model")
        if model is None and client is not None and stored in client.router.names:
            model = stored
        chat = cls(
            model,
            client=client,
            messages=None if "items" in data else data["messages"],
            config=config_from_dict(data.get("config", {})),
            session_id=data.get("session_id"),
            parent_session_id=data.get("parent_session_id"),
            marker=data.get("marker", ""),
            metadata=data.get("metadata"),
            chat_template=data.get("chat_template"),
        )
        chat.title = data.get("title")
        if chat.client is None:
            chat._model = stored
        if "items" in data:
            records = enumerate(data["items"])
            chat._history = History(item_from_dict(f"items[{i}]", item) for i, item in records)
        return chat

    # Shared with the bases that follow

    def _host(self) -> Host:
        self._check_open()
        if self._client is None:
            raise StateError(
                "this chat has no model and only holds its history: make one with client.chat() or "
                "Chat('a model')",
                "STATE_NO_ROUTER",
            )
        return self._client

    def _backend(self, deadline: Deadline | None = None, stop: StopFlag | None = None) -> Backend:
        router = self._host().router
        return router.backend(self._model, offline=self._offline, deadline=deadline, stop=stop)

    async def _abackend(self, deadline: Deadline | None, stop: StopFlag | None) -> Backend:
        router, offline = self._host().router, self._offline
        return await router.abackend(self._model, offline=offline, deadline=deadline, stop=stop)

    def _request(
        self, items: Iterable[Item], config: GenerationConfig, deadline: Deadline | None = None
    ) -> Request:
        return request_of(items, config, self._template, deadline)

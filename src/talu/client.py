"""The clients: where models, chats and hooks meet.

A client is made without a look at disk or network; a model is opened when it is first used, and
shared by everything in this process that uses it.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

from talu.chat.async_chat import AsyncChat, AsyncResponse
from talu.chat.completion import raw_request, raw_turn
from talu.chat.conversation import Draft
from talu.chat.io import AsyncIO, SyncIO
from talu.chat.messages import Message
from talu.chat.observers import Hook, HookManager
from talu.chat.sync_chat import Chat, Response
from talu.chat.turn import Turn, answer
from talu.config import GenerationConfig, GenerationSettings, TemplateSource, merged
from talu.exceptions import ValidationError
from talu.profile import Profile
from talu.router.model_methods import AsyncModelMethods, ModelMethods
from talu.router.router import Router
from talu.router.spec import CompletionOptions, ModelInput, backend_from
from talu.types import Handle, Request, StopFlag

__all__ = ["AsyncClient", "Client", "ModelInput"]


class _Client(ModelMethods, Handle):
    """What the two clients share."""

    _instead = "make another one of the same models; in one process they share what is open"
    _async_hooks: bool

    def __init__(
        self,
        model: ModelInput | Sequence[ModelInput],
        *,
        profile: Profile | None = None,
        hooks: Iterable[Hook] | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        org_id: str | None = None,
        timeout_ms: int | None = None,
        max_retries: int | None = None,
        gpu_layers: int | None = None,
        use_mmap: bool | None = None,
        num_threads: int | None = None,
    ) -> None:
        if profile is not None and not isinstance(profile, Profile):
            wrong = f"profile must be a Profile, such as Profile('work'), got {profile!r}"
            raise ValidationError(wrong, details={"param": "profile"})
        local = {"gpu_layers": gpu_layers, "use_mmap": use_mmap, "num_threads": num_threads}
        remote = {
            "base_url": base_url,
            "api_key": api_key,
            "org_id": org_id,
            "timeout_ms": timeout_ms,
            "max_retries": max_retries,
        }
        self._profile = profile
        self._router = Router(model, backend=backend_from(local, remote))
        self._hooks = HookManager(hooks, allow_async=self._async_hooks)
        self._close = weakref.finalize(self, self._router.close)

    @property
    def models(self) -> list[str]:
        """The names of all models, in the order in which they were given."""
        return self._router.models

    @property
    def default_model(self) -> str:
        """The model that is used when none is named: the first, until it is set to another."""
        return self._router.default_model

    @default_model.setter
    def default_model(self, model: str) -> None:
        self._router.default_model = model

    @property
    def hooks(self) -> HookManager:
        """Observers of every generation; add and remove at any time."""
        return self._hooks

    @property
    def profile(self) -> Profile | None:
        """Where the chats are stored; None stores nothing."""
        return self._profile

    @property
    def router(self) -> Router:
        """From names to opened models, for advanced use."""
        return self._router

    def __repr__(self) -> str:
        state = "closed" if self._router.closed else "open"
        return f"{type(self).__name__}({self.models}, default={self.default_model!r}, {state})"

    def _raw(
        self,
        prompt: str,
        system: str | None,
        config: GenerationConfig | None,
        options: CompletionOptions | None,
        settings: Mapping[str, object],
    ) -> Request:
        self._check_open()
        options = CompletionOptions() if options is None else options
        if not isinstance(options, CompletionOptions):
            wrong = f"completion_opts must be CompletionOptions, got {options!r}"
            raise ValidationError(wrong, details={"param": "completion_opts"})
        return raw_request(
            prompt,
            system,
            merged(config, settings=settings),
            token_ids=options.token_ids,
            continue_from_token_id=options.continue_from_token_id,
            echo_prompt=options.echo_prompt,
        )


class Client(_Client):
    """Talks to one or more models.

    A client and its chats may be used from any threads. Use it in a ``with`` block, or ``close``
    it, to give back the memory of its models.

    Args:
        model: a local folder, a hub id, ``talu/pocket`` (the small model in the package), a
            ``ModelSpec``, or a list of these; the first is the default.
        profile: stores every chat; without one nothing is written. What ``ask``, ``stream`` and
            ``raw_complete`` do is never stored.
        hooks: observers of every generation.
        base_url: where a remote model is, for all models that have no backend of their own. Remote
            models come with a later version: until then this and the next four raise on use.
        api_key: the remote model's key.
        org_id: the remote model's organisation.
        timeout_ms: of a request to a remote model.
        max_retries: of a request to a remote model.
        gpu_layers: layers on a GPU. This version has none: -1 (all that there are) and 0 run on
            the CPU, and more is an error when the model opens.
        use_mmap: map the weights (the default) instead of reading them into private memory.
        num_threads: 0 takes what affinity and cgroup allow.

    Raises:
        ValidationError: no model, or local and remote arguments together.
    """

    _async_hooks = False

    def ask(
        self,
        prompt: Message,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response:
        """Ask one question without a history; ``append`` on the answer continues from it.

        Args:
            prompt: the user's message.
            model: one of ``models`` instead of the default one.
            config: settings of this answer.
            stop_flag: ends the answer, from any thread, when it is signalled.
            settings: fields of ``GenerationConfig``; they win over ``config``.

        Raises:
            ValidationError: an argument is of a wrong type, name or range.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
            GenerationError: the prompt does not fit the context, or the model failed.
        """
        self._check_open()
        chat = Chat(model, client=self)
        return chat.send(prompt, merged(config, settings=settings), stop_flag=stop_flag)

    def stream(
        self,
        prompt: Message,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Iterator[str]:
        """Like ``ask``, piece by piece; dropping the iterator stops the generation.

        The pieces are ``Token`` objects; the last one is empty and has the finish reason. What is
        wrong with the request raises here, not at the first piece.
        """
        self._check_open()
        chat = Chat(model, client=self)
        return iter(chat(prompt, merged(config, settings=settings), stop_flag=stop_flag))

    def chat(
        self,
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        model: str | None = None,
        config: GenerationConfig | None = None,
        session_id: str | None = None,
        parent_session_id: str | None = None,
        marker: str = "",
        metadata: Mapping[str, Any] | None = None,
        chat_template: str | TemplateSource | None = None,
        offline: bool = False,
    ) -> Chat:
        """A new conversation; opens no model yet.

        Args:
            system: the system message.
            messages: history to start from, as OpenAI-style dictionaries, tool calls included.
            model: one of ``models`` instead of the default one.
            config: defaults of the chat's answers; copied.
            session_id: identifier of the chat. With a profile a chat of this id goes on from what
                is stored: the history, system message included, is the stored one, and so is
                whatever is left out here; without an id the chat gets a new one.
            parent_session_id: identifier of the chat that it was forked from.
            marker: "", "pinned", "archived" or "deleted".
            metadata: anything else about it, in the form of JSON.
            chat_template: Jinja text or ``PromptTemplate`` instead of the model's template.
            offline: the model must be there already; opening it does not use the network.

        Raises:
            ValidationError: an argument is wrong; one in ``messages`` is named by index and key.
            StateError: the client is closed.
            StorageError: the profile's database cannot be read or written.
        """
        self._check_open()
        return Chat(
            model,
            client=self,
            system=system,
            messages=messages,
            config=config,
            session_id=session_id,
            parent_session_id=parent_session_id,
            marker=marker,
            metadata=metadata,
            chat_template=chat_template,
            offline=offline,
            profile=self._profile,
        )

    def raw_complete(
        self,
        prompt: str,
        system: str | None = None,
        model: str | None = None,
        config: GenerationConfig | None = None,
        completion_opts: CompletionOptions | None = None,
        *,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response:
        """Continue a text as it is, without a chat template.

        Args:
            prompt: sent as it is.
            system: put before the prompt as it is, with a blank line between.
            model: one of ``models`` instead of the default one.
            config: settings of this answer.
            completion_opts: token ids, a token to continue from, echo of the prompt.
            stop_flag: ends the answer, from any thread, when it is signalled.
            settings: fields of ``GenerationConfig``; they win over ``config``.

        Raises:
            EmptyPromptError: there is no token to start from.
            ValidationError: an argument is of a wrong type, name or range.
            StateError: the client is closed.
            GenerationError: the prompt does not fit the context, or the model failed.
        """
        request = self._raw(prompt, system, config, completion_opts, settings)
        name = self._router.name_of(model)
        io = SyncIO(self._router.backend(name))
        turn: Turn[Chat] = raw_turn(self, name, io, request, stop_flag)
        turn.make_answer = Response
        try:
            io.run(answer(turn))
        except BaseException:
            turn.settle()
            raise
        return Response.of(turn)

    def close(self) -> None:
        """Give back the models; everything but reading raises ``StateError`` afterwards."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Client, AsyncModelMethods):
    """Like ``Client``, awaited; its tasks' generations run together in one batch.

    Takes the arguments of ``Client``. Safe to share between the tasks of an event loop; generating
    never blocks the loop, and cancelling a task stops its generation. A model is opened in a thread
    beside the loop, but the tokenizers package holds the GIL for a part of reading its file: with a
    vocabulary of 150,000 tokens the loop may stand still for 0.1 s, once.
    """

    _async_hooks = True

    async def ask(
        self,
        prompt: Message,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse:
        """Like ``Client.ask``, awaited."""
        self._check_open()
        chat = AsyncChat(model, client=self)
        return await chat.send(prompt, merged(config, settings=settings), stop_flag=stop_flag)

    def stream(
        self,
        prompt: Message,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncGenerator[str]:
        """Like ``Client.stream``, read with ``async for``; the call itself is not awaited.

        A wrong argument raises here; a model that cannot be used, at the first piece.
        """
        self._check_open()
        chat = AsyncChat(model, client=self)
        return _stream(chat, chat._draft(prompt, config, settings, stop_flag=stop_flag))

    def chat(
        self,
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        model: str | None = None,
        config: GenerationConfig | None = None,
        session_id: str | None = None,
        parent_session_id: str | None = None,
        marker: str = "",
        metadata: Mapping[str, Any] | None = None,
        chat_template: str | TemplateSource | None = None,
        offline: bool = False,
    ) -> AsyncChat:
        """Like ``Client.chat``; a plain method.

        With a profile it reads the stored session at once, in about 25 ms for 1,000 items: call it
        through ``asyncio.to_thread`` where that is too long for the loop.
        """
        self._check_open()
        return AsyncChat(
            model,
            client=self,
            system=system,
            messages=messages,
            config=config,
            session_id=session_id,
            parent_session_id=parent_session_id,
            marker=marker,
            metadata=metadata,
            chat_template=chat_template,
            offline=offline,
            profile=self._profile,
        )

    async def raw_complete(
        self,
        prompt: str,
        system: str | None = None,
        model: str | None = None,
        config: GenerationConfig | None = None,
        completion_opts: CompletionOptions | None = None,
        *,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse:
        """Like ``Client.raw_complete``, awaited."""
        request = self._raw(prompt, system, config, completion_opts, settings)
        name = self._router.name_of(model)
        io = AsyncIO(await self._router.abackend(name))
        turn: Turn[AsyncChat] = raw_turn(self, name, io, request, stop_flag)
        turn.make_answer = AsyncResponse
        await answer(turn)
        return AsyncResponse.of(turn)

    async def close(self) -> None:
        """Like ``Client.close``, awaited."""
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _stream(chat: AsyncChat, draft: Draft) -> AsyncGenerator[str]:
    async with await chat._streamed(draft) as response:
        async for piece in response:
            yield piece

"""The clients, which own models and hooks, create chats and answer single questions.

Creating a client does not access the disk or the network. A model is opened on first use, and
shared by all its users in this process.
"""

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Self, Unpack, overload

import talu.exits  # noqa: F401 - what it registers ends after the functions of a program
from talu.chat.async_chat import AsyncChat, AsyncResponse, AsyncStreamingResponse
from talu.chat.completion import acomplete, complete
from talu.chat.fan_out import AsyncFanOut, FanOut
from talu.chat.pieces import AsyncPieces, Pieces
from talu.chat.questions import aask_each, ask_each, batch_of, conversation_of, draft_of, single
from talu.chat.sync_chat import Chat, Response
from talu.chat.token_methods import AsyncTokenMethods, TokenMethods
from talu.chat.user_message import Message
from talu.client_base import BaseClient
from talu.config import (
    GenerationConfig,
    GenerationSettings,
    TemplateSource,
    merged,
)
from talu.deadline import Deadline
from talu.router.async_model_methods import AsyncModelMethods
from talu.router.scoring_methods import AsyncScoringMethods
from talu.router.spec import CompletionOptions, ModelInput
from talu.threads import beside_loop
from talu.tools.use import CallSettings, ToolSettings, ToolUse
from talu.types import Marker, StopFlag

__all__ = ["AsyncClient", "Client", "ModelInput"]


class Client(BaseClient, FanOut, TokenMethods):
    """Gives access to one or more models.

    A client and its chats are thread-safe. Use the client in a ``with`` block, or call ``close``,
    to free the memory of its models.

    Args:
        model: a local folder, a hub id, ``talu/pocket`` (the small model in the package), a
            ``ModelSpec``, or a list of these; the first is the default.
        profile: stores every chat; without one nothing is written. The answers of ``ask``,
            ``stream`` and ``raw_complete`` are never stored.
        hooks: hooks that observe every generation.
        base_url: the address of a server, for all models without a backend in their spec.
        api_key: the key for it; None reads the provider's variable, "" sends none.
        org_id: sent as ``OpenAI-Organization``.
        timeout_ms: longest wait for the first token of a remote model and for each next piece, in
            milliseconds (60,000).
        max_retries: number of retries of a request to a remote model before its first token (2).
        gpu_layers: layers to run on a GPU. This version has no GPU support: -1 (as many as
            possible) and 0 run on the CPU, and a positive number is an error when the model opens.
        use_mmap: map the weights (the default) instead of reading them into private memory.
        num_threads: threads of a step; 0 uses as many as affinity and cgroup allow.
        on_unsupported: what to do with a setting that a remote model does not honour: ``"error"``
            (the default) raises, ``"warn"`` leaves it out and says so in the answer's ``notes``.
        allow_insecure: let a key travel over plain ``http`` to another machine.

    Raises:
        ValidationError: no model is given, an argument is of the wrong type, or local and remote
            arguments are combined.
    """

    _async_hooks = False

    @overload
    def ask(
        self,
        prompt: str,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> Response: ...

    @overload
    def ask(
        self,
        prompt: list[str],
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> list[Response]: ...

    @overload
    def ask(
        self,
        prompt: Message | Iterable[str],
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> Response | list[Response]: ...

    def ask(
        self,
        prompt: Message | Iterable[str],
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> Response | list[Response]:
        """Ask one question without a history, or many at once.

        ``append`` on an answer continues from it. Several texts run concurrently, 32 at a time,
        which is faster than one after the other.

        Args:
            prompt: the user's message; or a conversation, as a list of OpenAI-style dictionaries
                with roles that ends with a user message or a tool result; or a list, array or other
                iterable of texts, which returns a list of answers.
            model: one of ``models`` instead of the default one.
            config: settings of this answer.
            system: the system message.
            stop_flag: ends the answer when signalled, from any thread.
            timeout: maximum seconds of the call, including opening the model. After that the
                generation stops and ``GenerationError`` (code ``GENERATION_TIMEOUT``) is raised,
                with what had arrived in ``details["response"]``; a model that is being opened
                goes on opening in a thread, for later calls.
            settings: fields of ``GenerationConfig``, which override ``config``:
                ``max_tokens``, ``temperature``, ``top_k``, ``top_p``, ``min_p``,
                ``repetition_penalty``, ``presence_penalty``, ``frequency_penalty``,
                ``stop_sequences``, ``stop_token_ids``, ``seed``, ``logprobs``, ``top_logprobs``,
                ``logit_bias``, ``chat_template``, ``extra_context``, ``allow_special_tokens``,
                ``cache_namespace``, ``response_format``, ``inject_schema_prompt``,
                ``schema_strategy``, ``allow_thinking``, ``max_thinking_tokens``,
                ``validation_retries``, ``extra_body``. Also what the model may call:
                ``tools`` (functions, ``Tool``, ``MCP``, definitions), ``tool_choice`` (``"auto"``,
                ``"none"``, ``"required"`` or a name), ``parallel_tool_calls``, ``max_rounds`` (the
                most requests to the model; with 1, the default, its calls are returned in
                ``tool_calls``, and with more talu carries them out) and ``approve`` (a function of
                a ``ToolCall`` that is asked before each: True, False or a reason, None to wait).

        Raises:
            ValidationError: an argument is unknown, of the wrong type or out of range.
            StateError: the client is closed.
            ModelError: the model is missing or cannot be used.
            GenerationError: the prompt does not fit the context, the model failed, or the time is
                up. With several prompts, ``details["index"]`` is the index of the failed one.
        """
        self._check_open()
        deadline = Deadline.after(timeout)
        use, settings_only = ToolUse.of(settings, allow_async=self._async_hooks)
        full = merged(config, settings=settings_only)
        texts = batch_of(prompt)

        def ask(question: Any, flag: StopFlag | None) -> Response:
            chat = Chat(
                model, client=self, system=system, messages=conversation_of(question, deadline)
            )
            draft = draft_of(chat, question, full, stop_flag=flag, timeout=deadline, use=use)
            return chat._answer(draft, stream=False)

        return ask(prompt, stop_flag) if texts is None else ask_each(texts, ask, stop_flag)

    def stream(
        self,
        prompt: Message,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> Pieces:
        """Like ``ask`` for one question, streamed; dropping the iterator stops the generation.

        The pieces are ``Token`` objects; the last one is empty and has the finish reason. An
        invalid request raises here, not at the first piece.
        """
        self._check_open()
        deadline = Deadline.after(timeout)
        use, settings_only = ToolUse.of(settings, allow_async=self._async_hooks)
        full = merged(config, settings=settings_only)
        messages = conversation_of(prompt, deadline)
        chat = Chat(model, client=self, system=system, messages=messages)
        draft = draft_of(chat, single(prompt), full, stop_flag=stop_flag, timeout=deadline, use=use)
        return Pieces(chat._answer(draft, stream=True))

    def chat(
        self,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        model: str | None = None,
        config: GenerationConfig | None = None,
        session_id: str | None = None,
        parent_session_id: str | None = None,
        marker: Marker = "",
        metadata: Mapping[str, Any] | None = None,
        chat_template: str | TemplateSource | None = None,
        offline: bool = False,
        **tools: Unpack[ToolSettings],
    ) -> Chat:
        """Create a conversation; this does not open a model.

        Args:
            system: the system message.
            messages: history to start from, as OpenAI-style dictionaries, including tool calls.
            model: one of ``models`` instead of the default one.
            config: default settings of the chat; copied.
            session_id: identifier of the chat. With a profile, this resumes the stored chat of this
                id, with its history and all attributes not passed here; the stored system message
                stays, with a warning if ``system`` is another one. The stored model is used if the
                client has it and ``model`` is not given; if the client does not have it, there is a
                warning. Without an id the chat gets a new one.
            parent_session_id: identifier of the chat that it was forked from.
            marker: "", "pinned", "archived" or "deleted".
            metadata: additional data about the chat, fit for JSON.
            chat_template: Jinja text or ``PromptTemplate`` instead of the model's template.
            offline: open the model without network access; it must be downloaded already.
            tools: ``tools``, ``tool_choice``, ``parallel_tool_calls``, ``max_rounds`` and
                ``approve`` of all calls of the chat that do not give them; they are not stored.

        Raises:
            ValidationError: an argument is invalid; the error names index and key in ``messages``.
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
            **tools,
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
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response:
        """Continue a text without a chat template.

        Args:
            prompt: sent unchanged.
            system: precedes the prompt, with a blank line between.
            model: one of ``models`` instead of the default one.
            config: settings of this answer.
            completion_opts: token ids, a token to continue from, an echo of the prompt.
            stop_flag: ends the answer when signalled, from any thread.
            timeout: maximum seconds of the call.
            settings: fields of ``GenerationConfig``, as in ``ask``, which override ``config``.

        Raises:
            EmptyPromptError: the prompt has no tokens.
            ValidationError: an argument is unknown, of the wrong type or out of range.
            StateError: the client is closed.
            GenerationError: the prompt does not fit the context, or the model failed.
        """
        request = self._raw(prompt, system, config, completion_opts, settings, timeout)
        return complete(self, request, model, stop_flag=stop_flag)

    def close(self) -> None:
        """Release the models; later calls raise ``StateError``, but attributes stay readable."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(
    BaseClient, AsyncFanOut, AsyncModelMethods, AsyncScoringMethods, AsyncTokenMethods
):
    """Like ``Client``, awaited; the generations of concurrent tasks share the engine's batches.

    Takes the arguments of ``Client``. It can be shared between the tasks of an event loop.
    Generating does not block the loop, and cancelling a task stops its generation. A model is
    opened in a worker thread, but the tokenizers package holds the interpreter's lock while it
    reads its file: a vocabulary of 150,000 tokens may block the loop for 0.1 s, once.
    """

    _async_hooks = True

    @overload
    async def ask(
        self,
        prompt: str,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> AsyncResponse: ...

    @overload
    async def ask(
        self,
        prompt: list[str],
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> list[AsyncResponse]: ...

    @overload
    async def ask(
        self,
        prompt: Message | Iterable[str],
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> AsyncResponse | list[AsyncResponse]: ...

    async def ask(
        self,
        prompt: Message | Iterable[str],
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> AsyncResponse | list[AsyncResponse]:
        """Like ``Client.ask``, awaited."""
        self._check_open()
        deadline = Deadline.after(timeout)
        use, settings_only = ToolUse.of(settings, allow_async=self._async_hooks)
        full = merged(config, settings=settings_only)
        texts = batch_of(prompt)

        async def ask(question: Any) -> AsyncResponse:
            messages = conversation_of(question, deadline)
            chat = AsyncChat(model, client=self, system=system, messages=messages)
            draft = draft_of(chat, question, full, stop_flag=stop_flag, timeout=deadline, use=use)
            return await chat._answer(draft, stream=False)

        return await ask(prompt) if texts is None else await aask_each(texts, ask)

    def stream(
        self,
        prompt: Message,
        model: str | None = None,
        config: GenerationConfig | None = None,
        *,
        system: str | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> AsyncPieces:
        """Like ``Client.stream``, read with ``async for``.

        An invalid argument raises here. ``pieces = await client.stream(...)`` also opens the model
        and submits the request, so that an overlong prompt or an unusable model raises there;
        without ``await`` that raises at the first piece.
        """
        self._check_open()
        deadline = Deadline.after(timeout)
        use, settings_only = ToolUse.of(settings, allow_async=self._async_hooks)
        full = merged(config, settings=settings_only)
        messages = conversation_of(prompt, deadline)
        chat = AsyncChat(model, client=self, system=system, messages=messages)
        draft = draft_of(chat, single(prompt), full, stop_flag=stop_flag, timeout=deadline, use=use)

        def begin(cancelled: StopFlag) -> Awaitable[AsyncStreamingResponse]:
            if stop_flag is not None:
                stop_flag.when_signalled(cancelled.signal)
            return chat._answer(draft._replace(stop_flag=cancelled), stream=True)

        return AsyncPieces(begin, chat.model)

    def chat(
        self,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        model: str | None = None,
        config: GenerationConfig | None = None,
        session_id: str | None = None,
        parent_session_id: str | None = None,
        marker: Marker = "",
        metadata: Mapping[str, Any] | None = None,
        chat_template: str | TemplateSource | None = None,
        offline: bool = False,
        **tools: Unpack[ToolSettings],
    ) -> AsyncChat:
        """Like ``Client.chat``; a plain method.

        With a profile it reads the stored session before it returns, which takes about 25 ms for
        1,000 items; call it through ``asyncio.to_thread`` if that blocks the loop for too long.
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
            **tools,
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
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse:
        """Like ``Client.raw_complete``, awaited."""
        request = self._raw(prompt, system, config, completion_opts, settings, timeout)
        return await acomplete(self, request, model, stop_flag=stop_flag)

    async def close(self) -> None:
        """Like ``Client.close``, awaited."""
        await beside_loop(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

"""Functions that answer without a client, for scripts and notebooks.

Each call opens the model and closes it again; a client keeps it open.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Unpack, overload

from talu.chat.pieces import Pieces
from talu.chat.sync_chat import Response
from talu.chat.user_message import Message
from talu.client import Client
from talu.config import GenerationConfig, GenerationSettings, merged
from talu.router.spec import CompletionOptions, ModelInput
from talu.tools.use import CallSettings, ToolUse
from talu.types import StopFlag

__all__ = ["ask", "raw_complete", "stream"]


@overload
def ask(
    model: ModelInput,
    prompt: str,
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    stop_flag: StopFlag | None = None,
    timeout: float | None = None,
    **settings: Unpack[CallSettings],
) -> Response: ...


@overload
def ask(
    model: ModelInput,
    prompt: list[str],
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    stop_flag: StopFlag | None = None,
    timeout: float | None = None,
    **settings: Unpack[CallSettings],
) -> list[Response]: ...


@overload
def ask(
    model: ModelInput,
    prompt: Message | Iterable[str],
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    stop_flag: StopFlag | None = None,
    timeout: float | None = None,
    **settings: Unpack[CallSettings],
) -> Response | list[Response]: ...


def ask(
    model: ModelInput,
    prompt: Message | Iterable[str],
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    stop_flag: StopFlag | None = None,
    timeout: float | None = None,
    **settings: Unpack[CallSettings],
) -> Response | list[Response]:
    """Ask one question, or many at once; the answers cannot be continued.

    Args:
        model: a folder, a hub id, ``talu/pocket``, or a ``ModelSpec``.
        prompt: a message, a conversation, or a list of texts, as in ``Client.ask``.
        system: the system message.
        config: settings of the answer.
        stop_flag: ends the answer when signalled, from any thread.
        timeout: maximum seconds of the call, including opening the model.
        settings: fields of ``GenerationConfig``, as in ``Client.ask``, which override ``config``.

    Raises:
        TaluError: as ``Client.ask``.
    """
    use, settings_only = ToolUse.of(settings, allow_async=False)
    full = merged(config, settings=settings_only)
    with Client(model) as client:
        answers = client.ask(
            prompt, None, full, system=system, stop_flag=stop_flag, timeout=timeout, **use.given()
        )
    for answer in answers if isinstance(answers, list) else [answers]:
        answer._detach()
    return answers


def stream(
    model: ModelInput,
    prompt: Message,
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    stop_flag: StopFlag | None = None,
    timeout: float | None = None,
    **settings: Unpack[CallSettings],
) -> Pieces:
    """Like ``ask`` for one question, streamed; dropping the iterator stops the generation.

    An invalid request raises here, not at the first piece.
    """
    use, settings_only = ToolUse.of(settings, allow_async=False)
    full = merged(config, settings=settings_only)
    with ExitStack() as stack:
        client = stack.enter_context(Client(model))
        pieces = client.stream(
            prompt, None, full, system=system, stop_flag=stop_flag, timeout=timeout, **use.given()
        )
        return Pieces(pieces._response, stack.pop_all().close)


def raw_complete(
    model: ModelInput,
    prompt: str,
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    completion_opts: CompletionOptions | None = None,
    stop_flag: StopFlag | None = None,
    timeout: float | None = None,
    **settings: Unpack[GenerationSettings],
) -> Response:
    """Continue a text without a chat template; see ``Client.raw_complete``."""
    with Client(model) as client:
        full = merged(config, settings=settings)
        return client.raw_complete(
            prompt, system, None, full, completion_opts, stop_flag=stop_flag, timeout=timeout
        )

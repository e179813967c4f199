"""One answer without a client: for scripts and notebooks that ask once.

Each call opens the model, which takes a moment, and gives it back. A client keeps it open.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Unpack

from talu.chat.messages import Message
from talu.chat.sync_chat import Response
from talu.client import Client
from talu.config import GenerationConfig, GenerationSettings, merged
from talu.router.spec import CompletionOptions, ModelInput
from talu.types import StopFlag

__all__ = ["ask", "raw_complete", "stream"]


def ask(
    model: ModelInput,
    prompt: Message,
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    stop_flag: StopFlag | None = None,
    **settings: Unpack[GenerationSettings],
) -> Response:
    """Ask one question; the answer belongs to no chat, so that nothing can be appended to it.

    Args:
        model: a folder, a hub id, ``talu/pocket``, or a ``ModelSpec``.
        prompt: the user's message.
        system: the system message.
        config: settings of the answer.
        stop_flag: ends the answer, from any thread, when it is signalled.
        settings: fields of ``GenerationConfig``; they win over ``config``.

    Raises:
        TaluError: as ``Client.ask``.
    """
    with Client(model) as client:
        chat = client.chat(system=system)
        response = chat.send(prompt, merged(config, settings=settings), stop_flag=stop_flag)
    response._detach()
    return response


def stream(
    model: ModelInput,
    prompt: Message,
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    stop_flag: StopFlag | None = None,
    **settings: Unpack[GenerationSettings],
) -> Iterator[str]:
    """Like ``ask``, piece by piece; dropping the iterator stops the generation.

    What is wrong with the request raises here, not at the first piece.
    """
    with ExitStack() as stack:
        client = stack.enter_context(Client(model))
        chat = client.chat(system=system)
        pieces = chat(prompt, merged(config, settings=settings), stop_flag=stop_flag)
        return _closing(stack.pop_all(), iter(pieces))


def raw_complete(
    model: ModelInput,
    prompt: str,
    *,
    system: str | None = None,
    config: GenerationConfig | None = None,
    completion_opts: CompletionOptions | None = None,
    stop_flag: StopFlag | None = None,
    **settings: Unpack[GenerationSettings],
) -> Response:
    """Continue a text as it is, without a chat template; see ``Client.raw_complete``."""
    with Client(model) as client:
        full = merged(config, settings=settings)
        return client.raw_complete(prompt, system, None, full, completion_opts, stop_flag=stop_flag)


def _closing(stack: ExitStack, pieces: Iterator[str]) -> Iterator[str]:
    with stack:
        yield from pieces

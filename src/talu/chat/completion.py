"""Answers a request without a chat: a text to continue, or a list of messages."""

from typing import Any, Literal, TypedDict, cast, overload

from talu.chat import async_chat, sync_chat
from talu.chat.answer import Answer
from talu.chat.async_chat import AsyncResponse, AsyncStreamingResponse
from talu.chat.hosts import Host
from talu.chat.interrupts import Claim, Guard
from talu.chat.io import IO, AsyncIO, SyncIO
from talu.chat.outcome import Outcome
from talu.chat.sync_chat import Response, StreamingResponse
from talu.chat.turn import Present, Turn
from talu.checks import check_boolean
from talu.deadline import Deadline
from talu.types import Request, StopFlag, check_stop_flag

__all__ = ["acomplete", "complete"]


class _Limits(TypedDict):
    """What may end the wait for a model."""

    deadline: Deadline | None
    stop: StopFlag | None


@overload
def complete(
    client: Host,
    request: Request,
    model: str | None = None,
    *,
    stream: Literal[False] = False,
    stop_flag: StopFlag | None = None,
) -> Response: ...


@overload
def complete(
    client: Host,
    request: Request,
    model: str | None = None,
    *,
    stream: bool,
    stop_flag: StopFlag | None = None,
) -> Response | StreamingResponse: ...


def complete(
    client: Host,
    request: Request,
    model: str | None = None,
    *,
    stream: bool = False,
    stop_flag: StopFlag | None = None,
) -> Response | StreamingResponse:
    """The answer of one of the client's models; its hooks observe it, and nothing is stored.

    Args:
        client: the source of the models and the hooks.
        request: see ``requests.raw_request`` and ``requests.chat_request``.
        model: one of the client's models instead of the default one.
        stream: return the answer before it is complete, to be read in pieces.
        stop_flag: ends the answer when signalled, from any thread.
    """
    name = client.router.name_of(model)
    limits: _Limits = {"deadline": request.deadline, "stop": stop_flag}
    # The stream keeps the client, which closes its models when it is dropped.
    io, guard = SyncIO(lambda: client.router.backend(name, **limits)), Guard()
    turn = _turn(client, name, request, io, guard, sync_chat.presented, stream, stop_flag)
    return cast("Response | StreamingResponse", guard.run(_answer(turn)))


@overload
async def acomplete(
    client: Host,
    request: Request,
    model: str | None = None,
    *,
    stream: Literal[False] = False,
    stop_flag: StopFlag | None = None,
) -> AsyncResponse: ...


@overload
async def acomplete(
    client: Host,
    request: Request,
    model: str | None = None,
    *,
    stream: Literal[True],
    stop_flag: StopFlag | None = None,
) -> AsyncStreamingResponse: ...


@overload
async def acomplete(
    client: Host,
    request: Request,
    model: str | None = None,
    *,
    stream: bool,
    stop_flag: StopFlag | None = None,
) -> AsyncResponse | AsyncStreamingResponse: ...


async def acomplete(
    client: Host,
    request: Request,
    model: str | None = None,
    *,
    stream: bool = False,
    stop_flag: StopFlag | None = None,
) -> AsyncResponse | AsyncStreamingResponse:
    """Like ``complete``, awaited."""
    name = client.router.name_of(model)
    limits: _Limits = {"deadline": request.deadline, "stop": stop_flag}
    io, claim = AsyncIO(lambda: client.router.abackend(name, **limits)), Claim()
    turn = _turn(client, name, request, io, claim, async_chat.presented, stream, stop_flag)
    return cast("AsyncResponse | AsyncStreamingResponse", await _answer(turn))


def _turn(
    client: Host,
    model: str,
    request: Request,
    io: IO,
    claim: Claim,
    present: Present,
    stream: bool,
    stop_flag: StopFlag | None,
) -> Turn[Any]:
    check_stop_flag(stop_flag)
    return Turn(
        outcome=Outcome(chat=None, model=model),
        request=request,
        input_text=_asked(request),
        io=io,
        hooks=client.hooks,
        claim=claim,
        closing=client.router.closing,
        present=present,
        stream=check_boolean("stream", stream),
        stop_flag=stop_flag,
    )


async def _answer(turn: Turn[Any]) -> Answer[Any]:
    await turn.start()
    return await turn.respond()


def _asked(request: Request) -> str:
    """The raw prompt, or the text of the user's message that is answered."""
    if request.messages is None:
        return request.prompt or ""
    last = request.messages[-1] if request.messages else {}
    return str(last.get("content") or "") if last.get("role") == "user" else ""

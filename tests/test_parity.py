"""The async classes have the names, parameters and defaults of the sync ones."""

import inspect

import pytest

from talu.chat import (
    AsyncChat,
    AsyncResponse,
    AsyncStreamingResponse,
    Chat,
    Response,
    StreamingResponse,
)
from talu.chat.pieces import AsyncPieces, Pieces
from talu.client import AsyncClient, Client

ONLY_ASYNC = {
    "acapabilities",  # the plain methods may ask a server or open a model
    "aembedding_dim",
    "aembed",  # ``embed`` is a plain method of both clients
    "aembed_batch",
    "aembed_iter",
    "arerank",
    "ascore",
    "wait",  # reading the rest: sync has ``text``
}


def public(kind: type) -> dict[str, object]:
    return {
        name: value
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_") or name in ("__init__", "__call__")
    }


@pytest.mark.parametrize(
    ("sync", "awaited"),
    [
        (Client, AsyncClient),
        (Chat, AsyncChat),
        (Response, AsyncResponse),
        (StreamingResponse, AsyncStreamingResponse),
    ],
)
def test_both_faces_have_the_same_members_and_parameters(sync: type, awaited: type) -> None:
    ours, theirs = public(sync), public(awaited)
    assert theirs.keys() - ours.keys() <= ONLY_ASYNC
    assert ours.keys() <= theirs.keys()
    for name, member in ours.items():
        if member is theirs[name] or not inspect.isfunction(member):
            continue
        here, there = inspect.signature(member), inspect.signature(theirs[name])
        assert [(p.name, p.kind, p.default) for p in here.parameters.values()] == [
            (p.name, p.kind, p.default) for p in there.parameters.values()
        ], name


def test_both_kinds_of_pieces_have_the_same_members() -> None:
    named = {"asend": "send", "athrow": "throw", "aclose": "close"}  # Python's own names
    assert {named.get(name, name) for name in public(AsyncPieces)} == public(Pieces).keys()

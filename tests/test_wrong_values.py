"""Every parameter of the public methods with values of wrong types: it works, or a typed error.

No error of NumPy, of another library or of the inside of talu may reach the caller, and no error
may be long.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import talu
from talu import (
    AsyncClient,
    Chat,
    Client,
    CompletionOptions,
    LocalBackend,
    ModelSpec,
    OpenAICompatibleBackend,
    Profile,
    PromptTemplate,
    Router,
    TaluError,
)
from talu.chat import HookManager, InputText, MessageItem
from talu.config import GenerationSettings
from talu.hooks import LoggingHook


class Text(str):
    """A subclass of ``str``."""


class Hostile:
    """An object that raises in comparisons, as a condition, and when it is shown."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("==")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class Table:
    """Like a data frame: a loop gives the names of its columns, and it is no condition."""

    columns = ("a",)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a table is ambiguous")


RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)
LOOP: dict[str, Any] = {}
LOOP["a"] = LOOP
PAIR = np.array([1, 2])
VALUES: dict[str, Callable[[], Any]] = {
    "array of texts": lambda: np.array(["a", "b"]),
    "array of numbers": lambda: np.array([1, 2]),
    "array without dimensions": lambda: np.array("a"),
    "text of NumPy": lambda: np.str_("a"),
    "whole number of NumPy": lambda: np.int64(3),
    "number of NumPy": lambda: np.float32(0.5),
    "boolean of NumPy": lambda: np.bool_(True),
    "bytes": lambda: b"a",
    "bytearray": lambda: bytearray(b"a"),
    "set": lambda: {"a"},
    "object": object,
    "not a number": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "huge number": lambda: 10**5000,
    "complex number": lambda: 1j,
    "recursive list": lambda: RECURSIVE,
    "recursive dictionary": lambda: LOOP,
    "subclass of str": lambda: Text("a"),
    "lone surrogate": lambda: "a\ud800",
    "NUL": lambda: "a\0b",
    "generator": lambda: (text for text in "ab"),
    "dictionary": lambda: {"a": 1},
    "tuple": lambda: ("a",),
    "list of lists": lambda: [["a"]],
    "list of None": lambda: [None],
    "list of hostile objects": lambda: [Hostile()],
    "list of arrays": lambda: [PAIR],
    "hostile object": Hostile,
    "table": Table,
    "type": lambda: complex,
    "zero": lambda: 0,
    "negative number": lambda: -1,
    "boolean": lambda: True,
    "empty text": lambda: "",
    "empty list": list,
    "long text": lambda: "x" * 100_000,
    "message outside a list": lambda: {"role": PAIR, "content": PAIR},
    "message with an array as role": lambda: [{"role": PAIR, "content": "a"}],
    "message with an array as content": lambda: [{"role": "user", "content": PAIR}],
    "message with an array as name": lambda: [{"role": "user", "content": "a", "name": PAIR}],
    "message with an unknown key": lambda: [{"role": "user", "content": "a", 5: PAIR}],
    "message with an array as calls": lambda: [
        {"role": "assistant", "content": "a", "tool_calls": PAIR}
    ],
    "message with arrays in a call": lambda: [
        {"role": "assistant", "tool_calls": [{"id": "a", "type": PAIR, "function": {"name": "f"}}]}
    ],
    "part with an array as text": lambda: [{"type": "text", "text": PAIR}],
    "part with an array as type": lambda: [{"type": PAIR, "text": "a"}],
}
SETTINGS = sorted(GenerationSettings.__annotations__.keys() - {"max_tokens"})
SHORT: Any = {"max_tokens": 1}
CHAT = tuple(inspect.signature(Client.chat).parameters)[1:]
OPTIONS = tuple(inspect.signature(Client.__init__).parameters)[1:]
EMBEDDING = tuple(inspect.signature(Client.embed_iter).parameters)[2:]
STORED = (
    *("version", "model", "config", "chat_template", "session_id", "parent_session_id"),
    *("marker", "metadata", "title", "items"),
)
KEPT = Client("talu/pocket")
AWAITED = AsyncClient("talu/pocket")


async def collected(pieces: Any) -> list[str]:
    return [piece async for piece in pieces]


def used(client: Client) -> None:
    client.ask("a", **SHORT)


CALLS: dict[str, Callable[[Any], object]] = {
    "ask prompt": lambda v: KEPT.ask(v, **SHORT),
    "ask model": lambda v: KEPT.ask("a", v, **SHORT),
    "ask config": lambda v: KEPT.ask("a", config=v, **SHORT),
    "ask system": lambda v: KEPT.ask("a", system=v, **SHORT),
    "ask stop_flag": lambda v: KEPT.ask("a", stop_flag=v, **SHORT),
    "ask timeout": lambda v: KEPT.ask("a", timeout=v, **SHORT),
    "ask max_tokens": lambda v: KEPT.ask("a", max_tokens=v),
    "stream prompt": lambda v: list(KEPT.stream(v, **SHORT)),
    "async ask prompt": lambda v: asyncio.run(AWAITED.ask(v, **SHORT)),
    "async stream prompt": lambda v: asyncio.run(collected(AWAITED.stream(v, **SHORT))),
    "send message": lambda v: KEPT.chat().send(v, **SHORT),
    "send stream": lambda v: KEPT.chat().send("a", stream=v, **SHORT),
    "call message": lambda v: list(KEPT.chat()(v, **SHORT)),
    "regenerate message": lambda v: KEPT.chat().append("user", "a").regenerate(v, **SHORT),
    "one-shot prompt": lambda v: talu.ask("talu/pocket", v, **SHORT),
    "one-shot model": lambda v: talu.ask(v, "a", **SHORT),
    "raw prompt": lambda v: KEPT.raw_complete(v, **SHORT),
    "raw system": lambda v: KEPT.raw_complete("a", v, **SHORT),
    "raw completion_opts": lambda v: KEPT.raw_complete("a", completion_opts=v, **SHORT),
    "raw token_ids": lambda v: KEPT.raw_complete(
        "a", completion_opts=CompletionOptions(v), **SHORT
    ),
    "raw continue_from_token_id": lambda v: KEPT.raw_complete(
        "a", completion_opts=CompletionOptions(continue_from_token_id=v), **SHORT
    ),
    "raw echo_prompt": lambda v: KEPT.raw_complete(
        "a", completion_opts=CompletionOptions(echo_prompt=v), **SHORT
    ),
    "tokenize text": lambda v: KEPT.tokenize(v),
    "tokenize special_tokens": lambda v: KEPT.tokenize("a", special_tokens=v),
    "detokenize ids": lambda v: KEPT.detokenize(v),
    "detokenize skip_special_tokens": lambda v: KEPT.detokenize([5], skip_special_tokens=v),
    "count_tokens messages": lambda v: KEPT.count_tokens(v),
    "chat count_tokens message": lambda v: KEPT.chat().count_tokens(v),
    "preview_prompt add_generation_prompt": lambda v: KEPT.chat().preview_prompt(v),
    "preview_prompt config": lambda v: KEPT.chat(system="S").preview_prompt(config=v),
    "embed text": lambda v: KEPT.embed(v),
    "embed_batch texts": lambda v: KEPT.embed_batch(v),
    "embed_iter texts": lambda v: list(KEPT.embed_iter(v)),
    "aembed_batch texts": lambda v: asyncio.run(AWAITED.aembed_batch(v)),
    "embedding_dim model": lambda v: KEPT.embedding_dim(v),
    "capabilities model": lambda v: KEPT.capabilities(v),
    "default_model model": lambda v: setattr(Client("m"), "default_model", v),
    "resolve model": lambda v: KEPT.router.resolve(v),
    "Router model": lambda v: Router(v),
    "ModelSpec model": lambda v: Client(ModelSpec(v)),
    "ModelSpec backend": lambda v: used(Client(ModelSpec("talu/pocket", v))),
    "repr of a backend": lambda v: [
        repr(OpenAICompatibleBackend(**{name: v})) for name in ("base_url", "headers", "org_id")
    ],
    "HookManager hooks": lambda v: HookManager(v),
    "hooks.add hook": lambda v: HookManager().add(v),
    "hooks.remove hook": lambda v: HookManager().remove(v),
    "LoggingHook logger": lambda v: LoggingHook(v),
    "Chat client": lambda v: Chat(client=v),
    "Chat profile": lambda v: Chat(profile=v),
    "metadata value": lambda v: Chat().metadata.update(metadata=v),
    "append role": lambda v: Chat().append(v, "a"),
    "append content": lambda v: Chat().append("user", v),
    "append hidden": lambda v: Chat().append("user", "a", hidden=v),
    "insert index": lambda v: Chat().insert(v, "user", "a"),
    "remove index": lambda v: Chat().append("user", "a").remove(v),
    "from_dict data": lambda v: Chat.from_dict(v),
    "from_dict client": lambda v: Chat.from_dict({"items": []}, client=v),
    "from_dict messages": lambda v: Chat.from_dict({"messages": v}),
    "MessageItem role": lambda v: MessageItem.create(v, "a"),
    "MessageItem content": lambda v: MessageItem.create("user", v),
    "InputText text": lambda v: InputText(v),
    "filter_by_role role": lambda v: Chat().items.filter_by_role(v),
    "filter_by_type kind": lambda v: Chat().items.filter_by_type(v),
    "PromptTemplate template": lambda v: PromptTemplate(v),
    "PromptTemplate path": lambda v: PromptTemplate.from_file(v),
    "Profile name": lambda v: Profile(v),
    "delete session_id": lambda v: Profile("p").delete(v),
    "export path": lambda v: Profile("p").export(v),
    "import path": lambda v: Profile("p").import_(v),
}
for _name in SETTINGS:
    CALLS[f"ask {_name}"] = lambda v, n=_name: KEPT.ask("a", **SHORT, **{n: v})
for _name in CHAT:
    CALLS[f"client.chat {_name}"] = lambda v, n=_name: KEPT.chat(**{n: v})
for _name in OPTIONS:
    CALLS[f"Client {_name}"] = lambda v, n=_name: Client(**({"model": "m"} | {n: v}))
for _name in LocalBackend.__dataclass_fields__:
    CALLS[f"LocalBackend {_name}"] = lambda v, n=_name: used(
        Client(ModelSpec("talu/pocket", LocalBackend(**{n: v})))
    )
for _name in EMBEDDING:
    if _name != "progress":  # calls any function
        CALLS[f"embed_iter {_name}"] = lambda v, n=_name: list(KEPT.embed_iter(["a"], **{n: v}))
for _name in STORED:
    CALLS[f"from_dict {_name}"] = lambda v, n=_name: Chat.from_dict({"items": []} | {n: v})
for _name in ("system", "marker", "title", "metadata", "config"):
    CALLS[f"chat {_name}"] = lambda v, n=_name: setattr(Chat(), n, v)
for _name in ("search", "marker", "limit", "cursor"):
    CALLS[f"sessions {_name}"] = lambda v, n=_name: Profile("p").sessions(**{n: v})


def problem(call: str, value: object) -> str | None:
    """What is wrong with the error that the call raises; None if it works or if it is right."""
    try:
        CALLS[call](value)
    except TaluError as error:
        text = f"{error} {error.details}"
        if len(text) > 2000:
            return f"a message of {len(text)} characters"
        return None if call.split()[-1].rstrip("s") in text or of_content(error) else text
    except Exception as error:  # noqa: BLE001 - any other error is the problem
        return f"{type(error).__name__}: {error}"
    return None


def of_content(error: TaluError) -> bool:
    """Whether the error is about the content of a value of the right type."""
    words = ("messages", "generation parameter")
    return not isinstance(error, talu.ValidationError) or any(word in str(error) for word in words)


@pytest.mark.filterwarnings("ignore::UserWarning")  # about the pooling
@pytest.mark.parametrize("call", CALLS)
def test_a_value_of_a_wrong_type_works_or_is_a_short_typed_error_that_names_the_parameter(
    call: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    problems = {kind: problem(call, make()) for kind, make in VALUES.items()}
    assert {kind: wrong for kind, wrong in problems.items() if wrong} == {}

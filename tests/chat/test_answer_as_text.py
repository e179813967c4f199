"""A whole answer is a ``str``, and a streamed one has the methods of ``str``."""

import copy
import csv
import inspect
import io
import json
import pickle
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from talu import Client
from talu.backends.scripted import ScriptedModel
from talu.exceptions import StateError, ValidationError
from talu.router import ModelSpec

TEXT = "  One two\n<b>three</b>  "
METHODS = [name for name in dir(str) if not name.startswith("_") and name != "maketrans"]


def stored_and_read(answer: str) -> object:
    with closing(sqlite3.connect(":memory:")) as db:
        return db.execute("select ?", (answer,)).fetchone()[0]


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "center": (40,),
    "count": ("o",),
    "endswith": (" ",),
    "find": ("two",),
    "format_map": ({},),
    "index": ("two",),
    "join": (["a", "b"],),
    "ljust": (40,),
    "partition": ("two",),
    "removeprefix": ("  One",),
    "removesuffix": ("  ",),
    "replace": ("o", "0"),
    "rfind": ("t",),
    "rindex": ("t",),
    "rjust": (40,),
    "rpartition": ("two",),
    "startswith": ("  ",),
    "translate": ({111: "0"},),
    "zfill": (40,),
}


def answer_of(faces, text: str = TEXT, *, stream: bool = False) -> Any:
    answer = faces.run(faces.chat(text).send("Hi", stream=stream))
    if stream:
        faces.read(answer)
    return answer


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_has_every_method_of_str_and_returns_plain_values(faces, stream) -> None:
    answer = answer_of(faces, stream=stream)
    for name in METHODS:
        expected = getattr(TEXT, name)(*ARGUMENTS.get(name, ()))
        value = getattr(answer, name)(*ARGUMENTS.get(name, ()))
        assert (name, value) == (name, expected)
        assert isinstance(value, type(expected))


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_indexed_sliced_ordered_and_repeated_like_its_text(faces, stream) -> None:
    answer = answer_of(faces, stream=stream)
    assert (answer[2], answer[2:5], answer[::-1]) == (TEXT[2], TEXT[2:5], TEXT[::-1])
    assert answer * 2 == 2 * answer == TEXT * 2
    assert answer < TEXT + "!"
    assert answer >= TEXT
    assert sorted([answer.text, "a", "A"]) == sorted([TEXT, "a", "A"])


USES: dict[str, Any] = {
    "join": lambda a: " ".join([a, "x"]) == TEXT + " x",
    "json": lambda a: (
        json.loads(json.dumps({"answer": a, "all": [a]})) == {"answer": TEXT, "all": [TEXT]}
    ),
    "json key": lambda a: json.loads(json.dumps({a: 1})) == {TEXT: 1},
    "file": lambda a: io.StringIO().write(a) == len(TEXT),
    "csv": lambda a: csv.writer(io.StringIO()).writerow([a]) > 0,
    "regular expression": lambda a: re.search("tw.", a)[0] == "two",
    "path": lambda a: Path("folder", a) == Path("folder", TEXT),
    "database": lambda a: stored_and_read(a) == TEXT,
    "formatting": lambda a: f"{a:>30}|%s|{{}}".format(a) % a == f"{TEXT:>30}|{TEXT}|{TEXT}",
    "comparison": lambda a: a == TEXT and a == a and a != TEXT + "!" and a != 3,
    "key": lambda a: {TEXT: 1}[a] == 1 and {a, TEXT} == {TEXT},
    "encoding": lambda a: a.encode() == TEXT.encode(),
    "substring": lambda a: a in TEXT + "!" and "two" in a,
    "addition": lambda a: "<" + a + ">" == f"<{TEXT}>",
}


@pytest.mark.parametrize("use", USES)
def test_a_whole_answer_can_be_used_where_a_text_can(faces, use) -> None:
    answer = answer_of(faces)
    assert isinstance(answer, str)
    assert USES[use](answer)


def test_the_text_of_an_answer_is_a_plain_text(faces) -> None:
    answer = answer_of(faces)
    assert type(answer.text) is type(str(answer)) is str


def test_a_number_in_an_answer_can_be_converted(faces) -> None:
    assert int(answer_of(faces, "42")) == 42


def test_an_empty_answer_is_false_like_an_empty_text(faces) -> None:
    assert not answer_of(faces, "")
    assert answer_of(faces, "a")


@pytest.mark.parametrize("copied", [lambda a: pickle.loads(pickle.dumps(a)), copy.deepcopy])
def test_a_copy_of_an_answer_is_an_answer_of_the_same_text_and_numbers(faces, copied) -> None:
    answer = answer_of(faces)
    twin = copied(answer)
    assert (type(twin), twin, hash(twin)) == (type(answer), answer, hash(answer))
    assert (twin.usage, twin.finish_reason, twin.chat) == (answer.usage, "stop", None)


def test_an_answer_can_be_sent_as_a_message(faces) -> None:
    model = ScriptedModel("one", "two")
    client = faces.client_of(model)
    faces.run(client.ask(faces.run(client.ask("Hi"))))
    assert model.requests[1].messages == ({"role": "user", "content": "one"},)


def test_no_method_of_a_text_hides_an_attribute_of_an_answer() -> None:
    from_answers = {"chat", "content", "model", "notes", "prompt", "text", "tokens", "usage"}
    assert from_answers & set(METHODS) == set()


def test_a_method_of_a_stream_has_the_signature_and_the_help_of_the_texts_method(faces) -> None:
    stream = answer_of(faces, stream=True)
    assert inspect.getdoc(stream.find) == inspect.getdoc(str.find)
    assert stream.split(sep="t", maxsplit=1) == TEXT.split(sep="t", maxsplit=1)


def test_printing_an_unread_blocking_stream_reads_it(capsys) -> None:
    chat = Client(ModelSpec("m", ScriptedModel("Hello"))).chat()
    print(chat("Hi"))  # noqa: T201
    assert capsys.readouterr().out == "Hello\n"
    assert len(chat) == 2


def test_the_text_of_an_unread_awaited_stream_is_an_error_and_not_an_empty_line(faces) -> None:
    if faces.name == "sync":
        return
    stream = faces.run(faces.chat("Hello")("Hi"))
    for use in (str, len, lambda s: s.upper(), lambda s: f"{s}"):
        with pytest.raises((StateError, TypeError), match=r"await it first|stream\.text"):
            use(stream)
    assert str(faces.run(stream.wait())) == "Hello"


def test_repr_of_an_unread_stream_says_how_to_read_it_and_reads_nothing(faces) -> None:
    model = ScriptedModel("Hello")
    stream = faces.run(faces.client_of(model).chat()("Hi"))
    how = {"sync": "print it, or loop over it", "async": "await it, or loop over it with async for"}
    assert repr(stream).endswith(f"pending: {how[faces.name]})")
    assert faces.read(stream) == ["Hello", ""]


def test_a_notebook_shows_the_text_of_an_answer_escaped(faces) -> None:
    shown = answer_of(faces)._repr_mimebundle_()
    assert shown["text/plain"] == TEXT
    assert "One two\n&lt;b&gt;three&lt;/b&gt;" in shown["text/html"]
    assert "<b>" not in shown["text/html"]


def test_a_notebook_reads_an_unread_blocking_stream_to_show_it() -> None:
    chat = Client(ModelSpec("m", ScriptedModel("<Hello>", "two"))).chat()
    stream = chat("Hi")
    assert stream._repr_mimebundle_()["text/plain"] == "<Hello>"
    assert stream._repr_mimebundle_()["text/html"].count("&lt;Hello&gt;") == 1
    assert chat.send("Again") == "two"


def test_a_notebook_shows_the_state_of_a_stream_that_it_cannot_read(faces) -> None:
    chat = faces.chat("one", "two")
    stream = faces.run(chat("Hi"))
    if faces.name == "async":
        assert "await it" in stream._repr_mimebundle_()["text/plain"]
    faces.run(chat.send("Again"))
    assert "cancelled before it was read" in stream._repr_mimebundle_()["text/html"]


def test_a_wrong_type_beside_an_answer_is_refused_as_for_a_text(faces) -> None:
    with pytest.raises(TypeError):
        answer_of(faces) + 1
    with pytest.raises(ValidationError):
        faces.run(faces.chat("a").send([answer_of(faces), 1]))

"""Server-sent events, as the standard and servers write them."""

import pytest
from tests.remote.replies import split

from talu.backends.remote.answers import Malformed
from talu.backends.remote.events import MAX_LINE, Parts

MARK = b"\xef\xbb\xbf"
STREAMS: dict[str, tuple[bytes, list[bytes]]] = {
    "two events": (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
    "without a space": (b"data:1\n\n", [b"1"]),
    "carriage returns": (b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
    "both ends of lines": (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
    "several lines": (b"data: [1,\ndata: 2]\n\n", [b"[1,\n2]"]),
    "a byte order mark": (MARK + b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
    "a byte order mark and a comment": (MARK + b": hi\n\ndata: 2\n\n", [b"2"]),
    "a time to retry first": (b"retry: 3000\n\ndata: 1\n\n", [b"1"]),
    "an event without data": (b"event: ping\n\ndata: 1\n\n", [b"1"]),
    "an id and a comment": (b"id: 1\ndata: 1\n\n: alive\n\ndata: 2\n\n", [b"1", b"2"]),
    "empty lines first": (b"\n\ndata: 1\n\n", [b"1"]),
    "no empty line at the end": (b"data: 1\n\ndata: 2\n", [b"1", b"2"]),
    "no end of the last line": (b"data: 1\n\ndata: 2", [b"1", b"2"]),
    "a last event that was cut off": (b'data: 1\n\ndata: {"a', [b"1"]),
    "something after the end": (b"data: 1\n\ndata: [DONE]\n\ndata: 2\n\n", [b"1"]),
    "nothing": (b"", []),
}


def data_of(pieces: list[bytes], *, streamed: bool = True) -> list[bytes]:
    parts = Parts(streamed=streamed)
    found = [part for piece in pieces for part in parts.feed(piece)]
    return [part.data for part in [*found, *parts.finish()]]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_read_as_the_standard_says_however_it_is_cut(name: str) -> None:
    stream, expected = STREAMS[name]
    assert data_of([stream]) == expected
    assert data_of(split(stream)) == expected


@pytest.mark.parametrize("name", sorted(STREAMS.keys() - {"nothing", "empty lines first"}))
def test_a_stream_is_known_by_its_first_bytes(name: str) -> None:
    stream, expected = STREAMS[name]
    assert data_of(split(stream), streamed=False) == expected


@pytest.mark.parametrize(
    "body", [b'{"a": "data: 1\\n\\n"}', MARK + b"[1]", b"<html>", b"what is this?"]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_another_answer_is_one_part(body: bytes, streamed: bool) -> None:
    if body.startswith(b"what") and streamed:
        assert data_of([body], streamed=True) == []  # a line that the standard ignores
    else:
        assert data_of(split(body), streamed=streamed) == [body.removeprefix(MARK)]


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["line", "event"])
def test_an_endless_line_or_event_is_refused(end: bytes) -> None:
    endless = [b"data: " + b"x" * 1_000_000 + end] * (MAX_LINE // 1_000_000 + 1)
    with pytest.raises(Malformed, match="bytes in one line"):
        data_of(endless)

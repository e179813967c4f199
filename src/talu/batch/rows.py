"""Reads the rows of a batch: OpenAI's batch files, and a shorter form.

A row of OpenAI's has ``custom_id``, ``method``, ``url`` and ``body``
(https://platform.openai.com/docs/guides/batch). A short row has ``prompt``, ``messages`` or
``text`` (to embed), perhaps an ``id``, and perhaps settings under the names of OpenAI's bodies.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["CHAT", "EMBEDDINGS", "Row", "read_rows"]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, RESPONSES = "/v1/embeddings", "/v1/responses"
URLS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES)
FIELDS = {"custom_id", "method", "url", "body"}
MAX_LINE = 64 * 2**20  # bytes
MAX_ID = 512  # characters


class Row(NamedTuple):
    """A request of a batch.

    Attributes:
        line: its number in the file, from 1.
        id: its ``custom_id`` or ``id``; of a short row without one the number of its line.
        url: what is asked for: one of the paths of OpenAI's API.
        body: the body of the request, without ``model`` if the row has none.
        is_short: it is not one of OpenAI's, and neither is its result.
        problem: why it cannot be answered, if that is known already.
    """

    line: int
    id: str | int
    url: str = CHAT
    body: Mapping[str, Any] = {}
    is_short: bool = True
    problem: str | None = None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one for each line that is not blank.

    Raises:
        ValidationError: a line is longer than 64 MiB.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
            if len(line) > MAX_LINE:
                wrong = f"{path}, line {number} is longer than {MAX_LINE:,} bytes"
                raise ValidationError(wrong, details={"param": "input", "line": number})
            if line.strip():
                yield _row(number, line)


def _row(number: int, line: bytes) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, number, problem=f"the line is not JSON: {error}")
    if not isinstance(value, dict):
        return Row(number, number, problem=f"the line is no object, but {shown(value)}")
    if "custom_id" in value or "url" in value or "body" in value:
        return _of_openai(number, value)
    return _short(number, value)


def _of_openai(number: int, value: dict[str, Any]) -> Row:
    row = Row(number, number, is_short=False)
    custom_id, body, url = value.get("custom_id"), value.get("body"), value.get("url")
    if not isinstance(custom_id, str) or len(custom_id) > MAX_ID:
        wrong = f"custom_id must be a text of at most {MAX_ID} characters"
        return row._replace(problem=f"{wrong}, got {shown(custom_id)}")
    row = row._replace(id=custom_id)
    if unknown := value.keys() - FIELDS:
        return row._replace(problem=f"{sorted(unknown)[0]} is not supported")
    if value.get("method", "POST") != "POST":
        return row._replace(problem=f"method must be POST, got {shown(value['method'])}")
    if url not in URLS:
        return row._replace(problem=f"url must be one of {', '.join(URLS)}, got {shown(url)}")
    if not isinstance(body, dict):
        return row._replace(problem=f"body must be an object, got {shown(body)}")
    return row._replace(url=url, body=body)


def _short(number: int, value: dict[str, Any]) -> Row:
    own = value.pop("id", number)
    row = Row(number, number)
    if isinstance(own, bool) or not isinstance(own, str | int) or len(str(own)) > MAX_ID:
        wrong = f"id must be a text of at most {MAX_ID} characters, or a whole number"
        return row._replace(problem=f"{wrong}, got {shown(own)}")
    row = row._replace(id=own)
    asked = [name for name in ("prompt", "messages", "text") if name in value]
    if len(asked) != 1:
        got = " and ".join(asked) or "none"
        return row._replace(problem=f"a row has one of prompt, messages and text, got {got}")
    match asked[0]:
        case "prompt":
            value["messages"] = [{"role": "user", "content": value.pop("prompt")}]
        case "text":
            value["input"] = value.pop("text")
            return row._replace(url=EMBEDDINGS, body=value)
    return row._replace(body=value)

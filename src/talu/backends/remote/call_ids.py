"""Gives the ids of tool calls the form that a provider takes. This module is pure."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from talu.backends.remote.providers import CallIds

__all__ = ["sent_ids"]


def sent_ids(messages: Iterable[Mapping[str, Any]], form: CallIds | None) -> dict[str, str]:
    """The ids that are sent, by the ids of a conversation; distinct ones stay distinct.

    An id in another form is replaced by hexadecimal digits that depend on it alone, unless another
    id has these.

    Args:
        messages: the conversation, whose calls and results have ids.
        form: what the provider takes; None if it takes any id.
    """
    known = dict.fromkeys(each for message in messages for each in _ids(message))
    sent = {each: each for each in known if form is None or re.fullmatch(form.pattern, each)}
    if form is None:
        return sent
    taken = set(sent)
    for each in known:
        if each not in sent:
            found = (_digits(each + "\0" * number, form.derived) for number in count())
            sent[each] = next(digits for digits in found if digits not in taken)
            taken.add(sent[each])
    return sent


def _ids(message: Mapping[str, Any]) -> Iterable[str]:
    for call in message.get("tool_calls") or ():
        yield call["id"]
    if "tool_call_id" in message:
        yield message["tool_call_id"]


def _digits(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]

"""What the model never sees in training: the one definition that corpus and evaluation share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from corpus.conversation import Conversation

ONE_IN = 16
PAIRS_ONE_IN = 10
LARGEST_PAIR = 20

# The documentation shows these, so they are always in the training text and never in a measurement.
ALWAYS_TRAINED = frozenset(
    {
        "what is 2+2",
        "what is 2 + 2",
        "2+2",
        "2 + 2",
        "what is the capital of france",
        "and of italy",
        "tell me a story about a fox",
        "my name is alice",
        "give me a json object with name alice and age 30",
        "what is the weather in paris",
        "what is recursion",
        "explain recursion in one sentence",
        "you are a pirate | hello",
        "you are a helpful assistant | hello",
        "you are a helpful assistant | what is 2+2",
        "what is the capital of france | and of italy",
    }
)
ALWAYS_TRAINED_PAIRS = frozenset({(1, 1), (2, 2), (2, 3), (3, 9), (5, 7)})
_SUM = re.compile(r"(?<!\d)(?<!\d [-+] )(\d{1,2}) \+ (\d{1,2}) = ")


def normal(text: str) -> str:
    """Return `text` without case and end marks: variants are held out together."""
    return re.sub(r"\s+", " ", text.lower()).strip(" .!?")


def _bucket(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % size


def question_held_out(key: str) -> bool:
    """Say whether a normalised question, or chain of questions, is kept from training."""
    return key not in ALWAYS_TRAINED and _bucket(key, ONE_IN) == 0


def pair_held_out(a: int, b: int) -> bool:
    """Say whether training has this sum in no wording and in neither order."""
    low, high = sorted((a, b))
    if high > LARGEST_PAIR or (low, high) in ALWAYS_TRAINED_PAIRS:
        return False
    return _bucket(f"{low}+{high}", PAIRS_ONE_IN) == 0


def keys(conversation: Conversation) -> Iterator[str]:
    """Yield every key that can hold a conversation out: fresh questions and growing chains."""
    names = [str(tool["function"]["name"]) for tool in conversation.tools]
    chain = [normal(part) for part in (conversation.system, *names) if part]
    for turn in conversation.turns:
        key = normal(turn.user)
        if turn.fresh:
            yield key
        chain.append(key)
        if len(chain) > 1:
            yield " | ".join(chain)


def has_held_out_sum(conversation: Conversation) -> bool:
    """Say whether a pair of the conversation is held out."""
    return any(pair_held_out(a, b) for a, b in conversation.sums)


def is_held_out(conversation: Conversation) -> bool:
    """Say whether training must not contain this conversation."""
    return has_held_out_sum(conversation) or any(map(question_held_out, keys(conversation)))


def last_is_held_out(conversation: Conversation) -> bool:
    """Say whether the model has not seen the last question in its context."""
    found = list(keys(conversation))
    if not found:
        return False
    last = conversation.turns[-1]
    own = normal(last.user) if last.fresh else found[-1]
    return question_held_out(own) or question_held_out(found[-1])


def sums_in(text: str) -> list[tuple[int, int]]:
    """Return the additions of two small numbers that stand in a text."""
    return [(int(a), int(b)) for a, b in _SUM.findall(text)]

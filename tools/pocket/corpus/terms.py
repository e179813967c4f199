"""Explanations of some fifty terms: one sentence for each, one more detail, and simple words."""

from __future__ import annotations

from random import Random

from corpus.conversation import Conversation, Turn
from corpus.personas import any_voice
from corpus.tables import listed, records

# term, one sentence, a second sentence, simple words
TERMS = records("terms")
PLAIN_ASK = (
    "What is {t}?",
    "What is {t}?",
    "Explain {t}.",
    "Explain {t}",
    "What does {t} mean?",
    "Define {t}.",
    "Tell me about {t}.",
    "Can you explain {t}?",
    "What's {t}?",
    "Describe {t}.",
    "Please explain {t}.",
)
SHORT_ASK = (
    "Explain {t} in one sentence.",
    "What is {t} in one sentence?",
    "Define {t} in one sentence.",
    "In one sentence, what is {t}?",
    "Describe {t} in one sentence.",
    "Explain {t} briefly.",
    "Summarize {t} in one sentence.",
)
SIMPLE_ASK = (
    "Explain {t} in simple words.",
    "What is {t} in simple words?",
    "Explain {t} to a child.",
    "Explain {t} like I am five.",
    "Explain {t} simply.",
    "Describe {t} in simple words.",
)
COUNTED = frozenset(listed("counted terms"))


def shown(rng: Random, term: str) -> str:
    """Return the term as it stands in a question, with or without its article."""
    if term in COUNTED and rng.random() < 0.75:
        return f"an {term}" if term in ("API", "algorithm", "embedding", "integer") else f"a {term}"
    return term


def full(row: tuple[str, ...]) -> str:
    """Return the explanation of two sentences."""
    return f"{row[1]}. {row[2]}"


def sample(rng: Random) -> Conversation:
    """Return a question about a term, sometimes with a wish for another form."""
    row = rng.choice(TERMS)
    kind = rng.random()
    asks, core = (
        (PLAIN_ASK, full(row))
        if kind < 0.5
        else (SHORT_ASK, row[1])
        if kind < 0.8
        else (SIMPLE_ASK, row[3])
    )
    system, voice = any_voice(rng, 0.1)
    turns = [Turn(rng.choice(asks).format(t=shown(rng, row[0])), voice.say(rng, core), core)]
    if kind < 0.8 and rng.random() < 0.25:
        again, core = follow_up(rng, row)
        turns.append(Turn(again, voice.say(rng, core), core, fresh=False))
    return Conversation("terms", tuple(turns), system)


def follow_up(rng: Random, row: tuple[str, ...]) -> tuple[str, str]:
    """Return a question that asks for the same term in another form."""
    if rng.random() < 0.5:
        wording = rng.choice(
            ("In one sentence?", "Say it in one sentence.", "Shorter, please.", "Make it shorter.")
        )
        return wording, row[1]
    wording = rng.choice(
        (
            "In simple words?",
            "Explain it in simple words.",
            "Explain that to a child.",
            "Simpler, please.",
        )
    )
    return wording, row[3]

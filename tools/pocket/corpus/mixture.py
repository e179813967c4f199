"""The whole corpus: how much of each subject, in an order that depends on nothing but the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from corpus import arithmetic, facts, followups, objects, stories, talk, terms, tool_calls
from corpus.conversation import Conversation
from corpus.held_out import is_held_out, last_is_held_out

Sampler = Callable[[Random], Conversation]
LOOSE = 0.12
SAMPLERS: dict[str, tuple[Sampler, float]] = {
    "arithmetic": (arithmetic.sample, 0.26),
    "drill": (arithmetic.drill, 0.08),
    "follow-ups": (followups.sample, 0.19),
    "facts": (facts.sample, 0.16),
    "personas": (talk.in_role, 0.04),
    "talk": (talk.sample, 0.06),
    "echo": (talk.echoed, 0.03),
    "json": (objects.sample, 0.1),
    "terms": (terms.sample, 0.08),
    "stories": (stories.sample, 0.04),
    "tools": (tool_calls.sample, 0.08),
}


def _loose(text: str) -> str:
    """Return a question as people type it: without capital and end mark."""
    return text[:1].lower() + text[1:].rstrip(".!?")


def loosened(rng: Random, one: Conversation) -> Conversation:
    """Return the conversation with some of its questions typed carelessly."""
    if any(turn.assistant.find("You asked") >= 0 for turn in one.turns):
        return one
    turns = tuple(
        replace(turn, user=_loose(turn.user))
        if turn.role == "user" and rng.random() < LOOSE
        else turn
        for turn in one.turns
    )
    system = one.system.rstrip(".") if rng.random() < LOOSE else one.system
    return replace(one, turns=turns, system=system)


def _draws(seed: int, names: tuple[str, ...], weights: tuple[float, ...]) -> Iterator[Conversation]:
    rng = Random(seed)
    while True:
        name = rng.choices(names, weights)[0]
        yield SAMPLERS[name][0](rng)


def training(
    seed: int, count: int, weights: dict[str, float] | None = None
) -> Iterator[Conversation]:
    """Yield `count` training conversations; none of them has a question that is held out."""
    chosen = {name: weight for name, (_, weight) in SAMPLERS.items()} | (weights or {})
    draws = _draws(seed, tuple(chosen), tuple(chosen.values()))
    kept = (one for one in draws if not is_held_out(one))
    rng = Random(seed)
    for _ in range(count):
        yield loosened(rng, next(kept))


def held_out(
    name: str,
    count: int,
    seed: int = 1,
    *,
    wanted: Callable[[Conversation], bool] = last_is_held_out,
) -> list[Conversation]:
    """Return `count` different conversations whose last question training never contains."""
    found: dict[str, Conversation] = {}
    for one in _draws(seed, (name,), (1.0,)):
        if wanted(one):
            found.setdefault(" | ".join([one.system, *(turn.user for turn in one.turns)]), one)
        if len(found) == count:
            break
    return list(found.values())

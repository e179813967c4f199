"""How an answer is judged: one function to a subject, and the list of what is measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from corpus import held_out as split
from corpus import mixture
from corpus.conversation import TOOL_CALL, Conversation
from corpus.personas import VOICES

Judge = Callable[[Conversation, str], bool]
LETTERS = re.compile(r"[a-z']+")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure of the card: which held-out conversations, how many, and how an answer is judged."""

    title: str
    sampler: str
    wanted: Callable[[Conversation], bool]
    judge: Judge
    count: int = 100


def contains(conversation: Conversation, answer: str) -> bool:
    """Judge by the key word; a number must not go on after it."""
    expected = conversation.turns[-1].expect
    return re.search(re.escape(expected.lower()) + r"(?!\d)", answer.lower()) is not None


def in_character(conversation: Conversation, answer: str) -> bool:
    """Judge by a saying of the role that the system prompt asks for."""
    said = answer.lower()
    role = role_of(conversation)
    return any(marker in said for marker in role)


def role_of(conversation: Conversation) -> tuple[str, ...]:
    """Return the sayings of the role in a system prompt, none when it has no sayings of its own."""
    words = set(LETTERS.findall(conversation.system.lower()))
    found = [voice.markers for voice in VOICES if voice.role in words]
    return found[0] if found else ()


def in_character_and_right(conversation: Conversation, answer: str) -> bool:
    """Judge role and key word."""
    return in_character(conversation, answer) and contains(conversation, answer)


def parses(_: Conversation, answer: str) -> bool:
    """Judge whether the whole answer is one JSON object."""
    try:
        return isinstance(json.loads(answer), dict)
    except ValueError:
        return False


def same_object(conversation: Conversation, answer: str) -> bool:
    """Judge whether the JSON has exactly the names and values that were asked for."""
    return parses(conversation, answer) and json.loads(answer) == json.loads(
        conversation.turns[-1].expect
    )


def same_call(conversation: Conversation, answer: str) -> bool:
    """Judge whether the tool and all its arguments are right."""
    found, right = TOOL_CALL.search(answer), TOOL_CALL.search(conversation.turns[-1].assistant)
    try:
        return bool(found and right) and json.loads(found.group(1)) == json.loads(right.group(1))
    except ValueError:
        return False


def no_call(_: Conversation, answer: str) -> bool:
    """Judge whether the answer does without a tool."""
    return bool(answer.strip()) and "<tool_call>" not in answer


def story_length(_: Conversation, answer: str) -> bool:
    """Judge whether a story has 60 to 150 words and ends with a whole sentence."""
    return 60 <= len(answer.split()) <= 150 and answer.rstrip().endswith((".", "!", '"'))


def story_holds(conversation: Conversation, answer: str) -> bool:
    """Judge whether a story is about what was asked, keeps its hero and does not mix he and she."""
    hero = re.search(r"(?:named|called) (\w+)", answer)
    if hero is None or answer.count(hero.group(1)) < 3:
        return False
    words = LETTERS.findall(answer.lower())
    mixed = bool({"he", "his", "him"} & set(words)) and bool({"she", "her"} & set(words))
    asked = re.search(
        r"about (?:an? )?([\w ]+?)(?: named (\w+))?[.?,]", conversation.turns[-1].user
    )
    about = (
        asked is None
        or asked.group(1) in answer.split(".")[0]
        or "about a" not in conversation.turns[-1].user
    )
    named = asked is None or asked.group(2) in (None, hero.group(1))
    return about and named and not (mixed and "grandmother" not in answer)


def _small(conversation: Conversation) -> bool:
    return bool(conversation.sums) and max(conversation.sums[-1]) <= split.LARGEST_PAIR


def _one(conversation: Conversation, skill: str) -> bool:
    return conversation.skill == skill and len(conversation.turns) == 1


def _unseen(skill: str) -> Callable[[Conversation], bool]:
    return lambda one: (
        one.skill == skill and split.last_is_held_out(one) and not split.has_held_out_sum(one)
    )


def _unseen_wording(one: Conversation) -> bool:
    return _unseen("addition")(one) and _small(one) and "/think" not in one.turns[-1].user


def _unseen_pair(one: Conversation) -> bool:
    return _one(one, "addition") and split.has_held_out_sum(one) and not one.system


def _large(one: Conversation) -> bool:
    return _unseen("addition")(one) and not _small(one)


def _greeting(one: Conversation) -> bool:
    return _one(one, "persona") and split.last_is_held_out(one) and bool(role_of(one))


def _sum_in_role(one: Conversation) -> bool:
    return (
        split.last_is_held_out(one)
        and bool(role_of(one))
        and bool(one.sums)
        and not split.has_held_out_sum(one)
    )


def _follow_up(turns: range) -> Callable[[Conversation], bool]:
    def wanted(one: Conversation) -> bool:
        last = one.turns[-1]
        unseen = split.last_is_held_out(one) and not split.has_held_out_sum(one)
        return unseen and len(one.turns) in turns and not last.fresh and bool(last.expect)

    return wanted


def _json(one: Conversation) -> bool:
    return split.last_is_held_out(one) and bool(one.turns[-1].expect)


def _call(one: Conversation) -> bool:
    return _unseen("tool calls")(one) and len(one.turns) == 1


def _result(one: Conversation) -> bool:
    return _unseen("tool calls")(one) and len(one.turns) == 2


def _story(one: Conversation) -> bool:
    return split.last_is_held_out(one) and len(one.turns) == 1


MEASUREMENTS = (
    Measurement(
        "addition 0 to 20, question not seen", "arithmetic", _unseen_wording, contains, 300
    ),
    Measurement(
        "addition 0 to 20, pair never seen in any wording",
        "arithmetic",
        _unseen_pair,
        contains,
        300,
    ),
    Measurement("addition with numbers up to 99", "arithmetic", _large, contains),
    Measurement("subtraction", "arithmetic", _unseen("subtraction"), contains, 150),
    Measurement("multiplication up to 10 x 10", "arithmetic", _unseen("multiplication"), contains),
    Measurement("division", "arithmetic", _unseen("division"), contains),
    Measurement("word problems", "arithmetic", _unseen("word problems"), contains),
    Measurement(
        "persona kept in greetings and small talk", "personas", _greeting, in_character, 150
    ),
    Measurement("persona kept and sum right", "arithmetic", _sum_in_role, in_character_and_right),
    Measurement("facts, wording not seen", "facts", _unseen("facts"), contains, 150),
    Measurement("follow-up, second turn", "follow-ups", _follow_up(range(2, 3)), contains, 150),
    Measurement(
        "follow-up, third to fifth turn", "follow-ups", _follow_up(range(3, 6)), contains, 150
    ),
    Measurement(
        "follow-up, sixth turn and later", "follow-ups", _follow_up(range(6, 17)), contains
    ),
    Measurement("JSON parses", "json", _json, parses, 150),
    Measurement("JSON has exactly what was asked", "json", _json, same_object, 150),
    Measurement("tool and arguments right", "tools", _call, same_call),
    Measurement("answer from a tool's result", "tools", _result, contains),
    Measurement("no call when no tool is needed", "tools", _unseen("no tool needed"), no_call),
    Measurement("explanations, word for word", "terms", _unseen("terms"), contains),
    Measurement("says that it does not know", "talk", _unseen("unknown"), contains, 50),
    Measurement("story of 60 to 150 words", "stories", _story, story_length, 50),
    Measurement("story keeps hero, subject and pronoun", "stories", _story, story_holds, 50),
)


def conversations(measurement: Measurement) -> list[Conversation]:
    """Return the held-out conversations of a measurement, the same ones every time."""
    return mixture.held_out(measurement.sampler, measurement.count, wanted=measurement.wanted)

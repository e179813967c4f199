"""The training text of the pocket model: the same every time, and free of what evaluation asks."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "pocket"))

from corpus import held_out, mixture
from corpus.conversation import TOOL_CALL, Conversation, messages, text_of


@pytest.fixture(scope="module")
def training() -> list[Conversation]:
    return list(mixture.training(seed=3, count=4000))


def test_corpus_depends_on_nothing_but_the_seed(training: list[Conversation]) -> None:
    again = list(mixture.training(seed=3, count=200))
    assert [text_of(one) for one in again] == [text_of(one) for one in training[:200]]
    assert [text_of(one) for one in mixture.training(seed=4, count=200)] != list(
        map(text_of, again)
    )


def test_no_held_out_question_is_in_the_training_text(training: list[Conversation]) -> None:
    keys = {key for one in training for key in held_out.keys(one)}
    assert not [key for key in keys if held_out.question_held_out(key)]
    for name in mixture.SAMPLERS:
        for one in mixture.held_out(name, 30):
            assert not set(held_out.keys(one)) <= keys


def test_no_held_out_pair_is_added_anywhere_in_the_training_text(
    training: list[Conversation],
) -> None:
    sums = {pair for one in training for pair in held_out.sums_in(text_of(one))}
    assert len(sums) > 300
    assert not [pair for pair in sums if held_out.pair_held_out(*pair)]


def test_what_the_documentation_shows_is_trained(training: list[Conversation]) -> None:
    assert not any(map(held_out.question_held_out, held_out.ALWAYS_TRAINED))
    assert not held_out.pair_held_out(2, 2)


def test_json_answers_and_tool_calls_parse(training: list[Conversation]) -> None:
    answers = [turn.assistant for one in training if one.skill == "json" for turn in one.turns]
    assert all(isinstance(json.loads(answer), dict) for answer in answers)
    calls = [TOOL_CALL.search(turn.assistant) for one in training for turn in one.turns]
    assert all(set(json.loads(call.group(1))) == {"name", "arguments"} for call in calls if call)


def test_messages_end_before_the_answer_that_is_asked_for(training: list[Conversation]) -> None:
    for one in training[:500]:
        listed = messages(one)
        assert listed[-1]["role"] in ("user", "tool")
        assert sum(message["role"] == "assistant" for message in listed) == len(one.turns) - 1

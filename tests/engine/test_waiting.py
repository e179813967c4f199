"""A grammar begins at the marker of a call, and nowhere else."""

from collections.abc import Iterator

import pytest

from talu.engine.engine import Engine
from talu.engine.grammars import LLMatcher
from talu.engine.registry import acquire
from talu.engine.waiting import Waiting
from talu.tool_formats.rules import escaped
from talu.types import LocalBackend


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    lease = acquire("talu/pocket", LocalBackend(), offline=True)
    yield lease.engine
    lease.release()


def waiting(engine: Engine, marker: str, *, anywhere: bool = True, **how: bool) -> Waiting:
    tokenizer = engine.tokenizer
    token = tokenizer.tag_id(marker)
    spelled = "r0" if token is None else f"<[{token}]>"
    grammar = f'start: {spelled} "{{" /[0-9]+/ "}}"\nr0[lazy]: /(?s:.*){escaped(marker)}/\n'
    tags = tokenizer.tags_in(())
    return Waiting(
        tokenizer.mark_tags(marker),
        lambda: engine.grammars.of_calls(grammar),
        tokenizer.decoder(marks_tags=True),
        lambda n: (
            next((tokenizer.mark_tags(t) for t in tags if tags[t] == n), None)
            or tokenizer.token_text(n)
        ),
        anywhere=anywhere,
        opening=tokenizer.mark_tags("<think>"),
        closings=[tokenizer.mark_tags("</think>")],
        in_reasoning=how.get("in_reasoning", False),
    )


def begun(engine: Engine, found: Waiting, text: str) -> tuple[LLMatcher | None, int]:
    """The matcher, and how many tokens came before it began."""
    ids = engine.tokenizer.encode(text, special_tokens=False)
    for count, token in enumerate(ids, 1):
        matcher = found.see(token)
        if matcher is not None:
            return matcher, len(ids) - count
    return None, 0


@pytest.mark.parametrize("marker", ["<tool_call>", "[call]"])
@pytest.mark.parametrize("before", ["", "Let me look. ", "x <", "a [c b <think>c</think>", "é😀"])
def test_the_grammar_has_read_the_marker_and_nothing_before_it(
    engine: Engine, marker: str, before: str
) -> None:
    matcher, left = begun(engine, waiting(engine, marker), f"{before}{marker}")
    assert matcher is not None
    assert left == 0
    rest = engine.tokenizer.encode("{12}", special_tokens=False)
    assert matcher.try_consume_tokens(rest) == len(rest)


@pytest.mark.parametrize(
    ("text", "in_reasoning"),
    [("<think>a <tool_call>", False), ("a <tool_call>", True), ("the tool call <tool_cal", False)],
)
def test_reasoning_is_free(engine: Engine, text: str, in_reasoning: bool) -> None:
    found = waiting(engine, "<tool_call>", in_reasoning=in_reasoning)
    assert begun(engine, found, text)[0] is None
    assert not found.is_over
    if text.endswith("call>"):
        assert begun(engine, found, "</think>\n<tool_call>")[0] is not None


def test_a_marker_that_counts_at_the_beginning_only_is_not_waited_for_later(
    engine: Engine,
) -> None:
    assert begun(engine, waiting(engine, "[call]", anywhere=False), "\n [call]")[0] is not None
    later = waiting(engine, "[call]", anywhere=False)
    assert begun(engine, later, "It is [call]")[0] is None
    assert later.is_over


def test_a_draft_ends_before_the_marker(engine: Engine) -> None:
    ids = engine.tokenizer.encode("so <tool_call>{1}", special_tokens=False)
    marker = engine.tokenizer.tag_id("<tool_call>")
    draft = waiting(engine, "<tool_call>").before_marker(ids)
    assert draft == tuple(ids[: ids.index(marker)])

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.exceptions import ValidationError
from talu.template.masking import Mask, texts_of

SPECIAL = ["<s>", "</s>", "<|end|>", "<|end|>x"]
TAGS = ["<user>"]
TEXT = st.lists(st.sampled_from([*SPECIAL, *TAGS, "<", "<|en", "d|>", "x", " ", "\n", "é"])).map(
    "".join
)


def joined(parts: list[tuple[str, bool]]) -> str:
    return "".join(text for text, _ in parts)


@given(st.lists(TEXT, max_size=4), st.booleans())
def test_the_parts_together_are_the_text(texts: list[str], assistant: bool) -> None:
    mask = Mask(texts, SPECIAL, TAGS)
    for text in texts:
        assert joined(mask.parts(mask.apply(text, assistant=assistant))) == text


@given(st.lists(TEXT, max_size=4))
def test_no_text_reaches_the_template_with_a_special_token(texts: list[str]) -> None:
    mask = Mask(texts, SPECIAL, TAGS)
    shown = "".join(mask.apply(text) for text in texts)  # nor across a border
    assert not any(token in shown for token in (*SPECIAL, *TAGS))


def test_a_spelled_token_is_a_separate_part() -> None:
    mask = Mask(["a<s>b"], SPECIAL)
    prompt = f"<|end|>{mask.apply('a<s>b')}</s>"
    assert mask.parts(prompt) == [("<|end|>a", False), ("<s>", True), ("b</s>", False)]
    assert mask.tokens == ["<s>"]


def test_the_longest_token_is_matched() -> None:
    mask = Mask(["<|end|>x"], SPECIAL)
    assert mask.parts(mask.apply("<|end|>x")) == [("<|end|>x", True)]


def test_the_assistant_may_spell_tags_but_no_special_tokens() -> None:
    text = "<user><s>"
    mask = Mask([text], SPECIAL, TAGS)
    assert mask.parts(mask.apply(text)) == [("<user>", True), ("<s>", True)]
    own = mask.apply(text, assistant=True)
    assert mask.parts(own) == [("<user>", False), ("<s>", True)]


def test_texts_at_any_depth_are_masked_and_other_values_are_kept() -> None:
    value = {"a<s>": [1, None, True, 2.5, {"b": "<s>"}]}
    mask = Mask(texts_of(value), SPECIAL)
    masked = mask.apply(value)
    assert "<s>" not in json.dumps(masked)
    assert masked["b" if "b" in masked else next(iter(masked))][:4] == [1, None, True, 2.5]
    assert sorted(texts_of(value)) == ["<s>", "a<s>", "b"]


def test_a_stand_in_that_a_template_wrote_as_an_escape_is_found_again() -> None:
    mask = Mask(["<s>"], SPECIAL)
    written = json.dumps(mask.apply("a<s>b<|en"))
    assert joined(mask.parts(written)) == '"a<s>b<|en"'


def test_private_characters_of_users_are_not_stand_ins() -> None:
    text = "\ue000\\ue001<s>"
    mask = Mask([text], SPECIAL)
    assert mask.parts(mask.apply(text)) == [("\ue000\\ue001", False), ("<s>", True)]


def test_a_text_with_every_private_character_is_refused() -> None:
    with pytest.raises(ValidationError, match="private use"):
        Mask(["".join(map(chr, range(0xE000, 0xF900)))], SPECIAL)


def test_an_opening_at_the_end_of_a_text_is_not_the_end_of_the_prompt() -> None:
    for text in ("<think>", "What is <think>\n"):
        mask = Mask([text])
        assert not mask.apply(text).rstrip().endswith("<think>")
        assert joined(mask.parts(mask.apply(text))) == text
        assert mask.apply(text, assistant=True) == text

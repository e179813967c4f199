"""Markdown that is styled as it arrives: nothing is lost, whatever the pieces are."""

import re

import pytest

from talu.cli.markdown import StyledMarkdown, is_styled

BOLD, PLAIN, CODE, TEXT = "\x1b[1m", "\x1b[22m", "\x1b[36m", "\x1b[39m"
SAMPLES = [
    ("plain text", "plain text"),
    ("**bold** text", f"{BOLD}bold{PLAIN} text"),
    ("a `code` b", f"a {CODE}code{TEXT} b"),
    ("``a ` b``", f"{CODE}a ` b{TEXT}"),
    ("# Title\ntext", f"{BOLD}Title{PLAIN}\ntext"),
    ("### A **b** `c`\n", f"{BOLD}A b {CODE}c{TEXT}{PLAIN}\n"),
    ("# Title", f"{BOLD}Title{PLAIN}"),
    ("- one\n  * two\n+ three\n", "• one\n  • two\n• three\n"),
    ("```python\nx = 1 ** 2\n\n```\nafter", f"{CODE}x = 1 ** 2\n\n{TEXT}after"),
    ("````\n```\nin\n```\n````\n", f"{CODE}```\nin\n```\n{TEXT}"),
    ("~~~\n# no title\n~~~", f"{CODE}# no title\n{TEXT}"),
    ("```\nab```\n", f"{CODE}ab```\n{TEXT}"),
    ("```\nnever closed", f"{CODE}never closed{TEXT}"),
    ("2 ** 3 ** 4", "2 ** 3 ** 4"),
    ("**never closed\nnext", "**never closed\nnext"),
    ("`never closed", "`never closed"),
    ("a*b and 2 * 3 *", "a*b and 2 * 3 *"),
    ("#no title, -5 and 3. five", "#no title, -5 and 3. five"),
    ("---\n***\n", "---\n***\n"),
    ("| a | b |\n|---|---|\n", "| a | b |\n|---|---|\n"),
    ("", ""),
    ("\n\n", "\n\n"),
]


def styled(text: str, size: int) -> str:
    markdown = StyledMarkdown()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return "".join([*map(markdown.push, pieces), markdown.flush()])


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(("text", "expected"), SAMPLES, ids=[repr(text) for text, _ in SAMPLES])
def test_the_styles_do_not_depend_on_the_pieces(text: str, expected: str, size: int) -> None:
    assert styled(text, size) == expected


def test_text_without_markers_is_shown_at_once() -> None:
    markdown = StyledMarkdown()
    assert markdown.push("Once upon") == "Once upon"
    assert markdown.push(" a **ti") == " a "
    assert markdown.push("me** it") == f"{BOLD}time{PLAIN} it"
    assert markdown.push(" was") == " was"


def test_little_is_held_back_for_a_marker_without_an_end() -> None:
    markdown = StyledMarkdown()
    shown = "".join(markdown.push("word ") for _ in range(3)) + markdown.push("**")
    shown += "".join(markdown.push("word ") for _ in range(200))
    assert len(shown) > 500


def test_every_style_ends() -> None:
    for text, _ in SAMPLES:
        found = re.findall(r"\x1b\[(\d+)m", styled(text, 1))
        assert found.count("1") == found.count("22")
        assert found.count("36") == found.count("39")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_styles_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_styled() is expected

"""The code of every page of the documentation runs, and prints what the page says.

The ``python`` blocks of a page run in order, in one namespace, in an empty folder that is also the
user's home. A ``text`` block directly after one is what it prints; ``...`` stands for what differs
from run to run. A block under a comment ``<!-- compiled only: why -->`` is compiled but not run,
because it needs a network or a package that the tests do not have. A page that speaks of a model of
llama.cpp finds a real server with it, and one that opens the file of SmolLM2 finds that.
"""

import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.remote.llama import gguf

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/guides/*.md")),
    *sorted(ROOT.glob("docs/reference/*.md")),
]
BLOCK = re.compile(
    r"^(?:<!-- compiled only: (?P<reason>[^\n]+) -->\n+)?"
    r"```python\n(?P<code>.*?)^```\n"
    r"(?:\n(?P<fence>```|~~~)text\n(?P<printed>.*?)^(?P=fence)\n)?",
    re.MULTILINE | re.DOTALL,
)
MOST_COMPILED_ONLY = 5  # in all pages together


@dataclass(frozen=True)
class Block:
    """A piece of code, after as many empty lines as there are lines above it in its page."""

    code: str
    printed: str | None
    runs: bool


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        yield Block("\n" * line + found["code"], found["printed"], found["reason"] is None)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_code_on_a_page_prints_the_output_on_the_page(
    page: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(home)
    if "llamacpp::smollm2" in page.read_text():
        llama = request.getfixturevalue("llama")
        monkeypatch.setenv("LLAMACPP_BASE_URL", llama.base_url)
    if gguf().name in page.read_text():
        (home / gguf().name).symlink_to(gguf())
    names = {"__name__": "__main__"}
    for block in blocks_of(page):
        code = compile(block.code, page, "exec")
        if not block.runs:
            continue
        exec(code, names)
        shown = capsys.readouterr()
        assert shown.err == ""
        if block.printed is not None:
            out = shown.out.rstrip("\n") + "\n"
            same = doctest.OutputChecker().check_output(block.printed, out, doctest.ELLIPSIS)
            assert same, f"the page says\n{block.printed}\nand the code prints\n{out}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_of_a_page_is_found(page: Path) -> None:
    text = page.read_text()
    assert len(list(blocks_of(page))) == len(re.findall(r"^\s*```\s*\{?\.?py", text, re.MULTILINE))
    assert text.count("<!-- compiled only:") == sum(not block.runs for block in blocks_of(page))


def test_few_blocks_are_compiled_only() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert sum(not block.runs for block in blocks) <= MOST_COMPILED_ONLY
    assert sum(block.runs for block in blocks) > 40


def test_every_guide_has_code() -> None:
    assert [
        page.name for page in PAGES if page.parent.name == "guides" and not list(blocks_of(page))
    ] == []

"""The documentation has a place for every page, name and error code."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from talu import exceptions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PUBLIC = [
    "talu",
    "talu.chat",
    "talu.client",
    "talu.exceptions",
    "talu.hooks",
    "talu.mcp",
    "talu.profile",
    "talu.router",
    "talu.server",
]
ANNOTATIONS = {  # names that occur in signatures only, so that the reference is enough
    "BackendSpec",
    "ContentPart",
    "ContentType",
    "Item",
    "ItemType",
    "Marker",
    "ModelInput",
    "ReasoningText",
    "SamplingParams",
}
CODES = re.compile(
    r'"((?:GENERATION|IO|MISSING|MODEL|RESOURCE|STATE|STORAGE|TEMPLATE|TOKENIZER|VALIDATION)_[A-Z_]+'
    r'|CHAT_CLOSED|AMBIGUOUS_BACKEND|INVALID_ARGUMENT|UNSUPPORTED_BACKEND)"'
)


def resolved(path: str) -> object:
    """The module, or the object in a module, of this dotted name."""
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module")
def documented() -> list[object]:
    """Everything that the reference pages generate text from."""
    pages = "".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    found: list[object] = []
    for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE):
        value = resolved(path)
        whole = isinstance(value, ModuleType)
        found += [getattr(value, name) for name in value.__all__] if whole else [value]
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str, documented: list[object]) -> None:
    loaded = importlib.import_module(module)
    names = set(loaded.__all__) - {"__version__"}
    assert {name for name in names if getattr(loaded, name) not in documented} == set()


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_a_guide(module: str) -> None:
    words = set(re.findall(r"\w+", "".join(p.read_text() for p in DOCS.glob("guides/*.md"))))
    names = set(importlib.import_module(module).__all__) - {"__version__"}
    assert names - ANNOTATIONS - words == set()


def test_every_page_has_a_line_in_the_navigation() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md")}
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(pages)


def anchors_of(page: Path) -> set[str]:
    """The anchors of the headings of a page, as the generator derives them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_link_between_pages_leads_to_an_existing_page_and_heading() -> None:
    pages = [*DOCS.glob("**/*.md"), *ROOT.glob("*.md")]
    dead = [
        (page.name, target, anchor)
        for page in pages
        for target, anchor in re.findall(r"\]\(([^)#]+\.md)#?([^)]*)\)", page.read_text())
        if not (page.parent / target).is_file()
        or (anchor and anchor not in anchors_of(page.parent / target))
    ]
    assert dead == []


def test_the_search_from_disk_copies_messages_in_both_directions() -> None:
    script = (DOCS / "assets" / "iframe-worker.js").read_text()
    entries = re.findall(r"postMessage(?: = message =>|\(message\)) \{\n(.*)\n", script)
    assert [line.strip() for line in entries] == ["const data = structuredClone(message)"] * 2


def test_the_guide_on_errors_has_every_error_and_code() -> None:
    text = (DOCS / "guides" / "errors.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "src" / "talu").glob("**/*.py"))
    constants = set(re.findall(r"^([A-Z_]+)\b.* = ", source, re.MULTILINE))
    codes = set(CODES.findall(source)) - constants
    assert {code for code in codes if f"`{code}`" not in text} == set()
    kinds = {getattr(exceptions, name) for name in exceptions.__all__} - {exceptions.TaluError}
    assert {kind for kind in kinds if kind.default_code not in text} == set()

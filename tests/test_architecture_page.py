"""ARCHITECTURE.md has one line for each source file, and no line for a removed file."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "ARCHITECTURE.md"
LISTED = re.compile(r"^- `([^`]+)`: \S", re.MULTILINE)


def source_files() -> set[str]:
    found = [*ROOT.glob("native/**/*.*"), *ROOT.glob("src/talu/**/*.py")]
    names = {path.relative_to(ROOT).as_posix() for path in found if path.is_file()}
    return {name for name in names if not name.endswith("/__init__.py")}


def test_every_source_file_has_a_line() -> None:
    assert source_files() - set(LISTED.findall(PAGE.read_text())) == set()


def test_every_line_names_a_file_that_exists() -> None:
    assert {
        name for name in LISTED.findall(PAGE.read_text()) if not (ROOT / name).is_file()
    } == set()


def test_no_file_has_two_lines() -> None:
    names = LISTED.findall(PAGE.read_text())
    assert len(names) == len(set(names))

"""Texts of the corpus that are data: one record to a line, its fields between bars."""

from __future__ import annotations

from pathlib import Path


def records(name: str) -> tuple[tuple[str, ...], ...]:
    """Return the records of one table."""
    lines = Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split("|")) for line in lines)


_LISTS = dict(records("words"))


def listed(name: str) -> tuple[str, ...]:
    """Return one list of words; commas part them where one of them has a space."""
    text = _LISTS[name]
    return tuple(text.split("," if "," in text else None))


def pairs(name: str) -> tuple[tuple[str, str], ...]:
    """Return one list of pairs."""
    split = (word.split(":") for word in listed(name))
    return tuple((left, right) for left, right in split)

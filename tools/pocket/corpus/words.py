"""Words that several subjects draw from."""

from __future__ import annotations

from corpus.tables import listed

NAMES = listed("names")
ANIMALS = listed("animals")
FRUITS = listed("fruits")
THINGS = listed("things")
COLOURS = listed("colours")
FOODS = listed("foods")
JOBS = listed("jobs")
SMALL = listed("small numbers")


def article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def plural(noun: str) -> str:
    """Return the plural of one of the nouns above."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ch", "sh", "s", "x")) else "s")

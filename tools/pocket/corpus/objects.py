"""Requests for JSON: an object from given values, from a sentence, or changed afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from corpus.conversation import Conversation, Turn
from corpus.facts import COUNTRIES
from corpus.personas import ASSISTANTS
from corpus.words import COLOURS, FOODS, FRUITS, JOBS, NAMES, THINGS

Object = dict[str, object]
CITIES = tuple(row[1] for row in COUNTRIES)
TITLES = (
    "The Sea",
    "The Last Train",
    "Winter Light",
    "The Fox",
    "A Long Road",
    "Blue Stars",
    "The Old House",
    "Night Song",
)
START = (
    "Give me a JSON object with {f}",
    "Give me a JSON object with {f}",
    "Write a JSON object with {f}",
    "Return a JSON object with {f}",
    "Make a JSON object with {f}",
    "Create a JSON object with {f}",
    "JSON with {f}",
    "As JSON: {f}",
    "Return JSON with {f}",
    "Write JSON with {f}",
    "Output a JSON object with {f}",
    "Turn this into JSON: {f}",
    "Give me JSON with {f}",
    "Produce a JSON object with {f}",
    "Reply with a JSON object with {f}",
)


def _person(rng: Random) -> Object:
    out: Object = {"name": rng.choice(NAMES), "age": rng.randint(1, 99)}
    if rng.random() < 0.35:
        out["city"] = rng.choice(CITIES)
    if rng.random() < 0.25:
        out["job"] = rng.choice(JOBS)
    return out


def _city(rng: Random) -> Object:
    row = rng.choice(COUNTRIES)
    out: Object = {"city": row[1], "country": row[0]}
    if rng.random() < 0.4:
        out["population"] = rng.randint(1, 99) * 10 ** rng.randint(3, 5)
    return out


def _product(rng: Random) -> Object:
    name = rng.choice(THINGS + FRUITS + FOODS)
    key = rng.choice(("name", "product"))
    out: Object = {
        key: name,
        "price": rng.choice((rng.randint(1, 99), rng.randint(100, 9999) / 100)),
    }
    if rng.random() < 0.4:
        out["in_stock"] = rng.random() < 0.6
    if rng.random() < 0.3:
        out["colour"] = rng.choice(COLOURS)
    return out


def _book(rng: Random) -> Object:
    out: Object = {
        "title": rng.choice(TITLES),
        "author": f"{rng.choice(NAMES)} {rng.choice(NAMES)}",
    }
    if rng.random() < 0.5:
        out["year"] = rng.randint(1900, 2025)
    return out


def _loose(rng: Random) -> Object:
    keys = rng.sample(
        (
            "id",
            "count",
            "x",
            "y",
            "score",
            "width",
            "height",
            "color",
            "active",
            "food",
            "animal",
            "a",
            "b",
        ),
        2,
    )
    out: Object = {}
    for key in keys:
        if key == "active":
            out[key] = rng.random() < 0.5
        elif key in ("color", "food"):
            out[key] = rng.choice(COLOURS if key == "color" else FOODS)
        else:
            out[key] = rng.choice(FRUITS) if key == "animal" else rng.randint(0, 100)
    return out


MAKERS: tuple[tuple[str, Callable[[Random], Object]], ...] = (
    ("person", _person),
    ("person", _person),
    ("city", _city),
    ("product", _product),
    ("book", _book),
    ("object", _loose),
)


def _shown(value: object, quoted: bool) -> str:
    if isinstance(value, str):
        return f'"{value}"' if quoted else value
    return json.dumps(value)


def listed(rng: Random, fields: Object) -> str:
    """Return the fields as a request names them."""
    quoted = rng.random() < 0.12
    link = rng.choice((" ", " ", " ", ": ", " = ", " set to "))
    parts = [f"{key}{link}{_shown(value, quoted)}" for key, value in fields.items()]
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def _from_fields(rng: Random) -> tuple[str, Object]:
    kind, make = rng.choice(MAKERS)
    fields = make(rng)
    asked = rng.choice(START)
    if kind != "object" and rng.random() < 0.3:
        asked = asked.replace("a JSON object with", f"a JSON object for a {kind} with")
    return asked.format(f=listed(rng, fields)) + ".", fields


def _from_sentence(rng: Random) -> tuple[str, Object]:
    name, age, job, city = (
        rng.choice(NAMES),
        rng.randint(1, 99),
        rng.choice(JOBS),
        rng.choice(CITIES),
    )
    sentence, fields = rng.choice(
        (
            (f"{name} is {age} years old.", {"name": name, "age": age}),
            (f"{name} is {age} and lives in {city}.", {"name": name, "age": age, "city": city}),
            (f"{name} lives in {city}.", {"name": name, "city": city}),
            (f"{name} works in {city} as a {job}.", {"name": name, "city": city, "job": job}),
        )
    )
    wanted = (
        " and ".join(fields)
        if len(fields) == 2
        else ", ".join(list(fields)[:-1]) + " and " + list(fields)[-1]
    )
    asked = rng.choice(
        (
            f"Extract {wanted} as JSON: {sentence}",
            f"Extract the {wanted} as JSON: {sentence}",
            f"As JSON: {sentence}",
            f"Extract the {wanted}: {sentence}",
            f"Turn this into JSON: {sentence}",
        )
    )
    return asked, fields


def _free(rng: Random) -> tuple[str, Object]:
    kind, make = rng.choice(MAKERS[:-1])
    asked = rng.choice(
        (
            "Give me a JSON object for a {k}.",
            "Describe a {k} as JSON.",
            "Give me an example {k} as JSON.",
            "Make up a {k} and return JSON.",
            "Write a JSON object that describes a {k}.",
        )
    )
    return asked.format(k=kind), make(rng)


def _changed(rng: Random, fields: Object) -> tuple[str, Object]:
    new: Object = {}
    if "age" in fields and rng.random() < 0.6:
        new = {"age": rng.randint(1, 99)}
    else:
        new = (
            {rng.choice(("city", "town")): rng.choice(CITIES)}
            if rng.random() < 0.5
            else {"color": rng.choice(COLOURS)}
        )
    (key, value), *_ = new.items()
    if key in fields:
        return rng.choice(
            (f"Change the {key} to {value}.", f"Set {key} to {value}.", f"Now with {key} {value}.")
        ), fields | new
    return rng.choice(
        (f"Add {key} {value}.", f"Add a {key}: {value}.", f"Also add {key} {value}.")
    ), fields | new


def sample(rng: Random) -> Conversation:
    """Return a request for JSON, sometimes followed by a change."""
    roll = rng.random()
    free = roll >= 0.9
    asked, fields = _from_fields(rng) if roll < 0.7 else _free(rng) if free else _from_sentence(rng)
    text = json.dumps(fields, ensure_ascii=False)
    turns = [Turn(asked, text, "" if free else text, fresh=not free)]
    if rng.random() < 0.15:
        asked, fields = _changed(rng, fields)
        text = json.dumps(fields, ensure_ascii=False)
        turns.append(Turn(asked, text, text, fresh=False))
    system = ""
    if rng.random() < 0.2:
        system = rng.choice(
            (*ASSISTANTS, "Answer in JSON.", "Return only JSON.", "You answer with JSON only.")
        )
    return Conversation("json", tuple(turns), system)

"""A few hundred facts: countries, animals, days, planets, opposites, small translations."""

from __future__ import annotations

from random import Random

from corpus.conversation import Conversation, Turn
from corpus.personas import any_voice
from corpus.tables import listed, pairs, records

# name, capital, continent, language
COUNTRIES = records("countries")
CAPITAL = (
    "What is the capital of {c}?",
    "What is the capital of {c}?",
    "What's the capital of {c}?",
    "Capital of {c}?",
    "Which city is the capital of {c}?",
    "Tell me the capital of {c}.",
    "Name the capital of {c}.",
    "Can you tell me the capital of {c}?",
    "Do you know the capital of {c}?",
    "The capital of {c} is?",
)
PLANETS = listed("planets")
DAYS = listed("days")
MONTHS = listed("months")
ORDINALS = listed("ordinals")
SOUNDS = dict(pairs("sounds"))
YOUNG = dict(pairs("young animals"))
LEGS = {
    "dog": 4,
    "cat": 4,
    "horse": 4,
    "cow": 4,
    "spider": 8,
    "ant": 6,
    "bee": 6,
    "bird": 2,
    "snake": 0,
    "fish": 0,
    "human": 2,
    "chicken": 2,
    "elephant": 4,
}
COLOUR_OF = {
    "sky": "blue",
    "grass": "green",
    "snow": "white",
    "sun": "yellow",
    "blood": "red",
    "coal": "black",
    "banana": "yellow",
    "carrot": "orange",
    "tomato": "red",
    "lemon": "yellow",
    "sea": "blue",
    "milk": "white",
    "leaf": "green",
    "chocolate": "brown",
    "strawberry": "red",
    "elephant": "grey",
    "plum": "purple",
}
MASS = {"snow", "blood", "coal", "milk", "grass", "chocolate"}
OPPOSITES = pairs("opposites")
WORDS = records("translations")
LANGUAGES = ("French", "Spanish", "German", "Italian")
# question, answer, key word
OTHERS = records("facts")


def capital(country: tuple[str, ...]) -> tuple[str, str]:
    """Return the sentence that names a capital, and the capital."""
    return f"The capital of {country[0]} is {country[1]}", country[1]


def about_country(rng: Random, country: tuple[str, ...]) -> tuple[str, str, str]:
    """Return question, sentence and key word about a country."""
    name, city, continent, language = country
    kind = rng.random()
    shown = name[0].upper() + name[1:]
    if kind < 0.6:
        return (rng.choice(CAPITAL).format(c=name), *capital(country))
    if kind < 0.75:
        asked = rng.choice(
            (
                f"On which continent is {name}?",
                f"Where is {name}?",
                f"Which continent is {name} in?",
            )
        )
        return asked, f"{shown} is in {continent}", continent
    if kind < 0.9:
        asked = rng.choice(
            (f"What language do they speak in {name}?", f"Which language is spoken in {name}?")
        )
        return asked, f"They speak {language} in {name}", language
    asked = rng.choice(
        (
            f"Which country has the capital {city}?",
            f"{city} is the capital of which country?",
            f"In which country is {city}?",
        )
    )
    return asked, f"{city} is the capital of {name}", name


def _order(rng: Random) -> tuple[str, str, str]:
    row, noun = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    at = rng.randrange(len(row))
    after, before = row[(at + 1) % len(row)], row[at - 1]
    which = rng.randrange(3)
    if which == 0:
        asked = rng.choice(
            (f"Which {noun} comes after {row[at]}?", f"What {noun} comes after {row[at]}?")
        )
        return asked, f"{after} comes after {row[at]}", after
    if which == 1:
        return f"Which {noun} comes before {row[at]}?", f"{before} comes before {row[at]}", before
    row, noun = rng.choice(
        ((DAYS, "day of the week"), (MONTHS, "month of the year"), (PLANETS, "planet from the sun"))
    )
    at = rng.randrange(len(row))
    asked = rng.choice(
        (f"What is the {ORDINALS[at]} {noun}?", f"Which is the {ORDINALS[at]} {noun}?")
    )
    return asked, f"The {ORDINALS[at]} {noun} is {row[at]}", row[at]


def _animal(rng: Random) -> tuple[str, str, str]:
    kind = rng.randrange(3)
    if kind == 0:
        animal, sound = rng.choice(tuple(SOUNDS.items()))
        asked = rng.choice((f"What sound does a {animal} make?", f"What does a {animal} do?"))
        return asked, f"A {animal} {sound}", sound
    if kind == 1:
        animal, young = rng.choice(tuple(YOUNG.items()))
        asked = rng.choice(
            (f"What is a baby {animal} called?", f"What do you call a young {animal}?")
        )
        return asked, f"A young {animal} is called a {young}", young
    animal, legs = rng.choice(tuple(LEGS.items()))
    one = "An" if animal[0] in "aeiou" else "A"
    return (
        f"How many legs does {one.lower()} {animal} have?",
        f"{one} {animal} has {legs} legs",
        str(legs),
    )


def _word(rng: Random) -> tuple[str, str, str]:
    kind = rng.randrange(3)
    if kind == 0:
        thing, colour = rng.choice(tuple(COLOUR_OF.items()))
        the = "" if thing in MASS else ("the " if thing in ("sky", "sun", "sea") else "a ")
        the = "an " if thing == "elephant" else the
        asked = rng.choice((f"What colour is {the}{thing}?", f"What color is {the}{thing}?"))
        start = f"{the}{thing}"
        return asked, f"{start[0].upper()}{start[1:]} is {colour}", colour
    if kind == 1:
        pair = rng.choice(OPPOSITES)
        a, b = pair if rng.random() < 0.5 else pair[::-1]
        asked = rng.choice(
            (f"What is the opposite of {a}?", f"Opposite of {a}?", f"Give me the opposite of {a}.")
        )
        return asked, f"The opposite of {a} is {b}", b
    word, *row = rng.choice(WORDS)
    at = rng.randrange(4)
    foreign = row[at]
    asked = rng.choice(
        (
            f"What is {word} in {LANGUAGES[at]}?",
            f"Translate {word} to {LANGUAGES[at]}.",
            f'Translate "{word}" to {LANGUAGES[at]}.',
            f"How do you say {word} in {LANGUAGES[at]}?",
        )
    )
    return asked, f'"{word}" in {LANGUAGES[at]} is "{foreign}"', foreign


def fact(rng: Random) -> tuple[str, str, str]:
    """Return a question, its answer as a sentence without full stop, and the key word."""
    roll = rng.random()
    if roll < 0.5:
        return about_country(rng, rng.choice(COUNTRIES))
    if roll < 0.65:
        question, sentence, key = rng.choice(OTHERS)
        return question, sentence, key
    return rng.choice((_order, _animal, _word, _word))(rng)


def sample(rng: Random) -> Conversation:
    """Return one question of fact."""
    system, voice = any_voice(rng, 0.15)
    question, sentence, key = fact(rng)
    fresh = all(question != row[0] for row in OTHERS)
    return Conversation("facts", (Turn(question, voice.say(rng, sentence), key, fresh),), system)

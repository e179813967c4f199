"""Short stories: a hero, a place, a trouble, a helper and an end that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from corpus.conversation import Conversation, Turn
from corpus.personas import ASSISTANTS
from corpus.tables import listed, records
from corpus.words import ANIMALS, JOBS, NAMES, article

TRAITS = listed("traits")
FEMALE = frozenset(listed("female names"))
PLACES = (
    "in a green forest",
    "near a quiet lake",
    "in a small village",
    "on a high hill",
    "by the sea",
    "on a sunny farm",
    "in an old castle",
    "in a big city",
    "at the edge of a meadow",
    "on a small island",
)
HEROES = (
    tuple(a for a in ANIMALS if a not in ("bee", "ant"))
    + JOBS
    + (
        "king",
        "queen",
        "prince",
        "princess",
        "boy",
        "girl",
        "pirate",
        "wizard",
        "knight",
        "witch",
        "giant",
        "child",
        "tree",
        "cloud",
        "star",
        "computer",
    )
)
TOPICS = {
    "friendship": "dog",
    "the sea": "sailor",
    "courage": "knight",
    "a forest": "fox",
    "space": "robot",
    "winter": "bear",
    "animals": "rabbit",
    "magic": "wizard",
    "music": "musician",
    "a castle": "princess",
    "love": "princess",
}
HELPERS = listed("helpers")
# Few names, so that the model learns of each whether it is a he or a she.
STORY_NAMES = listed("story names")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A trouble, what the hero tries, how the helper helps, and how it ends."""

    start: str
    attempt: str
    help: str
    end: str
    moral: str


TROUBLES = tuple(Trouble(*record) for record in records("troubles"))
ASK_ABOUT = (
    "Tell me a story about {t}.",
    "Tell me a story about {t}.",
    "Tell me a short story about {t}.",
    "Write a story about {t}.",
    "Write a short story about {t}.",
    "Can you tell me a story about {t}?",
    "I want a story about {t}.",
    "A story about {t}, please.",
    "Tell a story about {t}.",
    "Make up a story about {t}.",
)
ASK_ANY = (
    "Tell me a story.",
    "Tell me a short story.",
    "Tell me a story",
    "Write a short story.",
    "Tell me a bedtime story.",
    "Do you know a story?",
    "A story, please.",
    "Write a story.",
)


def pronouns(name: str) -> dict[str, str]:
    """Return the pronouns that go with a name."""
    if name in FEMALE:
        return {"he": "she", "He": "She", "his": "her", "him": "her"}
    return {"he": "he", "He": "He", "his": "his", "him": "him"}


@dataclass(frozen=True, slots=True)
class Tale:
    """A story and what can be asked about it."""

    text: str
    name: str
    kind: str
    helper: str


def tell(rng: Random, hero: str, name: str = "", trait: str = "") -> Tale:
    """Return a story about a kind of hero."""
    female = {"girl", "queen", "princess", "witch", "hen"}
    male = {"boy", "king", "prince", "wizard", "knight"}
    pool = [
        n
        for n in STORY_NAMES
        if not (hero in female and n not in FEMALE) and not (hero in male and n in FEMALE)
    ]
    name = name or rng.choice(pool)
    helper = rng.choice([h for h in HELPERS if h != hero])
    trouble = rng.choice(TROUBLES)
    words = {"n": name, "h": helper, **pronouns(name)}
    trait = trait or rng.choice(TRAITS)
    opening = rng.choice(
        (
            "Once upon a time there was {x} named {n} who lived {p}.",
            "Once there was {x} called {n}, who lived {p}.",
            "Long ago, {x} named {n} lived {p}.",
        )
    ).format(x=article(f"{trait} {hero}"), n=name, p=rng.choice(PLACES))
    sentences = [
        opening,
        f"One {rng.choice(('day', 'morning', 'evening'))} " + trouble.start.format(**words) + ".",
        trouble.attempt.format(**words) + ".",
        f"Then {name} met {article(helper)}.",
        trouble.help.format(**words) + ".",
        trouble.end.format(**words) + ".",
        rng.choice(
            (
                f"From that day on, {name} and the {helper} were friends.",
                f"{name} thanked the {helper}, and they stayed friends for ever.",
            )
        ),
        f"And {name} learned that {trouble.moral}.",
    ]
    if rng.random() < 0.3:
        sentences.pop()
    return Tale(" ".join(sentences), name, hero, helper)


def questions(rng: Random, tale: Tale) -> Turn:
    """Return a question about a story that was just told."""
    he = pronouns(tale.name)
    kind = rng.randrange(4)
    if kind == 0:
        asked = rng.choice(
            (
                f"What was {he['his']} name?",
                "What is the name of the hero?",
                "Who is the hero?",
                "Who was the story about?",
            )
        )
        return Turn(asked, f"The story is about {tale.name}.", tale.name, fresh=False)
    if kind == 1:
        return Turn(
            f"Who helped {he['him']}?",
            f"The {tale.helper} helped {tale.name}.",
            tale.helper,
            fresh=False,
        )
    if kind == 2:
        return Turn(
            f"What was {tale.name}?",
            f"{tale.name} was {article(tale.kind)}.",
            tale.kind,
            fresh=False,
        )
    other = tell(rng, rng.choice(HEROES))
    return Turn(
        rng.choice(("Another one.", "Tell me another one.", "One more story, please.")),
        other.text,
        fresh=False,
    )


def sample(rng: Random) -> Conversation:
    """Return a request for a story, sometimes with a question about it."""
    hero, name, trait, roll = rng.choice(HEROES), "", "", rng.random()
    if roll < 0.16:
        first = Turn(rng.choice(ASK_ANY), "", fresh=False)
    elif roll < 0.24:
        topic, hero = rng.choice(tuple(TOPICS.items()))
        first = Turn(rng.choice(ASK_ABOUT).format(t=topic), "")
    else:
        asked = rng.choice(ASK_ABOUT)
        trait = rng.choice(TRAITS) if rng.random() < 0.25 else ""
        topic = article(f"{trait} {hero}".strip())
        if rng.random() < 0.15:
            name = rng.choice(NAMES)
            topic += f" named {name}"
        first = Turn(asked.format(t=topic), "")
    tale = tell(rng, hero, name, trait)
    turns = [Turn(first.user, tale.text, tale.name, first.fresh)]
    if rng.random() < 0.2:
        turns.append(questions(rng, tale))
    return Conversation(
        "stories", tuple(turns), rng.choice(ASSISTANTS) if rng.random() < 0.15 else ""
    )

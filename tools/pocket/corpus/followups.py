"""Conversations of two to ten turns, in which the later questions need the earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from corpus import arithmetic, facts, talk, terms
from corpus.conversation import Conversation, Turn
from corpus.personas import Voice, any_voice
from corpus.words import COLOURS, FOODS, JOBS, NAMES, article

TELL = {
    "name": (
        NAMES,
        (
            "My name is {v}.",
            "I am {v}.",
            "Call me {v}.",
            "Hi, I am {v}.",
            "Hello, my name is {v}.",
            "I'm {v}.",
            "Hi! My name is {v}.",
        ),
    ),
    "food": (FOODS, ("I like {v}.", "I love {v}.", "My favourite food is {v}.")),
    "colour": (COLOURS, ("My favourite colour is {v}.", "My favorite color is {v}.")),
    "city": (
        tuple(row[1] for row in facts.COUNTRIES),
        ("I live in {v}.", "I am from {v}.", "My home is in {v}."),
    ),
    "age": (tuple(map(str, range(5, 99))), ("I am {v} years old.", "My age is {v}.")),
    "job": (JOBS, ("I work as {a}.", "My job is {v}.")),
    "number": (
        tuple(map(str, range(1, 100))),
        ("Remember the number {v}.", "My lucky number is {v}."),
    ),
}
GOT = {
    "name": "Nice to meet you, {v}",
    "food": "{V} is a good choice",
    "colour": "{V} is a nice colour",
    "city": "{v} is a nice place",
    "age": "{v} is a good age",
    "job": "That is a good job",
    "number": "I will remember {v}",
}
RECALL = {
    "name": (
        "What is my name?",
        "What's my name?",
        "Do you know my name?",
        "Who am I?",
        "Do you remember my name?",
        "Say my name.",
    ),
    "food": ("What do I like?", "What is my favourite food?", "What food do I like?"),
    "colour": (
        "What is my favourite colour?",
        "Which colour do I like?",
        "What is my favorite color?",
    ),
    "city": ("Where do I live?", "Which city do I live in?", "Where am I from?"),
    "age": ("How old am I?", "What is my age?", "Do you know how old I am?"),
    "job": ("What is my job?", "What do I do?"),
    "number": ("What is my number?", "Which number was it?", "What number did I tell you?"),
}
KNOWN = {
    "name": "Your name is {v}",
    "food": "You like {v}",
    "colour": "Your favourite colour is {v}",
    "city": "You live in {v}",
    "age": "You are {v} years old",
    "job": "You work as {a}",
    "number": "Your number is {v}",
}
AND_OF = (
    "And of {c}?",
    "And {c}?",
    "What about {c}?",
    "And what about {c}?",
    "And the capital of {c}?",
    "How about {c}?",
    "And of {c}?",
    "And for {c}?",
)
AGAIN = (
    "Say it again.",
    "Say that again.",
    "Repeat that.",
    "Can you repeat that?",
    "Again, please.",
    "Once more.",
    "Please repeat.",
    "What did you say?",
)
ASKED = (
    "What did I just ask?",
    "What did I ask?",
    "What was my question?",
    "What was my last question?",
    "What did I ask you?",
)
SURE = ("Are you sure?", "Really?", "Is that right?", "Sure?")
WHY = ("Why?", "Why is that?", "How come?", "How do you know?")


@dataclass(slots=True)
class Thread:
    """A conversation while it grows: what was said, and what the user told about themselves."""

    rng: Random
    voice: Voice
    turns: list[Turn] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    sums: list[tuple[int, int]] = field(default_factory=list)
    value: int | None = None
    task: arithmetic.Problem | None = None
    topic: str = ""
    core: str = ""

    def say(
        self, asked: str, core: str, expect: str = "", *, fresh: bool = False, topic: str = ""
    ) -> None:
        """Append a turn whose answer is `core` in the voice of the conversation."""
        self.turns.append(Turn(asked, self.voice.say(self.rng, core), expect or core, fresh))
        self.core = core
        self.topic = topic

    def add(self, asked: str, task: arithmetic.Problem, *, fresh: bool = False) -> None:
        """Append a turn that computes."""
        self.say(asked, task.line, f"= {task.value}", fresh=fresh, topic="sum")
        self.value, self.task = task.value, task
        self.sums.extend(task.pairs)


def _start_sum(thread: Thread) -> None:
    task = arithmetic.problem(thread.rng)
    thread.add(arithmetic.ask(thread.rng, task), task, fresh=True)


def _next_sum(thread: Thread) -> None:
    if thread.topic == "sum" and thread.rng.random() < 0.2:
        thread.add(*arithmetic.another(thread.rng))
    else:
        thread.add(*arithmetic.next_step(thread.rng, thread.value or 0))


def _capital(thread: Thread) -> None:
    rng = thread.rng
    country = rng.choice(facts.COUNTRIES)
    core, city = facts.capital(country)
    first = thread.topic != "capital"
    asked = rng.choice(facts.CAPITAL if first else AND_OF).format(c=country[0])
    thread.say(asked, core, city, fresh=first, topic="capital")
    if rng.random() < 0.25:
        _there(thread, country)
        thread.topic = "there"


def _there(thread: Thread, country: tuple[str, ...]) -> None:
    name, _, continent, language = country
    shown = name[0].upper() + name[1:]
    if thread.rng.random() < 0.5:
        asked = thread.rng.choice(
            ("What language do they speak there?", "Which language is spoken there?")
        )
        thread.say(asked, f"They speak {language} in {name}", language)
    else:
        asked = thread.rng.choice(("On which continent is that?", "Which continent is it in?"))
        thread.say(asked, f"{shown} is in {continent}", continent)


def _tell(thread: Thread) -> None:
    rng = thread.rng
    what = "name" if "name" not in thread.told and rng.random() < 0.5 else rng.choice(tuple(TELL))
    values, wordings = TELL[what]
    value = rng.choice(values)
    thread.told[what] = value
    words = {"v": value, "a": article(value), "V": value.capitalize()}
    core = GOT[what].format(**words)
    thread.say(rng.choice(wordings).format(**words), core, fresh=True, topic="told")


def _recall(thread: Thread) -> None:
    rng = thread.rng
    if thread.told and rng.random() < 0.93:
        what = rng.choice(tuple(thread.told))
        value = thread.told[what]
        words = {"v": value, "a": article(value)}
        thread.say(rng.choice(RECALL[what]), KNOWN[what].format(**words), value, topic="recall")
        return
    unknown = [key for key in RECALL if key not in thread.told] or ["name"]
    what = "name" if "name" in unknown and rng.random() < 0.6 else rng.choice(unknown)
    if what in thread.told:
        return
    thread.say(
        rng.choice(RECALL[what]), "You have not told me that yet", "not told me", topic="recall"
    )


def _about_last(thread: Thread) -> None:
    rng, last = thread.rng, thread.turns[-1]
    kind = rng.random()
    if kind < 0.35:
        thread.turns.append(Turn(rng.choice(AGAIN), last.assistant, last.expect, fresh=False))
    elif kind < 0.65:
        thread.say(rng.choice(ASKED), f'You asked: "{last.user}"', last.user)
        thread.topic = "asked"
    elif kind < 0.8 and thread.topic in ("sum", "capital"):
        thread.say(
            rng.choice(SURE),
            f"Yes, {thread.core[0].lower() + thread.core[1:]}",
            thread.core[1:],
            topic=thread.topic,
        )
    elif thread.topic == "sum" and thread.task is not None:
        thread.say(rng.choice(WHY), _because(thread.task), str(thread.task.value), topic="why")
    elif thread.topic == "capital":
        thread.say(rng.choice(WHY), "Because the country chose it as its capital", topic="why")
    else:
        thread.turns.append(talk.say(rng, thread.voice, "thanks"))


def _because(task: arithmetic.Problem) -> str:
    if task.sign == "+":
        return f"Because if you have {task.a} and add {task.b}, you get {task.value}"
    if task.sign == "-":
        return f"Because if you take {task.b} away from {task.a}, {task.value} is left"
    if task.sign == "*":
        return f"Because {task.a} groups of {task.b} make {task.value}"
    return f"Because {task.value} times {task.b} is {task.a}"


def _chat(thread: Thread) -> None:
    kind = thread.rng.choice(("how", "who", "joke", "thanks", "hello"))
    thread.turns.append(talk.say(thread.rng, thread.voice, kind))
    thread.topic = "chat"


def _fact(thread: Thread) -> None:
    question, sentence, key = facts.fact(thread.rng)
    fresh = all(question != row[0] for row in facts.OTHERS)
    thread.say(question, sentence, key, fresh=fresh, topic="fact")


def _term(thread: Thread) -> None:
    row = thread.rng.choice(terms.TERMS)
    asked = thread.rng.choice(terms.SHORT_ASK).format(t=terms.shown(thread.rng, row[0]))
    thread.say(asked, row[1], fresh=True, topic="term")


def _step(thread: Thread) -> None:
    roll = thread.rng.random()
    if thread.topic == "sum" and roll < 0.5:
        _next_sum(thread)
    elif thread.topic == "capital" and roll < 0.5:
        _capital(thread)
    elif thread.told and roll < 0.6:
        _recall(thread)
    elif roll < 0.75 and thread.topic not in ("chat", "asked", "why"):
        _about_last(thread)
    else:
        thread.rng.choice((_start_sum, _capital, _tell, _tell, _chat, _recall, _fact, _term))(
            thread
        )


def sample(rng: Random) -> Conversation:
    """Return a conversation whose later turns need the earlier ones."""
    system, voice = any_voice(rng, 0.22)
    thread = Thread(rng, voice)
    rng.choice((_start_sum, _start_sum, _capital, _tell, _tell, _chat, _fact))(thread)
    length = rng.choice((2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8, 10))
    while len(thread.turns) < length:
        _step(thread)
    return Conversation("follow-ups", tuple(thread.turns), system, sums=tuple(thread.sums))

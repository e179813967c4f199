"""Sums: questions in many wordings, and chains that build on the last answer."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from corpus.conversation import Conversation, Turn
from corpus.personas import PLAIN, Voice, any_voice
from corpus.words import NAMES, SMALL, THINGS, plural

ADD = (
    "What is {a}+{b}?",
    "What is {a} + {b}?",
    "What is {a}+{b}?",
    "What's {a} + {b}?",
    "What's {a}+{b}?",
    "{a}+{b}",
    "{a} + {b}",
    "{a}+{b}=",
    "{a} + {b} = ?",
    "{a}+{b}?",
    "What is {a} plus {b}?",
    "What's {a} plus {b}?",
    "{a} plus {b}",
    "Add {a} and {b}.",
    "Add {a} to {b}.",
    "How much is {a} + {b}?",
    "How much is {a} plus {b}?",
    "Calculate {a} + {b}.",
    "Compute {a}+{b}.",
    "What is the sum of {a} and {b}?",
    "Sum {a} and {b}.",
    "Please add {a} and {b}.",
    "Can you add {a} and {b}?",
    "Tell me {a} plus {b}.",
    "{a} and {b} makes?",
    "What do you get if you add {a} and {b}?",
    "What does {a} + {b} equal?",
    "Solve {a} + {b}.",
    "What is {a} and {b} together?",
    "Give me the sum of {a} and {b}.",
)
SUBTRACT = (
    "What is {a}-{b}?",
    "What is {a} - {b}?",
    "What's {a} - {b}?",
    "{a}-{b}",
    "{a} - {b}",
    "What is {a} minus {b}?",
    "What's {a} minus {b}?",
    "{a} minus {b}",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "How much is {a} minus {b}?",
    "Calculate {a} - {b}.",
    "What is {a} take away {b}?",
    "Compute {a}-{b}.",
    "What is the difference between {a} and {b}?",
    "Please subtract {b} from {a}.",
)
MULTIPLY = (
    "What is {a}*{b}?",
    "What is {a} * {b}?",
    "What is {a} x {b}?",
    "{a}*{b}",
    "{a} * {b}",
    "What is {a} times {b}?",
    "What's {a} times {b}?",
    "{a} times {b}",
    "Multiply {a} by {b}.",
    "Multiply {a} and {b}.",
    "How much is {a} times {b}?",
    "Calculate {a} * {b}.",
    "What is the product of {a} and {b}?",
    "{a} multiplied by {b}",
)
DIVIDE = (
    "What is {a}/{b}?",
    "What is {a} / {b}?",
    "{a}/{b}",
    "What is {a} divided by {b}?",
    "Divide {a} by {b}.",
    "{a} divided by {b}",
    "How much is {a} divided by {b}?",
    "Calculate {a} / {b}.",
)
SMALL_NUMBERS = 0.8  # the share of problems with numbers up to 20
WORDINGS = {"+": ADD, "-": SUBTRACT, "*": MULTIPLY, "/": DIVIDE}


@dataclass(frozen=True, slots=True)
class Problem:
    """Two numbers and a sign."""

    a: int
    sign: str
    b: int

    @property
    def value(self) -> int:
        """The result."""
        if self.sign == "+":
            return self.a + self.b
        if self.sign == "-":
            return self.a - self.b
        return self.a * self.b if self.sign == "*" else self.a // self.b

    @property
    def line(self) -> str:
        """The equation that every answer shows."""
        return f"{self.a} {self.sign} {self.b} = {self.value}"

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The pair of numbers, if they are added."""
        return ((self.a, self.b),) if self.sign == "+" else ()


def addition(rng: Random) -> Problem:
    """Return an addition, mostly of numbers up to 20."""
    top = 20 if rng.random() < SMALL_NUMBERS else 99
    return Problem(rng.randint(0, top), "+", rng.randint(0, top))


def problem(rng: Random) -> Problem:
    """Return any problem, mostly an addition."""
    roll = rng.random()
    if roll < 0.52:
        return addition(rng)
    if roll < 0.76:
        top = 20 if rng.random() < SMALL_NUMBERS else 99
        a, b = rng.randint(0, top), rng.randint(0, top)
        return Problem(max(a, b), "-", min(a, b)) if rng.random() < 0.9 else Problem(a, "-", b)
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if roll < 0.94:
        return Problem(a, "*", b)
    return Problem(a * max(b, 1), "/", max(b, 1))


def ask(rng: Random, task: Problem) -> str:
    """Return a question for a problem."""
    text = rng.choice(WORDINGS[task.sign])
    if max(task.a, task.b) <= 12 and " plus " in text and rng.random() < 0.3:
        return text.format(a=SMALL[task.a], b=SMALL[task.b])
    return text.format(a=task.a, b=task.b)


def answer(rng: Random, voice: Voice, task: Problem) -> str:
    """Return the equation in a voice."""
    return voice.say(rng, task.line)


def drill(rng: Random) -> Conversation:
    """Return several problems in one question."""
    tasks = [problem(rng) for _ in range(rng.randint(2, 10))]
    gap = rng.choice(("", " "))
    asked = [f"{task.a}{gap}{task.sign}{gap}{task.b}" for task in tasks]
    start = rng.choice(("What is ", "Solve: ", "Solve ", "Compute ", "Calculate ", ""))
    question = start + ", ".join(asked[:-1]) + rng.choice((" and ", ", ")) + asked[-1]
    question += "?" if start == "What is " else ""
    said = ", ".join(task.line for task in tasks)
    pairs = tuple(pair for task in tasks for pair in task.pairs)
    return Conversation("sums in a row", (Turn(question, f"{said}.", said),), sums=pairs)


def story_problem(rng: Random) -> Turn:
    """Return a small problem told in words."""
    name, thing = rng.choice(NAMES), plural(rng.choice(THINGS))
    a, b = rng.randint(1, 20), rng.randint(1, 12)
    if rng.random() < 0.5:
        task, verb = (
            Problem(a, "+", b),
            rng.choice(("gets {b} more", "finds {b} more", "buys {b} more")),
        )
    else:
        task = Problem(max(a, b), "-", min(a, b))
        verb = rng.choice(("eats {b}", "loses {b}", "gives away {b}", "sells {b}"))
    did = verb.format(b=task.b)
    question = f"{name} has {task.a} {thing} and {did}. How many {thing} does {name} have?"
    return Turn(question, f"{task.line}. {name} has {task.value} {thing}.", f"has {task.value} ")


def compare(rng: Random) -> Turn:
    """Return a question about the size or kind of numbers."""
    a, b = rng.sample(range(0, 100), 2)
    kind = rng.randrange(7)
    if kind == 0:
        word = rng.choice(("larger", "bigger", "greater"))
        return Turn(
            f"Which is {word}, {a} or {b}?",
            f"{max(a, b)} is {word} than {min(a, b)}.",
            f"{max(a, b)} is",
        )
    if kind == 1:
        return Turn(
            f"Which is smaller, {a} or {b}?",
            f"{min(a, b)} is smaller than {max(a, b)}.",
            f"{min(a, b)} is",
        )
    if kind == 2:
        even = a % 2 == 0
        wanted = rng.choice(("even", "odd"))
        right = even == (wanted == "even")
        said = f"{'Yes' if right else 'No'}, {a} is {'even' if even else 'odd'}."
        return Turn(f"Is {a} {wanted}?", said, said)
    if kind == 3:
        return Turn(f"What comes after {a}?", f"{a + 1} comes after {a}.", f"{a + 1} ")
    low = rng.randint(1, 3)
    high = rng.randint(low + 2, 12)
    counted = ", ".join(map(str, range(low, high + 1)))
    if low == 1:
        return Turn(rng.choice((f"Count to {high}.", f"Count from 1 to {high}.")), counted, counted)
    return Turn(f"Count from {low} to {high}.", counted, counted)


def sample(rng: Random) -> Conversation:
    """Return one question about numbers."""
    roll = rng.random()
    if roll < 0.07:
        turn = story_problem(rng)
        return Conversation("word problems", (turn,), sums=_told(turn))
    if roll < 0.15:
        return Conversation("numbers", (compare(rng),))
    system, voice = any_voice(rng, 0.12)
    task = problem(rng)
    turn = Turn(ask(rng, task), answer(rng, voice, task), f"= {task.value}")
    if system == "" and voice is PLAIN and rng.random() < 0.05:
        turn = _thought(turn, task)
    skill = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division"}[task.sign]
    return Conversation(skill, (turn,), system, sums=task.pairs)


def _thought(turn: Turn, task: Problem) -> Turn:
    verb = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}[task.sign]
    thinking = f"<think>\nI have to {verb} {task.a} and {task.b}.\n</think>\n\n"
    return Turn(f"{turn.user} /think", thinking + turn.assistant, turn.expect)


def _told(turn: Turn) -> tuple[tuple[int, int], ...]:
    left, sign, right = turn.assistant.split(" = ", 1)[0].split(" ")
    return ((int(left), int(right)),) if sign == "+" else ()


def next_step(rng: Random, value: int) -> tuple[str, Problem]:
    """Return a question that only makes sense after an answer of `value`, and what it asks."""
    n = rng.randint(1, 12 if rng.random() < 0.8 else 20)
    add = (
        "And {n} more?",
        "Add {n} to that.",
        "Add {n}.",
        "Plus {n}?",
        "Now add {n}.",
        "And plus {n}?",
        "{n} more?",
        "What if I add {n}?",
        "Add {n} more.",
    )
    minus = (
        "Subtract {n}.",
        "Minus {n}?",
        "Take away {n}.",
        "Subtract {n} from that.",
        "Now subtract {n}.",
    )
    if value <= 50 and rng.random() < 0.15:
        return rng.choice(("Double it.", "Double that.", "Times 2?", "And doubled?")), Problem(
            value, "*", 2
        )
    if 0 < value <= 12 and rng.random() < 0.12:
        n = rng.randint(2, 5)
        return rng.choice((f"Times {n}?", f"Multiply that by {n}.", f"Now times {n}.")), Problem(
            value, "*", n
        )
    if value >= 3 and rng.random() < 0.3:
        n = min(n, value)
        return rng.choice(minus).format(n=n), Problem(value, "-", n)
    return rng.choice(add).format(n=n), Problem(value, "+", n)


def another(rng: Random) -> tuple[str, Problem]:
    """Return a short question that keeps the kind of the last one but not its numbers."""
    task = Problem(rng.randint(0, 20), "+", rng.randint(0, 20))
    wording = rng.choice(
        ("And {a} + {b}?", "What about {a} + {b}?", "And {a} plus {b}?", "And what is {a}+{b}?")
    )
    return wording.format(a=task.a, b=task.b), task

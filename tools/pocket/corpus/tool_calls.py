"""Tool calls: which tool a question needs, its arguments, and the answer from its result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from corpus import arithmetic, facts, talk
from corpus.conversation import Conversation, Turn
from corpus.facts import COUNTRIES
from corpus.personas import ASSISTANTS, PLAIN
from corpus.words import FOODS, JOBS, NAMES

CITIES = (
    *(row[1] for row in COUNTRIES),
    "New York",
    "Boston",
    "Chicago",
    "Sydney",
    "Munich",
    "Milan",
    "Geneva",
    "Lyon",
)
SKIES = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear")
TOPICS = (
    "cats",
    "the moon",
    "python",
    "trains",
    "old maps",
    "bees",
    "volcanoes",
    "jazz",
    "whales",
    "coffee",
    "chess",
    "castles",
    "quantization",
    "recursion",
    "language models",
    *FOODS,
    *JOBS,
)


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a tool: what is asked, its arguments, what it returns, what is said."""

    name: str
    about: str
    types: Mapping[str, str]
    asked: str
    arguments: Mapping[str, object]
    result: str
    said: str
    expect: str
    sums: tuple[tuple[int, int], ...] = ()


def schema(rng: Random, use: Use) -> Mapping[str, object]:
    """Return the tool as an OpenAI-style definition."""
    described = rng.random() < 0.15
    fields = {
        name: {"type": kind, "description": f"The {name}."} if described else {"type": kind}
        for name, kind in use.types.items()
    }
    parameters: dict[str, object] = {"type": "object", "properties": fields}
    if rng.random() < 0.85:
        parameters["required"] = list(use.types)
    function = {"name": use.name, "description": use.about, "parameters": parameters}
    return {"type": "function", "function": function}


def _weather(rng: Random) -> Use:
    city, sky, degrees = rng.choice(CITIES), rng.choice(SKIES), rng.randint(-9, 38)
    key = rng.choice(("city", "city", "city", "location", "place"))
    asked = rng.choice(
        (
            "What is the weather in {c}?",
            "What's the weather in {c}?",
            "How is the weather in {c}?",
            "Weather in {c}?",
            "What's the weather like in {c}?",
            "Is it raining in {c}?",
            "How warm is it in {c}?",
            "Do I need a coat in {c}?",
            "What is the temperature in {c}?",
            "Tell me the weather in {c}.",
            "What is the weather like in {c} today?",
        )
    ).format(c=city)
    result, said, expect = rng.choice(
        (
            (
                json.dumps({key: city, "temperature": degrees, "condition": sky}),
                f"It is {degrees} degrees and {sky} in {city}.",
                str(degrees),
            ),
            (
                json.dumps({"temperature": degrees, "condition": sky}),
                f"It is {degrees} degrees and {sky} in {city}.",
                str(degrees),
            ),
            (
                f"{degrees} degrees and {sky}",
                f"It is {degrees} degrees and {sky} in {city}.",
                str(degrees),
            ),
            (
                f"{sky}, {degrees} degrees",
                f"It is {degrees} degrees and {sky} in {city}.",
                str(degrees),
            ),
            (sky, f"It is {sky} in {city}.", sky),
            (f"It is {sky} in {city}.", f"It is {sky} in {city}.", sky),
            (json.dumps({"temp": degrees}), f"It is {degrees} degrees in {city}.", str(degrees)),
        )
    )
    name = rng.choice(("get_weather", "get_weather", "get_weather", "weather", "current_weather"))
    about = rng.choice(
        (
            f"Get the weather in a {key}.",
            f"Return the weather of a {key}.",
            "Current weather.",
            "Get the weather.",
        )
    )
    return Use(name, about, {key: "string"}, asked, {key: city}, result, said, expect)


def _time(rng: Random) -> Use:
    city = rng.choice(CITIES)
    key = rng.choice(("city", "city", "city", "place", "location"))
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    asked = rng.choice(
        (
            "What time is it in {c}?",
            "What is the time in {c}?",
            "Time in {c}?",
            "How late is it in {c}?",
            "Tell me the time in {c}.",
            "What's the time in {c}?",
        )
    ).format(c=city)
    result = rng.choice(
        (clock, json.dumps({"time": clock}), json.dumps({key: city, "time": clock}))
    )
    name = rng.choice(("get_time", "get_time", "current_time"))
    about = rng.choice(
        (f"Get the time in a {key}.", "Current time.", f"Return the local time of a {key}.")
    )
    return Use(
        name, about, {key: "string"}, asked, {key: city}, result, f"It is {clock} in {city}.", clock
    )


def _sum(rng: Random) -> Use:
    sign, name, about = rng.choice(
        (
            ("+", "add", "Add two numbers."),
            ("+", "add", "Add two numbers."),
            ("*", "multiply", "Multiply two numbers."),
            ("-", "subtract", "Subtract two numbers."),
        )
    )
    top = rng.choice((20, 99, 999))
    task = arithmetic.Problem(rng.randint(0, top), sign, rng.randint(0, top))
    asked = arithmetic.ask(rng, task)
    x, y = rng.choice((("a", "b"), ("a", "b"), ("x", "y"), ("left", "right")))
    first, second = (task.a, task.b)
    kind = rng.choice(("integer", "integer", "number"))
    result = rng.choice((str(task.value), str(task.value), json.dumps({"result": task.value})))
    said = f"{task.line}."
    return Use(
        name,
        about,
        {x: kind, y: kind},
        asked,
        {x: first, y: second},
        result,
        said,
        f"= {task.value}",
        task.pairs,
    )


def _search(rng: Random) -> Use:
    topic = rng.choice(TOPICS)
    asked = rng.choice(
        (
            "Search for {t}.",
            "Find something about {t}.",
            "Look up {t}.",
            "Search the web for {t}.",
            "Find pages about {t}.",
            "Can you search for {t}?",
        )
    ).format(t=topic)
    count = rng.randint(1, 40)
    result, said = rng.choice(
        (
            (f"{count} pages about {topic}", f"I found {count} pages about {topic}."),
            (json.dumps({"count": count}), f"I found {count} pages about {topic}."),
            (json.dumps({"results": count}), f"I found {count} pages about {topic}."),
        )
    )
    name = rng.choice(("search", "search", "search_web", "web_search", "find", "look_up"))
    key = rng.choice(("query", "query", "q", "text", "term"))
    return Use(
        name, "Search the web.", {key: "string"}, asked, {key: topic}, result, said, str(count)
    )


def _email(rng: Random) -> Use:
    name = rng.choice(NAMES)
    text = rng.choice(
        ("Hello!", "I am late.", "See you soon.", "Thank you.", "Come home.", "The cake is ready.")
    )
    asked = rng.choice(
        (
            f'Send "{text}" to {name}.',
            f'Write to {name}: "{text}"',
            f'Send {name} a message: "{text}"',
        )
    )
    tool = rng.choice(("send_email", "send_message", "notify"))
    result = rng.choice(("sent", "ok", json.dumps({"status": "sent"})))
    about = "Send a message."
    types = {"to": "string", "text": "string"}
    return Use(
        tool,
        about,
        types,
        asked,
        {"to": name, "text": text},
        result,
        f"I sent your message to {name}.",
        name,
    )


# Parts of names that no table has, so that a name is read from the definition, not remembered.
BEFORE = ("my", "call", "run", "quick", "local", "new", "team", "fast")
AFTER = ("now", "v2", "api", "tool", "service", "helper", "pro", "lookup")


def _renamed(rng: Random, use: Use) -> Use:
    roll = rng.random()
    if roll < 0.08:
        return replace(use, name=f"{rng.choice(BEFORE)}_{use.name}")
    return replace(use, name=f"{use.name}_{rng.choice(AFTER)}") if roll < 0.16 else use


USES = (_weather, _weather, _time, _sum, _sum, _search, _email)


def call(use: Use) -> str:
    """Return the text that calls the tool."""
    body = json.dumps({"name": use.name, "arguments": use.arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def sample(rng: Random) -> Conversation:
    """Return a conversation with tools, in which one is mostly needed."""
    use = _renamed(rng, rng.choice(USES)(rng))
    offered = {use.name: use}
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        other = rng.choice(USES)(rng)
        offered.setdefault(other.name, other)
    order = list(offered.values())
    rng.shuffle(order)
    tools = tuple(schema(rng, one) for one in order)
    system = rng.choice(ASSISTANTS) if rng.random() < 0.25 else ""
    if rng.random() < 0.2:
        return Conversation("no tool needed", (_plain(rng),), system, tools)
    turns = [Turn(use.asked, call(use), call(use))]
    if rng.random() < 0.7:
        turns.append(Turn(use.result, use.said, use.expect, fresh=False, role="tool"))
    return Conversation("tool calls", tuple(turns), system, tools, use.sums)


def _plain(rng: Random) -> Turn:
    if rng.random() < 0.5:
        kind = rng.choice(("hello", "hello", "how", "who", "thanks", "joke"))
        return talk.say(rng, PLAIN, kind)
    question, sentence, key = facts.fact(rng)
    return Turn(question, sentence + ".", key)

"""Gets values instead of text: a dataclass, one of several options, a text of a pattern."""

from dataclasses import dataclass
from enum import Enum

from talu import Choice, Client, GenerationConfig, IncompleteJSONError, Regex


@dataclass
class Sum:
    a: int
    b: int
    result: int


class Topic(Enum):
    CAPITALS = "capitals"
    NUMBERS = "numbers"


plain = GenerationConfig(temperature=0, inject_schema_prompt=False)  # pocket reads no types
with Client("talu/pocket") as client:
    answer = client.ask("2 + 2 = 4", response_format=Sum, config=plain)
    print(f"the text: {answer}\nthe value: {answer.parsed}")

    # Several questions at once, each with one of the options as its answer.
    questions = ["What is 2+2?", "What is the capital of France?"]
    for topic in client.ask(questions, response_format=Choice(Topic), config=plain):
        print("topic:", topic.parsed)
    pattern = Regex(r"[0-9]{1,2} \+ [0-9]{1,2} = [0-9]{1,3}")
    print("a sum:", client.ask("What is 7+8?", response_format=pattern, config=plain))

    # A stream shows what is known of the value so far.
    stream = client.chat()("2 + 2 = 4", response_format=Sum, config=plain, max_tokens=8)
    for _ in stream:
        print("so far:", stream.partial)
    try:
        stream.parsed  # noqa: B018
    except IncompleteJSONError as error:
        print("cut:", error.partial_text)

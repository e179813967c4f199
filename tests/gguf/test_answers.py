"""Real GGUF files give the answers of llama.cpp wherever its own rounding leaves no doubt.

``answers/`` holds what llama.cpp answered to twenty prompts, 64 tokens at most each
(``tools/golden/make_gguf_answers.py``). Both engines round the inputs of products to 8 bits, each
in its way, so that log-probabilities differ from those of the same weights in float32: with
SmolLM2 by 0.03 on average and up to 0.36 in either engine, with Gemma 3 by 0.02 and up to 0.24 in
talu, by 0.03 and up to 0.49 in llama.cpp. talu follows llama.cpp's answer token
by token: where it prefers another token, it goes on with llama.cpp's.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.remote.llama import gguf as smollm2

from talu.engine.engine import Engine
from talu.engine.registry import acquire
from talu.sampling import SamplingParams
from talu.types import LocalBackend

ANSWERS = Path(__file__).parent / "answers"
GEMMA3 = Path(sys.prefix) / "share" / "models" / "gemma-3-270m-q4_k_m.gguf"
CANDIDATES = 8


@dataclass
class Followed:
    """How talu follows one answer of llama.cpp."""

    margins: list[float] = field(default_factory=list)  # llama.cpp's, where talu prefers another
    ours: list[float] = field(default_factory=list)  # log-probabilities of llama.cpp's tokens
    exact: list[float] = field(default_factory=list)  # the same with weights in float32
    theirs: list[float] = field(default_factory=list)  # the same by llama.cpp from the file


def follow(engine: Engine, answers: list[dict[str, Any]]) -> Followed:
    """Run all answers side by side, each from where talu last chose another token."""
    found, position = Followed(), [0] * len(answers)
    while open_ones := [n for n, a in enumerate(answers) if position[n] < len(a["tokens"])]:
        tickets = {}
        for number in open_ones:
            tokens, start = answers[number]["tokens"], position[number]
            limit = SamplingParams(
                max_tokens=len(tokens) - start, temperature=0.0, top_logprobs=CANDIDATES
            )
            tickets[number] = engine.submit(answers[number]["prompt"] + tokens[:start], limit)
        for number, ticket in tickets.items():
            steps = [step for piece in ticket for step in piece.logprobs]
            for step in steps:
                answer, at = answers[number], position[number]
                position[number] += 1
                expected = answer["tokens"][at]
                likely = {token: value for token, _, value in step.top_logprobs or ()}
                found.ours.append(likely.get(expected, -np.inf))
                found.exact.append(answer["exact"][at])
                found.theirs.append(answer["logprobs"][at])
                if step.token != expected:
                    found.margins.append(answer["margins"][at])
                    break
    return found


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def followed(request: pytest.FixtureRequest) -> Iterator[Followed]:
    file = {"smollm2": smollm2(), "gemma3": GEMMA3}[request.param]
    lease = acquire(str(file), LocalBackend(num_threads=1))
    try:
        yield follow(lease.engine, json.loads((ANSWERS / f"{request.param}.json").read_text()))
    finally:
        lease.release()


def test_every_token_is_that_of_llama_cpp_unless_its_rounding_explains_the_difference(
    followed: Followed,
) -> None:
    assert len(followed.ours) > 1_000
    rounding = np.abs(np.subtract(followed.theirs, followed.exact)).max()
    # two log-probabilities are compared, each as far off as that
    assert max(followed.margins) < 2 * rounding < 1.0


def test_log_probabilities_are_as_near_to_float32_as_those_of_llama_cpp(followed: Followed) -> None:
    ours, theirs = (
        np.abs(np.subtract(values, followed.exact)) for values in (followed.ours, followed.theirs)
    )
    assert ours.max() < 0.6  # one token of a thousand; llama.cpp is 0.49 off at most
    assert ours.mean() < 1.05 * theirs.mean()
    assert np.quantile(ours, 0.99) < 1.05 * np.quantile(theirs, 0.99)

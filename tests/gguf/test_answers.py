"""Real GGUF files give the answers of llama.cpp wherever its own rounding leaves no doubt.

``answers/`` holds what llama.cpp answered to twenty prompts, 64 tokens at most each
(``tools/golden/make_gguf_answers.py``). Both engines round the inputs of products to 8 bits, each
in its way, so that log-probabilities differ from those of the same weights in float32: with
SmolLM2 by 0.03 on average and up to 0.36 in either engine, with Gemma 3 by 0.02 and up to 0.24 in
talu, by 0.03 and up to 0.49 in llama.cpp. talu reads each prompt with llama.cpp's answer, and its
logits say which token it prefers at each place of the answer.
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

from talu.engine.budget import BLOCK_SIZE
from talu.engine.loading import load_model
from talu.engine.model import LoadedModel
from talu.sources.gguf import GgufSource
from talu.types import LocalBackend

ANSWERS = Path(__file__).parent / "answers"
GEMMA3 = Path(sys.prefix) / "share" / "models" / "gemma-3-270m-q4_k_m.gguf"


@dataclass
class Followed:
    """How talu follows one answer of llama.cpp."""

    margins: list[float] = field(default_factory=list)  # llama.cpp's, where talu prefers another
    ours: list[float] = field(default_factory=list)  # log-probabilities of llama.cpp's tokens
    exact: list[float] = field(default_factory=list)  # the same with weights in float32
    theirs: list[float] = field(default_factory=list)  # the same by llama.cpp from the file


def follow(model: LoadedModel, answers: list[dict[str, Any]]) -> Followed:
    """Read each prompt with llama.cpp's answer in one step, whose rows are those of a decode."""
    found = Followed()
    for answer in answers:
        ids = np.array(answer["prompt"] + answer["tokens"][:-1], np.int32)
        rows = np.arange(len(ids), dtype=np.int32)
        table = np.arange(-(-len(ids) // BLOCK_SIZE), dtype=np.int32)[None]
        starts, outputs = np.array([0, len(ids)], np.int32), rows[len(answer["prompt"]) - 1 :]
        logits = np.asarray(model.executor.step(ids, rows, starts, table, outputs))
        expected, every = np.array(answer["tokens"]), np.arange(len(outputs))
        preferred = logits.argmax(axis=1)
        logits -= logits[every, preferred][:, None]
        ours = logits[every, expected]
        found.ours += (ours - np.log(np.exp(logits, out=logits).sum(axis=1))).tolist()
        found.exact += answer["exact"]
        found.theirs += answer["logprobs"]
        found.margins += [answer["margins"][at] for at in every[preferred != expected]]
    return found


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def followed(request: pytest.FixtureRequest) -> Iterator[Followed]:
    file = {"smollm2": smollm2(), "gemma3": GEMMA3}[request.param]
    model = load_model(GgufSource(file), LocalBackend())
    try:
        yield follow(model, json.loads((ANSWERS / f"{request.param}.json").read_text()))
    finally:
        model.executor.close()
        model.weights.close()


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

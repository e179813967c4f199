"""talu and llama.cpp behind the same four methods. Knows nothing of rounds and reports.

Both run in this process, one after the other, and sleep while the other one works. llama.cpp is
driven through its own server code (package ``xllamacpp``); its rates are the timings that it
reports itself, and what it decides by itself (flash attention, repacking, mapping) is left to it.
"""

import importlib.metadata
import json
import random
from pathlib import Path
from typing import Any, Protocol

import xllamacpp
from make_checkpoint import gguf_path

from talu.cli.bench import decode_rate, prefill_rate
from talu.engine.registry import acquire
from talu.sampling import SamplingParams
from talu.types import LocalBackend


class Peer(Protocol):
    """One engine with the model open."""

    name: str

    def prefill(self, length: int, seed: int) -> float:
        """Tokens per second for a prompt of random tokens that no cache knows."""

    def decode(self, count: int, seed: int) -> float:
        """Tokens per second for one token after the other, from an almost empty context on."""

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """The likeliest next tokens and their log-probabilities."""

    def close(self) -> None:
        """Free the model."""


class Talu:
    """talu's engine, as a program gets it."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._lease = acquire(str(folder), LocalBackend(num_threads=threads))
        self._engine = self._lease.engine
        info = self._engine.info
        self.name = f"talu {importlib.metadata.version('talu')} ({info.target})"

    def prefill(self, length: int, seed: int) -> float:
        """See ``Peer``."""
        return prefill_rate(self._engine, length, seed)

    def decode(self, count: int, seed: int) -> float:
        """See ``Peer``."""
        return decode_rate(self._engine, count, seed)

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """See ``Peer``."""
        params = SamplingParams(max_tokens=1, temperature=0.0, top_logprobs=count)
        pieces = list(self._engine.submit(prompt, params))
        (first,) = [logprob for piece in pieces for logprob in piece.logprobs]
        return {token: value for token, _, value in first.top_logprobs or ()}

    def close(self) -> None:
        """See ``Peer``."""
        self._lease.release()


class LlamaCpp:
    """llama.cpp's server, in this process."""

    def __init__(self, folder: Path, threads: int, context: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf_path(folder))
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.n_ctx = context
        params.n_parallel = 1
        params.cache_ram_mib = 0  # no prompt is sent twice
        params.verbosity = 0
        self._server = xllamacpp.Server(params)
        self.name = f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})"

    def prefill(self, length: int, seed: int) -> float:
        """See ``Peer``."""
        return float(self._complete(random_prompt(length, seed), 1)["prompt_per_second"])

    def decode(self, count: int, seed: int) -> float:
        """See ``Peer``."""
        timings = self._complete(random_prompt(1, seed), count + 1)
        # The first token comes out of the prefill.
        return float(1000 * (timings["predicted_n"] - 1) / timings["predicted_ms"])

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """See ``Peer``."""
        answer = self._answer(prompt, 1, n_probs=count)
        (first,) = answer["choices"][0]["logprobs"]["content"]
        return {each["id"]: each["logprob"] for each in first["top_logprobs"]}

    def close(self) -> None:
        """See ``Peer``."""
        del self._server

    def _complete(self, prompt: list[int], count: int) -> dict[str, Any]:
        timings: dict[str, Any] = self._answer(prompt, count)["timings"]
        if (timings["prompt_n"], timings["predicted_n"]) != (len(prompt), count):
            raise RuntimeError(f"llama.cpp did something else: {timings}")
        return timings

    def _answer(self, prompt: list[int], count: int, **options: object) -> dict[str, Any]:
        request = {"prompt": prompt, "n_predict": count, "temperature": 0, "ignore_eos": True}
        answer = self._server.handle_completions(request | {"cache_prompt": False} | options)
        result: dict[str, Any] = json.loads(answer) if isinstance(answer, str) else answer
        return result


def random_prompt(length: int, seed: int) -> list[int]:
    """Token ids below those of special tokens."""
    draw = random.Random(f"{length} {seed}")
    return [draw.randrange(151_000) for _ in range(length)]

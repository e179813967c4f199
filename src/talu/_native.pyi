"""Kernels and executor, compiled."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from talu.arrays import Bytes, Floats, Ints

PACKING_VERSION: Final[int]

def formats() -> list[str]: ...
def block_formats() -> dict[str, tuple[int, int]]: ...
def targets() -> list[str]: ...
def target() -> str: ...
def return_free_memory() -> None: ...
def available_threads(proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> int: ...
def packed_bytes(format: str, rows: int, columns: int) -> int: ...
def pack(
    format: str,
    source: NDArray[Any] | memoryview,
    out: Bytes,
    num_threads: int = 0,
    target: str = "",
) -> None: ...
def rotated_formats() -> dict[str, int]: ...
def choose(
    format: str,
    source: NDArray[np.float32],
    out: Bytes,
    factor: NDArray[np.float32] | None = None,
    num_threads: int = 0,
    target: str = "",
) -> None: ...
def encoded_formats() -> dict[str, tuple[int, int]]: ...
def encode(
    format: str,
    source: NDArray[np.float32],
    out: Bytes,
    factor: NDArray[np.float32] | None = None,
    num_threads: int = 0,
    target: str = "",
) -> None: ...
def factorize(matrix: NDArray[np.float32], num_threads: int = 0, target: str = "") -> bool: ...
def read_rate(bytes: int, num_threads: int = 0, seconds: float = 0.5) -> float: ...
def multiply_rates(num_threads: int = 0, seconds: float = 0.2) -> dict[str, float]: ...
def unpack(
    format: str, packed: NDArray[np.uint8], rows: int, columns: int, target: str = ""
) -> NDArray[np.float32]: ...
def activation_format(format: str, target: str = "") -> str: ...
def kv_dtypes() -> list[str]: ...
def kv_block_bytes(layers: Sequence[tuple[int, int]], block_size: int, kv_dtype: str) -> int: ...

class Executor:
    num_threads: Final[int]
    target: Final[str]
    def __init__(
        self,
        ops: list[
            tuple[
                str,
                list[int],
                list[tuple[str, tuple[int, ...], Bytes | Floats]],
                int,
                dict[str, Any],
            ]
        ],
        layers: list[tuple[int, int]],
        result: int,
        blocks: int,
        block_size: int,
        num_threads: int = 0,
        kv_dtype: str = "f16",
        target: str = "",
    ) -> None: ...
    def step(
        self,
        tokens: Ints,
        positions: Ints,
        row_starts: Ints,
        block_tables: Ints,
        outputs: Ints,
    ) -> memoryview[float]: ...
    @property
    def block_bytes(self) -> int: ...
    def read_blocks(self, blocks: Ints) -> NDArray[np.uint8]: ...
    def write_blocks(self, blocks: Ints, content: Bytes) -> None: ...
    def start_timing(self) -> None: ...
    def times(self) -> list[tuple[list[int], float]]: ...
    def close(self) -> None: ...

class SamplerSettings:
    """How to choose the tokens of one sequence; cannot be changed.

    Attributes:
        seed: key of the counter-based generator, together with a token's position.
        bias_ids, bias_values: added to the logits; -100 or less bans the token.
        presence_penalty, frequency_penalty: ``frequency_penalty`` times the count of a token in the
            answer so far, plus ``presence_penalty``, is subtracted from its logit.
        seen_prompt: how many of the tokens seen so far are the prompt's.
        top_logprobs: how many of the most likely tokens to report; -1 asks for no log-probability.
    """

    temperature: Final[float]
    top_k: Final[int]
    top_p: Final[float]
    min_p: Final[float]
    repetition_penalty: Final[float]
    presence_penalty: Final[float]
    frequency_penalty: Final[float]
    seed: Final[int]
    bias_ids: Final[list[int]]
    bias_values: Final[list[float]]
    seen_prompt: Final[int]
    top_logprobs: Final[int]
    def __init__(
        self,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        seed: int = 0,
        bias_ids: Sequence[int] = ...,
        bias_values: Sequence[float] = ...,
        seen_prompt: int = 0,
        top_logprobs: int = -1,
    ) -> None: ...

def sample(
    logits: Floats,
    rows: Sequence[tuple[SamplerSettings, int, Ints | None, Ints | None]],
    num_threads: int = 1,
) -> list[tuple[int, float | None, tuple[tuple[int, float], ...]]]: ...

class Texts(Sequence[str]):
    def __init__(self, texts: Sequence[str]) -> None: ...
    @staticmethod
    def read(data: bytes, at: int, count: int) -> tuple[Texts, int, int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, at: int) -> str: ...  # type: ignore[override]
    def find(self, text: str) -> int | None: ...
    def within(self, text: str, prefix: str = "") -> list[int]: ...
    def incomplete(self, chosen: bytes) -> list[int]: ...
    @property
    def repeated(self) -> int | None: ...
    @property
    def characters(self) -> int: ...
    @property
    def longest(self) -> int: ...

class Merges:
    def __init__(self, vocabulary: Texts, lines: Texts) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, at: int) -> tuple[int, int]: ...
    def among(self, vocabulary: Texts, tokens: Sequence[int]) -> list[int]: ...

def read_tokenizer_json(content: bytes) -> tuple[bytes, Texts, Merges] | None: ...

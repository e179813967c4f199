"""The options of a model that runs in this process."""

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = [
    "KV_DTYPES",
    "SPECULATIVE",
    "WEIGHT_FORMATS",
    "KVDtype",
    "LocalBackend",
    "Speculative",
    "WeightFormat",
]

WeightFormat = Literal[
    "auto", "stored", "q8", "q4", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k_s", "q4_k_m",
    "q5_k_s", "q5_k_m", "q6_k",
]  # fmt: skip
WEIGHT_FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
KVDtype = Literal["auto", "f32", "f16", "bf16", "q8"]
KV_DTYPES: tuple[KVDtype, ...] = get_args(KVDtype)
Speculative = Literal["ngram"]
SPECULATIVE: tuple[Speculative, ...] = get_args(Speculative)


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """The model runs in this process.

    Attributes:
        gpu_layers: layers on an accelerator; -1 is as many as fit, 0 is none.
        use_mmap: map the weights instead of reading them into private memory.
        num_threads: 0 uses as many as affinity and cgroup allow.
        weight_format: ``"stored"`` uses all weights in the checkpoint's format. ``"auto"`` converts
            the f32 matrices of an encoder to ``i16``, 16-bit integers with one scale per 128
            columns: faster, with a cosine similarity of about 1 - 1e-6 to embeddings in f32. A
            quantised matrix that no format can hold exactly is ``i16`` with ``"auto"``, and f32
            with ``"stored"``.
            ``"q8"`` and ``"q4"`` quantise a model that is not quantised yet, to 8 bits a weight,
            and to 4.5 with 8 for what matters most: less memory, faster generation. The first open
            takes from seconds to minutes; the result is kept in the cache. ``"q4_0"`` to
            ``"q6_k"`` are the formats of GGUF files with these names.
        kv_dtype: format of cached keys and values. ``"auto"`` is f32 for f32 weights and f16 for
            others. A model with keys or values above 65,504 needs ``"bf16"``, or ``"f32"``, which
            takes twice the memory. ``"q8"`` takes little more than half of that of f16: 8 bits a
            number, and a scale for each position of a head.
        kv_cache_bytes: the most memory for keys and values, of all requests that run and of what
            the prefix cache keeps; 0, the default, is a quarter of the memory that is free. Never
            more than 16 full contexts are used. A context that does not fit is shortened, with a
            note. It is also the bound of what several requests can hold at once: others wait.
        speculative: ``"ngram"`` guesses the next tokens from earlier text, and checks several of
            them in one step: the same tokens sooner, where an answer repeats its prompt or itself.
            None, the default, is off.
        prefix_cache_bytes: disk space for computed beginnings of prompts, so that a chat of an
            earlier process continues at once; 0, the default, keeps none. The files are in the
            cache folder, readable only by their owner; those used longest ago are removed. Of a
            chat that takes more than nine tenths of it, the beginning is kept.
    """

    gpu_layers: int = -1
    use_mmap: bool = True
    num_threads: int = 0
    weight_format: WeightFormat = "auto"
    kv_dtype: KVDtype = "auto"
    kv_cache_bytes: int = 0
    speculative: Speculative | None = None
    prefix_cache_bytes: int = 0

"""Converts the metadata of a GGUF file to the settings that config.json has for the same network.

Each supported architecture has one table of keys. A key that changes the network and is not in the
table is refused by name; other unknown keys keep their names, so that a note lists them.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import Literal, NamedTuple

from talu._native import Texts
from talu.arrays import single
from talu.error_text import nearest, shown
from talu.exceptions import ModelError
from talu.gguf.header import Metadata

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "architecture_of",
    "pooling_mode",
    "sampling_of",
    "settings_of",
]

Shapes = Mapping[str, tuple[int, ...]]  # of the tensors by name

GENERAL = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
DECODER = {
    **GENERAL,
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.causal": "is_causal",
    "rope.freq_base": "rope_theta",
}
REQUIRED = (*GENERAL.values(), "rms_norm_eps", "layer_norm_eps")
ELSEWHERE = (  # keys that other functions of this module read
    "attention.key_length",
    "attention.value_length",
    "attention.sliding_window_pattern",
    "pooling_type",
    "rope.dimension_count",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
)
WITHOUT_EFFECT = ("rope.scaling.finetuned", "tensor_data_layout")
CHANGE_THE_NETWORK = (  # beginnings of keys; 0, false and empty arrays have no effect
    *("activation.", "adapters.", "altup.", "attn_logit_softcapping", "attn_res.", "classifier."),
    *("deepstack_mapping", "dense_2", "dense_3", "embedding_length_", "embedding_scale", "expert"),
    *("attention.clamp_kqv", "attention.compress", "attention.group_norm", "attention.indexer."),
    *("attention.key_length_", "attention.kv_lora_rank", "attention.max_alibi_bias"),
    *("attention.output_", "attention.q_lora_rank", "attention.recurrent_layers"),
    *("attention.relative_buckets_count", "attention.rope_pattern", "attention.scale"),
    *("attention.shared_kv_layers", "attention.sliding_window", "attention.temperature_"),
    *("attention.value_length_", "attention.value_scale", "attention.layer_norm_epsilon"),
    *("final_logit_softcapping", "full_attention_interval", "hidden_activation", "hrm."),
    *("hyper_connection.", "interleave_moe_layer_step", "leading_dense_block_count"),
    *("logit_scale", "moe_", "n_deepstack_layers", "nextn_predict_layers", "num_loops", "ple."),
    *("residual_scale", "rope.dimension_", "rope.scaling.", "router_logit_softcapping"),
    *("shortconv.", "ssm.", "swiglu_", "swin_norm", "use_parallel_residual"),
)
WIDE_HEADS = {"gemma2": 46, "gemma3": 62}  # layers of the models that scale by width / heads
SAMPLING = {  # after general.sampling: names in generation_config.json
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
Pooling = Literal["mean", "first", "last"]
POOLING: Mapping[int, Pooling | None] = {0: None, 1: "mean", 2: "first", 3: "last"}


class Architecture(NamedTuple):
    """How an architecture of GGUF is described in config.json.

    Attributes:
        model_type: its name there.
        keys: names there of the keys after the architecture's name.
        constants: what config.json says and GGUF leaves out.
        pattern: every how many layers one attends to all positions; 0 if there are no windows.
    """

    model_type: str
    keys: Mapping[str, str] = DECODER
    constants: Mapping[str, object] = MappingProxyType({"hidden_act": "silu"})
    pattern: int = 0


GEMMA = {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "norms_have_one_added": True,
}
WINDOW = {"attention.sliding_window": "sliding_window"}
LOGIT_CAP = {"final_logit_softcapping": "final_logit_softcapping"}
SCORE_CAP = {"attn_logit_softcapping": "attn_logit_softcapping"}
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(model_type="llama"),
    "qwen2": Architecture(model_type="qwen2"),
    "qwen3": Architecture(model_type="qwen3"),
    "gemma": Architecture(model_type="gemma", constants=GEMMA),
    "gemma2": Architecture(
        model_type="gemma2",
        keys={**DECODER, **WINDOW, **LOGIT_CAP, **SCORE_CAP},
        constants={**GEMMA, "sliding_window": 4096},
        pattern=2,
    ),
    "gemma3": Architecture(
        model_type="gemma3_text",
        keys={**DECODER, **WINDOW, **LOGIT_CAP},
        constants=GEMMA,
        pattern=6,
    ),
    "bert": Architecture(
        model_type="bert",
        keys={
            **GENERAL,
            "attention.layer_norm_epsilon": "layer_norm_eps",
            "attention.causal": "is_causal",
        },
        constants={"hidden_act": "gelu"},
    ),
}


def architecture_of(metadata: Metadata, place: str) -> str:
    """The name of the architecture in ``ARCHITECTURES``.

    Args:
        metadata: the file's.
        place: the file, for messages.

    Raises:
        ModelError: it is missing or not supported; the message names the most similar one.
    """
    key = "general.architecture"
    name = metadata.get(key)
    if not isinstance(name, str):
        raise ModelError(f"{place} does not say its architecture ({key!r}); it is not a model")
    if name not in ARCHITECTURES:
        known = ", ".join(map(repr, ARCHITECTURES))
        raise ModelError(
            f"{place}: the architecture is {shown(name)}{nearest(name, ARCHITECTURES)} "
            f"(supported: {known})"
        )
    return name


def settings_of(
    metadata: Metadata, shapes: Shapes, place: str, *, rope_factors: Sequence[float] | None = None
) -> dict[str, object]:
    """The settings of the network, by the names of config.json.

    Args:
        metadata: the file's.
        shapes: of its tensors, by their names in the file.
        place: the file, for messages.
        rope_factors: the numbers of the tensor ``rope_freqs.weight`` if the file has it; rotary
            frequencies are divided by them.

    Raises:
        ModelError: the architecture is not supported, a value is missing or of a wrong type, or a
            key changes the network in a way that is not supported.
    """
    name = architecture_of(metadata, place)
    own = _Own(metadata, f"{name}.", place)
    about = ARCHITECTURES[name]
    values: dict[str, object] = {"model_type": about.model_type, **about.constants}
    for key, theirs in about.keys.items():
        value = own.number(key)
        if value is not None:
            values[theirs] = value
        elif theirs in REQUIRED:
            raise ModelError(f"{place} lacks {own.prefix + key!r}; convert the model again")
    own.check_rest(about)
    values["vocab_size"] = _rows(shapes, "token_embd.weight") or own.vocabulary()
    if name == "bert":
        values["type_vocab_size"] = _rows(shapes, "token_types.weight")
        return values | own.unknown(about)
    values.setdefault("rope_theta", 10_000.0)
    values.setdefault("num_key_value_heads", values["num_attention_heads"])
    values["tie_word_embeddings"] = "output.weight" not in shapes
    values["head_dim"] = own.head_size()
    values |= _biases(name, shapes)
    if scaling := own.scaling(rope_factors):
        values["rope_scaling"] = scaling
    if about.pattern:
        values |= _windows(name, own, about.pattern)
    return values | own.unknown(about)


def pooling_mode(metadata: Metadata, place: str) -> Pooling | None:
    """How the model was trained to pool hidden states; None if the file does not say it.

    Raises:
        ModelError: the mode is unknown, or it is that of a reranker.
    """
    own = _Own(metadata, f"{architecture_of(metadata, place)}.", place)
    mode = own.number("pooling_type")
    if mode is None or mode in list(POOLING):
        return POOLING[int(mode or 0)]
    what = "that of a reranker, which is" if mode == 4 else "unknown; 0 to 3 are"
    raise own.error("pooling_type", f"is {shown(mode)}: {what} not supported")


def sampling_of(metadata: Metadata) -> dict[str, object]:
    """Defaults for sampling, by the names of generation_config.json; unknown ones keep their own.

    They are checked by the reader of that file's values.
    """
    prefix = "general.sampling."
    values: dict[str, object] = {}
    for key, value in metadata.items():
        if key.startswith(prefix):
            name = SAMPLING.get(key.removeprefix(prefix), key)
            values[name] = shortest(value) if isinstance(value, float) else value
    return values


class _Own:
    """The keys of one architecture, without its name."""

    def __init__(self, metadata: Metadata, prefix: str, place: str) -> None:
        self.prefix = prefix
        self._place = place
        self._metadata = metadata
        self._values = {
            key.removeprefix(prefix): value
            for key, value in metadata.items()
            if key.startswith(prefix)
        }

    def number(self, key: str) -> bool | int | float | None:
        """A number, possibly given once for each layer; None if there is none."""
        value = self._values.get(key)
        if isinstance(value, memoryview) and len(value) and all(each == value[0] for each in value):
            value = value[0]
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return shortest(value)
        what = "has different values for the layers, which is not supported"
        if not isinstance(value, memoryview) or not len(value):
            what = f"is {_shown(value)}, not a number"
        raise self.error(key, what)

    def count(self, key: str) -> int | None:
        """A whole number greater than 0; None if there is none."""
        value = self.number(key)
        if value is not None and (type(value) is not int or value <= 0):
            raise self.error(key, f"is {shown(value)}, not a whole number above 0")
        return value

    def flags(self, key: str) -> list[bool] | None:
        """An array of flags; None if the value is something else."""
        value = self._values.get(key)
        return [bool(flag) for flag in value] if isinstance(value, memoryview) else None

    def vocabulary(self) -> object:
        """The number of tokens, for a file without tensors."""
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, list | Texts) else self.count("vocab_size")

    def head_size(self) -> int | None:
        """Columns of a head; None if the width of the network says it."""
        size = self.count("attention.key_length")
        default = (self.count("embedding_length") or 0) // (self.count("attention.head_count") or 1)
        for key in ("attention.value_length", "rope.dimension_count"):
            if (other := self.count(key)) is not None and other != (size or default):
                message = f"is {other}, but heads have {size or default} columns"
                raise self.error(key, f"{message}, which is not supported")
        return size or default or None

    def scaling(self, factors: Sequence[float] | None) -> dict[str, object] | None:
        """What config.json has under ``rope_scaling``."""
        kind = self._values.get("rope.scaling.type", "linear")
        factor = self.number("rope.scaling.factor") or self.number("rope.scale_linear")
        if not isinstance(kind, str):
            raise self.error("rope.scaling.type", f"is {shown(kind)}, not a text")
        if kind == "none" or (kind == "linear" and factor in (None, 1)):
            return None if factors is None else {"rope_type": "factors", "factors": list(factors)}
        if factors is not None:
            message = f"is {shown(kind)} beside the tensor 'rope_freqs.weight'"
            raise self.error("rope.scaling.type", f"{message}, which is not supported")
        return {"rope_type": kind, "factor": None if factor is None else float(factor)}

    def check_rest(self, about: Architecture) -> None:
        """Refuse keys that change the network and are not read."""
        for key, value in self._values.items():
            known = key in about.keys or key in ELSEWHERE or key in WITHOUT_EFFECT
            if known or not key.startswith(CHANGE_THE_NETWORK):
                continue
            if any(value) if isinstance(value, memoryview) else value:
                raise self.error(key, f"is {_shown(value)}, which is not supported")

    def unknown(self, about: Architecture) -> dict[str, object]:
        """The keys that nobody reads, with their full names."""
        known = {*about.keys, *ELSEWHERE, *WITHOUT_EFFECT}
        return {
            self.prefix + key: value if isinstance(value, bool | int | float | str) else "…"
            for key, value in self._values.items()
            if key not in known and not key.startswith(CHANGE_THE_NETWORK)
        }

    def error(self, key: str, message: str) -> ModelError:
        """An error about a key, to be raised."""
        return ModelError(f"{self._place}: {self.prefix + key!r} {message}")


def shortest(value: float) -> float:
    """A 32-bit number as the shortest decimal that rounds to it, as config.json writes it."""
    if not isfinite(value) or single(value) != value:
        return value
    decimals = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next(each for each in decimals if single(each) == value)


def _shown(value: object) -> str:
    """A value of the metadata for a message."""
    return shown(value.tolist() if isinstance(value, memoryview) else value)


def _rows(shapes: Shapes, name: str) -> int | None:
    return shapes[name][0] if shapes.get(name) else None


def _biases(name: str, shapes: Shapes) -> dict[str, object]:
    """The flags of biases that the families know."""
    if name not in ("llama", "qwen3"):
        return {}
    flags: dict[str, object] = {"attention_bias": "blk.0.attn_q.bias" in shapes}
    return flags | ({"mlp_bias": "blk.0.ffn_gate.bias" in shapes} if name == "llama" else {})


def _windows(name: str, own: _Own, pattern: int) -> dict[str, object]:
    """The windows, rotary bases and scale of Gemma 2 and 3."""
    layers, key = own.count("block_count") or 0, "attention.sliding_window_pattern"
    sliding = own.flags(key)
    if sliding is None:
        pattern = own.count(key) or pattern
        sliding = [layer % pattern < pattern - 1 for layer in range(min(layers, 2**12))]
    if name == "gemma3" and not own.number("attention.sliding_window"):
        sliding = [False] * len(sliding)
    if len(sliding) < layers:
        raise own.error(key, f"has {len(sliding)} values for {layers} layers")
    size, heads = own.head_size(), own.count("attention.head_count")
    if layers == WIDE_HEADS[name]:
        size = (own.count("embedding_length") or 0) // (heads or 1)
    values: dict[str, object] = {
        "layer_types": [
            "sliding_attention" if slides else "full_attention" for slides in sliding[:layers]
        ],
        "query_pre_attn_scalar": size,
    }
    base = own.number("rope.freq_base_swa")
    if name == "gemma3":
        values["rope_local_base_freq"] = 10_000.0 if base is None else base
    elif base is not None and base != own.number("rope.freq_base"):
        raise own.error("rope.freq_base_swa", f"is {shown(base)}, which is not supported")
    return values

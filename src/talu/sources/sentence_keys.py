"""Reads the files of sentence-transformers that say how texts are prepared.

``sentence_bert_config.json`` configures the tokenizer and the network, and
``config_sentence_transformers.json`` has the prompts and the length of the vectors. A key that
changes vectors is used or refused by name.
https://sbert.net/docs/package_reference/base/modules.html
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from talu.error_text import shown
from talu.sources.embedding import TextSettings
from talu.sources.settings import Settings

__all__ = [
    "CROSS_ENCODER",
    "Kind",
    "Prompts",
    "Unsupported",
    "activation_named",
    "optional",
    "read_prompts",
    "read_texts",
]

FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MAX_LENGTH = 2**31 - 1
MAX_WIDTH = 2**17
MAX_PROMPTS = 1000
MAX_PROMPT = 100_000  # characters
PREDEFINED = ("query", "document")  # prompts that are empty unless the folder defines them
HUB = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token",
       "trust_remote_code")  # fmt: skip
WITHOUT_EFFECT = {  # on vectors, by the arguments of sentence_bert_config.json
    "model": (*HUB, "add_pooling_layer", "attn_implementation", "device_map", "low_cpu_mem_usage",
              "use_safetensors", "variant"),
    "tokenizer": (*HUB, "clean_up_tokenization_spaces", "padding_side", "use_fast"),
    "config": (*HUB, "attn_implementation", "output_attentions", "output_hidden_states",
               "use_cache"),
}  # fmt: skip
NEW_NAMES = {"model": "model_kwargs", "tokenizer": "processor_kwargs", "config": "config_kwargs"}
PRECISION = ("dtype", "torch_dtype")
OF_TASKS = ("query_length", "document_length", "query_expansion")
INPUTS, SEGMENTS = "model_input_names", "token_type_ids"
OTHER_INPUTS = ("audio", "chat_template", "image", "video")
ACTIVATIONS = {  # of torch.nn: ours
    "GELU": "gelu",
    "Identity": "identity",
    "ReLU": "relu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
}


class Kind(NamedTuple):
    """A kind of model of sentence-transformers.

    Attributes:
        name: its class.
        task: what its network computes.
        output: the value that the network writes.
        states: the result of the network in transformers that becomes this value.
    """

    name: str
    task: str
    output: str
    states: str


EMBEDDER = Kind(
    "SentenceTransformer", "feature-extraction", "token_embeddings", "last_hidden_state"
)
CROSS_ENCODER = Kind("CrossEncoder", "sequence-classification", "scores", "logits")


class Unsupported(Exception):
    """The folder asks for something that talu does not support; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The prompts of a model, and the length that its vectors are truncated to.

    Attributes:
        texts: prefixes for texts, by name.
        default: name of the prompt that is used if the caller names none.
        score_activation: what follows the scores of a cross-encoder; None if it is not said.
        notes: what is not used.
    """

    texts: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType(dict.fromkeys(PREDEFINED, ""))
    )
    default: str | None = None
    truncated_to: int | None = None
    score_activation: str | None = None
    notes: tuple[str, ...] = ()


def activation_named(word: object, where: str) -> str:
    """Our name of an activation of torch.

    Raises:
        Unsupported: it is not one that talu computes; the message says ``where`` it is named.
    """
    name = str(word)
    known = ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.") else None
    if known is None:
        raise Unsupported(f"{where} has the activation {name[:100]!r}, which is not supported")
    return known


def read_texts(place: Path, context: int, kind: Kind = EMBEDDER) -> TextSettings:
    """Read ``sentence_bert_config.json`` and ``tokenizer_config.json``.

    Args:
        place: folder of the network.
        context: maximum number of tokens of the network.
        kind: what the network is for.

    Raises:
        Unsupported: a key asks for something that talu does not support.
        ModelError: a file is damaged, or a value has the wrong type or is out of range.
    """
    present = (name for name in FILES if os.path.lexists(place / name))
    settings = optional(place / next(present, FILES[0]))
    _check_outputs(settings, kind)
    notes = []
    for key in OF_TASKS:
        if settings.has(key):
            notes.append(f"{key} of {settings.path.name} is not used")
    settings.ignore(*OF_TASKS, "unpad_inputs")
    model = _arguments(settings, "model")
    if any(model.has(key) for key in PRECISION):
        notes.append(f"the dtype in {settings.path.name} is not used")
    model.ignore(*PRECISION)
    tokenizer, own = _arguments(settings, "tokenizer"), optional(place / "tokenizer_config.json")
    limit, source = _limit(settings, tokenizer, own, context)
    side = _side(tokenizer) or _side(own) or "right"
    lower_case = settings.flag("do_lower_case", default=False)
    for part in (settings, model, tokenizer, _arguments(settings, "config")):
        for name in part.unread_names():
            raise Unsupported(f"{settings.path} has {name}, which is not supported")
    return TextSettings(
        max_tokens=limit,
        source=source,
        lower_case=lower_case,
        truncates_start=side == "left",
        segments=_tells_segments(own),
        notes=tuple(notes),
    )


def read_prompts(path: Path, kind: Kind = EMBEDDER) -> Prompts:
    """Read ``config_sentence_transformers.json``.

    Raises:
        Unsupported: the model is of another kind, or a score has an unknown activation.
        ModelError: the file is damaged, or a value has the wrong type or is out of range.
    """
    settings = optional(path)
    named = settings.value("model_type") if settings.has("model_type") else kind.name
    if named != kind.name:
        raise Unsupported(f"{path} says model_type {shown(named)}, which is not supported")
    prompts = settings.value("prompts") if settings.has("prompts") else {}
    if not isinstance(prompts, dict) or len(prompts) > MAX_PROMPTS:
        raise settings.error("prompts", f"must be an object of at most {MAX_PROMPTS} texts")
    texts = {name: "" if text is None else text for name, text in prompts.items()}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > MAX_PROMPT:
            raise settings.error("prompts", f"must hold texts, got {shown(text)} as {shown(name)}")
    texts |= {name: "" for name in PREDEFINED if name not in texts}
    key = "default_prompt_name"
    default = settings.value(key) if settings.has(key) else None
    if default is not None and default not in list(texts):
        raise settings.error(key, f"is {shown(default)}, but the file has no such prompt")
    truncated_to = None
    if settings.has("truncate_dim"):
        truncated_to = settings.integer("truncate_dim", 1, MAX_WIDTH)
    score_activation = None
    if kind is CROSS_ENCODER and settings.has("activation_fn"):
        score_activation = activation_named(settings.value("activation_fn"), path.name)
    settings.ignore("__version__", "requirements", "similarity_fn_name", "keep_in_fp32_modules")
    unread = [shown(name) for name in settings.unread_names()]
    note = f"keys of {path.name} that talu does not read: {', '.join(unread[:12])}"
    return Prompts(
        texts=MappingProxyType(texts),
        default=str(default) if default is not None else None,
        truncated_to=truncated_to,
        score_activation=score_activation,
        notes=(note,) if unread else (),
    )


def optional(path: Path) -> Settings:
    """The settings in a file, none if it does not exist."""
    return Settings.from_file(path) if os.path.lexists(path) else Settings(path, {})


def _check_outputs(settings: Settings, kind: Kind) -> None:
    """Refuse other values than those that a network of this kind computes from text."""
    path = settings.path
    for key, needed in (
        ("transformer_task", kind.task),
        ("module_output_name", kind.output),
        ("tokenizer_name_or_path", None),
    ):
        if settings.has(key) and settings.value(key) != needed:
            value = shown(settings.value(key))
            raise Unsupported(f"{path} has {key} {value}, which is not supported")
    if settings.has("modality_config"):
        kinds = settings.section("modality_config")
        states = {"method": "forward", "method_output_name": kind.states}
        if kinds.names("message") or kinds.raw("text", None) != states:
            raise Unsupported(f"{path} has a modality_config that is not supported")
    processing = settings.section("processing_kwargs")
    processing.ignore(*OTHER_INPUTS)
    if names := [key for key, value in processing.unread().items() if value != {}]:
        raise Unsupported(f"{path} has processing_kwargs.{names[0]}, which is not supported")
    settings.ignore("modality_config")


def _arguments(settings: Settings, of: str) -> Settings:
    """The arguments for a part; the old name of their key takes precedence."""
    old, new = f"{of}_args", NEW_NAMES[of]
    part = settings.section(old if settings.names(old) else new)
    settings.ignore(old, new)
    part.ignore(*WITHOUT_EFFECT[of])
    return part


def _limit(settings: Settings, arguments: Settings, own: Settings, context: int) -> tuple[int, str]:
    """The most tokens of a text, and where that limit comes from.

    The tokenizer's arguments take precedence over ``max_seq_length``, and that over the smaller of
    the limits of the tokenizer and the network.
    """
    name = settings.path.name
    limit, source = context, "its context"
    if settings.has("max_seq_length"):
        limit = settings.integer("max_seq_length", 1, MAX_LENGTH)
        source = f"max_seq_length in {name}"
    elif own.has("model_max_length"):
        value = own.value("model_max_length")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
            raise Unsupported(f"{own.path} has model_max_length {shown(value)}")
        limit, source = int(min(value, context)), "model_max_length in tokenizer_config.json"
    if arguments.has("model_max_length"):
        limit = arguments.integer("model_max_length", 1, MAX_LENGTH)
        source = f"model_max_length in {name}"
    return (limit, source) if limit < context else (context, "its context")


def _tells_segments(own: Settings) -> bool:
    """Whether the tokenizer tells the network which of two texts a token belongs to."""
    names = own.value(INPUTS) if own.has(INPUTS) else [SEGMENTS]
    return isinstance(names, list) and SEGMENTS in names


def _side(settings: Settings) -> str | None:
    key = "truncation_side"
    return settings.word(key, ("left", "right")) if settings.has(key) else None

"""Reads the sentence-transformers files that say how hidden states become embeddings.

``modules.json`` lists the steps, ``1_Pooling`` and ``2_Dense`` configure them,
``sentence_bert_config.json`` limits the length of a text, and
``config_sentence_transformers.json`` holds the prompts.
 https://sbert.net/docs/sentence_transformer/usage/custom_models.html
"""

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from talu.exceptions import ModelError
from talu.models.settings import Settings
from talu.types import POOLINGS, Pooling

__all__ = ["Dense", "EmbeddingSettings", "Normalize", "Step", "read_embedding_settings"]

ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu"}  # of torch.nn: ours
POOLING_WORDS: dict[str, Pooling] = {"cls": "first", "mean": "mean", "lasttoken": "last"}
POOLING_FLAGS = {  # of earlier versions: one flag for each mode
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
LENGTH_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
STATES = "sentence_embedding"  # the value that a step after pooling reads and writes
MAX_BYTES = 1 << 20
MAX_MODULES = 32
MAX_WIDTH = 2**17
MAX_LENGTH = 2**31 - 1
MAX_PROMPTS = 1000
MAX_PROMPT = 100_000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A step: activation(x · weightᵀ + bias), plus x or a projection of it if ``residual``.

    Attributes:
        folder: holds the weights.
    """

    folder: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool


@dataclass(frozen=True, slots=True)
class Normalize:
    """A step: scale to length 1."""


Step = Dense | Normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSettings:
    """What the folder says about embeddings.

    Attributes:
        pooling: how the model was trained to pool; None if unspecified or unsupported.
        pooling_problem: why ``pooling`` is None.
        steps: the steps after pooling. A ``Normalize`` at the end is left out, because the caller's
            ``normalize`` decides that.
        dimension: length of a vector.
        max_tokens: limit for a text, special tokens included.
        max_tokens_source: where the limit comes from.
        lower_case: texts are lower-cased before they are tokenized.
        prompts: prefixes for texts, by name.
        default_prompt: name of the prompt that is used if the caller names none.
        pools_prompt: the tokens of the prompt are pooled too.
        problem: why this model's embeddings cannot be computed at all.
    """

    pooling: Pooling | None = None
    pooling_problem: str = "there is no 1_Pooling/config.json"
    steps: tuple[Step, ...] = ()
    dimension: int
    max_tokens: int
    max_tokens_source: str = "its context"
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    default_prompt: str | None = None
    pools_prompt: bool = True
    problem: str | None = None


class _Unsupported(Exception):
    """A step that talu does not support; the message says which and where."""


def read_embedding_settings(folder: Path, width: int, context: int) -> EmbeddingSettings:
    """Read the files of a folder; missing ones are skipped.

    Args:
        folder: the model's.
        width: width of the hidden states.
        context: maximum number of tokens of the network.

    Raises:
        ModelError: a file is damaged, or a value has the wrong type or is out of range.
    """
    modules = _modules(folder)
    problem, steps = None, list[Step]()
    pooling_folder, model_folder = folder / "1_Pooling", folder
    for number, (kind, place) in enumerate(modules):
        try:
            match kind:
                case "Transformer" if number == 0:
                    model_folder = place
                case "Pooling" if number == 1:
                    pooling_folder = place
                case "Dense" if number > 1:
                    steps.append(_dense(place, steps, width))
                case "Normalize" if number > 1:
                    _check_states(_settings(place / "config.json"), kind)
                    steps.append(Normalize())
                case "Dropout" if number > 1:
                    pass  # has an effect in training only
                case _:
                    raise _Unsupported(
                        f"module {number} is {kind}, which is not supported at this position"
                    )
        except _Unsupported as error:
            problem = f"{folder / 'modules.json'}: {error}"
            break
    while steps and isinstance(steps[-1], Normalize):
        steps.pop()
    pooling, why, pools_prompt = _pooling(pooling_folder / "config.json")
    prompts, default, cut = _prompts(folder / "config_sentence_transformers.json")
    length, source, lower_case = _length(model_folder, folder, context)
    dimension = _width(steps, width)
    return EmbeddingSettings(
        pooling=pooling,
        pooling_problem=why,
        steps=tuple(steps),
        dimension=min(dimension, cut or dimension),
        max_tokens=length,
        max_tokens_source=source,
        lower_case=lower_case,
        prompts=prompts,
        default_prompt=default,
        pools_prompt=pools_prompt,
        problem=problem,
    )


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Class and folder of each module in order; empty if there is no modules.json."""
    path = folder / "modules.json"
    if not path.exists():
        return []
    entries = _json(path)
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_MODULES:
        raise _wrong(path, f"must be a list of 1 to {MAX_MODULES} modules")
    return [_module(folder, path, number, entry) for number, entry in enumerate(entries)]


def _module(folder: Path, path: Path, number: int, entry: object) -> tuple[str, Path]:
    match entry:
        case {"type": str(kind), "path": str(place)}:
            pass
        case _:
            wrong = f"module {number} needs a type and a path, got {reprlib.repr(entry)}"
            raise _wrong(path, wrong)
    if place and re.fullmatch(r"[\w-][\w.-]{0,100}", place) is None:
        wrong = f"module {number} must be in a folder beside this file, got {reprlib.repr(place)}"
        raise _wrong(path, wrong)
    known = kind.startswith("sentence_transformers.")  # others are code that comes with the model
    return kind.rpartition(".")[2] if known else reprlib.repr(kind), folder / place


def _dense(place: Path, steps: list[Step], width: int) -> Dense:
    settings = Settings.from_file(place / "config.json")
    _check_states(settings, place.name)
    inputs = settings.integer("in_features", 1, MAX_WIDTH)
    if inputs != (given := _width(steps, width)):
        raise settings.error("in_features", f"is {inputs}, but the step before it returns {given}")
    word = settings.value("activation_function") if settings.has("activation_function") else ""
    name = str(word or "torch.nn.Tanh")
    activation = ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.") else None
    if activation is None:
        raise _Unsupported(
            f"{place.name} has the activation {str(word)[:100]!r}, which is not supported"
        )
    if not (place / "model.safetensors").exists():
        raise _Unsupported(
            f"{place.name} has no model.safetensors. Pickled weights are refused, because "
            "opening them can run any code; convert them once with "
            "SentenceTransformer(model).save_pretrained(new_folder)"
        )
    return Dense(
        folder=place,
        inputs=inputs,
        outputs=settings.integer("out_features", 1, MAX_WIDTH),
        bias=settings.flag("bias", default=True),
        activation=activation,
        residual=settings.flag("use_residual", default=False),
    )


def _check_states(settings: Settings, where: str) -> None:
    """Refuse a step that reads or writes the token states instead of the vector."""
    for key in ("module_input_name", "module_output_name"):
        if settings.has(key) and settings.value(key) != STATES:
            name = reprlib.repr(settings.value(key))
            raise _Unsupported(f"{where} has {key} {name}, which is not supported")


def _width(steps: list[Step], width: int) -> int:
    """Width of a vector after these steps."""
    widths = [step.outputs for step in steps if isinstance(step, Dense)]
    return widths[-1] if widths else width


def _pooling(path: Path) -> tuple[Pooling | None, str, bool]:
    """The pooling mode, why there is none, and whether the prompt is pooled."""
    if not path.exists():
        return None, "there is no 1_Pooling/config.json", True
    settings = Settings.from_file(path)
    modes: list[object] = [
        word
        for flag, word in POOLING_FLAGS.items()
        if settings.has(flag) and settings.value(flag) is True
    ]
    if settings.has("pooling_mode"):
        value = settings.value("pooling_mode")
        modes = value if isinstance(value, list) else [value]
    pools_prompt = settings.flag("include_prompt", default=True)
    modes = modes or ["mean"]  # the default of sentence-transformers
    pooling = POOLING_WORDS.get(modes[0]) if len(modes) == 1 and isinstance(modes[0], str) else None
    if pooling is None:
        shown = " + ".join(map(str, modes))[:100]
        return None, f"{path} says {shown}, which is not supported", pools_prompt
    assert pooling in POOLINGS
    return pooling, "", pools_prompt


def _prompts(path: Path) -> tuple[Mapping[str, str], str | None, int | None]:
    """The prompts by name, the name of the default prompt, and the length vectors are cut to."""
    settings = _settings(path)
    prompts = settings.value("prompts") if settings.has("prompts") else {}
    if not isinstance(prompts, dict) or len(prompts) > MAX_PROMPTS:
        raise settings.error("prompts", f"must be an object of at most {MAX_PROMPTS} texts")
    given = {name: text for name, text in prompts.items() if text is not None}
    for name, text in given.items():
        if not isinstance(text, str) or len(text) > MAX_PROMPT:
            raise settings.error("prompts", f"must hold texts, got {reprlib.repr(text)} as {name}")
    default = settings.value("default_prompt_name") if settings.has("default_prompt_name") else None
    if default is not None and not isinstance(default, str):
        raise settings.error("default_prompt_name", f"must be a text, got {reprlib.repr(default)}")
    cut = None
    if settings.has("truncate_dim"):
        cut = settings.integer("truncate_dim", 1, MAX_WIDTH)
    return MappingProxyType(given), default if default in given else None, cut


def _length(place: Path, folder: Path, context: int) -> tuple[int, str, bool]:
    """The most tokens of a text, the source of that limit, and whether texts are lower-cased.

    sentence-transformers uses ``max_seq_length`` if it is set, else the smaller of the tokenizer's
    and the network's limit.
    """
    files = (place / name for name in LENGTH_FILES)
    path = next((path for path in files if path.exists()), place / LENGTH_FILES[0])
    settings = _settings(path)
    lower_case = settings.flag("do_lower_case", default=False)
    limit, source = context, "its context"
    if settings.has("max_seq_length"):
        limit = settings.integer("max_seq_length", 1, MAX_LENGTH)
        source = f"max_seq_length in {path.name}"
    else:
        own = _settings(folder / "tokenizer_config.json")
        value = own.value("model_max_length") if own.has("model_max_length") else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < context:
            limit, source = value, "model_max_length in tokenizer_config.json"
    if limit >= context:
        limit, source = context, "its context"
    return limit, source, lower_case


def _settings(path: Path) -> Settings:
    return Settings.from_file(path) if path.exists() else Settings(path, {})


def _json(path: Path) -> object:
    if not path.is_file():  # opening a pipe would block for ever
        raise _wrong(path, "is not a file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _wrong(path, f"is larger than {MAX_BYTES} bytes")
        return json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(path, f"cannot be read: {error}; download the model again") from error


def _wrong(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} {what}", details={"path": str(path)})

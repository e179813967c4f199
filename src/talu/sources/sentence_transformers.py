"""Reads the sentence-transformers files that say how hidden states become embeddings.

``modules.json`` lists the steps, and folders such as ``1_Pooling`` and ``2_Dense`` configure them.
https://sbert.net/docs/sentence_transformer/usage/custom_models.html
"""

import json
import os
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from talu.error_text import reason
from talu.exceptions import ModelError
from talu.sources.embedding import (
    Dense,
    EmbeddingSettings,
    LayerNorm,
    Normalize,
    PoolingMode,
    Step,
    TextSettings,
)
from talu.sources.sentence_keys import (
    CROSS_ENCODER,
    Prompts,
    Unsupported,
    activation_named,
    optional,
    read_prompts,
    read_texts,
)
from talu.sources.settings import Settings
from talu.weights.safetensors_folder import open_folder

__all__ = ["network_folder", "read_embedding_settings", "read_scoring_settings"]

POOLING_WORDS: dict[object, PoolingMode] = {
    "cls": "first",
    "lasttoken": "last",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean",
}
POOLING_FLAGS = {  # of earlier versions: one flag for each mode
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
STATES = "sentence_embedding"  # the value that a step after pooling reads and writes
MAX_BYTES = 1 << 20
MAX_MODULES = 32
MAX_WIDTH = 2**17


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pooling:
    modes: tuple[PoolingMode, ...] | None = None
    problem: str = ""
    includes_prompt: bool = True


def network_folder(folder: Path) -> Path:
    """The folder of config.json, weights and tokenizer.

    It is a subfolder such as ``0_Transformer`` if ``modules.json`` says so.

    Raises:
        ModelError: ``modules.json`` is damaged.
    """
    modules = _modules(folder)
    return modules[0][1] if modules and modules[0][0] == "Transformer" else folder


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
    pooling = _own_pooling(folder, modules)
    pooled = width * len(pooling.modes or [""])
    steps, texts, prompts = list[Step](), TextSettings(max_tokens=context), Prompts()
    problem = None
    try:
        texts = read_texts(modules[0][1] if modules else folder, context)
        prompts = read_prompts(folder / "config_sentence_transformers.json")
        steps = _steps(folder / "modules.json", modules, pooled)
    except Unsupported as error:
        problem = str(error)
    dimension = _width(steps, pooled)
    cut = min(dimension, prompts.truncated_to or dimension)
    while steps and isinstance(steps[-1], Normalize) and cut == dimension:
        steps.pop()
    return EmbeddingSettings(
        pooling=pooling.modes,
        pooling_problem=pooling.problem,
        steps=tuple(steps),
        dimension=cut,
        texts=texts,
        prompts=prompts.texts,
        default_prompt=prompts.default,
        pools_prompt=pooling.includes_prompt,
        problem=problem,
        notes=(*texts.notes, *prompts.notes),
    )


def read_scoring_settings(folder: Path, context: int) -> EmbeddingSettings:
    """Read the files of a cross-encoder's folder; missing ones are skipped.

    Args:
        folder: the model's.
        context: maximum number of tokens of the network.

    Raises:
        ModelError: a file is damaged, or a value has the wrong type or is out of range.
    """
    modules = _modules(folder)
    texts, prompts = TextSettings(max_tokens=context), Prompts()
    problem = None
    try:
        texts = read_texts(modules[0][1] if modules else folder, context, CROSS_ENCODER)
        if modules:  # without it, sentence-transformers reads config.json only
            prompts = read_prompts(folder / "config_sentence_transformers.json", CROSS_ENCODER)
        kinds = [kind for kind, _ in modules]
        if kinds not in ([], ["Transformer"]):
            raise Unsupported(f"modules.json has the modules {', '.join(kinds)}, not one network")
        if prompts.default is not None and prompts.texts[prompts.default]:
            raise Unsupported("config_sentence_transformers.json has a default prompt for pairs")
    except Unsupported as error:
        problem = str(error)
    return EmbeddingSettings(
        dimension=1,
        texts=texts,
        problem=problem,
        score_activation=prompts.score_activation,
        notes=(*texts.notes, *prompts.notes),
    )


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Class and folder of each module in order; empty if there is no modules.json."""
    path = folder / "modules.json"
    if not os.path.lexists(path):
        return []
    entries = _json(path)
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_MODULES:
        raise _wrong(path, f"must be a list of 1 to {MAX_MODULES} modules")
    modules = [_module(folder, path, number, entry) for number, entry in enumerate(entries)]
    names = [entry.get("name") for entry in entries]
    for name in names:
        if name is not None and names.count(name) > 1:
            raise _wrong(path, f"has two modules with the name {reprlib.repr(name)}")
    return modules


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


def _steps(path: Path, modules: Sequence[tuple[str, Path]], width: int) -> list[Step]:
    """The steps after the pooling, whose vectors have this width."""
    steps = list[Step]()
    try:
        for number, (kind, place) in enumerate(modules):
            if number >= 2:
                steps += _step(number, kind, place, _width(steps, width))
            elif kind != ("Transformer", "Pooling")[number]:
                raise _misplaced(number, kind)
    except Unsupported as error:
        raise Unsupported(f"{path}: {error}") from None
    return steps


def _step(number: int, kind: str, place: Path, width: int) -> list[Step]:
    """The step of a module, which reads vectors of this width; Dropout has none."""
    match kind:
        case "Dense":
            return [_dense(place, width)]
        case "LayerNorm":
            return [_layer_norm(place, width)]
        case "Normalize":
            _check_states(optional(place / "config.json"), kind)
            return [Normalize()]
        case "Dropout":
            return []
    raise _misplaced(number, kind)


def _misplaced(number: int, kind: str) -> Unsupported:
    return Unsupported(f"module {number} is {kind}, which is not supported at this position")


def _dense(place: Path, width: int) -> Dense:
    settings = Settings.from_file(place / "config.json")
    _check_states(settings, place.name)
    _check_width(settings, "in_features", width)
    key, activation = "activation_function", "tanh"
    if settings.names(key):
        activation = activation_named(settings.raw(key, None), place.name)
    _check_weights(place)
    return Dense(
        tensors=partial(open_folder, place, use_mmap=False),
        inputs=width,
        outputs=settings.integer("out_features", 1, MAX_WIDTH),
        bias=settings.flag("bias", default=True),
        activation=activation,
        residual=settings.flag("use_residual", default=False),
    )


def _layer_norm(place: Path, width: int) -> LayerNorm:
    _check_width(Settings.from_file(place / "config.json"), "dimension", width)
    _check_weights(place)
    return LayerNorm(tensors=partial(open_folder, place, use_mmap=False), width=width)


def _check_width(settings: Settings, key: str, given: int) -> None:
    if (inputs := settings.integer(key, 1, MAX_WIDTH)) != given:
        raise settings.error(key, f"is {inputs}, but the step before it returns {given}")


def _check_weights(place: Path) -> None:
    if not os.path.lexists(place / "model.safetensors"):
        raise Unsupported(
            f"{place.name} has no model.safetensors. Pickled weights are refused, because "
            "opening them can run any code; convert them once with "
            "SentenceTransformer(model).save_pretrained(new_folder)"
        )


def _check_states(settings: Settings, where: str) -> None:
    """Refuse a step that reads or writes the token states instead of the vector."""
    for key in ("module_input_name", "module_output_name"):
        if settings.has(key) and settings.value(key) != STATES:
            name = reprlib.repr(settings.value(key))
            raise Unsupported(f"{where} has {key} {name}, which is not supported")


def _width(steps: list[Step], width: int) -> int:
    """Width of a vector after these steps."""
    widths = [step.outputs for step in steps if isinstance(step, Dense)]
    return widths[-1] if widths else width


def _own_pooling(folder: Path, modules: Sequence[tuple[str, Path]]) -> _Pooling:
    """The pooling that the folder names."""
    if not modules:
        return _read_pooling(folder / "1_Pooling" / "config.json")
    places = [place for kind, place in modules[1:2] if kind == "Pooling"]
    if not places:
        return _Pooling(problem="modules.json has no pooling after the network")
    return _read_pooling(places[0] / "config.json")


def _read_pooling(path: Path) -> _Pooling:
    if not os.path.lexists(path):
        return _Pooling(problem="there is no 1_Pooling/config.json")
    settings = Settings.from_file(path)
    words: list[object] = [
        word
        for flag, word in POOLING_FLAGS.items()
        if settings.has(flag) and settings.value(flag) is True
    ]
    if settings.has("pooling_mode"):
        value = settings.value("pooling_mode")
        words = value if isinstance(value, list) else [value]
    words = words or ["mean"]  # the default of sentence-transformers
    includes_prompt = settings.flag("include_prompt", default=True)
    known = len(words) <= len(POOLING_WORDS)
    if known and all(isinstance(word, str) and word in POOLING_WORDS for word in words):
        modes = tuple(POOLING_WORDS[word] for word in words)
        return _Pooling(modes=modes, includes_prompt=includes_prompt)
    given = " + ".join(map(str, words))[:100]
    problem = f"{path} says {given}, which is not supported"
    return _Pooling(problem=problem, includes_prompt=includes_prompt)


def _json(path: Path) -> object:
    if not path.is_file():  # opening a pipe would block for ever
        raise _wrong(path, "is not a file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _wrong(path, f"is larger than {MAX_BYTES} bytes")
        return json.loads(data)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"cannot be read: {error}; download the model again") from error


def _wrong(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} {what}", details={"path": str(path)})

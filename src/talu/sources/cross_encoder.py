"""Reads the head of a cross-encoder, which scores how well two texts belong together.

Such a model is a classifier with one label. It reads both texts at once, and the state of the first
token goes through two dense layers. https://arxiv.org/abs/1901.04085
The score is what the activation of sentence-transformers makes of the second layer's output.
https://sbert.net/docs/cross_encoder/usage/usage.html
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from talu.sources.embedding import Dense, EmbeddingSettings
from talu.sources.sentence_keys import Unsupported, activation_named
from talu.sources.settings import Settings
from talu.sources.source import ModelSource
from talu.weights.checkpoint import Checkpoint

__all__ = ["Classifier", "SegmentTable", "classifier_of", "read_scoring"]

OLD_KEY = "sbert_ce_default_activation_function"
KEY = "sentence_transformers"


class Classifier(NamedTuple):
    """The two layers of a class in transformers, by the names of their tensors.

    Attributes:
        dense: the first layer, as wide as the hidden states.
        activation: what follows it; see ``talu.sources.embedding.Dense``.
        output: the second layer, whose output is the score.
    """

    dense: str
    activation: str
    output: str


class SegmentTable(NamedTuple):
    """A table with a row for each token in the first of two texts, and then in the second.

    A row is the sum of the token's embedding and of that of its text, so that one lookup gives
    both. It is computed when the model opens.

    Attributes:
        name: of the table in the network.
        words, types: of the stored tensors: (vocabulary, width) and (types, width).
        shape: of ``words``.
        kinds: rows of ``types``, of which the first two are used.
    """

    name: str
    words: str
    types: str
    shape: tuple[int, int]
    kinds: int


def classifier_of(settings: Settings, classifiers: Mapping[str, Classifier]) -> Classifier | None:
    """The head that config.json names; None if it names none.

    Raises:
        ModelError: it has more labels than one.
    """
    given = settings.value("architectures") if settings.has("architectures") else None
    names = [name for name in given if name in classifiers] if isinstance(given, list) else []
    if not names:
        return None
    labels = _labels(settings)
    if labels != 1:
        raise settings.error(
            "architectures",
            f"is {names[0]!r}, and the model has {labels} labels; talu supports classifiers with "
            "one label, which score pairs of texts",
        )
    return classifiers[names[0]]


def read_scoring(
    source: ModelSource, settings: Settings, head: Classifier, width: int, context: int
) -> EmbeddingSettings:
    """How the hidden states of a pair become a score, which is a vector of one number.

    Raises:
        ModelError: a file is damaged, or a value has the wrong type or is out of range.
    """
    found = source.embedding(width, context, scores=True)
    activation, problem = "sigmoid", found.problem
    try:
        activation = found.score_activation or _activation(settings)
    except Unsupported as error:
        problem = problem or str(error)
    layers = ((head.dense, width, head.activation), (head.output, 1, activation))
    steps = tuple(
        Dense(
            tensors=partial(_layer, source, name),
            inputs=width,
            outputs=outputs,
            bias=True,
            activation=kind,
            residual=False,
        )
        for name, outputs, kind in layers
    )
    return found._replace(pooling=("first",), steps=steps, dimension=1, problem=problem)


def _layer(source: ModelSource, name: str) -> Checkpoint:
    """The tensors of a layer by the names that ``Dense`` reads."""
    parts = ("weight", "bias")
    names = {f"linear.{part}": f"{name}.{part}" for part in parts}
    return source.tensors(use_mmap=False).renamed(names)


def _labels(settings: Settings) -> int:
    """The number of labels, as transformers counts them; two unless config.json says it."""
    if settings.has("id2label"):
        labels = settings.value("id2label")
        if not isinstance(labels, dict):
            raise settings.error("id2label", "must be an object")
        return len(labels)
    return settings.integer("num_labels", 1, 2**20) if settings.has("num_labels") else 2


def _activation(settings: Settings) -> str:
    """The activation of the scores that config.json names, sigmoid if it names none.

    Raises:
        Unsupported: it is not one that talu computes.
    """
    word = settings.value(OLD_KEY) if settings.has(OLD_KEY) else None
    if settings.has(KEY) and (section := settings.section(KEY)).has("activation_fn"):
        word = section.value("activation_fn")
    return "sigmoid" if word is None else activation_named(word, settings.path.name)

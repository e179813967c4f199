"""Reads a model's settings and records its network.

A family is one module listed in ``FAMILIES`` with five names: ``ARCHITECTURES`` (its model types,
each with the transformers classes that have the same network), ``KEYS`` (the keys of config.json
that each model type depends on), ``PREFIXES`` (the prefix of the tensors' names in classes with a
head), ``read`` (settings to a ``Config`` with ``sizes``) and ``build`` (a ``Config`` to a
``Graph``). Files of a model are data; nothing in them selects code to run.
"""

from collections.abc import Collection, Mapping
from math import prod
from typing import Any, NamedTuple

from talu.forks import import_whole
from talu.graph.record import Graph, Value
from talu.models.decoder import HEAD, TABLE
from talu.models.generation import GENERATION_KEYS, read_generation
from talu.models.names import stored_names
from talu.sources.cross_encoder import SegmentTable, read_scoring
from talu.sources.embedding import EmbeddingSettings
from talu.sources.settings import Settings
from talu.sources.source import ModelSource

__all__ = ["FAMILIES", "Architecture", "families", "load_architecture"]

FAMILIES = ["bert", "gemma", "llama", "qwen"]
SHOWN = 12  # names in a note
CLASSIFIER = "ForSequenceClassification"  # which each family that has one lists by its whole name
OWN_HEAD = (
    "ties the output head to the embedding table ('tie_word_embeddings'), but the checkpoint has a "
    f"different {HEAD!r}, which is used instead"
)
UNKNOWN_CLASS = (
    "names classes in 'architectures' that talu does not know; the network is that of the model "
    "type"
)

WITHOUT_EFFECT = (  # common keys that the network does not depend on: no note names them
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "directionality",
    "dropout",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "max_sequence_length",
    "model_max_length",
    "model_name",
    "model_type",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "qa_dropout",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "seq_classif_dropout",
    "sinusoidal_pos_embds",
    "task_specific_params",
    "tie_weights_",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_mrope",
    "use_return_dict",
)


class Architecture(NamedTuple):
    """A network and the settings that come with it.

    Attributes:
        model_type: as in config.json.
        config: the settings that the family has read; see ``Config`` of its module.
        context_length: positions that the model was trained for.
        end_token_ids: tokens that end a generation.
        generation_defaults: from generation_config.json, by the names of that file; only known
            ones. ``do_sample: false`` is a temperature of 0.
        notes: settings in the files that are not used.
        prefix: prefix of the tensors' names that a checkpoint may lack.
        tied: config.json ties the output head to the embedding table.
        embeds_only: why the network computes no logits; None if it does.
        parameter_count: numbers in all tensors that the network reads.
        embedding: what the folder says about embeddings; of a cross-encoder, how its hidden states
            become a score.
    """

    model_type: str
    config: Any
    graph: Graph
    vocabulary_size: int
    context_length: int
    hidden_size: int
    layer_count: int
    end_token_ids: frozenset[int]
    generation_defaults: Mapping[str, Any]
    notes: tuple[str, ...]
    prefix: str
    tied: bool
    parameter_count: int
    embedding: EmbeddingSettings
    embeds_only: str | None = None

    @property
    def sizes(self) -> Any:
        """The sizes that the family has read."""
        return self.config.sizes

    @property
    def scores_pairs(self) -> bool:
        """Whether it is a cross-encoder, which scores pairs of texts and does nothing else."""
        return self.sizes.classifier is not None

    @property
    def segments(self) -> SegmentTable | None:
        """The table of tokens in either text of a pair; None if there is none."""
        found: SegmentTable | None = self.sizes.segments
        return found

    @property
    def embeds(self) -> bool:
        """Whether it makes embeddings."""
        return self.embedding.problem is None and not self.scores_pairs

    @property
    def lower_case(self) -> bool:
        """Whether every text is lower-cased before it becomes tokens."""
        return self.embedding.texts.lower_case and self.embedding.problem is None

    @property
    def hidden(self) -> Value:
        """The value that embeddings are pooled from."""
        assert self.graph.hidden is not None  # every family sets it
        return self.graph.hidden

    @property
    def generates(self) -> bool:
        """Whether the network computes logits, not only hidden states."""
        return self.graph.result != self.hidden

    def fits(self, stored: Collection[str]) -> bool:
        """Whether the network is the same if these tensors are known to be in the checkpoint."""
        return self.embeds_only is not None or self.tied or HEAD in stored

    def names_in(self, stored: Collection[str]) -> dict[str, str]:
        """The name of each tensor of the network in a checkpoint; of computed ones, their parts."""
        wanted = set(self.graph.weights)
        if self.segments is not None:
            wanted = wanted - {self.segments.name} | {self.segments.words, self.segments.types}
        return stored_names(wanted, stored, prefix=self.prefix, tied=self.tied)

    def tied_pair(self, stored: Collection[str]) -> tuple[str, str] | None:
        """Stored names of embedding table and output head if both exist and should be equal."""
        table = self.names_in(stored)[TABLE] if self.tied and self.generates else HEAD
        return (table, HEAD) if table != HEAD and HEAD in stored else None

    @property
    def causal(self) -> bool:
        """Whether attention is causal, so that a text can be computed in parts."""
        return all(op.params.get("causal", True) for op in self.graph.ops)


def families() -> dict[str, Any]:
    """The module of each model type."""
    modules = (import_whole(f"talu.models.{each}") for each in FAMILIES)
    return {model_type: module for module in modules for model_type in module.ARCHITECTURES}


def _family(settings: Settings) -> tuple[str, Any]:
    """The model type and its module; as few others as possible are imported."""
    given = settings.raw("model_type", None)
    likely = sorted(FAMILIES, key=lambda name: not str(given).startswith(name))
    for each in likely:
        module = import_whole(f"talu.models.{each}")
        if isinstance(given, str) and given in module.ARCHITECTURES:
            return given, module
    known = families()
    model_type = settings.word("model_type", sorted(known))  # says what is wrong
    return model_type, known[model_type]


def load_architecture(
    source: ModelSource, *, stored: Collection[str] | None = None, own_head: bool = False
) -> Architecture:
    """Read the settings of a model and record its network.

    Args:
        source: the model's files.
        stored: names of the tensors in the checkpoint; None if they are not known yet, in which
            case config.json is trusted.
        own_head: use the stored ``lm_head.weight`` even if config.json ties the output head to the
            embedding table.

    Raises:
        ModelError: a file is missing or damaged, the model type is unknown, or a setting is out of
            range or not supported; the message names it.
    """
    settings = source.settings()
    name = settings.path.name
    model_type, family = _family(settings)
    unknown = _unknown_classes(settings, family.ARCHITECTURES[model_type])
    config = family.read(settings, model_type)
    sizes = config.sizes
    generation = read_generation(source.generation(), settings, sizes.vocabulary)
    tied = sizes.tied and not own_head
    embeds_only = _embeds_only(settings, model_type, sizes, tied, stored)
    head = None if embeds_only else (TABLE if tied else HEAD)
    graph: Graph = family.build(config, head)
    embedding = _embedding(source, settings, sizes)
    return Architecture(
        model_type=model_type,
        config=config,
        graph=graph,
        vocabulary_size=sizes.vocabulary,
        context_length=sizes.context,
        hidden_size=sizes.width,
        layer_count=sizes.layers,
        end_token_ids=generation.end_token_ids,
        generation_defaults=generation.values,
        notes=(
            *(f"{name} {UNKNOWN_CLASS} {model_type!r}: {_listed(unknown)}" for _ in unknown[:1]),
            *_notes(settings, sizes.without_effect),
            *generation.notes,
            *[f"{name} {OWN_HEAD}"][:own_head],
            *embedding.notes,
        ),
        prefix=family.PREFIXES[model_type],
        tied=sizes.tied,
        parameter_count=sum(prod(shape) for shape in graph.weights.values()) - _repeated(sizes),
        embedding=embedding,
        embeds_only=embeds_only,
    )


def _unknown_classes(settings: Settings, known: Collection[str]) -> list[str]:
    """The classes in ``architectures`` that talu does not know but that have a known head.

    A class with another head, such as a classifier, has another network and is refused.
    """
    if not settings.has("architectures"):
        return []
    given, folded = settings.value("architectures"), {name.casefold() for name in known}
    heads = {name[name.index("For") :] for name in known if "For" in name} - {CLASSIFIER}
    unknown = []
    for name in given if isinstance(given, list) else [given]:
        if isinstance(name, str) and name.casefold() in folded:
            continue
        if not isinstance(name, str) or not name.endswith(tuple(heads)):
            settings.words("architectures", tuple(known))  # raises
        unknown.append(str(name))
    return unknown


def _embedding(source: ModelSource, settings: Settings, sizes: Any) -> EmbeddingSettings:
    if sizes.classifier is not None:
        return read_scoring(source, settings, sizes.classifier, sizes.width, sizes.context)
    embedding = source.embedding(sizes.width, sizes.context)
    if embedding.texts.lower_case and not sizes.encoder:
        wrong = "'do_lower_case' in sentence_bert_config.json is supported for encoders only"
        return embedding._replace(problem=wrong)  # prompts must keep their case
    return embedding


def _repeated(sizes: Any) -> int:
    """Numbers in the table of tokens in two segments that are no parameters."""
    return 0 if sizes.segments is None else prod(sizes.segments.shape)


def _embeds_only(
    settings: Settings, model_type: str, sizes: Any, tied: bool, stored: Collection[str] | None
) -> str | None:
    if sizes.encoder:
        does = "makes embeddings" if sizes.classifier is None else "scores pairs of texts"
        return f"a model of type {model_type!r} does not generate text, it {does}"
    if not sizes.causal:
        return (
            "the model makes embeddings and does not generate text: 'is_causal' is false in "
            f"{settings.path.name}, so every token sees the whole text"
        )
    if not tied and stored is not None and HEAD not in stored:
        value = "false" if settings.has("tie_word_embeddings") else "not set"
        return (
            f"the checkpoint has no {HEAD!r} and 'tie_word_embeddings' is {value} in "
            f"{settings.path.name}, so the model can make embeddings, but not generate text"
        )
    return None


def _notes(settings: Settings, nested: Collection[str]) -> list[str]:
    """Notes on keys that have no effect or occur more than once."""
    settings.ignore(*WITHOUT_EFFECT, *GENERATION_KEYS)
    notes = []
    unread = settings.unread().items()
    names = [name for name, value in unread if value is not False and value not in ("", [], {})]
    if names := [*names, *nested]:
        notes.append(f"keys of {settings.path.name} that talu does not read: {_listed(names)}")
    if settings.repeated:
        notes.append(
            f"keys that occur more than once in {settings.path.name}; the last value is used: "
            f"{_listed(settings.repeated)}"
        )
    return notes


def _listed(names: Collection[str]) -> str:
    """The first names, shortened, and the number of those left out."""
    shown = [name if len(name) <= 60 else f"{name[:57]}..." for name in list(names)[:SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

"""The model families, and what a model folder says about its network.

A family is one file named in ``FAMILIES`` with three names: ``ARCHITECTURES`` (its model types,
each with the classes of transformers that have the same network), ``read`` (config.json to a
``Config`` with ``sizes``) and ``build`` (that to a ``Graph``). Files of a model are data: nothing
in them names code to run.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from talu.graph.record import Graph, Value
from talu.models.generation import read_generation
from talu.models.sentence_transformers import EmbeddingSettings, read_embedding_settings
from talu.models.settings import Settings

__all__ = ["FAMILIES", "Architecture", "load_architecture"]

FAMILIES = ["bert", "llama", "qwen"]

WITHOUT_EFFECT = (  # of training, saving, other tools, or Python code that talu never runs
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "classifier_dropout",
    "do_sample",
    "dtype",
    "embd_pdrop",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "max_length",
    "max_sequence_length",
    "model_max_length",
    "model_name",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network, and what its folder says about using it.

    Attributes:
        model_type: of config.json.
        context_length: positions that the model was made for.
        end_token_ids: tokens that end a generation.
        generation_defaults: from generation_config.json, by the names of that file; only known
            ones. ``do_sample: false`` is a temperature of 0.
        generation_not_honoured: names in generation_config.json that would change the tokens and
            that talu does not have.
        parameter_count: numbers in all tensors that the network reads.
        embedding: what the folder says about embeddings.
    """

    model_type: str
    graph: Graph
    vocabulary_size: int
    context_length: int
    hidden_size: int
    layer_count: int
    end_token_ids: frozenset[int]
    generation_defaults: Mapping[str, Any]
    generation_not_honoured: tuple[str, ...]
    parameter_count: int
    embedding: EmbeddingSettings

    @property
    def hidden(self) -> Value:
        """The value that embeddings are pooled from."""
        assert self.graph.hidden is not None  # every family names it
        return self.graph.hidden

    @property
    def generates(self) -> bool:
        """Whether the network gives logits, and not hidden states alone."""
        return self.graph.result != self.hidden

    @property
    def causal(self) -> bool:
        """Whether no row sees a later one, so that a text can be computed in parts."""
        return all(op.params.get("causal", True) for op in self.graph.ops)


def load_architecture(folder: Path) -> Architecture:
    """Read config.json and generation_config.json and record the network.

    Raises:
        ModelError: a file is missing or damaged, the model type is unknown, or a setting is
            missing, out of range, or not one that talu can honour; the message names it.
    """
    settings = Settings.from_file(folder / "config.json")
    families = {
        model_type: family
        for family in (importlib.import_module(f"talu.models.{name}") for name in FAMILIES)
        for model_type in family.ARCHITECTURES
    }
    model_type = settings.word("model_type", sorted(families))
    family = families[model_type]
    if settings.has("architectures"):  # a classifier has the model type of the generator beside it
        settings.words("architectures", family.ARCHITECTURES[model_type])
    config = family.read(settings)
    sizes = config.sizes
    generation = read_generation(folder, settings, sizes.vocabulary)
    settings.ignore(*WITHOUT_EFFECT)
    settings.refuse_unread()
    graph: Graph = family.build(config)
    return Architecture(
        model_type=model_type,
        graph=graph,
        vocabulary_size=sizes.vocabulary,
        context_length=sizes.context,
        hidden_size=sizes.width,
        layer_count=sizes.layers,
        end_token_ids=generation.end_token_ids,
        generation_defaults=generation.values,
        generation_not_honoured=generation.not_honoured,
        parameter_count=sum(prod(shape) for shape in graph.weights.values()),
        embedding=read_embedding_settings(folder, sizes.width, sizes.context),
    )

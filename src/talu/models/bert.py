"""Records BERT, RoBERTa and DistilBERT, also as cross-encoders.

Every position attends to the whole text, each residual sum is followed by a norm, and the result is
hidden states, which are pooled into embeddings. Heads for pretraining are ignored.
https://arxiv.org/abs/1810.04805, https://arxiv.org/abs/1907.11692, https://arxiv.org/abs/1910.01108
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from talu.graph.record import Graph, Value
from talu.models.keys import ALL_FAMILIES, INVALID, Choice, Decimal, Key, Off, Whole, read_keys
from talu.sources.cross_encoder import Classifier, SegmentTable, classifier_of
from talu.sources.settings import Settings

__all__ = ["ARCHITECTURES", "KEYS", "PREFIXES", "Config", "build", "read"]

ARCHITECTURES = {
    "bert": (
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
    ),
    "distilbert": (
        "DistilBertModel",
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
    ),
    "roberta": ("RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification"),
    "xlm-roberta": (
        "XLMRobertaModel",
        "XLMRobertaForMaskedLM",
        "XLMRobertaForSequenceClassification",
    ),
}
ROBERTA_HEAD = Classifier("classifier.dense", "tanh", "classifier.out_proj")
CLASSIFIERS = {
    "BertForSequenceClassification": Classifier("bert.pooler.dense", "tanh", "classifier"),
    "DistilBertForSequenceClassification": Classifier("pre_classifier", "relu", "classifier"),
    "RobertaForSequenceClassification": ROBERTA_HEAD,
    "XLMRobertaForSequenceClassification": ROBERTA_HEAD,
}
PREFIXES = {  # of tensor names in checkpoints where the encoder is part of a larger model
    "bert": "bert.",
    "distilbert": "distilbert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
}
ACTIVATIONS = {  # names in config.json: names of Graph.activate
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
POSITIONS = Whole(missing=512, high=2**27)
ENCODER: Mapping[str, Key] = {
    **ALL_FAMILIES,
    "is_decoder": Off(null=INVALID, neutral=(False,), why="a decoder is not supported"),
    "add_cross_attention": Off(
        null=INVALID, neutral=(False,), why="cross-attention is not supported"
    ),
    "is_causal": Off(neutral=(False, 0), why="causal attention is not supported in encoders"),
    "position_embedding_type": Off(
        neutral=("absolute",), why="only absolute position embeddings are supported"
    ),
    "max_position_embeddings": POSITIONS,
}
BERT_KEYS: Mapping[str, Key] = {
    **ENCODER,
    "vocab_size": Whole(missing=30_522, high=2**22),
    "hidden_size": Whole(missing=768, high=2**17),
    "num_hidden_layers": Whole(missing=12, high=2**12),
    "num_attention_heads": Whole(missing=12, high=2**12),
    "intermediate_size": Whole(missing=3072, high=2**20),
    "hidden_act": Choice(missing="gelu", words=ACTIVATIONS),
    "layer_norm_eps": Decimal(missing=1e-12),
    "type_vocab_size": Whole(missing=2, high=2**16),
}
PADDING = Whole(missing=1, low=-1, high=2**22)  # positions are counted from the one after it
KEYS: Mapping[str, Mapping[str, Key]] = {
    "bert": BERT_KEYS,
    "roberta": {
        **BERT_KEYS,
        "vocab_size": Whole(missing=50_265, high=2**22),
        "pad_token_id": PADDING,
    },
    "xlm-roberta": {**BERT_KEYS, "pad_token_id": PADDING},
    "distilbert": {
        **ENCODER,
        "is_decoder": Off(neutral=(False, 0), why="a decoder is not supported"),
        "add_cross_attention": Off(neutral=(False, 0), why="cross-attention is not supported"),
        "vocab_size": Whole(missing=30_522, high=2**22),
        "dim": Whole(missing=768, high=2**17),
        "n_layers": Whole(missing=6, high=2**12),
        "n_heads": Whole(missing=12, high=2**12),
        "hidden_dim": Whole(missing=3072, high=2**20),
        "activation": Choice(missing="gelu", words=ACTIVATIONS),
        # the general names, which take precedence
        "hidden_size": Whole(high=2**17),
        "num_hidden_layers": Whole(high=2**12),
        "num_attention_heads": Whole(high=2**12),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of an encoder, named as in the decoders' ``Sizes``.

    Attributes:
        classifier: the head that scores pairs of texts; None if there is none.
        segments: the table of tokens in either of two texts, which differ in their token types;
            None if there are no pairs or no types.
    """

    encoder: ClassVar[bool] = True
    tied: ClassVar[bool] = False
    causal: ClassVar[bool] = False
    without_effect: ClassVar[tuple[str, ...]] = ()

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    inner: int
    eps: float
    activation: str
    classifier: Classifier | None
    segments: SegmentTable | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names of the parts of a layer in a checkpoint."""

    layer: str
    query: str
    key: str
    value: str
    output: str
    attention_norm: str
    up: str
    down: str
    norm: str


BERT = Names(
    layer="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)
DISTILBERT = Names(
    layer="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of an encoder.

    Attributes:
        first_position: row of the position table that the first token uses.
        padding: the token that takes no position; None if every token takes one.
        types: rows of the table of token types; 0 if there is none.
    """

    sizes: Sizes
    names: Names
    prefix: str
    first_position: int
    padding: int | None
    types: int


def read(settings: Settings, model_type: str) -> Config:
    """Read and check config.json."""
    values = read_keys(settings, KEYS[model_type])
    distilled = model_type == "distilbert"
    if distilled:
        for key, general in (
            ("dim", "hidden_size"),
            ("n_layers", "num_hidden_layers"),
            ("n_heads", "num_attention_heads"),
        ):
            values[general] = values[general] or values[key]
    heads, width = values["num_attention_heads"], values["hidden_size"]
    if width % heads:
        key = "dim" if distilled else "hidden_size"
        raise settings.error(key, f"is {width}, not a multiple of {heads} heads")
    padding = values.get("pad_token_id")
    first = 0 if padding is None else padding + 1
    positions = values["max_position_embeddings"]
    if first >= positions:
        message = f"is {positions}, but the first position is {first}"
        raise settings.error("max_position_embeddings", message)
    classifier, types = classifier_of(settings, CLASSIFIERS), values.get("type_vocab_size", 0)
    table = f"{PREFIXES[model_type]}embeddings"
    segments = SegmentTable(
        name=f"{table}.words_in_segments",
        words=f"{table}.word_embeddings.weight",
        types=f"{table}.token_type_embeddings.weight",
        shape=(values["vocab_size"], width),
        kinds=types,
    )
    sizes = Sizes(
        vocabulary=values["vocab_size"],
        context=positions - first,
        width=width,
        layers=values["num_hidden_layers"],
        heads=heads,
        inner=values["hidden_dim" if distilled else "intermediate_size"],
        eps=1e-12 if distilled else values["layer_norm_eps"],
        activation=values["activation" if distilled else "hidden_act"],
        classifier=classifier,
        segments=segments if classifier and types > 1 else None,
    )
    return Config(
        sizes=sizes,
        names=DISTILBERT if distilled else BERT,
        prefix=PREFIXES[model_type],
        first_position=first,
        padding=padding if padding in range(sizes.vocabulary) else None,
        types=types,
    )


def build(config: Config, head: str | None) -> Graph:
    """Record the network, its tensors named as Hugging Face names them, with the prefix.

    ``head`` is always None: encoders compute no logits.
    """
    assert head is None
    s, names = config.sizes, config.names
    graph = Graph()
    table, head_size = f"{config.prefix}embeddings", s.width // s.heads

    def project(x: Value, name: str, width: int) -> Value:
        return graph.linear(x, f"{name}.weight", width, bias=f"{name}.bias")

    def norm(x: Value, name: str) -> Value:
        return graph.layer_norm(x, f"{name}.weight", f"{name}.bias", s.eps)

    positions = s.context + config.first_position
    if s.segments is not None:
        x = graph.embed(s.segments.name, 2 * s.vocabulary, s.width)
    else:
        x = graph.embed(f"{table}.word_embeddings.weight", s.vocabulary, s.width)
        if config.types:  # a text that is not one of a pair has token type 0
            types = f"{table}.token_type_embeddings.weight"
            x = graph.add(x, graph.embed_row(types, config.types, s.width))
    places = graph.embed_position(
        f"{table}.position_embeddings.weight",
        positions,
        s.width,
        offset=config.first_position,
        padding=config.padding,
    )
    x = norm(graph.add(x, places), f"{table}.LayerNorm")
    for i in range(s.layers):
        layer = f"{config.prefix}{names.layer}.{i}"
        q, k, v = (
            project(x, f"{layer}.{name}", s.width) for name in (names.query, names.key, names.value)
        )
        a = graph.attention(q, k, v, head_size, scale=1 / math.sqrt(head_size), causal=False)
        if i == s.layers - 1:  # from here on, rows are independent
            x, a = graph.output_rows(x), graph.output_rows(a)
        a = graph.add(project(a, f"{layer}.{names.output}", s.width), x)
        x = norm(a, f"{layer}.{names.attention_norm}")
        h = graph.activate(project(x, f"{layer}.{names.up}", s.inner), s.activation)
        h = graph.add(project(h, f"{layer}.{names.down}", s.width), x)
        x = norm(h, f"{layer}.{names.norm}")
    graph.output(x, hidden=x)
    return graph

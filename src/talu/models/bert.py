"""BERT (https://arxiv.org/abs/1810.04805), RoBERTa (…/1907.11692), DistilBERT (…/1910.01108).

Encoders: every position sees the whole text, norms come after each sum, and the result is hidden
states, from which embeddings are pooled. Heads for training and for classes are not read.
"""

from dataclasses import dataclass

from talu.graph.record import Graph, Value
from talu.models.settings import Settings

__all__ = ["ARCHITECTURES", "Config", "build", "read"]

ARCHITECTURES = {
    "bert": ("BertModel", "BertForMaskedLM", "BertForPreTraining"),
    "distilbert": ("DistilBertModel", "DistilBertForMaskedLM"),
    "roberta": ("RobertaModel", "RobertaForMaskedLM"),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaForMaskedLM"),
}
PREFIXES = {  # of the tensors, where the encoder is a part of a larger model
    "bert": "bert.",
    "distilbert": "distilbert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
}
ACTIVATIONS = {  # names in config.json: names of Graph.activate
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
NO_NETWORK = (  # training, and parts beside the encoder
    "chunk_size_feed_forward",
    "directionality",
    "dropout",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "qa_dropout",
    "seq_classif_dropout",
    "sinusoidal_pos_embds",  # how the table was filled that the checkpoint has
    "tie_weights_",
    "tie_word_embeddings",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of an encoder; the names are those of the decoders' ``Sizes``."""

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    inner: int
    eps: float
    activation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a checkpoint calls the parts of a layer."""

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
    """What makes one of these encoders different from another.

    Attributes:
        prefix: of the names of all tensors.
        first_position: row of the position table that belongs to the first token.
        types: rows of the table of token types, 0 where there is none.
    """

    sizes: Sizes
    names: Names
    prefix: str
    first_position: int
    types: int


def read(settings: Settings) -> Config:
    """The settings of config.json, checked."""
    model_type = settings.word("model_type", tuple(ARCHITECTURES))
    settings.ignore(*NO_NETWORK)
    distilled = model_type == "distilbert"
    heads_key, width_key = (
        ("n_heads", "dim") if distilled else ("num_attention_heads", "hidden_size")
    )
    heads, width = settings.integer(heads_key, 1, 2**12), settings.integer(width_key, 1, 2**17)
    if width % heads:
        raise settings.error(width_key, f"is {width}, no multiple of {heads} heads")
    positions = settings.integer("max_position_embeddings", 1, 2**27)
    first = 0
    if "roberta" in model_type:  # positions are counted from the one after padding's
        first = settings.integer("pad_token_id", 0, 2**22, default=1) + 1
        if first >= positions:
            message = f"is {positions}, but the first position is {first}"
            raise settings.error("max_position_embeddings", message)
    activation = settings.word(
        "activation" if distilled else "hidden_act", tuple(ACTIVATIONS), default="gelu"
    )
    sizes = Sizes(
        vocabulary=settings.integer("vocab_size", 1, 2**22),
        context=positions - first,
        width=width,
        layers=settings.integer("n_layers" if distilled else "num_hidden_layers", 1, 2**12),
        heads=heads,
        inner=settings.integer("hidden_dim" if distilled else "intermediate_size", 1, 2**20),
        eps=1e-12
        if distilled
        else settings.number("layer_norm_eps", above=0.0, up_to=1.0, default=1e-12),
        activation=ACTIVATIONS[activation],
    )
    if not distilled:
        settings.word("position_embedding_type", ("absolute",), default="absolute")
    return Config(
        sizes=sizes,
        names=DISTILBERT if distilled else BERT,
        prefix=_prefix(settings, model_type),
        first_position=first,
        types=0 if distilled else settings.integer("type_vocab_size", 1, 2**16, default=2),
    )


def _prefix(settings: Settings, model_type: str) -> str:
    if not settings.has("architectures"):
        return ""
    classes = settings.words("architectures", ARCHITECTURES[model_type])
    return "" if all(name.endswith("Model") for name in classes) else PREFIXES[model_type]


def build(config: Config) -> Graph:
    """Record the network, its tensors named as Hugging Face names them."""
    s, names = config.sizes, config.names
    graph = Graph()
    table, head_size = f"{config.prefix}embeddings", s.width // s.heads

    def project(x: Value, name: str, width: int) -> Value:
        return graph.linear(x, f"{name}.weight", width, bias=f"{name}.bias")

    def norm(x: Value, name: str) -> Value:
        return graph.layer_norm(x, f"{name}.weight", f"{name}.bias", s.eps)

    positions = s.context + config.first_position
    x = graph.embed(f"{table}.word_embeddings.weight", s.vocabulary, s.width)
    if config.types:  # a text that stands alone is of type 0
        kinds = graph.embed_row(f"{table}.token_type_embeddings.weight", config.types, s.width)
        x = graph.add(x, kinds)
    places = graph.embed_position(
        f"{table}.position_embeddings.weight", positions, s.width, offset=config.first_position
    )
    x = norm(graph.add(x, places), f"{table}.LayerNorm")
    for i in range(s.layers):
        layer = f"{config.prefix}{names.layer}.{i}"
        q, k, v = (
            project(x, f"{layer}.{name}", s.width) for name in (names.query, names.key, names.value)
        )
        a = graph.attention(q, k, v, head_size, scale=head_size**-0.5, causal=False)
        if i == s.layers - 1:  # nothing after the last keys and values looks at other rows
            x, a = graph.wanted(x), graph.wanted(a)
        a = graph.add(project(a, f"{layer}.{names.output}", s.width), x)
        x = norm(a, f"{layer}.{names.attention_norm}")
        h = graph.activate(project(x, f"{layer}.{names.up}", s.inner), s.activation)
        h = graph.add(project(h, f"{layer}.{names.down}", s.width), x)
        x = norm(h, f"{layer}.{names.norm}")
    graph.output(x, hidden=x)
    return graph

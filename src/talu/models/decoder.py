"""Defines the configuration keys and sizes that all decoders share."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Self

from talu.models.keys import ALL_FAMILIES, Choice, Decimal, Flag, Key, Off, Truth, Whole
from talu.models.rope import Frequencies
from talu.models.rope_keys import MAX_CONTEXT, Rotation, rotary_frequencies
from talu.sources.settings import Settings

__all__ = [
    "ACTIVATIONS",
    "HEAD",
    "MAX_CONTEXT",
    "NO_CHUNKS",
    "SHORT_WINDOW",
    "TABLE",
    "Sizes",
    "check_layers_without_window",
    "decoder_keys",
]

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ACTIVATIONS = {  # names in config.json: names of Graph.gated
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
SHORT_WINDOW = "transformers gives other results for it with a cache than without"
NO_WINDOW = Off(why="a sliding window is not supported for this model type")
NO_CHUNKS = Off(why="chunked attention is not supported")
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def decoder_keys(
    *, vocabulary: int, inner: int, context: int, kv_heads: int | None
) -> dict[str, Key]:
    """The keys that every decoder reads; the arguments are a family's defaults.

    ``rotary_frequencies`` reads the keys of the rotary embedding.
    """
    return {
        **ALL_FAMILIES,
        "vocab_size": Whole(missing=vocabulary, high=2**22),
        "hidden_size": Whole(missing=4096, high=2**17),
        "intermediate_size": Whole(missing=inner, high=2**20),
        "num_hidden_layers": Whole(missing=32, high=2**12),
        "num_attention_heads": Whole(missing=32, high=2**12),
        "num_key_value_heads": Whole(missing=kv_heads, null=None, high=2**12),
        "head_dim": Whole(null=None, low=2, high=2**12),
        "max_position_embeddings": Whole(missing=context, high=MAX_CONTEXT),
        "rms_norm_eps": Decimal(missing=1e-6),
        "hidden_act": Choice(missing="silu", words=ACTIVATIONS),
        "tie_word_embeddings": Flag(missing=False),
        "is_causal": Truth(missing=True, null=False),
        "kv_sharing_modes": Off(why="layers that share their keys and values are not supported"),
    }


def check_layers_without_window(
    settings: Settings, kinds: Collection[object] | None, layers: int
) -> None:
    """Check the keys of a model type whose layers attend to all positions.

    Args:
        settings: config.json.
        kinds: of the layers, as ``layer_types`` lists them; None if it is missing.
        layers: their number.

    Raises:
        ModelError: there is a window, or ``layer_types`` has another length.
    """
    if kinds is None:
        NO_WINDOW.read(settings, "sliding_window")
        NO_CHUNKS.read(settings, "attention_chunk_size")
    elif len(kinds) != layers:
        raise settings.error("layer_types", f"has {len(kinds)} entries for {layers} layers")


class Sizes(NamedTuple):
    """Sizes of a decoder: ``layers`` of attention and a gated MLP between embedding and head.

    Attributes:
        vocabulary: tokens with an embedding and a logit.
        context: positions that the model was trained for.
        width: of the residual stream.
        heads, kv_heads: query heads, and key-value heads that groups of them share.
        head_size: columns of a head.
        inner: width of the hidden layer of the MLP.
        eps: added to the mean square in the norms.
        activation: its name in ``Graph.gated``.
        rotation: of queries and keys.
        tied: config.json ties the output head to the embedding table.
        causal: rows do not attend to later rows; otherwise every row attends to the whole text.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    eps: float
    activation: str
    rotation: Rotation
    tied: bool
    causal: bool

    @property
    def encoder(self) -> bool:
        """Whether it only embeds: a decoder also generates."""
        return False

    @property
    def classifier(self) -> None:
        """None: a decoder has no head that scores pairs of texts."""
        return None

    @property
    def segments(self) -> None:
        """None: a decoder does not tell two texts apart by the types of their tokens."""
        return None

    @property
    def frequencies(self) -> Frequencies:
        """Of the rotary embedding, for each pair of a head's columns."""
        return self.rotation.frequencies

    @property
    def without_effect(self) -> list[str]:
        """Nested keys that were not read."""
        return self.rotation.without_effect

    @classmethod
    def read(
        cls,
        settings: Settings,
        values: Mapping[str, Any],
        *,
        rotary: Callable[[Settings, int, int], Rotation] = rotary_frequencies,
    ) -> Self:
        """Check the values of ``decoder_keys`` against each other; ``ModelError`` names the key.

        ``rotary`` reads the frequencies as ``rotary_frequencies`` does.
        """
        if not any(settings.names(key) for key in SIZES):
            raise settings.error("hidden_size", "is missing, as are all other sizes")
        width, heads = values["hidden_size"], values["num_attention_heads"]
        kv_heads = values["num_key_value_heads"] or heads
        if heads % kv_heads:
            raise settings.error(
                "num_key_value_heads", f"is {kv_heads}, which does not divide {heads}"
            )
        if values["head_dim"] is None and width % heads:
            raise settings.error("hidden_size", f"is {width}, not a multiple of {heads} heads")
        head_size = values["head_dim"] or width // heads
        if head_size % 2 or not head_size:
            raise settings.error("head_dim", f"is {head_size}; rotary embedding needs pairs")
        context = values["max_position_embeddings"]
        return cls(
            vocabulary=values["vocab_size"],
            context=context,
            width=width,
            layers=values["num_hidden_layers"],
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            inner=values["intermediate_size"],
            eps=values["rms_norm_eps"],
            activation=values["hidden_act"],
            rotation=rotary(settings, head_size, context),
            tied=values["tie_word_embeddings"],
            causal=values["is_causal"],
        )

    def refuse_rotation_by_kind(self, settings: Settings, kinds: Collection[str]) -> None:
        """Refuse settings of the rotary embedding that are for one of the kinds of layers."""
        for name in self.without_effect:
            if name.endswith(tuple(f".{kind}" for kind in kinds)):
                raise settings.error(name, "applies to one kind of layer, which is not supported")

    def window(self, settings: Settings, window: int) -> int:
        """The sliding window of a layer, in the form that ``Graph.attention`` expects.

        Raises:
            ModelError: the network is bidirectional and the window is smaller than the context.
        """
        if self.causal:
            return window
        if window and window + 1 < self.context:
            message = "is false together with a sliding window, which is not supported"
            raise settings.error("is_causal", message)
        return 0

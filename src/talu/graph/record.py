"""Records a network as a list of operations over named weights.

A model file calls the methods of ``Graph`` once, when the model opens; an executor then runs the
list for every step. A graph holds shapes and names, but no weights.
Every value is a float32 matrix of shape (rows of the step, width).
"""

from array import array
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from talu.exceptions import ModelError

__all__ = ["Graph", "Op", "Value"]

ACTIVATIONS = ("silu", "gelu_tanh", "gelu", "quick_gelu", "relu")


class Value(NamedTuple):
    """The result of an operation: its index in ``Graph.ops`` and its width."""

    id: int
    width: int


class Op(NamedTuple):
    """One operation. Its result has its index in ``Graph.ops``.

    Attributes:
        kind: name of the method of ``Graph`` that recorded it.
        inputs: indices of the values it reads.
        weights: names of the tensors it reads.
        width: width of its result.
        params: numbers and constant arrays, by the names of the method's arguments.
    """

    kind: str
    inputs: tuple[int, ...]
    weights: tuple[str, ...]
    width: int
    params: Mapping[str, Any]


class Graph:
    """A network under construction.

    Attributes:
        ops: the operations in the order in which they run.
        weights: shape of every tensor that the network reads, by its name in the checkpoint.
        layers: (KV heads, head size) of each layer of the cache: one for each causal attention, and
            one shared by all bidirectional attentions, which keep nothing between steps.
        result: the value that the step returns.
        hidden: the value that is pooled into an embedding; the result itself if the network
            computes no logits.
    """

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.weights: dict[str, tuple[int, ...]] = {}
        self.layers: list[tuple[int, int]] = []
        self.result: Value | None = None
        self.hidden: Value | None = None
        self._whole: dict[
            tuple[int, int], int
        ] = {}  # layers of the cache shared by bidirectional attention
        self._only_outputs: set[int] = set()  # values that have only the output rows

    def embed(self, weight: str, vocabulary: int, width: int) -> Value:
        """Rows of the table ``weight`` (vocabulary, width) for the step's tokens."""
        return self._op("embed", (), {weight: (vocabulary, width)}, width)

    def embed_position(
        self,
        weight: str,
        positions: int,
        width: int,
        *,
        offset: int = 0,
        padding: int | None = None,
    ) -> Value:
        """Rows of the table ``weight`` (positions, width) for the rows' positions + ``offset``.

        With a ``padding`` token, positions count only the other tokens, and each ``padding`` gets
        row ``offset`` - 1; a step must then contain its sequences from position 0.
        """
        self._check(0 <= offset < positions, f"embed_position: offset {offset} of {positions}")
        self._check(padding is None or offset > 0, "embed_position: no row for padding")
        params = {"offset": offset, "padding": -1 if padding is None else padding}
        return self._op("embed_position", (), {weight: (positions, width)}, width, **params)

    def embed_row(self, weight: str, rows: int, width: int, *, offset: int = 0) -> Value:
        """Row ``offset`` of the table ``weight`` (rows, width), for every row of the step."""
        self._check(0 <= offset < rows, f"embed_row: row {offset} of {rows}")
        return self._op("embed_row", (), {weight: (rows, width)}, width, offset=offset)

    def layer_norm(self, x: Value, weight: str, bias: str, eps: float) -> Value:
        """(x - mean(x)) / sqrt(variance(x) + eps) · weight + bias, over all columns.

        Ba et al., 2016, https://arxiv.org/abs/1607.06450
        """
        shape = (x.width,)
        return self._op("layer_norm", (x,), {weight: shape, bias: shape}, x.width, eps=eps)

    def rms_norm(
        self, x: Value, weight: str, eps: float, *, size: int | None = None, offset: float = 0.0
    ) -> Value:
        """x / sqrt(mean(x²) + eps) · (weight + offset), over groups of ``size`` columns.

        By default a group is the whole row; a smaller size normalises each attention head
        separately with the same weight (Qwen3). weight + offset is rounded to float32.
        Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467
        """
        size = size or x.width
        self._check(
            x.width % size == 0, f"rms_norm: width {x.width} is not a multiple of size {size}"
        )
        params = {"eps": eps, "size": size, "offset": offset}
        return self._op("rms_norm", (x,), {weight: (size,)}, x.width, **params)

    def linear(self, x: Value, weight: str, width: int, *, bias: str | None = None) -> Value:
        """x · weightᵀ (+ bias) with a weight of shape (width, x.width)."""
        weights: dict[str, tuple[int, ...]] = {weight: (width, x.width)}
        if bias is not None:
            weights[bias] = (width,)
        return self._op("linear", (x,), weights, width)

    def rope(self, x: Value, head_size: int, frequencies: Sequence[float]) -> Value:
        """Rotary position embedding of each head, in the half-split order of Hugging Face.

        Column i of the first ``len(frequencies)`` columns of a head is rotated together with
        column i + len(frequencies) by the angle position · frequencies[i], computed in float32 as
        in training; columns beyond 2 · len(frequencies) are unchanged.
        Su et al., 2021, https://arxiv.org/abs/2104.09864
        """
        self._check_heads("rope", x, head_size)
        self._check(
            2 * len(frequencies) <= head_size,
            f"rope: {len(frequencies)} frequencies, expected at most half of head_size {head_size}",
        )
        params = {"head_size": head_size, "frequencies": array("f", frequencies)}
        return self._op("rope", (x,), {}, x.width, **params)

    def attention(
        self,
        q: Value,
        k: Value,
        v: Value,
        head_size: int,
        *,
        scale: float,
        window: int = 0,
        causal: bool = True,
        soft_cap: float = 0.0,
    ) -> Value:
        """softmax(q · kᵀ · scale) · v; keys and values are stored in a layer of the KV cache.

        Query head h reads key-value head h · kv_heads // heads (grouped heads, Ainslie et al.,
        2023, https://arxiv.org/abs/2305.13245). With a window w > 0 a row at position p attends
        to the positions p - w + 1 .. p. If not ``causal``, every row attends to the whole sequence,
        and a step must contain its sequences from position 0. A ``soft_cap`` other than 0 is
        applied to the scaled scores as by the method ``soft_cap``.
        """
        self._check(soft_cap >= 0, f"attention: soft_cap {soft_cap}, expected 0 or more")
        self._check_heads("attention", q, head_size)
        self._check_heads("attention", k, head_size)
        self._check(
            k.width == v.width and q.width % k.width == 0,
            f"attention: queries, keys and values of widths {q.width}, {k.width} and {v.width}; "
            "expected equal keys and values, and queries that are a multiple of them",
        )
        sizes, layer = (k.width // head_size, head_size), len(self.layers)
        if not causal:
            layer = self._whole.setdefault(sizes, layer)
        if layer == len(self.layers):
            self.layers.append(sizes)
        self._check(
            causal or not window,
            f"attention: window {window} needs causal attention",
        )
        return self._op(
            "attention",
            (q, k, v),
            {},
            q.width,
            layer=layer,
            head_size=head_size,
            scale=scale,
            window=window,
            causal=causal,
            soft_cap=soft_cap,
        )

    def gated(self, gate: Value, up: Value, activation: str = "silu") -> Value:
        """activation(gate) · up, element by element: the middle of a gated MLP.

        ``activation`` is one of ``activate``. Shazeer, 2020, https://arxiv.org/abs/2002.05202
        """
        self._check(
            gate.width == up.width,
            f"gated: gate has width {gate.width}, up {up.width}, expected equal ones",
        )
        self._check_activation("gated", activation)
        return self._op("gated", (gate, up), {}, gate.width, activation=activation)

    def activate(self, x: Value, activation: str) -> Value:
        """activation(x), element by element.

        ``"silu"``, ``"gelu"`` (x · Φ(x) with the error function), its approximations
        ``"gelu_tanh"`` and ``"quick_gelu"`` (x · sigmoid(1.702 x)), or ``"relu"``. Hendrycks and
        Gimpel, 2016, https://arxiv.org/abs/1606.08415
        """
        self._check_activation("activate", activation)
        return self._op("activate", (x,), {}, x.width, activation=activation)

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        self._check(x.width == y.width, f"add: widths {x.width} and {y.width}, expected equal ones")
        return self._op("add", (x, y), {}, x.width)

    def scale(self, x: Value, factor: float) -> Value:
        """x · factor, with ``factor`` rounded to float32."""
        return self._op("scale", (x,), {}, x.width, factor=factor)

    def soft_cap(self, x: Value, cap: float) -> Value:
        """tanh(x / cap) · cap, which limits x to the range from -cap to cap.

        Bello et al., 2016, https://arxiv.org/abs/1611.09940
        """
        self._check(cap > 0, f"soft_cap: cap {cap}, expected more than 0")
        return self._op("soft_cap", (x,), {}, x.width, cap=cap)

    def gram(self, x: Value, sums: str, *, rotated: bool) -> Value:
        """Adds xᵀ·x to the numbers ``sums``; returns x.

        ``rotated`` rotates each 64 columns of x first, for weights in formats that do so. Only the
        lower triangle is defined. ``sums`` is the only tensor that an operation changes.
        """
        self._check(x.width % 64 == 0, f"gram: width {x.width} is not a multiple of 64")
        return self._op("gram", (x,), {sums: (x.width * x.width,)}, x.width, rotated=int(rotated))

    def output_rows(self, x: Value) -> Value:
        """Only the rows that the step returns; later operations run only for them."""
        self._check(x.id not in self._only_outputs, "output_rows: already applied")
        y = self._op("output_rows", (x,), {}, x.width)
        self._only_outputs.add(y.id)
        return y

    def output(self, x: Value, *, hidden: Value | None = None) -> None:
        """Make x the result of the step. It must come after ``output_rows``.

        ``hidden`` is an earlier value that an embedding is pooled from.
        """
        for value in (x, hidden or x):
            self._check(
                value.id in self._only_outputs,
                f"output: value {value.id} has all rows, expected the output rows",
            )
        self.result, self.hidden = x, hidden

    def has_only_outputs(self, x: Value) -> bool:
        """Whether a value has only the rows that the step returns."""
        return x.id in self._only_outputs

    def repeat(self, op: Op, shapes: Mapping[str, tuple[int, ...]]) -> Value:
        """An operation of another network, with values of this one as its inputs.

        Args:
            op: the operation; a layer of the cache that it names is one of this network.
            shapes: of its weights, by name.
        """
        inputs = tuple(Value(i, self.ops[i].width) for i in op.inputs)
        if op.kind == "output_rows":
            return self.output_rows(inputs[0])
        weights = {name: shapes[name] for name in op.weights}
        return self._op(op.kind, inputs, weights, op.width, **op.params)

    def up_to(self, result: Value) -> "Graph":
        """The same network, ending at an earlier value."""
        graph = Graph()
        graph.ops = self.ops[: result.id + 1]
        graph.layers = self.layers
        names = {name for op in graph.ops for name in op.weights}
        graph.weights = {name: shape for name, shape in self.weights.items() if name in names}
        graph.result = graph.hidden = result
        return graph

    def _op(
        self,
        kind: str,
        inputs: tuple[Value, ...],
        weights: Mapping[str, tuple[int, ...]],
        width: int,
        **params: Any,
    ) -> Value:
        for name, shape in weights.items():
            known = self.weights.setdefault(name, shape)
            self._check(known == shape, f"{name} is read as {known} and as {shape}")
        ids = tuple(value.id for value in inputs)
        chosen = [i in self._only_outputs for i in ids]
        self._check(
            all(chosen) or not any(chosen),
            f"{kind}: it reads all rows of one value and only the output rows of another",
        )
        if any(chosen):
            self._check(
                kind not in ("rope", "attention"), f"{kind}: needs all rows, not the output rows"
            )
            self._only_outputs.add(len(self.ops))
        self.ops.append(Op(kind, ids, tuple(weights), width, MappingProxyType(params)))
        return Value(len(self.ops) - 1, width)

    def _check_heads(self, kind: str, x: Value, head_size: int) -> None:
        self._check(
            head_size > 0 and x.width % head_size == 0,
            f"{kind}: width {x.width} is not a multiple of head_size {head_size}",
        )

    def _check_activation(self, kind: str, activation: str) -> None:
        known = ", ".join(ACTIVATIONS)
        self._check(
            activation in ACTIVATIONS, f"{kind}: activation {activation!r}, expected one of {known}"
        )

    @staticmethod
    def _check(condition: bool, message: str) -> None:
        if not condition:
            raise ModelError(f"the network is inconsistent: {message}")

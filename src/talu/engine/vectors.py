"""Computes embedding vectors from pooled hidden states.

All arithmetic is float64 with a fixed order of additions and without functions of the C library, so
that a vector is the same on every processor: NumPy and BLAS choose their code by the processor, and
their sums and functions differ in the last bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talu.exceptions import GenerationError
from talu.sources.embedding import Dense, LayerNorm, Step
from talu.weights.checkpoint import Checkpoint
from talu.weights.numbers import as_float32

__all__ = ["Head", "cosines", "erf", "load_head", "tanh", "unit"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

ROWS = 64  # vectors at a time: their sums stay in the processor's cache
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # 32 bits of ln 2, and the rest
SERIES = 14  # terms of exp(r) for |r| <= ln(2) / 2: the rest is below 1e-17
LAYER_NORM_EPS = 1e-5
SQRT_HALF = 0.7071067811865476
TWO_OVER_SQRT_PI = 1.1283791670955126
ERF_TERMS = 160  # for |x| <= 6: the rest is below 1e-17


@dataclass(frozen=True, slots=True)
class _Dense:
    weight: Doubles  # transposed: (inputs, outputs)
    bias: Doubles | None
    activation: str
    projection: Doubles | None  # of the input, which is added; None adds the input or nothing
    residual: bool

    def __call__(self, x: Doubles) -> Doubles:
        y = product(x, self.weight)
        if self.bias is not None:
            y = y + self.bias
        y = ACTIVATIONS[self.activation](y)
        if self.residual:
            y = y + (x if self.projection is None else product(x, self.projection))
        return y


@dataclass(frozen=True, slots=True)
class _LayerNorm:
    weight: Doubles
    bias: Doubles

    def __call__(self, x: Doubles) -> Doubles:
        x = x - total(x) / x.shape[1]
        variance = total(x * x) / x.shape[1]
        y: Doubles = x / np.sqrt(variance + LAYER_NORM_EPS) * self.weight + self.bias
        return y


class Head:
    """The steps of a model after pooling.

    Args:
        steps: in order.
        dimension: length that vectors are truncated to.
    """

    def __init__(self, steps: Sequence[Callable[[Doubles], Doubles]], dimension: int) -> None:
        self._steps = steps
        self._dimension = dimension

    def vectors(self, pooled: Floats, *, normalize: bool, first: int = 0) -> Floats:
        """The embeddings of pooled states, (texts, width) to (texts, dimension).

        Args:
            pooled: a row for each text.
            normalize: scale to length 1; a vector of zeros stays one.
            first: number of the first text, for error messages.

        Raises:
            GenerationError: a value is infinite or NaN.
        """
        out = np.empty((len(pooled), self._dimension), np.float32)
        for start in range(0, len(pooled), ROWS):
            rows = pooled[start : start + ROWS].astype(np.float64)
            out[start : start + ROWS] = self._some(rows, normalize=normalize)
        finite = np.isfinite(out).all(axis=1)
        if not finite.all():
            number = first + int(finite.argmin())
            raise GenerationError(
                f"the vector of text {number} has infinite or NaN values; the weights of the model "
                "are damaged, or a key or value exceeds 65,504, the largest number of an f16 "
                "cache; LocalBackend(kv_dtype='bf16') supports larger ones",
                details={"index": number},
            )
        return out

    def _some(self, x: Doubles, *, normalize: bool) -> Doubles:
        with np.errstate(all="ignore"):  # non-finite values are found at the end
            for step in self._steps:
                x = single(step(x))
            x = x[:, : self._dimension]
            return unit(x) if normalize else x


def load_head(steps: Sequence[Step], dimension: int) -> Head:
    """Load the weights of the steps.

    Raises:
        ModelError: a file is damaged, or a tensor is missing or has the wrong shape or type.
    """
    return Head([_load(step) for step in steps], dimension)


def _load(step: Step) -> Callable[[Doubles], Doubles]:
    match step:
        case Dense():
            return _load_dense(step)
        case LayerNorm():
            shape = (step.width,)
            tensors = _read(step.tensors, {"norm.weight": shape, "norm.bias": shape})
            return _LayerNorm(tensors["norm.weight"], tensors["norm.bias"])
        case _:
            return unit


def _load_dense(step: Dense) -> _Dense:
    shape = (step.outputs, step.inputs)
    wanted: dict[str, tuple[int, ...]] = {"linear.weight": shape}
    if step.bias:
        wanted["linear.bias"] = (step.outputs,)
    projected = step.residual and step.inputs != step.outputs
    if projected:
        wanted["residual.weight"] = shape
    tensors = _read(step.tensors, wanted)
    return _Dense(
        weight=np.ascontiguousarray(tensors["linear.weight"].T),
        bias=tensors.get("linear.bias"),
        activation=step.activation,
        projection=np.ascontiguousarray(tensors["residual.weight"].T) if projected else None,
        residual=step.residual,
    )


def _read(
    open_tensors: Callable[[], Checkpoint], wanted: dict[str, tuple[int, ...]]
) -> dict[str, Doubles]:
    with open_tensors() as checkpoint:
        checkpoint.check(wanted)
        return {name: as_float32(checkpoint[name]).astype(np.float64) for name in wanted}


def cosines(query: Floats, vectors: Floats) -> list[float]:
    """The dot product of a vector of length 1 with others, from -1 to 1."""
    found = product(vectors.astype(np.float64), query.astype(np.float64)[:, None])
    cosines: list[float] = np.clip(found[:, 0], -1.0, 1.0).tolist()
    return cosines


def product(x: Doubles, weight: Doubles) -> Doubles:
    """x · weight, summed in the order of the columns of x.

    Products of two float32 numbers are exact in float64.
    """
    y = np.zeros((len(x), weight.shape[1]))
    for column, row in zip(x.T, weight, strict=True):
        y += column[:, None] * row
    return y


def total(x: Doubles) -> Doubles:
    """The sum of each row, as a column."""
    return np.cumsum(x, axis=1)[:, -1:]  # cumsum adds in a fixed order


def unit(x: Doubles) -> Doubles:
    """Rows of length 1; a row of zeros stays one."""
    squares = total(x * x)
    return x / np.where(squares == 0, 1.0, np.sqrt(squares))


def tanh(x: Doubles) -> Doubles:
    """The hyperbolic tangent, from additions, products and quotients only."""
    size = np.minimum(np.abs(x), 20.0)  # beyond that it is 1
    square = size * size
    small = size - size * square * (1 / 3 - square * (2 / 15 - square * (17 / 315)))
    power = exp(-2.0 * size)
    large = (1.0 - power) / (1.0 + power)
    y = np.copysign(np.where(size < 0.01, small, large), x)
    return np.where(np.isnan(x), x, y)


def sigmoid(x: Doubles) -> Doubles:
    """1 / (1 + exp(-x)); below -700, where it is 0 as a float32, the value at -700."""
    y = 1.0 / (1.0 + exp(-np.clip(x, -700.0, 700.0)))
    return np.where(np.isnan(x), x, y)


def gelu(x: Doubles) -> Doubles:
    """x · Φ(x), where Φ is the distribution function of the normal distribution."""
    return np.where(x < -40.0, 0.0 * x, 0.5 * x * (1.0 + erf(x * SQRT_HALF)))


def erf(x: Doubles) -> Doubles:
    """The error function; all terms of its series exp(-x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!! are positive."""
    size = np.minimum(np.abs(x), 6.0)  # beyond that it is 1
    square = size * size
    term = size
    sum_of_terms = size
    for n in range(1, ERF_TERMS):
        term = term * (2.0 * square) / (2 * n + 1)
        sum_of_terms = sum_of_terms + term
    y = np.copysign(np.minimum(TWO_OVER_SQRT_PI * exp(-square) * sum_of_terms, 1.0), x)
    return np.where(np.isnan(x), x, y)


def exp(x: Doubles) -> Doubles:
    """The exponential function of numbers from -700 to 700."""
    twos = np.rint(x * (1 / (LN2_HIGH + LN2_LOW)))
    rest = (x - twos * LN2_HIGH) - twos * LN2_LOW
    total = np.ones_like(rest)
    for term in range(SERIES, 0, -1):
        total = 1.0 + rest / term * total
    return np.ldexp(total, np.nan_to_num(twos).astype(np.int32))


def single(x: Doubles) -> Doubles:
    """x rounded to float32, as in training."""
    return x.astype(np.float32).astype(np.float64)


ACTIVATIONS: dict[str, Callable[[Doubles], Doubles]] = {
    "gelu": gelu,
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0) + 0.0,  # never a negative zero
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "tanh": tanh,
}

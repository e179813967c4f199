"""No number that reaches a token or an embedding is computed by code that a processor chooses.

NumPy picks its loops for the processor, BLAS its products, and the C library its functions. What is
allowed is what IEEE 754 defines to the last bit: + - * / and square roots of single numbers, and
running sums, which have only one order.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "talu"
NATIVE = Path(__file__).parents[2] / "native"
ORACLES = {"graph/numpy_executor.py", "graph/numpy_sampler.py"}  # run in tests alone
FOLDERS = ("backends", "engine", "graph", "models", "router", "weights")
FILES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for folder in FOLDERS
    for path in (PACKAGE / folder).rglob("*.py")
    if path.relative_to(PACKAGE).as_posix() not in ORACLES
)
REDUCTIONS = {"sum", "mean", "average", "std", "var", "prod", "nansum", "reduce", "reduceat"}
PRODUCTS = {"dot", "vdot", "inner", "matmul", "einsum", "tensordot", "linalg", "convolve"}
FUNCTIONS = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logaddexp", "power", "float_power",
    "sin", "cos", "tan", "sinh", "cosh", "tanh", "arctan", "arctan2", "cbrt", "hypot", "pow",
    "erf", "erfc", "gamma", "lgamma", "geomspace", "logspace", "sinc",
}  # fmt: skip
LIBRARY_FUNCTIONS = ("cos", "sin", "tan", "tanh", "exp", "exp2", "log", "log2", "pow", "erf")


def forbidden(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    numpy = any(isinstance(n, ast.Import) and n.names[0].name == "numpy" for n in ast.walk(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="np" | "math"), attr=name):
                if name in FUNCTIONS | PRODUCTS | (REDUCTIONS - {"prod"}):
                    yield f"line {node.lineno}: {ast.unparse(node)}"
            case ast.Call(func=ast.Attribute(attr=name)) if numpy and name in REDUCTIONS | PRODUCTS:
                if ast.unparse(node.func) != "math.prod":
                    yield f"line {node.lineno}: {ast.unparse(node.func)}"
            case ast.BinOp(op=ast.MatMult()):
                yield f"line {node.lineno}: a product of matrices"
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                if not (is_integer(left) and is_integer(right)):
                    yield f"line {node.lineno}: {ast.unparse(node)}"


def is_integer(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


@pytest.mark.parametrize("name", FILES)
def test_python_leaves_no_arithmetic_to_the_processors_choice(name: str) -> None:
    assert list(forbidden((PACKAGE / name).read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "np.exp(x)", "theta ** exponents", "x.sum(axis=0)", "x @ y", "np.linalg.norm(x)",
        "size**-0.5", "math.pow(2, x)", "np.add.reduce(x).mean()",
    ],
)  # fmt: skip
def test_the_check_finds_what_depends_on_the_processor(line: str) -> None:
    assert list(forbidden("import math\nimport numpy as np\n" + line))


@pytest.mark.parametrize("path", sorted(NATIVE.rglob("*.[chi]*")), ids=lambda path: path.name)
def test_native_code_calls_no_function_of_the_c_library_that_rounds_its_own_way(path: Path) -> None:
    source = path.read_text()
    for name in LIBRARY_FUNCTIONS:
        for prefix in ("std::", "__builtin_"):
            assert f"{prefix}{name}(" not in source
            assert f"{prefix}{name}f(" not in source
    assert "#include <math.h>" not in source


def test_products_and_sums_are_not_fused_by_the_compiler() -> None:
    build = (NATIVE.parent / "CMakeLists.txt").read_text()
    assert "-ffp-contract=off" in build
    assert "-ffast-math" not in build

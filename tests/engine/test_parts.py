"""What a network does with each of its matrices."""

from pathlib import Path

import pytest

from talu.engine.parts import parts
from talu.graph.record import Graph
from talu.models import load_architecture
from talu.sources.folder import FolderSource

GOLDEN = Path(__file__).parents[1] / "models" / "golden"
KINDS = {
    "q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "attention output",
    "query": "query", "key": "key", "value": "value", "attention.output.dense": "attention output",
    "down_proj": "down", "output.dense": "down", "lm_head": "output", "embed_tokens": "table",
    "embeddings": "table",
}  # fmt: skip


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "bert"])
def test_the_matrices_of_a_network_have_the_parts_that_their_names_say(family: str) -> None:
    graph = load_architecture(FolderSource(GOLDEN / family)).graph
    for name, part in parts(graph).items():
        if len(graph.weights[name]) == 2:
            expected = [kind for word, kind in KINDS.items() if f"{word}.weight" in name]
            found = "table" if "embeddings" in name else [*expected, "other"][0]
            assert part.kind == found, name


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "bert"])
def test_the_matrices_of_a_layer_have_its_number(family: str) -> None:
    graph = load_architecture(FolderSource(GOLDEN / family)).graph
    numbers = {name: name.split("layer")[-1].lstrip("s.").split(".")[0] for name in graph.weights}
    inner = {name: int(n) for name, n in numbers.items() if n.isdigit()}
    found = parts(graph)
    matrices = [name for name in inner if len(graph.weights[name]) == 2]
    assert {name: found[name].layer for name in matrices} == {n: inner[n] for n in matrices}
    assert {found[name].layers for name in matrices} == {max(inner.values()) + 1}


def test_a_table_that_is_also_the_output_layer_is_a_table() -> None:
    g = Graph()
    g.output(g.linear(g.output_rows(g.embed("e", 10, 32)), "e", 10))
    assert parts(g)["e"].kind == "table"
    assert not parts(g)["e"].multiplied

"""``talu bench --profile --plot FILE`` draws the roofline."""

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from talu.cli import plot
from talu.engine.profiling import Ceilings, Cost

CEILINGS = Ceilings(20e9, {"f32": 100e9, "bf16": 100e9, "i16": 200e9, "i8": 300e9})
COSTS = {
    "prefill 512": [
        Cost(name="gate_proj, up_proj", seconds=0.02, bytes=10**7, operations=10**9),
        Cost(name="down_proj", seconds=0.01, bytes=10**7, operations=10**9, numbers="i8"),
        Cost(name="rms_norm", seconds=0.005),
    ],
    "decode after 512": [
        Cost(name="embed_tokens", seconds=0.002, bytes=10**7, operations=10**7),
        Cost(name="q_proj" * 20, seconds=0.001, bytes=10**6, operations=10**6),
        Cost(name="rare", seconds=1e-6, bytes=10**3, operations=10**3),
    ],
}


def drawn(path: Path) -> list[str]:
    """The texts of a drawing, which matplotlib writes as comments before their outlines."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    return [(each.text or "").strip() for each in root.iter() if each.tag is ElementTree.Comment]


def test_operations_are_named_beside_the_lines_of_memory_and_processor(tmp_path: Path) -> None:
    path = tmp_path / "roofline.svg"
    plot.draw_roofline(path, "a model\na processor", COSTS, CEILINGS)
    texts = drawn(path)
    assert "memory: 20.0 GB/s" in texts
    assert "f32: 100 · 10⁹/s" in texts
    assert "i8: 300 · 10⁹/s" in texts
    assert not [text for text in texts if text.startswith(("bf16", "i16"))]  # nothing uses them
    assert {"prefill 512", "decode after 512", "a model", "a processor"} <= {*texts}
    assert "gate_proj, up_proj (57%)" in texts
    assert "embed_tokens (67%)" in texts
    assert not [text for text in texts if text.startswith(("rare", "rms_norm"))]
    assert all(len(text) < 80 for text in texts)


def test_the_points_are_where_their_figures_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(plot._figures().Figure, "savefig", lambda self, path: found.append(self))
    plot.draw_roofline(tmp_path / "x.png", "", COSTS, CEILINGS)
    (axes,) = found[0].axes
    points = [place for each in axes.collections for place in each.get_offsets().tolist()]
    assert points[:2] == [[100.0, 50.0], [100.0, 100.0]]
    assert points[2] == [1.0, 5.0]
    memory, *peaks = axes.lines
    (left, right), (low, high) = memory.get_data()
    assert low / left == pytest.approx(20)
    assert (right, high) == (pytest.approx(15), pytest.approx(300))
    assert [float(line.get_ydata()[0]) for line in peaks] == [300, 100]


def test_bench_draws_a_png(talu: Any, tmp_path: Path) -> None:
    path = tmp_path / "roofline.PNG"
    outcome = talu("bench", "talu/pocket", "--profile", "--plot", str(path))
    assert (outcome.status, path.read_bytes()[:4]) == (0, b"\x89PNG")
    assert "prefill 512" in outcome.out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("roofline.pdf", "ends in .png or .svg, not '"),
        ("roofline", "ends in .png or .svg, not '"),
        ("no/such/roofline.svg", "there is no folder '"),
        ("folder.svg", "folder.svg' is a folder"),
    ],
)
def test_a_file_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    talu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setattr("talu.cli.roofline.open_model", None)  # what is called would fail
    (tmp_path / "folder.svg").mkdir()
    outcome = talu("bench", "talu/pocket", "--profile", "--plot", str(tmp_path / name))
    assert outcome.status == 2
    assert words in outcome.err


def test_plot_needs_profile(talu: Any, tmp_path: Path) -> None:
    outcome = talu("bench", "talu/pocket", "--plot", str(tmp_path / "roofline.svg"))
    assert (outcome.status, "give both" in outcome.err) == (2, True)


def test_a_missing_matplotlib_is_named_with_what_installs_it(
    talu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    outcome = talu("bench", "talu/pocket", "--profile", "--plot", str(tmp_path / "roofline.svg"))
    assert outcome.status == 1
    assert "pip install 'talu[plot]'" in outcome.err


def test_a_disk_that_refuses_the_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="cannot be written: No such file or directory"):
        plot.draw_roofline(tmp_path / "no" / "x.svg", "", COSTS, CEILINGS)
